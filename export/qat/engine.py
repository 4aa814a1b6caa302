"""ONNX Runtime as training uses it: for the teacher's answers, and to see what a graph will compute."""

from __future__ import annotations

import onnx
import onnxruntime as ort

from edgewright.runtime.parallel import available_cores

__all__ = ["open_session"]

_ERRORS_ONLY = 3


def open_session(model: onnx.ModelProto, *, literal: bool = False) -> ort.InferenceSession:
    """Load a model from memory on the CPU.

    Args:
        model: Any.
        literal: Compute node by node what the file says, in float between Q and DQ. Otherwise int8 kernels take their
            place, which on CPUs without VNNI saturate where weights use all of their eight bits.
    """
    options = ort.SessionOptions()
    if literal:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = _ERRORS_ONLY
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
