"""Describes a real binding as JSON: every class, member, enum value and signature that it has. Run in a process of its own.

    python bindings_dump.py FOLDER MODULE OUT

FOLDER is put in front of the path and MODULE imported from it. Nothing is added to what the module says of itself.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from ctypes import c_ssize_t, c_void_p
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

PROTOCOL = ("__init__", "__len__", "__getitem__", "__setitem__", "__iter__", "__int__", "__index__")
# Where CPython keeps a type's buffer functions: the type's header of three words, then 17 words until tp_as_buffer.
BUFFER_OFFSET = 20 * 8


def exports_buffer(cls: type) -> bool:
    """Whether instances can be read as bytes."""
    assert c_ssize_t(0).value == 0
    functions = c_void_p.from_address(id(cls) + BUFFER_OFFSET).value
    return bool(functions and c_void_p.from_address(functions).value)


def is_enum(cls: type) -> bool:
    return hasattr(cls, "__members__")


def enum_value(value: Any) -> dict[str, str]:
    """A member of an enum. Some versions have a method where others have the attribute `name`."""
    member = next(name for name, other in type(value).__members__.items() if other is value or other == value)
    return {"enum": type(value).__qualname__, "member": member}


def signatures(member: Any) -> list[str]:
    """The signature lines of a docstring: one, or several numbered ones of an overloaded function."""
    lines = (member.__doc__ or "").splitlines()
    numbered = [line.split(". ", 1)[1] for line in lines if line[:1].isdigit() and ". " in line and "(" in line]
    return numbered if len(lines) > 1 and lines[1] == "Overloaded function." else lines[:1]


def describe_class(cls: type, module: ModuleType) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in vars(cls).items():
        if (name.startswith("_") and name not in PROTOCOL) or isinstance(value, FunctionType):
            continue  # functions in Python are conveniences on top of the binding
        if isinstance(value, property) or inspect.isgetsetdescriptor(value):
            members[name] = {
                "kind": "property",
                "get": getattr(getattr(value, "fget", None), "__doc__", None),
                "set": getattr(getattr(value, "fset", None), "__doc__", None),
                "readable": getattr(value, "fget", None) is not None or inspect.isgetsetdescriptor(value),
                "writable": getattr(value, "fset", None) is not None or inspect.isgetsetdescriptor(value),
            }
        elif isinstance(value, type):
            members[name] = {"kind": "class", "class": value.__qualname__}
        elif is_enum(type(value)):
            members[name] = {"kind": "value", **enum_value(value)}
        elif callable(value) or type(value).__name__ == "instancemethod":
            members[name] = {"kind": "method", "signatures": signatures(value)}
        elif isinstance(value, (int, float, str)):
            members[name] = {"kind": "constant", "value": value}
    slot = type(vars(cls).get("__init__")).__name__ == "wrapper_descriptor"
    return {
        "bases": [base.__qualname__ for base in cls.__mro__[1:] if base.__module__ == cls.__module__],
        "constructible": not slot and "__init__" in members,
        "buffer": exports_buffer(cls),
        "integer": hasattr(cls, "__int__"),
        "enum": {name: int(value) for name, value in cls.__members__.items()} if is_enum(cls) else None,
        "members": members,
    }


def describe(module: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = {"module": module.__name__, "classes": {}, "values": {}, "functions": {}}
    found["version"] = getattr(module, "__version__", None)
    waiting = [value for value in vars(module).values() if isinstance(value, type)]
    while waiting:
        cls = waiting.pop()
        if cls.__qualname__ not in found["classes"] and cls.__module__.startswith(module.__name__.split(".")[0]):
            found["classes"][cls.__qualname__] = describe_class(cls, module)
            waiting += [value for value in vars(cls).values() if isinstance(value, type)]
    for name, value in vars(module).items():
        if name.startswith("_") or isinstance(value, (type, ModuleType, FunctionType)):
            continue
        if is_enum(type(value)):
            found["values"][name] = enum_value(value)
        elif isinstance(value, BuiltinFunctionType) or "function_or_method" in type(value).__name__:
            found["functions"][name] = signatures(value)
        elif isinstance(value, int):
            found["values"][name] = {"constant": value}
    return found


if __name__ == "__main__":
    folder, name, out = sys.argv[1:]
    sys.path.insert(0, folder)
    Path(out).write_text(json.dumps(describe(importlib.import_module(name))), encoding="utf-8")
