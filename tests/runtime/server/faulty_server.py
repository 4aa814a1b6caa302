"""`edgewright serve` with an ONNX Runtime that is slow, hangs or fails on pictures of one grey: 253, 254 or 255."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from edgewright.runtime.backends.base import EngineClock
from edgewright.runtime.backends.onnxruntime import OnnxRuntimeBackend

SLOW_S = 1.5


class FaultyBackend(OnnxRuntimeBackend):
    """The real engine, and what can go wrong with one."""

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], clock: EngineClock | None = None
    ) -> Sequence[npt.NDArray[Any]]:
        """See above."""
        for picture in next(iter(feeds.values())):
            if picture.min() != picture.max():
                continue
            if picture.max() == 253:
                time.sleep(SLOW_S)
            if picture.max() == 254:
                threading.Event().wait()
            if picture.max() == 255:
                raise ZeroDivisionError("the engine broke")
        return super().run(feeds, clock)


if __name__ == "__main__":
    from edgewright.cli import main
    from edgewright.runtime.backends import onnxruntime

    onnxruntime.OnnxRuntimeBackend = FaultyBackend  # type: ignore[misc]
    sys.argv[0] = "edgewright"
    main()
