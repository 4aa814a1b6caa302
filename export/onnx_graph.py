"""From a trained network to a float ONNX file that every engine takes: opset 17, IR 8, uint8 NHWC in, logits out.

Opset 17 is the newest that TensorRT 8.6 parses, and IR 8 belongs to it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import torch
from edgewright.runtime.errors import UsageError
from onnx import numpy_helper, version_converter
from torch import nn

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
    _mean_to_global_pool(model)
    try:
        model = version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises bare RuntimeErrors and worse from C++
        raise UsageError(f"This model cannot be written in ONNX opset {OPSET}: {error}") from error
    model.ir_version = IR_VERSION
    model.producer_name = "edgewright"
    model.doc_string = ""
    for node in model.graph.node:
        # Stack traces with the paths of this machine.
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.metadata_props[:], model.graph.metadata_props[:]
    _check(model)
    return model


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter reports its progress on stdout, where our JSON goes, and warns about its own internals."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal.exporter", "onnxscript", "onnx_ir")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _mean_to_global_pool(model: onnx.ModelProto) -> None:
    """Replace ReduceMean over height and width by GlobalAveragePool, in place.

    TensorRT 8 ignores the axes input of opset 18's ReduceMean and reduces everything, and ONNX Runtime's quantizer
    knows GlobalAveragePool but not ReduceMean.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        keepdims = next((attribute.i for attribute in node.attribute if attribute.name == "keepdims"), 1)
        axes = sorted(int(axis) for axis in np.atleast_1d(numpy_helper.to_array(constants[node.input[1]])))
        if keepdims == 1 and axes in ([2, 3], [-2, -1]):
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _check(model: onnx.ModelProto) -> None:
    """Hold what the file promises; a violation is a bug here or in the exporter, not in the user's model."""
    onnx.checker.check_model(model, full_check=True)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET}:
        raise AssertionError(f"expected opset {OPSET} of the default domain alone, found {opsets}")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise AssertionError("the model keeps data outside the file")
