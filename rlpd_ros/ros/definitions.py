# SPDX-License-Identifier: Apache-2.0
"""Message definitions as installed, and decoding by them.

What a bag says about its types is compared with what is installed, never executed: definitions from a file that a
stranger wrote must not become code.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from rosbags.serde import SerdeError
from rosbags.typesys import get_types_from_msg
from rosbags.typesys.store import Typestore

from rlpd_ros.errors import DataError

MAX_SEQUENCE = 2**28  # elements of an array in a message
_SEPARATOR = "=" * 80
_FIELD = re.compile(r"^\s*([A-Za-z][\w/]*)((?:<=\d+)?(?:\[[^\]]*\])?)\s+(\w+)\s*(=?)")
_BASIC = {"bool", "byte", "char", "float32", "float64", "string", "wstring"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


@cache
def definition(type_name: str) -> str:
    """Return the definition of ``package/msg/Name`` and of all that it is made of, as rosbag2 writes it into a bag."""
    own = _text(type_name)
    parts, known, waiting = [own], {type_name}, _nested(own, type_name)
    while waiting:
        nested = waiting.pop(0)
        if nested not in known:
            known.add(nested)
            text = _text(nested)
            parts.append(f"{_SEPARATOR}\nMSG: {nested.replace('/msg/', '/')}\n{text}")
            waiting += _nested(text, nested)
    return "\n".join(parts)


def difference(type_name: str, text: str) -> str:
    """Tell how the fields in ``text``, as a bag defines the type, differ from those installed; "" if they do not."""
    ours, theirs = _fields(definition(type_name)), _fields(text)
    lines = [f"expected {kind} {name}" for kind, name in ours if (kind, name) not in theirs]
    lines += [f"found {kind} {name}" for kind, name in theirs if (kind, name) not in ours]
    return ", ".join(lines) or ("" if ours == theirs else "the fields are in another order")


def decode(type_name: str, data: bytes) -> Any:
    """Return the message that ``data`` (CDR) holds. Raises DataError if it is none of this type."""
    try:
        return _typestore().deserialize_cdr(data, type_name)
    except (SerdeError, IndexError, OverflowError, AssertionError) as error:
        raise DataError(f"expected a {type_name}, found {len(data)} bytes that are none: {error}") from error


@cache
def _typestore() -> Typestore:
    store = Typestore(max_sequence_length=MAX_SEQUENCE)
    for name in ("SpaceSpec", "Transition", "LearnerStatus", "ActorStatus", "DemoManifest", "EpisodeStats"):
        type_name = f"rlpd_ros/msg/{name}"
        store.register(get_types_from_msg(definition(type_name), type_name))
    return store


def _text(type_name: str) -> str:
    package, _, name = type_name.split("/")
    return Path(get_package_share_directory(package), "msg", f"{name}.msg").read_text(encoding="utf-8")


def _nested(text: str, type_name: str) -> list[str]:
    """Return the types of the fields in one definition that are messages themselves."""
    package, _, _ = type_name.partition("/")
    kinds = [match[1] for match in map(_FIELD.match, text.splitlines()) if match and match[1] not in _BASIC]
    return [f"{kind.replace('/', '/msg/', 1)}" if "/" in kind else f"{package}/msg/{kind}" for kind in kinds]


def _fields(text: str) -> list[tuple[str, str]]:
    """Return type and name of the fields of the first definition in ``text``, without comments and constants."""
    own = text.split(_SEPARATOR[:20], 1)[0]
    matches = [match for match in map(_FIELD.match, own.splitlines()) if match and match[4] != "="]
    return [(match[1].replace("/msg/", "/") + match[2], match[3]) for match in matches]
