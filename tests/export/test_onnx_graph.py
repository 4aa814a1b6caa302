"""The float ONNX file: what every engine relies on."""

from __future__ import annotations

import onnx
import onnxruntime as ort
import pytest
import torch

from edgewright.export.onnx_graph import INPUT_NAME, IR_VERSION, OPSET, OUTPUT_NAME, to_onnx
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.catalogue import build_backbone
from edgewright.train.backbones.network import Network

BACKBONES = ("mobilenet_v2", "mobilenet_v3_small", "resnet18", "squeezenet1_0", "shufflenet_v2_x0_5")


@pytest.fixture(scope="module", params=BACKBONES)
def exported(request: pytest.FixtureRequest) -> tuple[Network, onnx.ModelProto]:
    torch.manual_seed(0)
    network = Network(build_backbone(request.param, classes=7), Preprocess(resize=64, crop=64)).eval()
    return network, to_onnx(network, 64)


@pytest.mark.slow
def test_graph_has_the_opset_ir_and_tensors_that_engines_rely_on(exported: tuple[Network, onnx.ModelProto]) -> None:
    _, model = exported
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert model.ir_version == IR_VERSION
    (pixels,), (logits,) = model.graph.input, model.graph.output
    assert (pixels.name, pixels.type.tensor_type.elem_type) == (INPUT_NAME, onnx.TensorProto.UINT8)
    assert [dim.dim_param or dim.dim_value for dim in pixels.type.tensor_type.shape.dim] == ["batch", 64, 64, 3]
    assert [dim.dim_param or dim.dim_value for dim in logits.type.tensor_type.shape.dim] == ["batch", 7]
    assert logits.name == OUTPUT_NAME


@pytest.mark.slow
def test_graph_computes_what_the_network_computes(exported: tuple[Network, onnx.ModelProto]) -> None:
    network, model = exported
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    session = ort.InferenceSession(model.SerializeToString())
    with torch.inference_mode():
        expected = network(pixels)
    found = torch.from_numpy(session.run([OUTPUT_NAME], {INPUT_NAME: pixels.numpy()})[0])
    assert (found - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))


@pytest.mark.slow
def test_graph_keeps_no_data_outside_and_no_path_of_this_machine(exported: tuple[Network, onnx.ModelProto]) -> None:
    _, model = exported
    assert all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    assert b"site-packages" not in model.SerializeToString()
    assert b".py" not in model.SerializeToString()


@pytest.mark.slow
def test_graph_has_nothing_that_tensorrt_8_or_the_quantizer_misreads(exported: tuple[Network, onnx.ModelProto]) -> None:
    _, model = exported
    pooling = [node for node in model.graph.node if node.op_type == "ReduceMean"]
    # ShuffleNet takes its mean without keeping the axes; opset 17 writes the axes as an attribute, as it should.
    assert all(len(node.input) == 1 for node in pooling)
    assert not {node.op_type for node in model.graph.node} & {"Resize", "Shape", "Range"}


def test_network_in_training_mode_is_refused() -> None:
    network = Network(build_backbone("squeezenet1_1", classes=2), Preprocess(resize=32, crop=32)).train()
    with pytest.raises(ValueError, match="eval mode"):
        to_onnx(network, 32)


@pytest.mark.slow
def test_layers_are_called_as_in_the_network(exported: tuple[Network, onnx.ModelProto]) -> None:
    network, model = exported
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    modules = {name for name, _ in network.backbone.named_modules()}
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    # A weight that two folded layers share would be named once; none of these networks has any.
    assert set(convolutions) <= modules
    assert len(convolutions) > 10
