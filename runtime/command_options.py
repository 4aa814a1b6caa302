"""Options that several commands of a device have in common."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

__all__ = ["DeviceOption", "UrlOption"]

DeviceOption = Annotated[
    Optional[str],
    typer.Option(
        help="cpu; cuda[:N] or tensorrt[:N] with ONNX Runtime; gpu[:N], npu or auto with OpenVINO. (default: cpu)"
    ),
]
UrlOption = Annotated[
    Optional[str],
    typer.Option(
        help="A server that runs the model: http://host:8000, or with …/v2/models/NAME. A token is read from EDGEWRIGHT_TOKEN."
    ),
]
