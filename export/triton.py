"""A bundle as a model repository for Triton Inference Server, which KServe serves as well.

```
<folder>/<name>-onnx/      config.pbtxt  labels.txt  1/model.onnx
<folder>/<name>-openvino/  config.pbtxt  labels.txt  1/model.xml  1/model.bin
```

`config.pbtxt` is a `ModelConfig` in protobuf's text form, see
https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto. Triton's client has the class
for it, and would hold protobuf and ml-dtypes back for everyone who exports; so it is written as text here, and the tests
read it with that class.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgewright.runtime.bundle import LABELS_FILE, Bundle
from edgewright.runtime.errors import UsageError
from edgewright.runtime.files import atomic_directory
from edgewright.runtime.manifest import Artefact, Manifest

__all__ = ["write_triton_repository"]

LARGEST_BATCH = 16
PREFERRED_BATCHES = (4, 8)
QUEUE_DELAY_US = 1000
"""How long a picture may wait for others to be computed with: about what one inference takes."""

_HEADER = "# Written by edgewright"
_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
_SUFFIXES = {"onnxruntime": "onnx", "openvino": "openvino"}


def write_triton_repository(bundle: Bundle, folder: Path) -> Path:
    """Write the best ONNX and the best OpenVINO artefact of `bundle` to `folder`, all at once or not at all.

    The best is the fastest where the bundle was made, of those that passed their gates.

    Returns:
        `folder`.

    Raises:
        UsageError: something else is in `folder`, or the bundle has nothing that Triton serves on a CPU.
        BundleError: a file of the bundle is missing or altered.
    """
    if not _is_free(folder):
        raise UsageError(
            f"'{folder}' holds something that `edgewright export --triton` has not written; it is not overwritten. "
            "Choose another folder, or an empty one."
        )
    chosen = {backend: best for backend in _SUFFIXES if (best := _best(bundle.manifest, backend)) is not None}
    if not chosen:
        raise UsageError(
            f"'{bundle.path}' has no artefact for ONNX Runtime or OpenVINO, which is what Triton serves on a CPU. "
            "Export again with --formats onnx,openvino."
        )
    labels = bundle.read(LABELS_FILE)
    with atomic_directory(folder) as repository:
        for backend, artefact in chosen.items():
            name = f"{_plain(bundle.manifest.name)}-{_SUFFIXES[backend]}"
            model, weights = bundle.artefact_bytes(artefact)
            version = repository / name / "1"
            version.mkdir(parents=True)
            (repository / name / "config.pbtxt").write_text(_config(name, artefact, bundle.manifest), encoding="utf-8")
            (repository / name / LABELS_FILE).write_bytes(labels)
            (version / f"model{Path(artefact.file).suffix}").write_bytes(model)
            if weights is not None:
                (version / "model.bin").write_bytes(weights)
    return folder


def _is_free(folder: Path) -> bool:
    """Whether nothing is in `folder`, or nothing but models that were written here."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    configs = [entry / "config.pbtxt" for entry in folder.iterdir()]
    return all(config.is_file() and config.read_bytes().startswith(_HEADER.encode()) for config in configs)


def _best(manifest: Manifest, backend: str) -> Artefact | None:
    """The bundle's order is its preference; artefacts that could not be measured where it was made come last."""
    artefacts = [artefact for artefact in manifest.artefacts if artefact.backend == backend]
    return min(artefacts, key=lambda artefact: artefact.p50_ms is None, default=None)


def _plain(name: str) -> str:
    """A name that is a folder's, a URL's and a Kubernetes object's: ASCII letters, digits, hyphens and dots within."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "model"


def _config(name: str, artefact: Artefact, manifest: Manifest) -> str:
    image = manifest.input.in_layout(artefact.layout)
    # Triton's dynamic batcher hands OpenVINO batches of exactly the largest size or pads to it, which on a CPU is
    # wasted work (https://github.com/triton-inference-server/server/issues/7363). Without it, the model takes batches of
    # any size as they come, and several streams work side by side.
    batched = artefact.backend == "onnxruntime"
    first = 1 if batched else 0
    lines = [
        f"{_HEADER} from the bundle {json.dumps(manifest.name)}: {artefact.name}, executed in {artefact.executed}.",
        f"name: {json.dumps(name)}",
        f"backend: {json.dumps(artefact.backend)}",
        f"max_batch_size: {LARGEST_BATCH if batched else 0}",
        "input [",
        "  {",
        f"    name: {json.dumps(image.name)}",
        f"    data_type: {_TYPES[image.dtype]}",
        *([f"    format: FORMAT_{artefact.layout}"] if batched else []),
        f"    dims: [ {', '.join(map(str, image.shape[first:]))} ]",
        "  }",
        "]",
        "output [",
        "  {",
        f"    name: {json.dumps(manifest.output.name)}",
        f"    data_type: {_TYPES[manifest.output.dtype]}",
        f"    dims: [ {', '.join(map(str, manifest.output.shape[first:]))} ]",
        f"    label_filename: {json.dumps(LABELS_FILE)}",
        "  }",
        "]",
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        "version_policy: { latest { num_versions: 1 } }",
    ]
    if batched:
        lines += [
            "dynamic_batching {",
            f"  preferred_batch_size: [ {', '.join(map(str, PREFERRED_BATCHES))} ]",
            f"  max_queue_delay_microseconds: {QUEUE_DELAY_US}",
            "}",
        ]
    parameters = {"edgewright_artefact": artefact.name, "edgewright_executed": artefact.executed}
    if artefact.backend == "openvino":
        # The backend has no parameter for f32: where the CPU has bf16, OpenVINO runs float layers in it.
        parameters |= {"NUM_STREAMS": "AUTO"} | ({"HINT_BF16": "YES"} if artefact.executed == "bf16" else {})
    for key, value in parameters.items():
        lines.append(f"parameters {{ key: {json.dumps(key)} value: {{ string_value: {json.dumps(value)} }} }}")
    return "\n".join(lines) + "\n"
