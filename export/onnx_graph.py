"""From a trained network to a float ONNX file that every engine takes: opset 17, IR 8, uint8 NHWC in, logits out.

Opset 17 is the newest that TensorRT 8.6 parses, and IR 8 belongs to it.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from edgewright.export.quiet import quiet_loggers
from edgewright.export.trt_preface import cast_first
from edgewright.runtime.errors import UsageError

__all__ = ["INPUT_NAME", "IR_VERSION", "OPSET", "OUTPUT_NAME", "to_onnx"]

OPSET = 17
IR_VERSION = 8
INPUT_NAME = "pixels"
OUTPUT_NAME = "logits"

_EXPORTER_OPSET = 18
"""The lowest that torch's exporter writes; asked for less it silently writes this."""


def to_onnx(network: nn.Module, size: int) -> onnx.ModelProto:
    """Export `network` (uint8 (N, size, size, 3) to logits (N, classes)) with a dynamic batch axis.

    Raises:
        UsageError: the network has an operator that opset 17 cannot express.
    """
    if network.training:
        # The exporter would take dropout and batch statistics along without a word.
        raise ValueError("export needs a network in eval mode")
    example = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    with _quiet_exporter():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=_EXPORTER_OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: "batch"},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _to_opset_17(model)
    model.ir_version = IR_VERSION
    model.producer_name = "edgewright"
    model.doc_string = ""
    for node in model.graph.node:
        # Stack traces with the paths of this machine.
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    _name_layers(model)
    del model.metadata_props[:], model.graph.metadata_props[:]
    _check(model)
    return cast_first(model)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter reports its progress on stdout, where our JSON goes, and warns about its own internals."""
    names = ("torch.onnx", "torch.onnx._internal.exporter", "onnxscript", "onnx_ir")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), quiet_loggers(*names):
        warnings.simplefilter("ignore")
        yield


def _to_opset_17(model: onnx.ModelProto) -> None:
    """Rewrite, in place, what opset 18 writes differently; of our models' operators only reductions and Split are.

    ONNX's own version converter has no adapter for Split. What is left unchanged here and is not valid in opset 17
    either, the checker finds; what is valid and means something else, the parity gate.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type.startswith("Reduce") and len(node.input) == 2 and node.input[1] in constants:
            axes = [int(axis) for axis in np.atleast_1d(numpy_helper.to_array(constants[node.input[1]]))]
            keepdims = next((attribute.i for attribute in node.attribute if attribute.name == "keepdims"), 1)
            del node.input[1:], node.attribute[:]
            if node.op_type == "ReduceMean" and keepdims == 1 and sorted(axes) in ([2, 3], [-2, -1]):
                # ONNX Runtime's quantizer knows this one, and not ReduceMean.
                node.op_type = "GlobalAveragePool"
            else:
                node.attribute.extend(
                    [helper.make_attribute("axes", axes), helper.make_attribute("keepdims", keepdims)]
                )
        elif node.op_type == "Split":
            # Equal parts are what opset 17 makes of it when nothing is said.
            kept = [attribute for attribute in node.attribute if attribute.name != "num_outputs"]
            del node.attribute[:]
            node.attribute.extend(kept)
    used = {name for node in model.graph.node for name in node.input}
    kept_tensors = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept_tensors)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))


def _name_layers(model: onnx.ModelProto) -> None:
    """Call layers as the trained network calls them (`features.1.conv.0.0`), where the exporter numbers them.

    Reports name layers; so do the engines, which are asked what they execute.
    """
    tensors = {tensor.name for tensor in model.graph.initializer}
    taken = {node.name for node in model.graph.node}
    for node in model.graph.node:
        weight = next((name for name in node.input[1:2] if name in tensors and name.endswith(".weight")), None)
        if weight is not None:
            name = weight.removeprefix("backbone.").removesuffix(".weight")
            if name not in taken:
                node.name = name
                taken.add(name)


def _check(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UsageError(
            f"This model cannot be written in ONNX opset {OPSET}, which TensorRT 8.6 needs: {error}. Choose another backbone."
        ) from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise AssertionError("the exporter keeps data outside the file, although it was told not to")
