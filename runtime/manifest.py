"""`manifest.json`: everything a reader needs to know about a bundle, and the checksum of everything else in it."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from typing_extensions import Self

from edgewright.runtime.errors import BundleError
from edgewright.runtime.preprocess import Preprocess

__all__ = [
    "SCHEMA_VERSION",
    "Artefact",
    "BackendName",
    "FileRecord",
    "GoldenVector",
    "Layout",
    "Manifest",
    "Parity",
    "Precision",
    "Provenance",
    "TensorRecord",
    "parse_manifest",
]

SCHEMA_VERSION = 1

Sha256 = Field(pattern=r"^[0-9a-f]{64}$")
Precision = Literal["fp32", "fp16", "bf16", "int8"]
BackendName = Literal["onnxruntime", "openvino", "tensorrt"]
Layout = Literal["NHWC", "NCHW"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileRecord(_Frozen):
    """Size and checksum of one file of the bundle."""

    sha256: str = Sha256
    size_bytes: int = Field(ge=0)


class TensorRecord(_Frozen):
    """One input or output of the graphs. -1 stands for the batch axis."""

    name: str
    dtype: Literal["uint8", "float32"]
    axes: tuple[str, ...]
    shape: tuple[int, ...]

    def in_layout(self, layout: Layout) -> TensorRecord:
        """The same input, axes [batch, height, width, channel], in another layout."""
        if layout == "NHWC":
            return self
        order = (0, 3, 1, 2)
        axes, shape = (tuple(values[axis] for axis in order) for values in (self.axes, self.shape))
        return self.model_copy(update={"axes": axes, "shape": shape})


class Parity(_Frozen):
    """How close an artefact comes to the trained model, measured on `images` real pictures.

    `mean_abs_logit_diff` and `max_abs_logit_diff` compare logits; `golden_tolerance` is what `verify` allows on the
    golden vectors on another machine.
    """

    images: int = Field(ge=1)
    top1_agreement: float = Field(ge=0, le=1)
    max_abs_logit_diff: float = Field(ge=0)
    mean_abs_logit_diff: float = Field(ge=0)
    golden_tolerance: float = Field(gt=0)


class Artefact(_Frozen):
    """One executable form of the model.

    `precision` is that of the file; `executed` is what the backend is told to execute and asked whether it did: an
    engine may store weights in FP16 and compute in FP32. `layout` is that of its input, if it differs from the
    bundle's. `machines` are the CPUs (`platform.machine()`) that it is made for; none means any. `top1` and `drop`
    (percentage points lost against the trained model, negative if it gained) are of the split `accuracy_split`, absent
    without labels. `p50_ms` was measured where the bundle was made, absent for artefacts of other machines. Of
    validation pictures 95 % have at least `known_energy`, see :func:`edgewright.runtime.scores.energy`.
    """

    name: str
    backend: BackendName
    precision: Precision
    executed: Precision
    profile: str | None
    layout: Layout = "NHWC"
    machines: tuple[str, ...] = ()
    file: str
    weights_file: str | None = None
    size_bytes: int = Field(ge=1)
    parity: Parity
    accuracy_split: Literal["val", "test"] | None
    top1: float | None = Field(ge=0, le=1)
    drop: float | None
    test_top1: float | None = Field(ge=0, le=1)
    quantization: str | None = None
    p50_ms: float | None = Field(None, gt=0)
    known_energy: float | None = None

    def made_for(self, machine: str) -> bool:
        """Whether CPUs of this kind (`platform.machine()`) run it as it is meant."""
        return not self.machines or machine in self.machines

    def files(self) -> tuple[str, ...]:
        """Bundle-relative names of the artefact's files."""
        return (self.file,) if self.weights_file is None else (self.file, self.weights_file)


class GoldenVector(_Frozen):
    """A real picture, the exact tensor it becomes, and the trained model's logits for it.

    `tensor` is a file of raw uint8, axes [height, width, channel], C order.
    """

    image: str
    tensor: str
    label: str | None
    logits: tuple[float, ...]


class Provenance(_Frozen):
    """Where the model comes from and what made it."""

    edgewright: str
    created_at: str
    backbone: str
    weights: str
    strategy: str | None
    data: str | None
    seed: int | None
    versions: dict[str, str]
    calibration_images: int
    calibration_sha256: str | None
    exported_on: str


class Manifest(_Frozen):
    """The bundle's description of itself. `explain` is an ONNX file for one picture that also gives a map per label."""

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1, max_length=200)
    labels: tuple[str, ...] = Field(min_length=2)
    preprocess: Preprocess
    input: TensorRecord
    output: TensorRecord
    activation: Literal["softmax"] = "softmax"
    artefacts: tuple[Artefact, ...] = Field(min_length=1)
    recommended: str
    golden: tuple[GoldenVector, ...]
    explain: str | None = None
    metrics: dict[str, float | None]
    provenance: Provenance
    licence: str | None
    files: dict[str, FileRecord]

    @field_validator("labels")
    @classmethod
    def _single_lines(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if any("\n" in label or not label for label in labels):
            raise ValueError("labels must be non-empty single lines")
        return labels

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [artefact.name for artefact in self.artefacts]
        if len(set(names)) != len(names):
            raise ValueError("two artefacts have the same name")
        if self.recommended not in names:
            raise ValueError(f"the recommended artefact '{self.recommended}' is not in the bundle")
        if self.output.shape[-1] != len(self.labels):
            raise ValueError(f"{self.output.shape[-1]} outputs but {len(self.labels)} labels")
        if self.input.shape[1:] != (self.preprocess.crop, self.preprocess.crop, 3):
            raise ValueError(f"input shape {self.input.shape} is not what preprocessing gives")
        needed = [file for artefact in self.artefacts for file in artefact.files()]
        needed += [file for vector in self.golden for file in (vector.image, vector.tensor)]
        needed += [] if self.explain is None else [self.explain]
        if missing := [file for file in needed if file not in self.files]:
            raise ValueError(f"'{missing[0]}' has no checksum")
        if any(len(vector.logits) != len(self.labels) for vector in self.golden):
            raise ValueError("a golden vector has another number of logits than there are labels")
        return self

    def artefact(self, name: str) -> Artefact:
        """The artefact called `name`.

        Raises:
            BundleError: there is none; lists those there are.
        """
        for artefact in self.artefacts:
            if artefact.name == name:
                return artefact
        raise BundleError(f"No artefact '{name}' in this bundle. It has: {', '.join(a.name for a in self.artefacts)}.")


def parse_manifest(text: bytes, origin: str) -> Manifest:
    """Read a manifest.

    Raises:
        BundleError: not JSON, from another schema version, or fields that do not belong.
    """
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"'{origin}' is not JSON: {error}. The bundle is damaged; export or copy it again."
        ) from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise BundleError(f"'{origin}' has no schema_version. It is no manifest of edgewright.")
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"'{origin}' has schema version {version}; this edgewright reads up to {SCHEMA_VERSION}. "
            "Upgrade edgewright on this machine, or export the bundle with this version."
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise BundleError(
            f"'{origin}' is not valid: {where}: {first['msg']}. Export or copy the bundle again."
        ) from error
