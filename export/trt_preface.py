"""TensorRT's wish for the first node: pixels become floats before anything else is done with them.

To TensorRT, UINT8 is a type of the network's inputs and outputs, which nothing but a cast to FP32 or FP16 reads. Our
graphs put the channels first while pixels still are bytes, which is cheaper on a CPU.
"""

from __future__ import annotations

import copy

import onnx
from onnx import NodeProto, TensorProto

__all__ = ["cast_first"]


def cast_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with the Cast of its uint8 input moved before the Transpose nodes that stand in front of it.

    The result computes the same, bit by bit. Whatever else reads bytes stays as it is; the lint names it.
    """
    moved = copy.deepcopy(model)
    graph = moved.graph
    pixels = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    nodes = [copy.deepcopy(node) for node in graph.node]
    renamed: set[str] = set()
    for cast in [node for node in nodes if node.op_type == "Cast"]:
        chain = _transposes_before(cast, nodes)
        if not chain or chain[0].input[0] not in pixels:
            continue
        source, floats = chain[0].input[0], f"{chain[0].input[0]}_float"
        renamed.update(name for node in chain for name in node.output)
        chain[-1].output[0] = cast.output[0]
        chain[0].input[0] = cast.output[0] = floats
        cast.input[0] = source
        nodes.remove(cast)
        nodes.insert(nodes.index(chain[0]), cast)
    # The types that were written down for tensors which are floats now.
    values = [copy.deepcopy(value) for value in graph.value_info if value.name not in renamed]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.value_info.extend(values)
    onnx.checker.check_model(moved, full_check=True)
    return moved


def _transposes_before(cast: NodeProto, nodes: list[NodeProto]) -> list[NodeProto]:
    """The Transpose nodes in a row whose result `cast`, and nothing else, reads; in order."""
    makers = {name: node for node in nodes for name in node.output}
    chain: list[NodeProto] = []
    source = cast.input[0]
    while source in makers and makers[source].op_type == "Transpose":
        if sum(source in node.input for node in nodes) != 1:
            return []
        chain.insert(0, makers[source])
        source = chain[0].input[0]
    return chain
