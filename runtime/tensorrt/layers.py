"""What an engine consists of, asked of TensorRT's inspector, and how long each layer takes, asked of its profiler."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from edgewright.runtime.errors import BackendError

__all__ = ["EngineLayers", "Layer", "inspect_layers", "make_profiler", "parse_layers"]


# In this order: "uint8" contains "int8", and "bfloat16" "float".
_WORDS = {
    "uint8": ("uint8",),
    "int8": ("int8",),
    "bf16": ("bf16", "bfloat16"),
    "fp16": ("fp16", "half"),
    "fp32": ("fp32", "float"),
    "int32": ("int32",),
    "int64": ("int64",),
    "bool": ("bool",),
}


@dataclass(frozen=True)
class Layer:
    """One layer of the built engine; several of the graph's nodes are often fused into it.

    Attributes:
        name: The nodes it was made from.
        kind: TensorRT's name of the layer's type; empty where the engine does not tell.
        output_types: Data type, or format and type in one text as versions before 11 write it, of each output.
    """

    name: str
    kind: str
    output_types: tuple[str, ...]

    @property
    def precision(self) -> str:
        """fp32, fp16, int8, … of the first output; empty where it cannot be told."""
        text = self.output_types[0].lower() if self.output_types else ""
        for precision, words in _WORDS.items():
            if any(word in text for word in words):
                return precision
        return ""


@dataclass(frozen=True)
class EngineLayers:
    """The layers in order of execution, and the names of the engine's inputs and outputs."""

    layers: tuple[Layer, ...]
    tensors: tuple[str, ...]

    def precisions(self) -> dict[str, int]:
        """How many layers compute in each precision; "" for those that do not tell."""
        counts: defaultdict[str, int] = defaultdict(int)
        for layer in self.layers:
            counts[layer.precision] += 1
        return dict(counts)


def inspect_layers(trt: Any, engine: Any) -> EngineLayers:
    """Layer information of an engine.

    Raises:
        BackendError: the inspector said nothing that can be read.
    """
    inspector = engine.create_engine_inspector()
    if inspector is None:
        raise BackendError("TensorRT gave no inspector for this engine. Compile it again with --force.")
    return parse_layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def parse_layers(text: str) -> EngineLayers:
    """Read the inspector's JSON.

    `Layers` holds objects, or bare names where an engine was built without details. Inputs and outputs are names under
    `Bindings` before TensorRT 11, objects under `I/O Tensors` since.

    Raises:
        BackendError: not such a document.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BackendError(f"TensorRT's inspector gave something that is not JSON: {error}.") from error
    if not isinstance(document, Mapping) or not isinstance(document.get("Layers"), Sequence):
        raise BackendError("TensorRT's inspector listed no layers. Expected JSON with 'Layers'.")
    tensors = document.get("I/O Tensors", document.get("Bindings", ()))
    return EngineLayers(
        tuple(_layer(entry) for entry in document["Layers"]),
        tuple(str(entry["Name"]) if isinstance(entry, Mapping) else str(entry) for entry in tensors),
    )


def _layer(entry: Any) -> Layer:
    if not isinstance(entry, Mapping):
        return Layer(str(entry), "", ())
    types = [
        str(output.get("DataType") or output.get("Format/Datatype") or output.get("Format") or "")
        for output in entry.get("Outputs", ())
        if isinstance(output, Mapping)
    ]
    return Layer(str(entry.get("Name", "")), str(entry.get("LayerType", "")), tuple(types))


def make_profiler(trt: Any) -> Any:
    """A `tensorrt.IProfiler` that collects; `medians()` gives milliseconds by layer, in order of execution."""

    class CollectingProfiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            # pybind11 demands that the base is initialised by name.
            trt.IProfiler.__init__(self)
            self._times: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self._times.setdefault(layer_name, []).append(ms)

        def medians(self) -> dict[str, float]:
            return {name: median(times) for name, times in self._times.items()}

    return CollectingProfiler()
