# SPDX-License-Identifier: Apache-2.0
"""What happens before any process starts: parameters are resolved and checked, the run directory and its
demonstrations are made. The command line and the launch files share it."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ament_index_python.packages import get_package_share_directory

from rlpd_ros.config import from_mapping
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.exported_policy import load_policy
from rlpd_ros.graph import namespaces_of_arms, play_graph, train_graph
from rlpd_ros.ros.bags import find_bags, read_demonstrations
from rlpd_ros.ros.parameters import QOS_PREFIX, USE_SIM_TIME, expect_qos, load_parameter_file, refuse_sim_time
from rlpd_ros.runs import RunDirectory, write_atomically
from rlpd_ros.settings import NODES, TOOLS, ArmConfig, LearnerConfig, LoaderConfig
from rlpd_ros.untrusted import parse_yaml, printable, read_text

Config = TypeVar("Config")
EVERY = NODES | TOOLS  # a file may have sections for tools too; they are checked, and not part of a run
NO_DEMONSTRATIONS = ("none",)  # what a user says in place of bags


class Configurations:
    """The checked parameters of every node, from files (the last one wins) and then single values.

    Those of a section for one namespace, such as ``/left/arm_driver``, are kept apart: they are for nodes in it only.
    """

    def __init__(self) -> None:
        self._values: dict[str, dict[str, Any]] = {node: {} for node in EVERY}
        self._own: dict[str, dict[str, dict[str, Any]]] = {}  # pattern of namespaces -> node -> name -> value

    def add_file(self, path: str | Path) -> None:
        """Add a ROS parameter file. Raises ConfigError naming the file, the section and the parameter."""
        for pattern, values in load_parameter_file(path).items():
            namespaces, _, last = f"/{pattern.strip('/')}".rpartition("/")
            nodes = [node for node in EVERY if last in (node, "*", "**")]
            if not nodes:
                raise ConfigError(f"{path}: section '{pattern}' fits no node; known are {', '.join(EVERY)}")
            if namespaces and last == "**":
                namespaces += "/**"
            for name, value in values.items():
                self._set(nodes, name, value, f"{path}: {pattern}", "" if namespaces == "/**" else namespaces)

    def add_override(self, text: str) -> None:
        """Add ``[node.]name=value``, with the value in YAML."""
        target, equals, value = text.partition("=")
        node, dot, name = target.partition(".")
        if not equals or (dot and node not in NODES):
            raise ConfigError(f"--set {text}: expected [NODE.]NAME=VALUE with a node of {', '.join(NODES)}")
        try:
            parsed = parse_yaml(value)
        except DataError as error:
            raise ConfigError(f"--set {text}: the value is not YAML: {error}") from error
        self._set([node] if dot else list(NODES), name if dot else target, parsed, "--set")

    def set_demonstrations(self, paths: tuple[str, ...]) -> None:
        """Name the bags to load, or train without demonstrations; what was named before does not count."""
        without = paths == NO_DEMONSTRATIONS
        if without:
            self._set(["learner"], "require_demonstrations", False, "--demos")
        if paths:
            self._set(["demo_loader"], "demo_path", [] if without else list(paths), "--demos")

    def _set(self, nodes: list[str], name: str, value: Any, where: str, namespaces: str = "") -> None:
        """Set one parameter on those of ``nodes`` that have it, in all namespaces or in some; check it as they will."""
        if name == USE_SIM_TIME:
            refuse_sim_time(value, where)
            return
        having = [node for node in nodes if any(name in _names(config_type) for config_type in EVERY[node])]
        if name.startswith(QOS_PREFIX):
            expect_qos(name, value, where)
            having = nodes
        elif not having:  # let the error message suggest what was meant
            known = {known for node in nodes for config_type in EVERY[node] for known in _names(config_type)}
            every = dataclasses.make_dataclass("Every", [(n, Any, None) for n in sorted(known)])
            from_mapping(every, {name: value}, where)
        if name == "backbone" and isinstance(value, str) and value:
            value = _absolute(value)  # a run is gone on with from anywhere
        for node in having:
            checked = value
            for config_type in EVERY[node]:
                if name in _names(config_type):  # as its type has it: ROS takes no list of 0 and 0.5
                    checked = getattr(from_mapping(config_type, {name: value}, where), name)
            for pattern, own in self._own.items():  # what came before, where this one goes for all that it meant
                if not namespaces or _fits(namespaces, pattern):
                    own.get(node, {}).pop(name, None)
            if namespaces:
                self._own[namespaces] = self._own.pop(namespaces, {})  # the last one of a file counts
                self._own[namespaces].setdefault(node, {})[name] = checked
            else:
                self._values[node][name] = checked

    def get(self, node: str, config_type: type[Config], namespace: str = "") -> Config:
        """Return one of the configurations of a node in ``namespace``."""
        values = dict(self._values[node])
        for namespaces, own in self._own.items():
            if _fits(namespaces, namespace):
                values |= own.get(node, {})
        return from_mapping(config_type, {k: v for k, v in values.items() if k in _names(config_type)}, node)

    def unused(self, namespaces: Iterable[str]) -> list[str]:
        """Return the patterns of namespaces that have parameters of their own, but fit none of ``namespaces``."""
        return [pattern for pattern, own in self._own.items()
                if any(own.values()) and not any(_fits(pattern, namespace) for namespace in namespaces)]

    def as_parameter_file(self) -> dict[str, Any]:
        """Return every parameter of every node, defaults included, in the form of a ROS parameter file.

        What is for some namespaces only comes after that: nodes take the last section that fits.
        """
        sections = {}
        for node, config_types in NODES.items():
            given = self._values[node]
            values = {name: value for name, value in given.items() if name.startswith(QOS_PREFIX)}
            for config_type in config_types:
                known = {name: value for name, value in given.items() if name in _names(config_type)}
                values |= dataclasses.asdict(from_mapping(config_type, known, node))
            sections[f"/**/{node}"] = values
        for namespaces, own in self._own.items():
            sections |= {f"{namespaces}/{node}": values for node, values in own.items() if values}
        return {pattern: {"ros__parameters": values} for pattern, values in sections.items()}


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _names(config_type: type) -> set[str]:
    return {f.name for f in dataclasses.fields(config_type)}


def _fits(pattern: str, namespace: str) -> bool:
    """Tell whether a namespace is one that ``pattern`` means: * for one name, ** for any number of them."""
    wild = {"*": "/[^/]+", "**": "(/[^/]+)*"}
    expression = "".join(wild.get(part, f"/{re.escape(part)}") for part in pattern.strip("/").split("/"))
    return re.fullmatch(expression, f"/{namespace.strip('/')}".rstrip("/")) is not None


def resolve(files: Iterable[str | Path], preset: str | None = None, overrides: Iterable[str] = (),
            seed: int | None = None) -> Configurations:
    """Resolve the parameters: defaults, then the preset, then the files, then the overrides."""
    configurations = Configurations()
    if preset:
        configurations.add_file(preset_file(preset))
    for path in files:
        configurations.add_file(path)
    if seed is not None:
        configurations.add_override(f"seed={seed}")
    for text in overrides:
        configurations.add_override(text)
    return configurations


def preset_file(name: str) -> Path:
    folder = Path(get_package_share_directory("rlpd_ros"), "config", "presets")
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"preset: expected one of {', '.join(known)}, found {name!r}")
    return folder / f"{name}.yaml"


def read_configurations(run: RunDirectory) -> Configurations:
    """Return the parameters with which a run was started."""
    if not run.parameters.is_file():
        raise DataError(f"{run.parameters}: not found: the run was not started by this package, or is incomplete")
    return resolve([run.parameters])


def prepare_run(root: str | Path, name: str | None, configurations: Configurations, demos: tuple[str, ...],
                nodes: tuple[str, ...] = (), say: Callable[[str], None] = lambda text: None, namespace: str = "",
                arms: Sequence[str] = ()) -> tuple[RunDirectory, tuple[str, ...]]:
    """Make the run directory with its resolved parameters, and demonstrations if none are given.

    ``nodes``: those to start on this machine (empty: all); only one with the demo loader needs demonstrations.
    Of several ``arms`` the first is recorded. Returns the run and the bags to load. Raises ConfigError or DataError,
    and leaves nothing behind, if the run exists, if there is something wrong with the nodes, the namespaces or the
    demonstrations, or if there is no way to demonstrations.
    """
    below = namespaces_of_arms(namespace, arms)
    for pattern in configurations.unused([namespace, *below]):
        say(f"no node that starts here is in namespace {pattern}: what a parameter file sets for it has no effect here")
    demos = _bags(demos) or _configured_demonstrations(configurations)
    train_graph("", (), demos, nodes, namespace, tuple(arms))  # to know now whether it can be made
    if demos and demos != NO_DEMONSTRATIONS:
        successful_only = configurations.get("demo_loader", LoaderConfig).successful_only
        read_demonstrations(demos, successful_only=successful_only)  # to know now what is wrong with them
    run = RunDirectory.create(root, name or RunDirectory.fresh_name(root))
    try:
        if not demos and (not nodes or "demo_loader" in nodes):
            from rlpd_ros.record import EPISODES, record_demonstrations

            def tell(done: int) -> None:
                if done == 0:
                    say(f"recording {EPISODES} demonstrations with the arm's scripted expert")

            record_demonstrations(configurations.get("arm_driver", ArmConfig, below[0]), run.demos, tell=tell)
            demos = (str(run.demos),)
        configurations.set_demonstrations(demos)
        run.write_parameters(configurations.as_parameter_file())
        if words := namespace_options(namespace, arms):
            write_atomically(run.arms, f"{shlex.join(words)}\n")
    except BaseException:
        shutil.rmtree(run.path)
        raise
    return run, demos


def prepare_play(path: str | Path, files: Iterable[str | Path], nodes: tuple[str, ...] = (),
                 namespace: str = "") -> RunDirectory:
    """Return the run at ``path``, or what was copied of it, and write the parameters to play its policy with.

    Those are its own, with ``files`` after them. Where the run cannot be written they are in a new folder, the
    ``scratch`` of what is returned. Raises ConfigError or DataError naming what is wrong.
    """
    play_graph(path, nodes=nodes, namespace=namespace)  # to know now whether it can be made
    run = RunDirectory.open(path, to_go_on=False)
    load_policy(run.policy)  # to know at once if there is none
    configurations = read_configurations(run)
    for file in files:
        configurations.add_file(file)
    parameters = configurations.as_parameter_file()
    try:
        run.write_parameters(parameters, run.play_parameters)
    except OSError:  # for one, a medium from which several machines read it
        run = dataclasses.replace(run, scratch=Path(tempfile.mkdtemp(prefix="rlpd_ros_play_")))
        run.write_parameters(parameters, run.play_parameters)
    return run


def resume_run(path: str | Path, demos: tuple[str, ...] = (), overrides: Iterable[str] = (),
               say: Callable[[str], None] = lambda text: None, namespace: str = "", arms: Sequence[str] = (),
               nodes: tuple[str, ...] = ()) -> tuple[RunDirectory, tuple[str, ...]]:
    """Return an existing run and the bags to load, those of last time unless ``demos`` names others.

    Raises ConfigError or DataError, and leaves the run as it was, if it cannot go on with these.
    """
    run = RunDirectory.open(path)
    if not nodes or "learner" in nodes:  # if one is at work, nothing may be started or written
        os.close(run.lock())
    configurations = read_configurations(run)
    began, here = read_text(run.arms).strip() if run.arms.exists() else "", namespace_options(namespace, arms)
    if began and began != shlex.join(here):
        say(f"the run began with {printable(began)}, and goes on {f'with {shlex.join(here)}' if here else 'without'}: "
            "its nodes start in other namespaces than before")
    demos = _bags(demos)
    if demos and _configured_demonstrations(configurations) == NO_DEMONSTRATIONS:
        configurations.add_override("learner.require_demonstrations=true")
    for text in overrides:
        configurations.add_override(text)
    demos = demos or tuple(_moved_with(run, bag) for bag in _configured_demonstrations(configurations))
    if demos and demos != NO_DEMONSTRATIONS:
        find_bags(demos)
    configurations.set_demonstrations(demos)
    train_graph(run.path, (), demos, nodes, namespace, tuple(arms))  # to know now whether it can be made
    run.write_parameters(configurations.as_parameter_file())
    return run, demos


def namespace_options(namespace: str, arms: Sequence[str]) -> list[str]:
    """Return the options that put nodes into these namespaces, as words on the command line."""
    above = namespace.strip("/")
    return [*(["--namespace", above] if above else []), *(["--arms", *arms] if arms else [])]


def _configured_demonstrations(configurations: Configurations) -> tuple[str, ...]:
    demos = _bags(configurations.get("demo_loader", LoaderConfig).demo_path)
    required = configurations.get("learner", LearnerConfig).require_demonstrations
    return demos or (() if required else NO_DEMONSTRATIONS)


def _bags(paths: Sequence[str]) -> tuple[str, ...]:
    """Return what users name in a form that means the same from anywhere. Raises ConfigError for an empty name."""
    if "" in paths:  # of a shell's unset variable: it would mean the working folder
        raise ConfigError("demos: expected bags, or folders of bags, found nothing")
    return NO_DEMONSTRATIONS if tuple(paths) == NO_DEMONSTRATIONS else tuple(map(_absolute, paths))


def _moved_with(run: RunDirectory, demos: str) -> str:
    """Return where bags are that lay in the run's own folder, if that folder has been moved since."""
    for folder in Path(demos).parents:
        inside = Path(demos).relative_to(folder)
        own = inside.parts[0] in (run.demos.name, run.transitions.name)
        if own and not folder.exists() and (run.path / inside).exists():
            return str(run.path / inside)
    return demos
