"""From a bundle's folder to a classifier: which artefact, and what takes over where its engine is missing."""

from __future__ import annotations

import platform
import warnings
from pathlib import Path

from edgewright.runtime.backends import backend_available
from edgewright.runtime.bundle import Bundle, open_bundle
from edgewright.runtime.classifier import Classifier, load_request
from edgewright.runtime.errors import BackendError, MissingExtraError, UsageError
from edgewright.runtime.manifest import Artefact

__all__ = ["load", "why_not_here"]


def why_not_here(artefact: Artefact) -> str:
    """Why this machine cannot run the artefact as it is meant; empty if it can."""
    machine = platform.machine()
    if not artefact.made_for(machine):
        return f"it is made for {' or '.join(artefact.machines)}, this is {machine}"
    if not backend_available(artefact.backend):
        return f"{artefact.backend} is not installed here"
    return ""


def load(
    path: Path | str, artefact: str | None = None, backend: str | None = None, threads: int | None = None
) -> Classifier:
    """Open a bundle and load one of its artefacts.

    Args:
        path: The bundle's folder.
        artefact: Its name; by default the recommended one, or the most preferred for the named backend, or for those
            installed (with a RuntimeWarning).
        backend: Engine to run it with; by default the artefact's own. Where `tensorrt` cannot be had, ONNX Runtime takes
            over, with a RuntimeWarning.
        threads: Threads for one inference; by default all cores this process may use.

    Raises:
        BundleError: the bundle is missing, incomplete or altered, or has no such artefact.
        MissingExtraError: the engine is not installed.
        BackendError: the engine refused the artefact.
    """
    bundle = open_bundle(path)
    named = None if artefact is None else bundle.manifest.artefact(artefact)
    if backend == "tensorrt" or (backend is None and named is not None and named.backend == "tensorrt"):
        return _with_tensorrt(bundle, named, threads)
    chosen = named or _preferred(bundle, backend)
    return Classifier(bundle, chosen, backend=backend, threads=threads)


def _preferred(bundle: Bundle, backend: str | None) -> Artefact:
    """The first artefact, in the bundle's order of preference, for `backend` or for any engine that is installed."""
    artefacts = bundle.manifest.artefacts
    if backend is not None:
        matching = [artefact for artefact in artefacts if artefact.backend == backend]
        if not matching:
            backends = ", ".join(sorted({artefact.backend for artefact in artefacts}))
            raise UsageError(f"'{bundle.path}' has no artefact for backend '{backend}'. It has some for: {backends}.")
        return next((artefact for artefact in matching if not why_not_here(artefact)), matching[0])
    recommended = bundle.manifest.artefact(bundle.manifest.recommended)
    runnable = [artefact for artefact in artefacts if not why_not_here(artefact)]
    if recommended in runnable or not runnable:
        return recommended
    hint = f"To get it: pip install 'edgewright[{recommended.backend}]'"
    if not recommended.made_for(platform.machine()):
        # Latency was measured on another kind of machine; of what is made for this one, INT8 is the better guess.
        runnable.sort(key=lambda artefact: not artefact.machines)
        hint = "`edgewright bench` tells which is fastest here."
    warnings.warn(
        f"'{recommended.name}' is recommended, but {why_not_here(recommended)}; using '{runnable[0].name}'. {hint}",
        RuntimeWarning,
        stacklevel=3,
    )
    return runnable[0]


def _with_tensorrt(bundle: Bundle, artefact: Artefact | None, threads: int | None) -> Classifier:
    """An engine built for this GPU, or what ONNX Runtime does best."""
    from edgewright.runtime.compile import FIRST_TYPED, tensorrt_target
    from edgewright.runtime.tensorrt.fallback import load_or_fall_back
    from edgewright.runtime.tensorrt.library import load_tensorrt, parse_version

    try:
        major = parse_version(load_tensorrt().__version__)[0]
    except (BackendError, MissingExtraError):
        # Nothing will be built; which file is named in the warning depends on it, no more.
        major = FIRST_TYPED - 1
    target = tensorrt_target(bundle.manifest, None if artefact is None else artefact.name, None, major)
    others = [other for other in bundle.manifest.artefacts if _runs_on_cpu(other)]
    instead = others[0] if others else target.artefact
    wanted = load_request(bundle, target.artefact, threads, target.precision)
    engine, name = load_or_fall_back(wanted, load_request(bundle, instead, threads))
    return Classifier(bundle, target.artefact if name == "tensorrt" else instead, backend=name, engine=engine)


def _runs_on_cpu(artefact: Artefact) -> bool:
    return artefact.backend == "onnxruntime" and not why_not_here(artefact)
