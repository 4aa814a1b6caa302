"""A module that is as strict as a real binding: made from what `bindings_dump.py` wrote down, and from nothing else.

Every class, member, enum value and signature is the real one's; whatever else is touched raises AttributeError, and
arguments that no real overload takes raise TypeError, as pybind11 does. What a call does comes from `behaviours`, a
mapping from "Class.method", "Class.property" or "function" to a callable; one that the real binding does not have cannot
be reached. What a behaviour returns has to be of the type that the real signature declares.
"""

from __future__ import annotations

import enum
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Behaviours = Mapping[str, Callable[..., Any]]
INTEGERS = {"int", "SupportsInt", "size_t", "unsigned int", "unsigned long long"}


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str
    optional: bool


@dataclass(frozen=True)
class Signature:
    text: str
    parameters: tuple[Parameter, ...]
    returns: str


def short(name: str) -> str:
    """'ILogger.Severity' of 'tensorrt_bindings.tensorrt.ILogger.Severity' and of 'nvinfer1::ILogger::Severity'."""
    return re.sub(r"\b(?:[a-z_][a-z0-9_]*\.)+(?=[A-Za-z])", "", name.replace("::", ".")).strip()


def split_top(text: str) -> list[str]:
    """At commas outside brackets."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [part.strip() for part in [*parts, current] if part.strip()]


def parse_signature(text: str) -> Signature:
    """pybind11's `f(self: C, a: int = 1) -> bool` as well as Cython's `f(size_t size, kind: Kind)`."""
    # Defaults such as <Severity.WARNING: 2> would bring colons of their own.
    cleaned = re.sub(r"<[^<>]*>", "...", text.strip())
    head, arrow, returns = cleaned.partition(" -> ")
    inner = head[head.index("(") + 1 : head.rindex(")")]
    parameters = []
    for part in split_top(inner):
        if part in ("/", "*"):
            continue
        declared, equals, _ = part.partition("=")
        if ":" in declared:
            name, _, kind = declared.partition(":")
        else:
            kind, _, name = declared.strip().rpartition(" ")
        parameters.append(Parameter(name.strip(), short(kind) or "Any", bool(equals)))
    return Signature(text.strip(), tuple(parameters), short(returns) if arrow else "Any")


class StrictError(AssertionError):
    """The fake was asked for something that the real binding has but no test has needed so far."""


class Fake:
    """Makes the module; `module` is the result, `new` makes instances of classes without a constructor."""

    def __init__(self, description: Mapping[str, Any], behaviours: Behaviours) -> None:
        self.description = description
        self.behaviours = behaviours
        self.classes: dict[str, type] = {}
        self.module = types.ModuleType(description["module"])
        self.pythonic_enums = description["module"].startswith("cuda")
        for name in description["classes"]:
            self._class(name)
        for name in description["classes"]:
            self._finish(name)
        for name in description["classes"]:
            if "." not in name:
                setattr(self.module, name, self.classes[name])
        for name, value in description["values"].items():
            setattr(self.module, name, self._value(value))
        for name, signatures in description["functions"].items():
            setattr(self.module, name, self._callable(name, signatures, method=False))
        if description["version"] is not None:
            self.module.__version__ = description["version"]  # type: ignore[attr-defined]

    def new(self, cls: str, **state: Any) -> Any:
        """An instance, as the library would hand it out."""
        kind = self.classes[cls]
        made = kind.__new__(kind)
        made._state = types.SimpleNamespace(**state)
        if isinstance(made, bytearray):
            made += state["data"]
        return made

    # Classes

    def _class(self, name: str) -> type:
        if name in self.classes:
            return self.classes[name]
        described = self.description["classes"][name]
        if described["enum"] is not None:
            self.classes[name] = self._enum(name, described)
            return self.classes[name]
        bases = tuple(self._class(base) for base in described["bases"][:1])
        if not bases:
            bases = (bytearray,) if described["buffer"] else (object,)
        body: dict[str, Any] = {"__slots__": () if bases[0] not in (object, bytearray) else ("__weakref__", "_state")}
        if described["buffer"]:
            allowed = set(described["members"]) | {"_state"}

            def lookup(self: Any, attribute: str) -> Any:
                if attribute not in allowed and not attribute.startswith("__"):
                    raise AttributeError(f"'{name}' object has no attribute '{attribute}'")
                return object.__getattribute__(self, attribute)

            body["__getattribute__"] = lookup
        if described["integer"]:
            body["__int__"] = lambda self: self._state.integer
        self.classes[name] = type(name.rpartition(".")[2], bases, body)
        return self.classes[name]

    def _enum(self, name: str, described: Mapping[str, Any]) -> type:
        if self.pythonic_enums:
            return enum.IntEnum(name, described["enum"])
        # pybind11's enums equal members of their own type only, and are no ints.
        methods = {
            "__slots__": ("name", "value"),
            "__eq__": lambda self, other: type(self) is type(other) and self.value == other.value,
            "__hash__": lambda self: hash(self.value),
            "__int__": lambda self: self.value,
            "__index__": lambda self: self.value,
            "__repr__": lambda self: f"<{name}.{self.name}: {self.value}>",
        }
        made = type(name.rpartition(".")[2], (), methods)
        members = {}
        for member, value in described["enum"].items():
            instance = made()
            instance.name, instance.value = member, value
            members[member] = instance
            setattr(made, member, instance)
        made.__members__ = members  # type: ignore[attr-defined]
        return made

    def _finish(self, name: str) -> None:
        """Add the members."""
        described = self.description["classes"][name]
        if described["enum"] is not None:
            return
        cls = self.classes[name]
        if not described["constructible"]:
            cls.__init__ = self._no_constructor(name)  # type: ignore[misc]
        for member, details in described["members"].items():
            kind = details["kind"]
            if kind == "method" and member == "__init__":
                if described["constructible"]:
                    cls.__init__ = self._constructor(name, details["signatures"])  # type: ignore[misc]
            elif kind == "method":
                setattr(cls, member, self._callable(f"{name}.{member}", details["signatures"], method=True))
            elif kind == "property":
                setattr(cls, member, self._property(f"{name}.{member}", details))
            elif kind == "class":
                setattr(cls, member, self.classes[details["class"]])
            elif kind == "constant":
                setattr(cls, member, details["value"])
            else:
                setattr(cls, member, self._value(details))

    def _value(self, details: Mapping[str, Any]) -> Any:
        if "constant" in details:
            return details["constant"]
        return self.classes[details["enum"]].__members__[details["member"]]

    def _no_constructor(self, name: str) -> Callable[..., None]:
        def refuse(self: Any, *_: Any, **__: Any) -> None:
            raise TypeError(f"{name}: No constructor defined!")

        return refuse

    def _constructor(self, name: str, texts: list[str]) -> Callable[..., None]:
        signatures = [parse_signature(text) for text in texts]

        def construct(instance: Any, *args: Any, **kwargs: Any) -> None:
            instance._state = types.SimpleNamespace()
            _, bound = self._match(name, signatures, (instance, *args), kwargs, skip_self=True)
            if f"{name}.__init__" in self.behaviours:
                self.behaviours[f"{name}.__init__"](instance, **bound)

        return construct

    # Calls

    def _callable(self, key: str, texts: list[str], *, method: bool) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            signatures = [parse_signature(text) for text in texts]
            signature, bound = self._match(key, signatures, args, kwargs, skip_self=method)
            if key not in self.behaviours:
                raise StrictError(f"{key} exists, but no behaviour was written for it")
            result = self.behaviours[key](*args[: int(method)], **bound)
            self._require(key, result, signature.returns)
            return result

        return call

    def _match(
        self,
        key: str,
        signatures: list[Signature],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        skip_self: bool,
    ) -> tuple[Signature, dict[str, Any]]:
        for signature in signatures:
            bound = self._bind(signature, args, kwargs)
            if bound is not None:
                if skip_self:
                    bound.pop(signature.parameters[0].name)
                return signature, bound
        raise TypeError(
            f"{key}(): incompatible function arguments {args[int(skip_self) :]} {dict(kwargs)}. "
            f"Supported: {[signature.text for signature in signatures]}"
        )

    def _bind(self, signature: Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        names = [parameter.name for parameter in signature.parameters]
        if len(args) > len(names) or not set(kwargs) <= set(names[len(args) :]):
            return None
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        for parameter in signature.parameters:
            if parameter.name not in given:
                if not parameter.optional:
                    return None
            elif not self.accepts(given[parameter.name], parameter.type):
                return None
        return given

    def _property(self, key: str, details: Mapping[str, Any]) -> property:
        attribute = key.rpartition(".")[2]

        def get(instance: Any) -> Any:
            if key in self.behaviours:
                result = self.behaviours[key](instance)
            elif hasattr(instance._state, attribute):
                result = getattr(instance._state, attribute)
            else:
                raise StrictError(f"{key} exists, but nothing was written for it")
            if details["get"]:
                self._require(key, result, parse_signature(details["get"]).returns)
            return result

        def put(instance: Any, value: Any) -> None:
            if details["set"]:
                wanted = parse_signature(details["set"]).parameters[1].type
                if not self.accepts(value, wanted):
                    raise TypeError(f"{key} = {value!r}: expected {wanted}")
            setattr(instance._state, attribute, value)
            if f"{key}=" in self.behaviours:
                self.behaviours[f"{key}="](instance, value)

        return property(get if details["readable"] else None, put if details["writable"] else None)

    # Types

    def _require(self, key: str, result: Any, declared: str) -> None:
        """A behaviour that returns what the real call cannot is a mistake in the fake."""
        if result is None and declared.removeprefix("I") in {name.removeprefix("I") for name in self.classes}:
            return  # a null pointer
        if not self.accepts(result, declared):
            raise StrictError(f"the behaviour of {key} gave {result!r}; the real one gives {declared}")

    def accepts(self, value: Any, declared: str) -> bool:
        """Whether pybind11 or Cython would take `value` for an argument of this type."""
        declared = declared.strip()
        if declared in ("Any", "object", "handle"):
            return True
        if declared == "None":
            return value is None
        if declared in INTEGERS:
            return hasattr(type(value), "__index__") and not isinstance(value, str)
        if declared in ("float", "SupportsFloat"):
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        if declared in ("str", "bool", "tuple", "list", "bytes", "dict"):
            return isinstance(value, {"str": str, "bool": bool, "tuple": tuple, "list": list, "bytes": bytes}[declared])
        if declared in ("buffer", "Buffer"):
            return isinstance(value, (bytes, bytearray, memoryview))
        if inner := re.fullmatch(r"(?:List|list|Sequence)\[(.*)\]", declared):
            return isinstance(value, (list, tuple)) and all(self.accepts(item, inner[1]) for item in value)
        for name in (declared, declared.removeprefix("I")):
            if name in self.classes:
                return isinstance(value, self.classes[name]) and hasattr(
                    value, "_state" if self._has_state(name) else "name"
                )
        raise StrictError(f"the type '{declared}' is not known to the fake")

    def _has_state(self, name: str) -> bool:
        # An instance whose class overrides __init__ without calling the base's has none, and pybind11 refuses it.
        return self.description["classes"][name]["enum"] is None
