# SPDX-License-Identifier: Apache-2.0
"""Configuration: frozen dataclasses whose fields carry their documentation, unit and range.

ROS parameters, their descriptors and the command line derive from these fields; a default exists only here.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rlpd_ros.errors import ConfigError

Config = TypeVar("Config")


@dataclass(frozen=True)
class Range:
    """The documentation and the admissible values of one parameter."""

    doc: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None


def parameter(default: Any, doc: str, low: float | None = None, high: float | None = None,
              choices: Sequence[str] | None = None) -> Any:
    """Declare a field of a configuration: its default, what it means (with the unit) and what is admissible.

    The default is a bool, int, float, str or a tuple of one of these; a tuple's element type is that of its first
    element (an empty tuple holds strings). ``low`` and ``high`` are inclusive and hold for every element.
    """
    meta = Range(doc, low, high, tuple(choices) if choices else None)
    return dataclasses.field(default=default, metadata={"range": meta})


def ranges(config_type: type) -> dict[str, Range]:
    """Return name -> Range of every field of a configuration dataclass."""
    return {f.name: f.metadata["range"] for f in dataclasses.fields(config_type)}


def from_mapping(config_type: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Build a configuration from ``values``; names that are left out keep their default.

    Raises ConfigError naming ``where``, the parameter, the expected and the found value.
    """
    known = {f.name: f for f in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    checked = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else "; see 'Configure it' in README.md, or `ros2 param list`"
            raise ConfigError(f"{where}: unknown parameter '{name}'{hint}")
        f = known[name]
        checked[name] = _checked(f"{where}: parameter '{name}'", value, f.default, f.metadata["range"])
    return config_type(**checked)


def _checked(what: str, value: Any, default: Any, allowed: Range) -> Any:
    if isinstance(default, tuple):
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            raise ConfigError(f"{what}: expected a list, found {value!r}")
        element = default[0] if default else ""
        return tuple(_checked(f"{what}[{i}]", v, element, allowed) for i, v in enumerate(value))
    kind = type(default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{what}: expected {_KIND[kind]}, found {value!r}")
    if allowed.choices and value not in allowed.choices:
        raise ConfigError(f"{what}: expected one of {', '.join(allowed.choices)}, found {value!r}")
    too_low = allowed.low is not None and not value >= allowed.low  # NaN fails both
    too_high = allowed.high is not None and not value <= allowed.high
    if too_low or too_high:
        low = "-inf" if allowed.low is None else allowed.low
        high = "inf" if allowed.high is None else allowed.high
        raise ConfigError(f"{what}: expected a value from {low} to {high}, found {value!r}")
    return value


_KIND = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
