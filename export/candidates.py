"""An artefact before it is proven."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass

from edgewright.export.simulate import SimulatedBackend
from edgewright.runtime.backends import Backend, EngineSettings, LoadRequest, load_backend
from edgewright.runtime.manifest import BackendName, Layout, Precision

__all__ = ["Candidate"]


@dataclass(frozen=True)
class Candidate:
    """An artefact before it is proven.

    Attributes:
        name: Path below `artefacts/` without suffix.
        precision: That of the file: fp32, fp16, bf16 or int8.
        executed: What the engine here is told to execute.
        profile: For INT8 in ONNX: whose wishes the graph fulfils.
        files: Contents by path below `artefacts/`; the model first, its weights file second if there is one.
        quantization: For INT8: how it was made.
        layout: Of its input.
        machines: `platform.machine()` of the CPUs it is made for; none: any.
        faults: What its engine would reject, where that is known without the engine.
    """

    name: str
    backend: BackendName
    precision: Precision
    executed: Precision
    profile: str | None
    files: Mapping[str, bytes]
    quantization: str | None = None
    layout: Layout = "NHWC"
    machines: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def runs_here(self) -> bool:
        """Whether this machine executes it as the target does, so that its latency here means something."""
        return self.backend != "tensorrt" and (not self.machines or platform.machine() in self.machines)

    def load(self, threads: int | None = None) -> Backend:
        """Load it from memory, as the runtime will; or, if it is made for another machine, compute what that would."""
        model, *weights = self.files.values()
        if not self.runs_here:
            return SimulatedBackend(model, self.name)
        settings = EngineSettings(threads=threads)
        request = LoadRequest(model, weights[0] if weights else None, self.executed, settings, self.name)
        return load_backend(self.backend, request)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(len(content) for content in self.files.values())
