"""What the strict fake of TensorRT does when it is called: enough to build, keep, load and run an engine.

An engine is a small JSON document, signed with the version and the GPU it was made for; it is executed by ONNX Runtime,
when its stream is synchronised.
"""

from __future__ import annotations

import base64
import ctypes
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

KINDS = {"QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE", "Conv": "CONVOLUTION", "Cast": "CAST"}
DTYPES = {"uint8": "UINT8", "float32": "FLOAT", "float16": "HALF", "int8": "INT8", "int32": "INT32", "int64": "INT64"}


def tensorrt_behaviours(machine: Any, fake: Callable[[], Any]) -> dict[str, Callable[..., Any]]:
    """What TensorRT's methods do. `fake()` is the fake they belong to."""

    def trt() -> Any:
        return fake().module

    def dims(shape: Any) -> Any:
        return fake().new("Dims", shape=tuple(shape))

    def dtype(name: str) -> Any:
        return getattr(trt().DataType, DTYPES[name])

    def flag(config: Any, name: str) -> bool:
        return name in config._state.flags

    def log_error(logger: Any, text: str) -> None:
        logger.log(trt().ILogger.Severity.ERROR, text)

    def start(instance: Any, logger: Any) -> None:
        if not machine.has_gpu:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        instance._state.logger = logger

    # Networks and their parser

    def create_network(builder: Any, flags: int = 0) -> Any:
        explicit = getattr(trt().NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
        is_explicit = trt().__version__[:2] != "8." or bool(flags >> int(explicit) & 1)
        return fake().new("INetworkDefinition", explicit=is_explicit, inputs=[], layers=[], onnx=b"")

    def start_parser(parser: Any, network: Any, logger: Any) -> None:
        parser._state.network, parser._state.errors = network, []

    def parse(parser: Any, model: Any, path: str | None = None) -> bool:
        network = parser._state.network
        try:
            proto = onnx.load_model_from_string(bytes(model))
            onnx.checker.check_model(proto)
            proto = onnx.shape_inference.infer_shapes(proto)
        except Exception as error:
            parser._state.errors.append(("", "", str(error).splitlines()[0]))
            return False
        for node in proto.graph.node:
            if node.op_type == "NonZero":
                parser._state.errors.append((node.name, node.op_type, "this operator is not supported"))
        if not network._state.explicit:
            parser._state.errors.append(("", "", "only networks with an explicit batch are supported"))
        if parser._state.errors:
            return False
        network._state.onnx = bytes(model)
        types_of = {info.name: info.type.tensor_type for info in (*proto.graph.value_info, *proto.graph.output)}
        for value in proto.graph.input:
            kind = value.type.tensor_type
            shape = [axis.dim_value or -1 for axis in kind.shape.dim]
            network._state.inputs.append(tensor(value.name, kind.elem_type, shape))
        for node in proto.graph.node:
            outputs = [tensor(name, types_of[name].elem_type if name in types_of else 1, ()) for name in node.output]
            kind = getattr(trt().LayerType, KINDS.get(node.op_type, "IDENTITY"))
            network._state.layers.append(fake().new("ILayer", type=kind, outputs=outputs, num_outputs=len(outputs)))
        return True

    def tensor(name: str, element: int, shape: Any) -> Any:
        kind = onnx.helper.tensor_dtype_to_np_dtype(element).name if element else "float32"
        return fake().new("ITensor", name=name, dtype=dtype(kind if kind in DTYPES else "float32"), shape=dims(shape))

    # Building

    def new_config(builder: Any) -> Any:
        # TF32 is the one flag that is on by default.
        return fake().new(
            "IBuilderConfig", flags={"TF32"}, profiles=[], pools={}, timings=None, default_device_type=None
        )

    def new_timings(config: Any, serialized_timing_cache: Any) -> Any:
        return fake().new("ITimingCache", data=bytes(serialized_timing_cache))

    def take_timings(config: Any, cache: Any, ignore_mismatch: bool) -> bool:
        mark = f"timings {trt().__version__} {machine.gpu} ".encode()
        if cache._state.data and not cache._state.data.startswith(mark):
            return False
        config._state.timings = cache
        return True

    def set_shape(profile: Any, input: str, min: Any, opt: Any, max: Any) -> None:
        shapes = [tuple(size) for size in (min, opt, max)]
        if not all(len(size) == len(shapes[0]) for size in shapes) or not shapes[0] <= shapes[1] <= shapes[2]:
            raise ValueError("inconsistent shapes")
        profile._state.shapes[input] = shapes

    def build(builder: Any, network: Any, config: Any) -> Any:
        logger = builder._state.logger
        free = [value._state.name for value in network._state.inputs if -1 in tuple(value.shape)]
        flags = trt().BuilderFlag
        halves = any(
            out.dtype == trt().DataType.HALF for layer in network._state.layers for out in layer._state.outputs
        )
        quantized = any(layer.type == trt().LayerType.QUANTIZE for layer in network._state.layers)
        problems = [f"{name} has no optimization profile" for name in free if not _shapes_of(config, name)]
        if hasattr(flags, "INT8") and quantized and not flag(config, "INT8"):
            problems.append("Q/DQ layers need the INT8 flag")
        if hasattr(flags, "FP16") and halves and not flag(config, "FP16"):
            problems.append("half-precision tensors need the FP16 flag")
        if "WORKSPACE" not in config._state.pools:
            problems.append("no workspace limit was set")
        if not machine.builds:
            problems.append("could not find any implementation")
        for problem in problems:
            log_error(logger, problem)
        if problems:
            return None
        known = b"" if config._state.timings is None else config._state.timings._state.data
        if config._state.timings is not None:
            mark = f"timings {trt().__version__} {machine.gpu} ".encode()
            config._state.timings._state.data = (known or mark) + b"."
        level = getattr(config._state, "hardware_compatibility_level", None)
        document = {
            "tensorrt": trt().__version__,
            "gpu": machine.gpu,
            "flags": sorted(config._state.flags),
            "hardware": None if level is None else level.name,
            "workspace": config._state.pools["WORKSPACE"],
            "dla": getattr(config._state, "DLA_core", None),
            "device": None if config._state.default_device_type is None else config._state.default_device_type.name,
            "detailed": config._state.profiling_verbosity == trt().ProfilingVerbosity.DETAILED,
            "shapes": {value._state.name: _shapes_of(config, value._state.name) for value in network._state.inputs},
            "timings_known": known.decode(),
            "computes": machine.computes
            or ("Int8" if quantized else "FP16" if halves or flag(config, "FP16") else "FP32"),
        }
        machine.builds_done.append(document)
        data = json.dumps({**document, "onnx": base64.b64encode(network._state.onnx).decode()}).encode()
        return fake().new("IHostMemory", data=data, nbytes=len(data))

    # Running

    def deserialize(runtime: Any, serialized_engine: Any) -> Any:
        logger = runtime._state.logger
        try:
            plan = json.loads(bytes(serialized_engine))
        except ValueError:
            log_error(logger, "the engine is damaged")
            return None
        allowed = "VERSION_COMPATIBLE" in plan["flags"] and getattr(runtime._state, "engine_host_code_allowed", False)
        if plan["tensorrt"] != trt().__version__ and not allowed:
            log_error(logger, f"the engine is of version {plan['tensorrt']}")
            return None
        if plan["gpu"] != machine.gpu and plan["hardware"] is None:
            log_error(logger, f"the engine is for {plan['gpu']}")
            return None
        if plan["dla"] != getattr(runtime._state, "DLA_core", None):
            log_error(logger, "the engine is for another DLA core")
            return None
        session = ort.InferenceSession(base64.b64decode(plan["onnx"]), providers=["CPUExecutionProvider"])
        tensors = [(value, "INPUT") for value in session.get_inputs()] + [(v, "OUTPUT") for v in session.get_outputs()]
        table = {value.name: (value, mode) for value, mode in tensors}
        return fake().new("ICudaEngine", plan=plan, session=session, table=table)

    def engine_shape(engine: Any, name: str) -> Any:
        value, _ = engine._state.table[name]
        return dims(axis if isinstance(axis, int) else -1 for axis in value.shape)

    def tensor_type(engine: Any, name: str) -> Any:
        kind = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}[engine._state.table[name][0].type]
        return dtype(kind)

    def profile_shape(engine: Any, name: str, profile_index: int) -> list[Any]:
        assert profile_index == 0
        fixed = tuple(engine_shape(engine, name))
        return [dims(shape) for shape in engine._state.plan["shapes"][name] or [fixed] * 3]

    def new_context(engine: Any, **_: Any) -> Any:
        if not machine.gives_context:
            return None
        return fake().new(
            "IExecutionContext", engine=engine, shapes={}, addresses={}, unreported=0, enqueue_emits_profile=True
        )

    def set_input_shape(context: Any, name: str, shape: Any) -> bool:
        least, _, most = (tuple(size) for size in profile_shape(context._state.engine, name, 0))
        wanted = tuple(shape)
        if len(wanted) != len(least) or any(not a <= b <= c for a, b, c in zip(least, wanted, most, strict=True)):
            return False
        context._state.shapes[name] = wanted
        return True

    def infer_shapes(context: Any) -> list[str]:
        table = context._state.engine._state.table
        return [name for name, (_, mode) in table.items() if mode == "INPUT" and name not in context._state.shapes]

    def context_shape(context: Any, name: str) -> Any:
        table = context._state.engine._state.table
        batch = next(iter(context._state.shapes.values()))[0] if context._state.shapes else -1
        if table[name][1] == "INPUT":
            return dims(context._state.shapes[name])
        return dims(batch if axis == -1 else axis for axis in tuple(engine_shape(context._state.engine, name)))

    def set_address(context: Any, name: str, memory: int) -> bool:
        context._state.addresses[name] = memory
        return machine.memory("device", memory, 1) is not None

    def execute(context: Any, stream_handle: int) -> bool:
        state = context._state
        table = state.engine._state.table
        assert stream_handle in machine.streams, "the default stream, or one that is gone"
        if not machine.runs or set(state.addresses) != set(table) or infer_shapes(context):
            return False
        plan = [
            (name, mode, tuple(context_shape(context, name)), tensor_type(state.engine, name))
            for name, (_, mode) in table.items()
        ]

        def compute() -> None:
            arrays = {}
            for name, mode, shape, kind in plan:
                numpy_type = {value: key for key, value in DTYPES.items()}[kind.name]
                size = int(np.prod(shape)) * np.dtype(numpy_type).itemsize
                block = machine.memory("device", state.addresses[name], size)
                assert block is not None, f"{name} does not fit into its memory"
                arrays[name] = (mode, np.frombuffer(block, np.uint8, size).view(numpy_type).reshape(shape))
            feeds = {name: array for name, (mode, array) in arrays.items() if mode == "INPUT"}
            names = [name for name, (mode, _) in arrays.items() if mode == "OUTPUT"]
            for name, result in zip(names, state.engine._state.session.run(names, feeds), strict=True):
                block = machine.memory("device", state.addresses[name], result.nbytes)
                ctypes.memmove(block, np.ascontiguousarray(result).ctypes.data, result.nbytes)
            if getattr(state, "profiler", None) is not None:
                assert not state.enqueue_emits_profile, "this would wait inside execute_async_v3"
                state.unreported += 1

        machine.streams[stream_handle].append(compute)
        return True

    def report(context: Any) -> bool:
        if not context._state.unreported:
            return False
        context._state.unreported -= 1
        context._state.profiler.report_layer_time("first", 0.25)
        context._state.profiler.report_layer_time("second", 0.5)
        return True

    def information(inspector: Any, format: Any) -> str:
        assert format == trt().LayerInformationFormat.JSON
        plan = inspector._state.engine._state.plan
        names = list(inspector._state.engine._state.table)
        if trt().__version__.startswith("11"):
            kind = {"Int8": "Int8", "FP16": "Half", "FP32": "Float"}[plan["computes"]]
            layers = [{"Name": "first", "LayerType": "conv", "Outputs": [{"Name": "x", "DataType": kind}]}]
            return json.dumps({"Layers": layers, "I/O Tensors": [{"Name": name} for name in names]})
        text = f"Two wide channel vectorized row major {plan['computes']} format"
        layers = [{"Name": "first", "LayerType": "conv", "Outputs": [{"Name": "x", "Format/Datatype": text}]}]
        return json.dumps({"Layers": layers if plan["detailed"] else ["first"], "Bindings": names})

    def error_at(parser: Any, index: int) -> Any:
        name, operator, text = parser._state.errors[index]
        return fake().new("ParserError", error=(name, operator, text))

    return {
        "Dims.__init__": lambda self, shape=(): setattr(self._state, "shape", tuple(shape)),
        "Dims.__len__": lambda self: len(self._state.shape),
        "Dims.__getitem__": lambda self, **index: self._state.shape[next(iter(index.values()))],
        "Builder.__init__": start,
        "Builder.create_network": create_network,
        "Builder.create_builder_config": new_config,
        "Builder.create_optimization_profile": lambda self: fake().new("IOptimizationProfile", shapes={}),
        "Builder.num_DLA_cores": lambda self: machine.dla_cores,
        "Builder.build_serialized_network": build,
        "INetworkDefinition.num_inputs": lambda self: len(self._state.inputs),
        "INetworkDefinition.num_layers": lambda self: len(self._state.layers),
        "INetworkDefinition.get_input": lambda self, index: self._state.inputs[index],
        "INetworkDefinition.get_layer": lambda self, index: self._state.layers[index],
        "ILayer.get_output": lambda self, index: self._state.outputs[index],
        "OnnxParser.__init__": start_parser,
        "OnnxParser.parse": parse,
        "OnnxParser.num_errors": lambda self: len(self._state.errors),
        "OnnxParser.get_error": error_at,
        "ParserError.node": lambda self: 0,
        "ParserError.node_name": lambda self: self._state.error[0],
        "ParserError.node_operator": lambda self: self._state.error[1],
        "ParserError.desc": lambda self: self._state.error[2],
        "IBuilderConfig.set_flag": lambda self, flag: self._state.flags.add(flag.name),
        "IBuilderConfig.clear_flag": lambda self, flag: self._state.flags.discard(flag.name),
        "IBuilderConfig.set_memory_pool_limit": lambda self, pool, pool_size: self._state.pools.update(
            {pool.name: pool_size}
        ),
        "IBuilderConfig.create_timing_cache": new_timings,
        "IBuilderConfig.set_timing_cache": take_timings,
        "IBuilderConfig.get_timing_cache": lambda self: self._state.timings,
        "IBuilderConfig.add_optimization_profile": lambda self, profile: self._state.profiles.append(profile) or 0,
        "ITimingCache.serialize": lambda self: fake().new(
            "IHostMemory", data=self._state.data, nbytes=len(self._state.data)
        ),
        "IOptimizationProfile.set_shape": set_shape,
        "Runtime.__init__": start,
        "Runtime.deserialize_cuda_engine": deserialize,
        "ICudaEngine.num_io_tensors": lambda self: len(self._state.table),
        "ICudaEngine.get_tensor_name": lambda self, index: list(self._state.table)[index],
        "ICudaEngine.get_tensor_mode": lambda self, name: getattr(trt().TensorIOMode, self._state.table[name][1]),
        "ICudaEngine.get_tensor_dtype": tensor_type,
        "ICudaEngine.get_tensor_shape": engine_shape,
        "ICudaEngine.get_tensor_profile_shape": profile_shape,
        "ICudaEngine.create_execution_context": new_context,
        "ICudaEngine.create_engine_inspector": lambda self: fake().new("EngineInspector", engine=self),
        "EngineInspector.get_engine_information": information,
        "IExecutionContext.set_input_shape": set_input_shape,
        "IExecutionContext.infer_shapes": infer_shapes,
        "IExecutionContext.get_tensor_shape": context_shape,
        "IExecutionContext.set_tensor_address": set_address,
        "IExecutionContext.execute_async_v3": execute,
        "IExecutionContext.report_to_profiler": report,
    }


def _shapes_of(config: Any, name: str) -> Any:
    return next(
        (profile._state.shapes[name] for profile in config._state.profiles if name in profile._state.shapes), None
    )
