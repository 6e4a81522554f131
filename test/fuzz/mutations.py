# SPDX-License-Identifier: Apache-2.0
"""Messages and bytes that are not what they should be, made from valid ones."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from typing import Any

FLOATS = (float("nan"), float("inf"), float("-inf"), 3.4e38, -3.4e38, 1e-45, -0.0, 0.0, 1.0, -1.0, 1.5, 1e30)
TEXTS = ("", " ", "\n", "x" * 129, "é" * 5000, "\x1b[2J\x1b]0;owned\x07", "中文", "\u202e\u200b", "../../etc/passwd",
         "nan", "a,b\"c\n", "%s%n{0}", "0" * 16, "\U0001f916" * 40)
BITS = {"boolean": 1, "octet": 8, "byte": 8, "char": 8, **{f"{u}int{n}": n for u in ("", "u") for n in (8, 16, 32, 64)}}


def mutate(message: Any, rng: random.Random, others: tuple[str, ...] = ()) -> Any:
    """Change one to three things in a message and return it; ``others`` are texts that stand elsewhere."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change_one(message, rng, others)
    return message


def _change_one(message: Any, rng: random.Random, others: tuple[str, ...]) -> None:
    name, kind = rng.choice(list(message.get_fields_and_field_types().items()))
    value = getattr(message, name)
    if kind.startswith("sequence<"):
        setattr(message, name, _sequence(value, kind[9:-1], rng, others))
    elif hasattr(value, "get_fields_and_field_types"):
        _change_one(value, rng, others)
    else:
        setattr(message, name, _scalar(value, kind, rng, others))


def _scalar(value: Any, kind: str, rng: random.Random, others: tuple[str, ...]) -> Any:
    if isinstance(value, bytes):
        return rng.randbytes(1)
    if kind == "boolean":
        return not value
    if kind in BITS:
        return _integer(value, kind, rng)
    if kind in ("float", "double"):
        return rng.choice((*FLOATS, rng.gauss(0, 1)))
    if kind == "string":
        return rng.choice((*TEXTS, *others, value[:-1], value + "x", value.upper()))
    raise AssertionError(f"a field of a kind that nobody changes: {kind}")


def _integer(value: int, kind: str, rng: random.Random) -> int:
    bits, signed = BITS[kind], not kind.startswith(("u", "octet", "byte", "char"))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    chosen = rng.choice((low, high, 0, 1, value + 1, value - 1, value + 1000, high // 2, rng.randint(low, high)))
    return min(high, max(low, chosen))


def _sequence(value: Any, kind: str, rng: random.Random, others: tuple[str, ...]) -> Any:
    entries = list(value)
    how = rng.randrange(6)
    if how == 0:
        entries = []
    elif how == 1:
        entries = entries[:-1]
    elif how == 2:
        few = rng.choice((1, 2, 50, 1001)) if rng.random() > 0.02 else 20_000
        entries = (entries or _some(kind))[:1] * few if len(entries) < 100 else entries * 2
    elif how == 3 and entries:
        entries.append(entries[0])
    elif entries:
        i = rng.randrange(len(entries))
        if hasattr(entries[i], "get_fields_and_field_types"):
            _change_one(entries[i], rng, others)
        else:
            entries[i] = _scalar(entries[i], kind, rng, others)
    return array(value.typecode, entries) if isinstance(value, array) else entries


def _some(kind: str) -> list[Any]:
    return [0.0] if kind in ("float", "double") else ["x"] if kind == "string" else [0] if kind in BITS else []


def as_stranger(topic: str, message: Any, session: str, stranger: str, rng: random.Random) -> None:
    """Take the names of others off a message: what is well-formed and in their name, no node can tell from truth."""
    renamed = getattr(message, "session", session) != session
    if topic in ("transitions", "demo_transitions", "transitions_ack"):
        message.session = message.session if renamed and rng.random() < 0.3 else stranger
    elif topic == "observation":
        message.session = stranger
    elif topic == "demo_manifest" and 0 < len(message.session) <= 128 and message.session.isprintable():
        message.session = session  # the demonstrations of another one would be awaited
    elif topic == "space_spec":
        message.lockstep = True  # as it is for all arms here; the fingerprint does not tell


def damage(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Return bytes with something wrong: flipped bits, cut, spliced, zeroed, doubled, lengths overwritten."""
    changed = bytearray(data)
    size = len(changed)
    if not size:
        return rng.randbytes(rng.randrange(1, 64))
    _DAMAGES[rng.randrange(len(_DAMAGES))](changed, size, rng, other or data)
    return bytes(changed)


def _flip(changed: bytearray, size: int, rng: random.Random, other: bytes) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(size)] ^= 1 << rng.randrange(8)


def _cut(changed: bytearray, size: int, rng: random.Random, other: bytes) -> None:
    del changed[rng.randrange(size):]


def _splice(changed: bytearray, size: int, rng: random.Random, other: bytes) -> None:
    begin, end = sorted(rng.randrange(size + 1) for _ in range(2))
    start = rng.randrange(len(other))
    changed[begin:end] = other[start:start + rng.randrange(1, 400)]


def _zero(changed: bytearray, size: int, rng: random.Random, other: bytes) -> None:
    begin = rng.randrange(size)
    end = min(size, begin + rng.choice((1, 4, 8, 64, 4096)))
    changed[begin:end] = bytes(end - begin)


def _double(changed: bytearray, size: int, rng: random.Random, other: bytes) -> None:
    begin, end = sorted(rng.randrange(size + 1) for _ in range(2))
    changed[end:end] = changed[begin:end]


def _lengthen(changed: bytearray, size: int, rng: random.Random, other: bytes) -> None:
    begin = rng.randrange(size)
    huge = rng.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x10", b"\0\0\0\0\0\0\0\x40", b"\x01\0\0\0"))
    changed[begin:begin + len(huge)] = huge


_DAMAGES: tuple[Callable[[bytearray, int, random.Random, bytes], None], ...] = (
    _flip, _flip, _cut, _splice, _zero, _double, _lengthen)
