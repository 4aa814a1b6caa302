"""What can be asked of a build, and the same in trtexec's words."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from edgewright.runtime.errors import BackendError, UsageError
from edgewright.runtime.tensorrt.layers import parse_layers
from edgewright.runtime.tensorrt.library import parse_version
from edgewright.runtime.tensorrt.options import BatchProfile, BuildOptions, as_precision, trtexec_command


def words(options: BuildOptions, major: int = 10, shape: tuple[int, ...] = (-1, 224, 224, 3)) -> list[str]:
    line = trtexec_command(
        options,
        onnx="a folder/model.onnx",
        engine="model.engine",
        timing_cache="timing.cache",
        inputs={"pixels": shape},
        major=major,
    )
    return shlex.split(line)


def test_trtexec_says_what_is_built() -> None:
    options = BuildOptions(
        "int8", BatchProfile(1, 8, 32), 512, dla=1, version_compatible=True, hardware_compatible=True
    )
    assert words(options) == [
        "trtexec",
        "--onnx=a folder/model.onnx",
        "--saveEngine=model.engine",
        "--minShapes=pixels:1x224x224x3",
        "--optShapes=pixels:8x224x224x3",
        "--maxShapes=pixels:32x224x224x3",
        "--int8",
        "--noTF32",
        "--memPoolSize=workspace:512",
        "--profilingVerbosity=detailed",
        "--timingCacheFile=timing.cache",
        "--useDLACore=1",
        "--allowGPUFallback",
        "--versionCompatible",
        "--hardwareCompatibilityLevel=ampere+",
        "--skipInference",
    ]


@pytest.mark.parametrize(("precision", "before"), [("fp32", []), ("fp16", ["--fp16"]), ("int8", ["--int8"])])
def test_trtexec_has_no_precision_flags_from_11_on(precision: Any, before: list[str]) -> None:
    flags = {"--fp16", "--int8"}
    assert [word for word in words(BuildOptions(precision), 8) if word in flags] == before
    assert [word for word in words(BuildOptions(precision), 11) if word in flags] == []


def test_trtexec_needs_no_shapes_for_a_fixed_batch() -> None:
    assert not any("Shapes" in word for word in words(BuildOptions("fp32"), shape=(1, 224, 224, 3)))


def test_trtexec_can_do_without_timing_cache() -> None:
    assert "--noBuilderCache" in words(BuildOptions("fp32", timing_cache=False))


@pytest.mark.parametrize("text", ["", "1,2", "0,1,2", "4,2,8", "1,2,99999", "a,b,c", "1,2,3,4", "-1,2,3", "1" * 5000])
def test_bad_batch_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="Batch sizes"):
        BatchProfile.parse(text)


def test_batch_sizes_are_read() -> None:
    assert BatchProfile.parse("1,8,32") == BatchProfile(1, 8, 32)
    assert BatchProfile.parse("4") == BatchProfile(4, 4, 4)


@pytest.mark.parametrize(
    "values",
    [{"workspace_mb": 0}, {"workspace_mb": 10**9}, {"dla": -1, "precision": "fp16"}, {"dla": 0, "precision": "fp32"}],
)
def test_bad_options_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BuildOptions(**{"precision": "fp16", **values})


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="bf16"):
        as_precision("bf16")


def test_versions_are_read() -> None:
    assert parse_version("10.13.3.9") == (10, 13, 3, 9)
    assert parse_version("8.6.1.post1") == (8, 6, 1)
    assert parse_version("10.9.0.34") < parse_version("10.13.3.9")
    with pytest.raises(BackendError, match="no version"):
        parse_version("latest")


def test_layers_are_read_from_each_form_of_the_inspector() -> None:
    layer = '{"Name": "a", "LayerType": "conv", "Outputs": [%s]}'
    old, new = '{"Format/Datatype": "row major Int8 format"}', '{"DataType": "Int8", "Format": "kCHW32"}'
    before = f'{{"Layers": [{layer % old}], "Bindings": ["x", "y"]}}'
    since = f'{{"Layers": [{layer % new}], "I/O Tensors": [{{"Name": "x"}}, {{"Name": "y"}}]}}'
    bare = '{"Layers": ["a"], "Bindings": ["x", "y"]}'
    found = [parse_layers(text) for text in (before, since, bare)]
    assert [layers.tensors for layers in found] == [("x", "y")] * 3
    assert [layers.layers[0].precision for layers in found] == ["int8", "int8", ""]


@pytest.mark.parametrize(
    ("text", "precision"),
    [("UInt8", "uint8"), ("BFloat16", "bf16"), ("Half", "fp16"), ("Float", "fp32"), ("channel FP16 format", "fp16")],
)
def test_precisions_are_told_apart(text: str, precision: str) -> None:
    layers = parse_layers(f'{{"Layers": [{{"Name": "a", "Outputs": [{{"DataType": "{text}"}}]}}]}}')
    assert layers.precisions() == {precision: 1}


@pytest.mark.parametrize("text", ["", "[]", '{"Layers": 3}', "{}"])
def test_inspector_that_says_nothing_is_an_error(text: str) -> None:
    with pytest.raises(BackendError, match="inspector"):
        parse_layers(text)
