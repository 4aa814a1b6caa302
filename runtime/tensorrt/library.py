"""TensorRT itself: importing it, its version, and a logger that remembers."""

from __future__ import annotations

import importlib
from collections import deque
from typing import Any

from edgewright.runtime.console import warn
from edgewright.runtime.errors import BackendError, MissingExtraError

__all__ = ["load_tensorrt", "make_logger", "parse_version"]

OLDEST = (8, 6)
NEWEST_CHECKED = 11

_KEPT_MESSAGES = 200


def parse_version(text: str) -> tuple[int, ...]:
    """(10, 13, 3, 9) of '10.13.3.9'; what follows the leading numbers is left out.

    Raises:
        BackendError: no number in front.
    """
    numbers: list[int] = []
    for part in text.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    if not numbers:
        raise BackendError(f"'{text}' is no version of TensorRT. Expected one such as 10.3.0.")
    return tuple(numbers)


def load_tensorrt() -> Any:
    """The module `tensorrt`.

    Raises:
        MissingExtraError: not installed.
        BackendError: installed, but its libraries are not, or it is too old.
    """
    try:
        trt = importlib.import_module("tensorrt")
    except ImportError as error:
        if error.name == "tensorrt":
            raise MissingExtraError("tensorrt", "tensorrt") from error
        raise BackendError(
            f"TensorRT is installed but does not load: {error}. Install its libraries, or, on a Jetson, make the virtual "
            "environment with --system-site-packages and the system's Python."
        ) from error
    version = parse_version(trt.__version__)
    if version < OLDEST:
        raise BackendError(f"TensorRT {trt.__version__} is too old. Expected {'.'.join(map(str, OLDEST))} or newer.")
    if version[0] > NEWEST_CHECKED:
        warn(f"TensorRT {trt.__version__} is newer than any that this was checked against (up to {NEWEST_CHECKED})")
    return trt


def make_logger(trt: Any) -> Any:
    """A `tensorrt.ILogger` that keeps the last messages in `messages`, errors also in `errors`, and shows only errors.

    Its base class exists only once TensorRT is there, so the class is made here.
    """
    serious = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

    class KeepingLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            # pybind11 demands that the base is initialised by name.
            trt.ILogger.__init__(self)
            self.messages: deque[str] = deque(maxlen=_KEPT_MESSAGES)
            self.errors: deque[str] = deque(maxlen=_KEPT_MESSAGES)

        def log(self, severity: Any, msg: str) -> None:
            self.messages.append(msg)
            if severity in serious:
                self.errors.append(msg)
                warn(f"TensorRT: {msg}")

    return KeepingLogger()
