"""From a bundle's folder to a classifier: which artefact, and what takes over where its engine is missing."""

from __future__ import annotations

import platform
import warnings
from dataclasses import replace
from pathlib import Path

from edgewright.runtime.backends import EngineSettings, backend_available, why_no_device
from edgewright.runtime.bundle import Bundle, open_bundle
from edgewright.runtime.classifier import Classifier, load_request
from edgewright.runtime.console import warn
from edgewright.runtime.errors import BackendError, MissingExtraError, PrecisionError, UsageError
from edgewright.runtime.golden import require_golden
from edgewright.runtime.manifest import Artefact
from edgewright.runtime.remote.settings import RemoteSettings
from edgewright.runtime.tuned import tuned_choice

__all__ = ["load", "why_not_as_declared", "why_not_here"]


def why_not_here(artefact: Artefact, device: str | None = None) -> str:
    """Why this machine cannot run the artefact as it is meant, or not on `device`; empty if it can."""
    machine = platform.machine()
    if not artefact.made_for(machine):
        return f"it is made for {' or '.join(artefact.machines)}, this is {machine}"
    if not backend_available(artefact.backend):
        return f"{artefact.backend} is not installed here"
    return "" if device is None else why_no_device(artefact.backend, device, artefact.executed)


def why_not_as_declared(bundle: Bundle, artefact: Artefact, settings: EngineSettings) -> str:
    """Why the engine would run it in another precision than declared; empty if it would not.

    OpenVINO decides that layer by layer, and tells only of a compiled model: what is INT8 on x86 may be floats on ARM. Other
    precisions are told by the instructions that a processor has.
    """
    if artefact.backend != "openvino" or artefact.precision != "int8":
        return ""
    try:
        with Classifier(bundle, artefact, settings=settings):
            return ""
    except PrecisionError as error:
        return str(error)


def load(
    path: Path | str,
    artefact: str | None = None,
    backend: str | None = None,
    threads: int | None = None,
    device: str | None = None,
    *,
    streams: int | None = None,
    cache: Path | str | None = None,
    remote: RemoteSettings | str | None = None,
    verify: bool = False,
    min_score: float = 0.0,
) -> Classifier:
    """Open a bundle and load one of its artefacts.

    Args:
        path: The bundle's folder.
        artefact: Its name; by default what `edgewright tune` found best on this device, else the recommended one, or the
            most preferred for the named backend or device, or for those installed (with a RuntimeWarning).
        backend: Engine to run it with; by default the artefact's own. Where `tensorrt` cannot be had, ONNX Runtime takes
            over, with a RuntimeWarning.
        threads: Threads for one inference; by default as `edgewright tune` found best, else all cores this process may use.
        device: `cpu` (the default), `cuda`, `cuda:1`, `tensorrt`, `gpu`, `npu`, `auto`; see
            :mod:`~edgewright.runtime.backends.devices`. What was taken is in `Classifier.execution`.
        streams: How many inferences run at once; more wait for their turn. By default all cores work on one, which answers
            one request soonest; for many requests at once, as many streams as cores give the most.
        cache: Where this device keeps what it compiles; by default `$EDGEWRIGHT_CACHE`, else in the user's cache folder.
        remote: A server's URL, or more about it; the backend is then `remote`.
        min_score: Predictions with less count as unknown.
        verify: Compare with the golden vectors before anything else; above all for a server, which may have any model.

    Raises:
        BundleError: the bundle is missing, incomplete or altered, or has no such artefact.
        UsageError: a combination that cannot work, or a device that this machine has not; lists those it has.
        MissingExtraError: the engine is not installed.
        BackendError: the engine refused the artefact, or the server cannot be used.
        GateError: the golden vectors came out otherwise.
    """
    if not 0 <= min_score <= 1:
        raise UsageError(f"min_score is {min_score}; expected 0 to 1.")
    bundle = open_bundle(path)
    if isinstance(remote, str):
        remote = RemoteSettings(remote)
    settings = EngineSettings(device, threads, streams, None if cache is None else Path(cache), remote)
    classifier = _load(bundle, artefact, backend, settings)
    classifier.min_score = min_score
    if verify:
        try:
            require_golden(bundle, classifier)
        except BaseException:
            classifier.close()
            raise
    return classifier


def _load(bundle: Bundle, artefact: str | None, backend: str | None, settings: EngineSettings) -> Classifier:
    if (artefact, backend, settings.device, settings.remote) == (None, None, None, None):
        tuned = tuned_choice(bundle.manifest, settings.cache)
        if tuned is not None and (why := why_not_here(bundle.manifest.artefact(tuned.artefact), tuned.device)):
            warn(f"what was tuned for this device does not run here any more: {why}. Run `edgewright tune` again.")
            tuned = None
        if tuned is not None:
            artefact = tuned.artefact
            settings = replace(settings, device=tuned.device)
            if settings.streams is None and settings.threads is None:
                settings = replace(settings, threads=tuned.threads)
    named = None if artefact is None else bundle.manifest.artefact(artefact)
    if backend == "remote" or settings.remote is not None:
        chosen = named or bundle.manifest.artefact(bundle.manifest.recommended)
        return Classifier(bundle, chosen, backend=backend, settings=settings)
    if backend == "tensorrt" or (backend is None and named is not None and named.backend == "tensorrt"):
        return _with_tensorrt(bundle, named, settings)
    if named is not None:
        return Classifier(bundle, named, backend=backend, settings=settings)
    chosen = _preferred(bundle, backend, settings.device)
    try:
        return Classifier(bundle, chosen, backend=backend, settings=settings)
    except PrecisionError as error:
        others = [
            other
            for other in bundle.manifest.artefacts
            if other != chosen and backend in (None, other.backend) and not why_not_here(other, settings.device)
        ]
        if not others:
            raise
        # What is made for this kind of machine is the better guess.
        instead = min(others, key=lambda other: not other.machines)
        warnings.warn(f"{error} Using '{instead.name}'.", RuntimeWarning, stacklevel=2)
        return Classifier(bundle, instead, backend=backend, settings=settings)


def _preferred(bundle: Bundle, backend: str | None, device: str | None) -> Artefact:
    """The first artefact, in the bundle's order of preference, for `backend`, or for any engine that is installed, that runs
    on `device`.

    Raises:
        UsageError: the bundle has none for that backend, or this machine no engine with that device; says what each has.
    """
    artefacts = bundle.manifest.artefacts
    if backend is not None:
        matching = [artefact for artefact in artefacts if artefact.backend == backend]
        if not matching:
            backends = ", ".join(sorted({artefact.backend for artefact in artefacts}))
            raise UsageError(f"'{bundle.path}' has no artefact for backend '{backend}'. It has some for: {backends}.")
        return next((artefact for artefact in matching if not why_not_here(artefact, device)), matching[0])
    recommended = bundle.manifest.artefact(bundle.manifest.recommended)
    reasons = {artefact.name: why_not_here(artefact, device) for artefact in artefacts}
    runnable = [artefact for artefact in artefacts if not reasons[artefact.name]]
    if device is not None and not runnable:
        why = "; ".join(dict.fromkeys(reason.rstrip(".") for reason in reasons.values()))
        raise UsageError(f"Nothing in '{bundle.path}' runs on '{device}' here: {why}.")
    if recommended in runnable or not runnable:
        return recommended
    if not why_not_here(recommended):
        # It would run, but not on the device that was asked for.
        return runnable[0]
    hint = f"To get it: pip install 'edgewright[{recommended.backend}]'"
    if not recommended.made_for(platform.machine()):
        # Latency was measured on another kind of machine; of what is made for this one, INT8 is the better guess.
        runnable.sort(key=lambda artefact: not artefact.machines)
        hint = "`edgewright bench` tells which is fastest here."
    warnings.warn(
        f"'{recommended.name}' is recommended, but {why_not_here(recommended)}; using '{runnable[0].name}'. {hint}",
        RuntimeWarning,
        stacklevel=4,  # whoever called `load`
    )
    return runnable[0]


def _with_tensorrt(bundle: Bundle, artefact: Artefact | None, settings: EngineSettings) -> Classifier:
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
    wanted = load_request(bundle, target.artefact, settings, target.precision)
    engine, name = load_or_fall_back(wanted, lambda: load_request(bundle, instead, settings))
    return Classifier(bundle, target.artefact if name == "tensorrt" else instead, backend=name, engine=engine)


def _runs_on_cpu(artefact: Artefact) -> bool:
    return artefact.backend == "onnxruntime" and not why_not_here(artefact)
