"""Every error that edgewright raises on purpose.

```
EdgewrightError                exit status 2
├── UsageError                 an option, a name or a combination that cannot work
├── MissingExtraError          a package that an optional part needs is not installed
├── ImageError                 bytes that are not an image we accept
├── DataError                  a dataset that cannot be used as it is
├── WeightsError               weights that cannot be had or do not fit
├── BundleError                a bundle that is incomplete, altered or not ours
├── BackendError               an engine that cannot load or run an artefact
│   └── PrecisionError         it would run it in another precision than the bundle says
├── DeployError                a device that cannot be reached, or refused a step
└── GateError                  exit status 1: a check said no (parity, accuracy, verification)
```

A message has up to three parts, in this order: what was found, what was expected, what to do next.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BundleError",
    "DataError",
    "DeployError",
    "EdgewrightError",
    "GateError",
    "ImageError",
    "MissingExtraError",
    "PrecisionError",
    "UsageError",
    "WeightsError",
]


class EdgewrightError(Exception):
    """Root of the tree. `exit_status` is what the command line returns."""

    exit_status = 2


class UsageError(EdgewrightError):
    """Wrong usage: an unknown name, a value out of range, options that exclude each other."""


class MissingExtraError(EdgewrightError):
    """A package of an optional part is not installed; names the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"The package '{package}' is not installed. Install it with: pip install 'edgewright[{extra}]'"
        )
        self.package = package
        self.extra = extra


class ImageError(EdgewrightError):
    """Bytes that cannot be decoded, a format that is not accepted, or more pixels than allowed."""


class DataError(EdgewrightError):
    """A folder of images that cannot be trained on or evaluated with."""


class WeightsError(EdgewrightError):
    """Weights that are missing, unreadable, or made for another model."""


class BundleError(EdgewrightError):
    """A bundle that is missing, half-written, altered, or from another version."""


class BackendError(EdgewrightError):
    """An inference engine refused an artefact or failed while running it."""


class PrecisionError(BackendError):
    """An engine can run an artefact, but on this machine not in the precision whose accuracy and latency were reported."""


class DeployError(EdgewrightError):
    """A device cannot be reached, lacks something, or refused a step; what it ran before goes on."""


class GateError(EdgewrightError):
    """A gate failed: the work was done, and its result is not good enough to go on."""

    exit_status = 1
