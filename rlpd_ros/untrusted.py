# SPDX-License-Identifier: Apache-2.0
"""What comes from outside and may be anything: texts made fit to print, plain values out of YAML and JSON, refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from rlpd_ros.errors import DataError

MAX_NAME = 128  # characters of a session's name, a unit or a frame
MAX_QUOTE = 300  # characters of a stranger's text in a message to people
MAX_DEPTH = 32  # of lists and mappings in one another
MAX_PLAIN_FILE = 10_000_000  # bytes of a text file that is read in one piece


def printable(text: object, limit: int = MAX_QUOTE) -> str:
    """Return ``text`` so that it may stand in a log or on a terminal: shortened, one line, nothing that controls."""
    found = str(text)
    short = found if len(found) <= limit else f"{found[:limit]}… ({len(found)} characters)"
    return short if short.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)


def expect_name(what: str, name: str, shortest: int = 1) -> str:
    """Return ``name``. Raises DataError unless it is a name: printable, neither empty (nor shorter) nor long."""
    if not shortest <= len(name) <= MAX_NAME:
        raise DataError(f"{what}: expected a name of {shortest} to {MAX_NAME} characters, found {len(name)}")
    if not name.isprintable():
        raise DataError(f"{what}: expected printable characters, found '{printable(name)}'")
    return name


def read_text(path: Path, limit: int = MAX_PLAIN_FILE) -> str:
    """Return the text in a file of at most ``limit`` bytes. Raises DataError naming the file."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise DataError(f"{path}: expected at most {limit} bytes, found more")
        return content.decode("utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable: {error}") from error


class _PlainLoader(yaml.SafeLoader):
    """Reads numbers as ROS and YAML 1.2 do (3e-4 is one), and no aliases, as ROS: a few can stand for gigabytes.

    No key may be there twice either: the last one would count, without a word.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", self.peek_event().start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_DEPTH} levels", self.peek_event().start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        marks: dict[tuple[str, str], Any] = {}
        for key, _ in node.value:  # before << is replaced by what it stands for, which may be overridden
            name = (key.tag, str(key.value))
            if name in marks and key.tag != "tag:yaml.org,2002:merge":
                text = f"key '{printable(key.value, MAX_NAME)}' is there twice, first in line {marks[name].line + 1}"
                raise yaml.composer.ComposerError(None, None, text, key.start_mark)
            marks[name] = key.start_mark
        return node


EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))


def parse_yaml(text: str) -> Any:
    """Return the plain values that ``text`` holds, numbers as ROS reads them. Raises DataError in one line."""
    try:
        return yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, RecursionError) as error:
        raise DataError(printable(" ".join(str(error).split()))) from error


def parse_json(text: str | bytes) -> Any:
    """Return the plain values that ``text`` holds. Raises DataError in one line."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(printable(error)) from error


class Refusals:
    """Count the messages that were refused, remember the last reason, and warn of the 1st, 2nd, 4th, 8th ..."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.count = 0
        self.text = ""
        self._warn = warn

    def add(self, topic: str, error: DataError) -> None:
        self.count += 1
        self.text = printable(f"{topic}: {error}")
        if self.count & (self.count - 1) == 0:
            self._warn(f"refused (refusal {self.count}): {self.text}")
