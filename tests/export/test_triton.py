"""The model repository: valid by Triton's own schema, complete, atomic, and what its configuration says is in its files."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
import tritonclient
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper

from edgewright.export import triton
from edgewright.export.openvino_ir import serialize_ir, to_ir
from edgewright.export.triton import LARGEST_BATCH, PREFERRED_BATCHES, write_triton_repository
from edgewright.runtime.bundle import LABELS_FILE, MANIFEST_FILE, Bundle, open_bundle, record_files
from edgewright.runtime.errors import BundleError, UsageError
from edgewright.runtime.manifest import Manifest
from edgewright.runtime.preprocess import Preprocess


def triton_schema() -> Any:
    """Triton's schema of configurations, without the rest of `tritonclient.grpc`, which KServe's client has as well: protobuf
    takes each message once in a process."""
    path = Path(tritonclient.__path__[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


model_config_pb2 = triton_schema()
SPEC = Preprocess(resize=18, crop=16)
LABELS = ("red", "très vert", "blue sky")
Document = dict[str, Any]


def colour_model() -> onnx.ModelProto:
    """uint8 `pixels` [batch, 16, 16, 3] to float32 `logits` [batch, 3]: the mean of each channel."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("GlobalAveragePool", ["planes"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 16, 16, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32) / 255, "head")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def artefact(name: str, backend: str, files: list[str], p50_ms: float | None, **others: Any) -> Document:
    return {
        "name": name,
        "backend": backend,
        "precision": "fp32",
        "executed": "fp32",
        "profile": None,
        "file": files[0],
        "weights_file": files[1] if len(files) > 1 else None,
        "size_bytes": 1,
        "parity": {
            "images": 1,
            "top1_agreement": 1,
            "max_abs_logit_diff": 0,
            "mean_abs_logit_diff": 0,
            "golden_tolerance": 1e-3,
        },
        "accuracy_split": None,
        "top1": None,
        "drop": None,
        "test_top1": None,
        "p50_ms": p50_ms,
    } | others


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """`make_bundle(change)`: a real bundle, ONNX and OpenVINO; `change(document)` may edit its manifest."""

    def make(change: Callable[[Document], object] = lambda document: None) -> Bundle:
        root = tmp_path / "bundle"
        (root / "artefacts" / "openvino.fp32").mkdir(parents=True)
        content = colour_model().SerializeToString()
        (root / "artefacts" / "model.fp32.onnx").write_bytes(content)
        xml, weights = serialize_ir(to_ir(content, LABELS, SPEC))
        (root / "artefacts" / "openvino.fp32" / "model.xml").write_bytes(xml)
        (root / "artefacts" / "openvino.fp32" / "model.bin").write_bytes(weights)
        (root / LABELS_FILE).write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")
        document: Document = {
            "name": "Farben (très)/1",
            "labels": LABELS,
            "preprocess": SPEC.model_dump(),
            "input": {
                "name": "pixels",
                "dtype": "uint8",
                "axes": ["batch", "height", "width", "channel"],
                "shape": [-1, 16, 16, 3],
            },
            "output": {"name": "logits", "dtype": "float32", "axes": ["batch", "class"], "shape": [-1, 3]},
            "artefacts": [
                artefact(
                    "openvino.fp32",
                    "openvino",
                    ["artefacts/openvino.fp32/model.xml", "artefacts/openvino.fp32/model.bin"],
                    0.1,
                ),
                artefact("model.fp32", "onnxruntime", ["artefacts/model.fp32.onnx"], 0.2),
            ],
            "recommended": "openvino.fp32",
            "golden": [],
            "metrics": {},
            "provenance": {
                "edgewright": "0",
                "created_at": "2026-01-01T00:00:00+00:00",
                "backbone": "colours",
                "weights": "none",
                "strategy": None,
                "data": None,
                "seed": None,
                "versions": {},
                "calibration_images": 0,
                "calibration_sha256": None,
                "exported_on": "tests",
            },
            "licence": None,
            "files": {name: record.model_dump() for name, record in record_files(root).items()},
        }
        change(document)
        (root / MANIFEST_FILE).write_text(Manifest.model_validate(document).model_dump_json(), encoding="utf-8")
        return open_bundle(root)

    return make


def read_config(model: Path) -> Any:
    """What Triton reads: an unknown field, a wrong type or a wrong enumerator is an error."""
    return text_format.Parse((model / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def test_repository_has_the_layout_that_triton_wants(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    folder = write_triton_repository(make_bundle(), tmp_path / "models")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        *(f"Farben-tr-s-1-onnx/{name}" for name in ("config.pbtxt", "labels.txt", "1/model.onnx")),
        *(f"Farben-tr-s-1-openvino/{name}" for name in ("config.pbtxt", "labels.txt", "1/model.xml", "1/model.bin")),
    }
    for model in folder.iterdir():
        assert read_config(model).name == model.name
        assert (model / "labels.txt").read_text(encoding="utf-8").splitlines() == list(LABELS)


def test_onnx_is_batched_dynamically(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    config = read_config(write_triton_repository(make_bundle(), tmp_path / "models") / "Farben-tr-s-1-onnx")
    assert (config.backend, config.max_batch_size) == ("onnxruntime", LARGEST_BATCH)
    assert list(config.dynamic_batching.preferred_batch_size) == list(PREFERRED_BATCHES)
    # Triton refuses a preferred size beyond the largest.
    assert max(config.dynamic_batching.preferred_batch_size) <= config.max_batch_size
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    (image,), (logits,) = config.input, config.output
    assert (image.name, image.data_type, list(image.dims)) == ("pixels", model_config_pb2.TYPE_UINT8, [16, 16, 3])
    assert image.format == model_config_pb2.ModelInput.FORMAT_NHWC
    assert (logits.name, logits.data_type, list(logits.dims)) == ("logits", model_config_pb2.TYPE_FP32, [3])
    assert logits.label_filename == "labels.txt"
    assert [group.kind for group in config.instance_group] == [model_config_pb2.ModelInstanceGroup.KIND_CPU]
    assert config.version_policy.latest.num_versions == 1
    assert config.parameters["edgewright_artefact"].string_value == "model.fp32"


def test_openvino_takes_batches_as_they_come(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    config = read_config(write_triton_repository(make_bundle(), tmp_path / "models") / "Farben-tr-s-1-openvino")
    assert (config.backend, config.max_batch_size) == ("openvino", 0)
    assert not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [-1, 16, 16, 3]
    assert list(config.output[0].dims) == [-1, 3]
    assert config.parameters["NUM_STREAMS"].string_value == "AUTO"
    assert "HINT_BF16" not in config.parameters


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_files_are_those_of_the_bundle_and_have_the_tensors_of_the_configuration(
    make_bundle: Callable[..., Bundle], tmp_path: Path, kind: str
) -> None:
    bundle = make_bundle()
    model = write_triton_repository(bundle, tmp_path / "models") / f"Farben-tr-s-1-{kind}"
    config = read_config(model)
    read = ov.Core().read_model(model / "1" / ("model.onnx" if kind == "onnx" else "model.xml"))
    batch = [-1] if config.max_batch_size else []
    for port, declared in ((read.input(0), config.input[0]), (read.output(0), config.output[0])):
        assert port.any_name == declared.name
        shape = [axis.get_length() if axis.is_static else -1 for axis in port.partial_shape]
        assert shape == batch + list(declared.dims)
    chosen = bundle.manifest.artefact(config.parameters["edgewright_artefact"].string_value)
    assert (model / "1" / f"model{Path(chosen.file).suffix}").read_bytes() == bundle.read(chosen.file)


def test_fastest_artefact_of_each_engine_is_served(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    def more(document: Document) -> None:
        file = ["artefacts/model.fp32.onnx"]
        foreign = artefact("model.int8.ort-arm", "onnxruntime", file, None, precision="int8", executed="int8")
        quick = artefact("model.int8.ort-x86", "onnxruntime", file, 0.05, precision="int8", executed="int8")
        document["artefacts"] = [foreign, quick, *document["artefacts"]]

    config = read_config(write_triton_repository(make_bundle(more), tmp_path / "models") / "Farben-tr-s-1-onnx")
    assert config.parameters["edgewright_artefact"].string_value == "model.int8.ort-x86"
    assert config.parameters["edgewright_executed"].string_value == "int8"


def test_input_of_another_layout_is_declared_so(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    def turned(document: Document) -> None:
        document["artefacts"][1]["layout"] = "NCHW"

    config = read_config(write_triton_repository(make_bundle(turned), tmp_path / "models") / "Farben-tr-s-1-onnx")
    assert list(config.input[0].dims) == [3, 16, 16]
    assert config.input[0].format == model_config_pb2.ModelInput.FORMAT_NCHW


def test_bf16_is_asked_for_where_it_was_proven(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    def half(document: Document) -> None:
        document["artefacts"][0]["executed"] = "bf16"

    config = read_config(write_triton_repository(make_bundle(half), tmp_path / "models") / "Farben-tr-s-1-openvino")
    assert config.parameters["HINT_BF16"].string_value == "YES"


def test_bundle_without_one_of_the_engines_gives_the_other(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    def onnx_only(document: Document) -> None:
        document["artefacts"] = document["artefacts"][1:]
        document["recommended"] = "model.fp32"

    folder = write_triton_repository(make_bundle(onnx_only), tmp_path / "models")
    assert [model.name for model in folder.iterdir()] == ["Farben-tr-s-1-onnx"]


def test_bundle_with_nothing_for_a_cpu_is_refused(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    def tensorrt_only(document: Document) -> None:
        document["artefacts"] = [artefact("model.fp16", "tensorrt", ["artefacts/model.fp32.onnx"], None)]
        document["recommended"] = "model.fp16"

    with pytest.raises(UsageError, match="no artefact for ONNX Runtime or OpenVINO"):
        write_triton_repository(make_bundle(tensorrt_only), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_own_repository_is_replaced(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = make_bundle()
    write_triton_repository(bundle, tmp_path / "models")
    stale = tmp_path / "models" / "Farben-tr-s-1-onnx" / "1" / "model.onnx"
    stale.write_bytes(b"stale")
    write_triton_repository(bundle, tmp_path / "models")
    assert stale.read_bytes() == bundle.read("artefacts/model.fp32.onnx")


@pytest.mark.parametrize("stranger", ["notes.txt", "other-model/config.pbtxt"])
def test_folder_of_others_is_left_alone(make_bundle: Callable[..., Bundle], tmp_path: Path, stranger: str) -> None:
    file = tmp_path / "models" / stranger
    file.parent.mkdir(parents=True)
    file.write_text('name: "other-model"')
    with pytest.raises(UsageError, match="it is not overwritten"):
        write_triton_repository(make_bundle(), tmp_path / "models")
    assert file.read_text() == 'name: "other-model"'


def test_file_in_the_folder_s_place_is_left_alone(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    (tmp_path / "models").write_text("mine")
    with pytest.raises(UsageError, match="it is not overwritten"):
        write_triton_repository(make_bundle(), tmp_path / "models")


def test_failure_in_the_middle_leaves_the_older_repository(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = make_bundle()
    folder = write_triton_repository(bundle, tmp_path / "models")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (bundle.path / "artefacts" / "model.fp32.onnx").unlink()
    with pytest.raises(BundleError, match="is missing"):
        write_triton_repository(bundle, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("name", "plain"), [("a b/c", "a-b-c"), ("..", "model"), ("-x-", "x"), ("é", "model"), ("v1.2_b", "v1.2-b")]
)
def test_names_become_plain(name: str, plain: str) -> None:
    assert triton._plain(name) == plain
