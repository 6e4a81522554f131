# SPDX-License-Identifier: Apache-2.0
"""Configuration dataclasses as ROS parameters, and files of ROS parameters."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import zlib
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, ReliabilityPolicy

from rlpd_ros.config import Range, from_mapping
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.settings import NODES, TOOLS
from rlpd_ros.untrusted import parse_yaml, printable

Config = TypeVar("Config")
MAX_FILE = 1_000_000  # bytes of a parameter file
SECTION = "ros__parameters"  # what has the parameters of a node in a file
QOS_PREFIX = "qos_overrides."  # declared by publishers and subscriptions as they are made
QOS_TEXTS = {"durability": DurabilityPolicy, "history": HistoryPolicy, "liveliness": LivelinessPolicy,
             "reliability": ReliabilityPolicy}
MAX_QOS_DEPTH = 2**31 - 1  # what DDS has room for
USE_SIM_TIME = "use_sim_time"  # declared by rclpy
LOWEST_INTEGER, HIGHEST_INTEGER = -(2**63), 2**63 - 1


def declare(node: Node, *config_types: type) -> tuple[Any, ...]:
    """Declare every field of the configurations as a read-only parameter of ``node``; return their values.

    Raises ConfigError for a value of the wrong type or out of range, and for a parameter that was given to this node
    but is none of this package's: a misspelt name would otherwise leave the default in force without a word. One that
    another node has is let pass, since a file's wildcard section gives every parameter to all nodes.
    """
    given = {name: parameter.value for name, parameter in node._parameter_overrides.items()}  # no public way to them
    where = node.get_fully_qualified_name()
    refuse_sim_time(given.get(USE_SIM_TIME, False), where)
    for name, value in given.items():
        if name.startswith(QOS_PREFIX):
            expect_qos(name, value, where)
    fields = {f.name: f for config_type in config_types for f in dataclasses.fields(config_type)}
    elsewhere = {f.name for others in (NODES | TOOLS).values() for other in others for f in dataclasses.fields(other)}
    foreign = [name for name in given if name not in fields and name not in elsewhere
               and not name.startswith(QOS_PREFIX) and not node.has_parameter(name)]
    if foreign:
        known = dataclasses.make_dataclass("Known", fields)
        from_mapping(known, {foreign[0]: given[foreign[0]]}, where)  # raises, with the name that may have been meant
    configs: list[Any] = []
    for config_type in config_types:
        names = [f.name for f in dataclasses.fields(config_type)]
        values = {name: _from_override(given[name], fields[name].default) for name in names if name in given}
        configs.append(from_mapping(config_type, values, where))
        for name in names:
            if not node.has_parameter(name):  # two configurations may share one, e.g. a seed
                _declare(node, name, getattr(configs[-1], name), fields[name].default, fields[name].metadata["range"])
    return tuple(configs)


def refuse_sim_time(value: Any, where: str) -> None:
    """Raise ConfigError unless ``value``, of use_sim_time, is false: timers would stand still without a /clock."""
    if value is not False:
        raise ConfigError(f"{where}: parameter '{USE_SIM_TIME}': expected false, found {value!r}: stamps and deadlines "
                          "are wall time here; let the arm driver step its simulator (lockstep) and leave it out")


def expect_qos(name: str, value: Any, where: str) -> None:
    """Raise ConfigError unless ``value`` is one for its kind of policy: else rclpy fails once the topic is made."""
    kind = name.rpartition(".")[2]
    if kind == "depth" and not (type(value) is int and 0 <= value <= MAX_QOS_DEPTH):
        raise ConfigError(f"{where}: parameter '{name}': expected a whole number from 0 to {MAX_QOS_DEPTH}, found "
                          f"{printable(repr(value))}")
    known = [text for text in QOS_TEXTS[kind].short_keys() if text != "unknown"] if kind in QOS_TEXTS else []
    if known and str(value).lower() not in known:
        raise ConfigError(f"{where}: parameter '{name}': expected one of {', '.join(known)}, found "
                          f"{printable(repr(value))}")


def own_seed(node: Node, config: Config) -> Config:
    """Return ``config`` with a seed of its own for each namespace: arms that are alike must not do the same."""
    namespace = node.get_namespace().strip("/")
    return dataclasses.replace(config, seed=(config.seed + zlib.crc32(namespace.encode())) % 2**32)  # type: ignore


def _from_override(value: Any, default: Any) -> Any:
    """Return what ``from_mapping`` expects: ROS has no value for an empty list, and arrays for some others."""
    if isinstance(default, tuple) and (value is None or isinstance(value, array)):
        return list(value or ())
    return value


def _declare(node: Node, name: str, value: Any, default: Any, allowed: Range) -> None:
    descriptor = _descriptor(default, allowed)
    if value == ():  # its type cannot be told from its value: declare the type, then set it
        kind = Parameter.Type.from_parameter_value(list(default) or [""])
        node.declare_parameter(name, kind, ParameterDescriptor(), ignore_override=True)
        node.set_parameters([Parameter(name, kind, [])])
        descriptor.type = kind.value
        node.set_descriptor(name, descriptor)
    else:
        node.declare_parameter(name, list(value) if isinstance(value, tuple) else value, descriptor,
                               ignore_override=True)


def _descriptor(default: Any, allowed: Range) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=allowed.doc, read_only=True)
    limits = [] if allowed.low is None else [f"at least {allowed.low:g}"]
    limits += [] if allowed.high is None else [f"at most {allowed.high:g}"]
    if allowed.choices:
        descriptor.additional_constraints = f"one of {', '.join(allowed.choices)}"
    elif limits and isinstance(default, tuple):  # ROS has no ranges for arrays
        descriptor.additional_constraints = f"each {' and '.join(limits)}"
    elif limits and isinstance(default, int):
        descriptor.integer_range = [IntegerRange(
            from_value=LOWEST_INTEGER if allowed.low is None else int(allowed.low),
            to_value=HIGHEST_INTEGER if allowed.high is None else int(allowed.high), step=0)]
    elif limits:
        low = -math.inf if allowed.low is None else float(allowed.low)
        high = math.inf if allowed.high is None else float(allowed.high)
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
    return descriptor


def load_parameter_file(path: str | Path) -> dict[str, dict[str, Any]]:
    """Read a ROS parameter file: node pattern -> parameter -> value, in the file's order.

    A pattern is "learner", "/robot/learner", "/**/learner" or "/**"; namespaces may also be nested. Nested parameters
    get dotted names. Raises ConfigError naming the file and what is wrong with it.
    """
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            text = file.read(MAX_FILE + 1)
        if len(text) > MAX_FILE:
            raise ConfigError(f"{path}: expected a parameter file of at most {MAX_FILE} characters, found more")
        content = parse_yaml(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the parameter file: {error.strerror}") from error
    except (DataError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected YAML: {error}") from error
    sections: dict[str, dict[str, Any]] = {}
    _collect(path, "", {} if content is None else content, sections)
    return sections


def _collect(path: str | Path, prefix: str, content: Any, sections: dict[str, dict[str, Any]]) -> None:
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: {prefix or 'top level'}: expected node names with '{SECTION}' below, found "
                          f"{printable(repr(content))}{_meant(prefix)}")
    for name, below in content.items():
        pattern = f"{prefix}/{str(name).strip('/')}" if prefix else str(name)
        if not isinstance(below, Mapping) or SECTION not in below:
            _collect(path, pattern, below, sections)
            continue
        parameters = below[SECTION]
        if len(below) > 1 or not (parameters is None or isinstance(parameters, Mapping)):
            raise ConfigError(f"{path}: {pattern}: expected '{SECTION}' with names and values, found "
                              f"{printable(repr(dict(below)))}")
        sections.setdefault(pattern, {}).update(_flatten(parameters or {}))


def _meant(prefix: str) -> str:
    """Return what may have been meant where something else than a section of a node is found."""
    if near := difflib.get_close_matches(SECTION, prefix.split("/"), n=1):
        return f"; '{near[0]}': did you mean '{SECTION}'?"
    section, _, name = prefix.rpartition("/")
    if section.rpartition("/")[2] in (*NODES, *TOOLS, "*", "**"):
        return f"; a parameter stands below '{SECTION}': write {section}: {{{SECTION}: {{{name}: ...}}}}"
    return f"; write NODE: {{{SECTION}: {{NAME: VALUE}}}}"


def _flatten(parameters: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        flat.update(_flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value})
    return flat
