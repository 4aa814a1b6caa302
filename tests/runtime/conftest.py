"""A tiny but real bundle, made without torch: a 16-pixel network that tells colours apart, as ONNX and as OpenVINO IR."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgewright.runtime.bundle import LABELS_FILE, MANIFEST_FILE, Bundle, open_bundle, record_files, writing_bundle
from edgewright.runtime.files import atomic_write
from edgewright.runtime.manifest import Artefact, GoldenVector, Manifest, Parity, Provenance, TensorRecord
from edgewright.runtime.preprocess import Preprocess, preprocess

# The order is not that of the alphabet, so that an index which comes from the order of folders is a wrong one.
LABELS = ("red", "green", "blue", "très noir")
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "très noir": (12, 12, 12)}
SPEC = Preprocess(resize=18, crop=16)
BLOCKER = """
import sys
class Without:
    '''A finder for which one package is not installed; all else is as before.'''
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in {blocked!r}
        return None if hidden else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""

Document = dict[str, Any]


def colour_network(seed: int = 0, classes: int = 4) -> onnx.ModelProto:
    """uint8 `pixels` [batch, 16, 16, 3] to float32 `logits` [batch, classes]: two convolutions, pooling, a linear head.

    Three channels carry the colours through, the others are random; the first four logits are those of `LABELS`.
    """
    rng = np.random.default_rng(seed)
    first = rng.normal(0, 0.2, (8, 3, 3, 3))
    second = rng.normal(0, 0.2, (8, 8, 3, 3))
    for weights in (first, second):
        weights[:3] = 0
        weights[[0, 1, 2], [0, 1, 2], 1, 1] = 1
    head = rng.normal(0, 0.05, (classes, 8))
    head[:4, :3] += np.array([[6, -3, -3], [-3, 6, -3], [-3, -3, 6], [-2, -2, -2]])
    bias = np.zeros(classes)
    bias[3] = 1.5
    constants = {
        "scale": np.array(1 / 255),
        "first": first,
        "second": second,
        "head": head,
        "bias": bias,
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "first"], ["conv1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv1"], ["relu1"]),
        helper.make_node("Conv", ["relu1", "second"], ["conv2"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["conv2"], ["relu2"]),
        helper.make_node("GlobalAveragePool", ["relu2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "head", "bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 16, 16, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def paint_picture(label: str, seed: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A smooth random picture (width, height) in the colour of `label`."""
    rng = np.random.default_rng([seed, LABELS.index(label)])
    pixels = np.clip(rng.normal(COLOURS[label], 12, (3, 4, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str) -> bytes:
    """The picture as a file."""
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


def write_bundle(path: Path, seed: int = 0) -> None:
    """What export's `_write` does, with ONNX Runtime's logits in place of torch's."""
    model = colour_network(seed).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    with writing_bundle(path) as folder:
        (folder / "artefacts" / "openvino.fp32").mkdir(parents=True)
        (folder / "artefacts" / "model.fp32.onnx").write_bytes(model)
        ir = folder / "artefacts" / "openvino.fp32" / "model.xml"
        ov.save_model(ov.Core().read_model(model=model), ir, compress_to_fp16=False)
        (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")
        manifest = Manifest(
            name=f"colours-{seed}",
            labels=LABELS,
            preprocess=SPEC,
            input=TensorRecord(
                name="pixels", dtype="uint8", axes=("batch", "height", "width", "channel"), shape=(-1, 16, 16, 3)
            ),
            output=TensorRecord(name="logits", dtype="float32", axes=("batch", "class"), shape=(-1, len(LABELS))),
            artefacts=(
                _artefact("openvino.fp32", "openvino", folder, "openvino.fp32/model.xml", "openvino.fp32/model.bin"),
                _artefact("model.fp32", "onnxruntime", folder, "model.fp32.onnx", None),
            ),
            recommended="openvino.fp32",
            golden=_write_golden(folder, session, seed),
            metrics={"test_top1": 1.0},
            provenance=Provenance(
                edgewright="0.1.0",
                created_at="2026-01-01T00:00:00+00:00",
                backbone="colours",
                weights="none",
                strategy=None,
                data=None,
                seed=seed,
                versions={"onnxruntime": ort.__version__},
                calibration_images=0,
                calibration_sha256=None,
                exported_on="tests",
            ),
            licence=None,
            files=record_files(folder),
        )
        atomic_write(folder / MANIFEST_FILE, manifest.model_dump_json(indent=2))


def _artefact(name: str, backend: str, folder: Path, file: str, weights: str | None) -> Artefact:
    files = [f"artefacts/{part}" for part in (file, weights) if part is not None]
    return Artefact.model_validate(
        {
            "name": name,
            "backend": backend,
            "precision": "fp32",
            "executed": "fp32",
            "profile": None,
            "file": files[0],
            "weights_file": None if weights is None else files[1],
            "size_bytes": sum((folder / part).stat().st_size for part in files),
            "parity": Parity(
                images=3,
                top1_agreement=1.0,
                max_abs_logit_diff=1e-6,
                mean_abs_logit_diff=1e-7,
                golden_tolerance=1e-3,
            ),
            "accuracy_split": "test",
            "top1": 1.0,
            "drop": 0.0,
            "test_top1": 1.0,
            "p50_ms": 0.1,
        }
    )


def _write_golden(folder: Path, session: ort.InferenceSession, seed: int) -> tuple[GoldenVector, ...]:
    (folder / "golden").mkdir()
    vectors = []
    for number, (label, form, size) in enumerate(
        [("red", "PNG", (24, 20)), ("blue", "JPEG", (20, 33)), ("très noir", "PNG", (18, 18))]
    ):
        data = encoded(paint_picture(label, 1000 * seed + number, size), form)
        pixels = preprocess(data, SPEC)
        logits = session.run(["logits"], {"pixels": pixels[None]})[0][0]
        picture, tensor = f"golden/{number:03d}.{form.lower()}", f"golden/{number:03d}.rgb"
        (folder / picture).write_bytes(data)
        (folder / tensor).write_bytes(pixels.tobytes())
        values = tuple(float(value) for value in logits)
        vectors.append(GoldenVector(image=picture, tensor=tensor, label=label, logits=values))
    return tuple(vectors)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle, to be read only: `openvino.fp32` (recommended) and `model.fp32`, three golden vectors."""
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(path)
    return path


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second bundle with the same file names and sizes, but other random weights and pictures."""
    path = tmp_path_factory.mktemp("bundles") / "other"
    write_bundle(path, seed=1)
    return path


@pytest.fixture
def tiny_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle, to be tampered with."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def tiny_opened(tiny_bundle: Path) -> Bundle:
    """The tiny bundle, opened."""
    return open_bundle(tiny_bundle)


@pytest.fixture
def golden_pixels(tiny_opened: Bundle) -> npt.NDArray[np.uint8]:
    """The golden tensors, uint8 (3, 16, 16, 3)."""
    files = [vector.tensor for vector in tiny_opened.manifest.golden]
    return np.stack([np.frombuffer(tiny_opened.read(file), np.uint8).reshape(16, 16, 3) for file in files])


@pytest.fixture
def golden_logits(tiny_opened: Bundle) -> npt.NDArray[np.float32]:
    """The golden logits, float32 (3, 4)."""
    return np.asarray([vector.logits for vector in tiny_opened.manifest.golden], dtype=np.float32)


@pytest.fixture(scope="session")
def network() -> Callable[..., onnx.ModelProto]:
    """`network(seed=0, classes=4)`: the tiny network with these weights."""
    return colour_network


@pytest.fixture(scope="session")
def paint() -> Callable[..., Image.Image]:
    """`paint("red", 7)`: a picture that the tiny bundle labels red; each number gives another."""
    return paint_picture


@pytest.fixture
def reseal() -> Callable[..., None]:
    """`reseal(folder)`: writes the manifest again with the checksums that the files have now.

    `reseal(folder, change)` calls `change(document)` on the manifest's JSON in between.
    """

    def seal(folder: Path, change: Callable[[Document], object] | None = None) -> None:
        file = folder / MANIFEST_FILE
        document: Document = json.loads(file.read_bytes())
        document["files"] = {name: record.model_dump() for name, record in record_files(folder).items()}
        if change is not None:
            change(document)
        file.write_text(json.dumps(document), encoding="utf-8")

    return seal


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python("-m", "edgewright", ...)` or `python("-c", code, ..., without=("openvino",))` in a process of its own.

    The packages in `without` are hidden from that process as if they were not installed.
    """
    folder = tmp_path_factory.mktemp("python")
    # The tests' own switches for Python are not those of a user.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*arguments: str | Path, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = [str(argument) for argument in arguments]
        if without:
            assert command[0] == "-c"
            command[1] = BLOCKER.format(blocked=without) + command[1]
        return subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def edgewright(
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`edgewright("predict", bundle, picture)`: the command line, in a process of its own."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return python("-m", "edgewright", *arguments)

    return run
