"""Which layers quantization hurts: each one quantized alone, and what that does to the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from edgewright.export.simulate import simulate
from edgewright.runtime.console import track

__all__ = ["LayerDamage", "divergence", "rank_layers"]


@dataclass(frozen=True)
class LayerDamage:
    """`divergence`: mean over pictures of D(float || only this layer quantized) of the softmax, in nats."""

    name: str
    op: str
    divergence: float


def divergence(reference: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]) -> float:
    """Mean relative entropy D(reference || logits) of the softmax, in nats; arrays (N, classes)."""
    ours, theirs = _log_softmax(reference), _log_softmax(logits)
    return float((np.exp(ours) * (ours - theirs)).sum(1).mean())


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def rank_layers(quantized: onnx.ModelProto, names: Sequence[str], pixels: npt.NDArray[np.uint8]) -> list[LayerDamage]:
    """Damage of each layer, the worst first.

    Args:
        quantized: A Q/DQ graph in which nodes have the names they had in the float graph, with Q/DQ pairs also for
            weights and none for biases, so that each pair can be taken away.
        names: Of the layers to rank; those that are not in the graph, or are in float there, are left out.
        pixels: uint8 (N, height, width, 3), a few dozen.
    """
    pairs = _pairs(quantized)
    reference = simulate(_with_pairs(quantized, pairs, set()), pixels)
    nodes = {node.name: node for node in quantized.graph.node}
    found = []
    for name in track(names, "ranking layers", len(names)):
        node = nodes.get(name)
        own = set() if node is None else {value for value in node.input if value in pairs}
        if node is not None and own:
            logits = simulate(_with_pairs(quantized, pairs, own), pixels)
            found.append(LayerDamage(name, node.op_type, divergence(reference, logits)))
    return sorted(found, key=lambda damage: -damage.divergence)


def _pairs(model: onnx.ModelProto) -> dict[str, str]:
    """For every value that a DequantizeLinear gives after a QuantizeLinear, the value before the two."""
    quantizers = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    return {
        node.output[0]: quantizers[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantizers
    }


def _with_pairs(model: onnx.ModelProto, pairs: dict[str, str], kept: set[str]) -> onnx.ModelProto:
    """The graph with only those Q/DQ pairs whose results are in `kept`; weights stay as they are."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        for position, name in enumerate(node.input):
            value = name
            while value in pairs and value not in kept:
                value = pairs[value]
            node.input[position] = value
    return changed
