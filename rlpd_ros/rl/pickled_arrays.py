# SPDX-License-Identifier: Apache-2.0
"""Arrays out of a pickle without unpickling it: nothing that the file names is imported or called.

The file is read opcode by opcode. Dictionaries, numbers, texts and bytes are built; of everything else only the few
names by which NumPy, JAX and Flax store arrays mean something, and what they mean is written here.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from rlpd_ros.errors import DataError
from rlpd_ros.untrusted import MAX_DEPTH, printable

MAX_OPCODES = 1_000_000
_TYPES = {"f2", "f4", "f8", "i4", "i8", "u1"}


class _Mark:
    """Where a group of values begins on the stack."""


@dataclass(frozen=True)
class _Name:
    """A name that is known; it stands for its entry in ``_MEANING``."""

    name: str


@dataclass
class _Type:
    """An array's type: a code of ``_TYPES`` and, from the state that follows it, its byte order."""

    code: str
    order: str = "<"

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.order + self.code)


@dataclass
class _Array:
    """An array whose content comes as the state that follows it."""

    value: np.ndarray | None = None


def read_pickled_arrays(data: bytes) -> dict[str, Any]:
    """Return the nested dictionaries of arrays that a pickle holds. Raises DataError for anything else."""
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > MAX_OPCODES:
                raise DataError(f"more than {MAX_OPCODES} opcodes")
            machine.step(opcode.name, argument)
        (found,) = machine.stack
    except DataError:
        raise
    except Exception as error:  # whatever a hostile file provokes in here is its fault
        raise DataError(f"not such a pickle: {printable(error)}") from error
    if not isinstance(found, dict):
        raise DataError(f"expected a dictionary, found {_called(type(found))}")
    return _arrays(found, 0, set())


def _arrays(tree: dict, depth: int, seen: set[int]) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise DataError(f"more than {MAX_DEPTH} levels")
    if id(tree) in seen:  # a few of those in one another stand for more than anyone can walk through
        raise DataError("a dictionary in two places")
    seen.add(id(tree))
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found[name] = _arrays(value, depth + 1, seen)
        elif isinstance(value, _Array) and value.value is not None:
            found[name] = value.value
        else:
            raise DataError(f"{printable(name)}: expected an array or a dictionary, found "
                            f"{_called(type(value))}")
    return found


class _Machine:
    """The stack and the memory of a pickle, for the opcodes that arrays need."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memory: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _TUPLES:
            size = _TUPLES[opcode]
            self.stack[len(self.stack) - size:] = [tuple(self._last(size))]
        elif opcode in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self._memory[len(self._memory) if opcode == "MEMOIZE" else int(argument)] = self.stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self._memory[int(argument)])
        elif opcode in ("GLOBAL", "STACK_GLOBAL"):
            self._name(argument)
        elif opcode in ("SETITEM", "SETITEMS"):
            items = self._group() if opcode == "SETITEMS" else self._pop(2)
            names = [_expect(name, str) for name in items[::2]]
            _expect(self.stack[-1], dict).update(zip(names, items[1::2], strict=True))
        elif opcode == "TUPLE":
            self.stack.append(tuple(self._group()))
        elif opcode == "REDUCE":
            name, arguments = self._pop(2)
            self.stack.append(_MEANING[_expect(name, _Name).name](*_expect(arguments, tuple)))
        elif opcode == "BUILD":
            (state,) = self._pop(1)
            _build(self.stack[-1], state)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise DataError(f"opcode {opcode}, which no arrays need")

    def _name(self, argument: str | None) -> None:
        name = argument.replace(" ", ".") if argument is not None else ".".join(
            _expect(part, str) for part in self._pop(2))
        if name not in _MEANING:
            raise DataError(f"refers to '{printable(name)}': only arrays and dictionaries are read, nothing is run")
        self.stack.append(_Name(name))

    def _last(self, size: int) -> list[Any]:
        if len(self.stack) < size:
            raise DataError("a value is missing")
        return self.stack[len(self.stack) - size:]

    def _pop(self, size: int) -> list[Any]:
        values = self._last(size)
        del self.stack[len(self.stack) - size:]
        return values

    def _group(self) -> list[Any]:
        start = max(i for i, value in enumerate(self.stack) if isinstance(value, _Mark))
        values = self.stack[start + 1:]
        del self.stack[start:]
        return values


def _expect(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds):
        raise DataError(f"expected {_called(kinds[0])}, found {_called(type(value))}")
    return value


def _called(kind: type) -> str:
    return kind.__name__.strip("_").lower()


def _build(target: Any, state: Any) -> None:
    if isinstance(target, _Type):
        target.order = {"<": "<", ">": ">", "|": "|"}[state[1]]
    elif isinstance(target, _Array):
        _, shape, kind, fortran, content = state
        target.value = _array(content, kind, shape, "F" if fortran else "C")
    else:
        raise DataError(f"a state for {_called(type(target))}")


def _array(content: Any, kind: Any, shape: Any, order: Literal["C", "F"] = "C") -> np.ndarray:
    dtype = _expect(kind, _Type).dtype
    shape = tuple(int(_expect(side, int)) for side in _expect(shape, tuple))
    if min(shape, default=1) < 0 or len(_expect(content, bytes, bytearray)) != prod(shape) * dtype.itemsize:
        raise DataError(f"an array of {dtype} {list(shape)} in {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def _type(code: str, *_: Any) -> _Type:
    if code not in _TYPES:
        raise DataError(f"an array of type '{printable(code)}', expected one of {', '.join(sorted(_TYPES))}")
    return _Type(code)


def _of_jax(_: Any, __: Any, state: Any, *___: Any) -> _Array:
    array = _Array()
    _build(array, state)
    return array


_VALUES = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BININT", "BININT1", "BININT2", "LONG1", "INT",
           "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict,
    "MARK": _Mark}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MEANING: dict[str, Callable[..., Any]] = {
    **{f"numpy.{core}.multiarray._reconstruct": lambda *_: _Array() for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": lambda content, kind, shape, order: _Array(
        _array(content, kind, shape, "F" if order == "F" else "C")) for core in ("core", "_core")},
    "numpy.ndarray": lambda *_: _Array(),
    "numpy.dtype": _type,
    "_codecs.encode": lambda text, code: _expect(text, str).encode({"latin1": "latin1"}[code]),
    "jax._src.array._reconstruct_array": _of_jax,
    "jax._src.device_array.reconstruct_device_array": _of_jax,
    "flax.core.frozen_dict.FrozenDict": lambda content: _expect(content, dict),
    "collections.OrderedDict": dict,
}
