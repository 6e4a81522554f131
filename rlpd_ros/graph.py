# SPDX-License-Identifier: Apache-2.0
"""The system as data: which processes make up a run, with which parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlpd_ros.enclaves import enclave_arguments
from rlpd_ros.errors import ConfigError
from rlpd_ros.ros.middleware import profile
from rlpd_ros.runs import RunDirectory, absolute

RESPAWN_DELAY = 1.0  # s
MAX_RESPAWNS = 5  # of one process within RESPAWN_WINDOW: then something is wrong that starting again does not mend
RESPAWN_WINDOW = 60.0  # s
SAVE_TIMEOUT = 15.0  # s from Ctrl-C to the last resort for a process that saves what it has learned


@dataclass(frozen=True)
class Process:
    """One node to start.

    ``parameters`` go before ``parameter_files``. A process that ``respawn``s is started again when it dies, unless it
    exits with USER_ERROR; when one that is ``required`` exits with 0 or USER_ERROR, the whole graph stops.
    """

    name: str
    executable: str
    namespace: str = ""
    parameters: dict[str, object] = field(default_factory=dict)
    parameter_files: tuple[str, ...] = ()
    remaps: dict[str, str] = field(default_factory=dict)
    respawn: bool = True
    required: bool = False
    arm: str = ""  # the last part of the namespace, if each arm has one

    @property
    def label(self) -> str:
        """Return what people and log files call it: its name, after that of its arm if there are several."""
        return ".".join(part for part in (self.arm.strip("/").replace("/", "."), self.name) if part)

    @property
    def enclave_arguments(self) -> list[str]:
        """Return the ROS arguments that put it into its enclave, if DDS security is switched on."""
        return enclave_arguments(self.name, self.namespace)

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables to start it with, besides those that there are."""
        return profile()


def play_graph(run: str | Path, parameter_files: tuple[str, ...] = (), episodes: int = 0, nodes: tuple[str, ...] = (),
               namespace: str = "") -> list[Process]:
    """Return the processes that move an arm with the policy of a finished run; ``episodes``: 0 for no end.

    ``nodes`` are the names to start here (empty: both), for an arm whose driver is a node of its own. Raises
    ConfigError for one that is not known, and for a namespace that is none.
    """
    (namespace,) = namespaces_of_arms(namespace, ())
    policy = RunDirectory(absolute(run)).policy
    actor: dict[str, object] = {"policy": str(policy), "episodes": episodes, "run": ""}
    return _chosen([Process("arm_driver", "arm_driver", namespace, {}, parameter_files),
                    Process("actor", "actor", namespace, actor, parameter_files, required=True)], nodes)


SHARED = ("transitions", "transitions_ack", "policy_params", "actor_status", "learner_status", "episode")
"""Topics between the one learner and the actors of all arms."""


def train_graph(run: str | Path, parameter_files: tuple[str, ...] = (), demos: tuple[str, ...] = (),
                nodes: tuple[str, ...] = (), namespace: str = "", arms: tuple[str, ...] = ()) -> list[Process]:
    """Return the processes of a training run.

    ``run`` is the run directory, ``demos`` the bags for the demo loader ("none" as the only one: train without
    demonstrations), ``nodes`` the names to start here (empty: all; the others run on another machine). With ``arms``
    each of them has a driver and an actor in a namespace of its own below ``namespace``; the learner takes the space
    from the first. Raises ConfigError if there is something wrong with nodes, namespace or arms.
    """
    namespaces = namespaces_of_arms(namespace, arms)
    files = tuple(str(path) for path in parameter_files)
    without_demos = demos == ("none",)
    above = f"/{namespace.strip('/')}".rstrip("/")
    shared = {topic: f"{above}/{topic}" for topic in SHARED} if arms else {}
    space = {"space_spec": f"/{namespaces[0]}/space_spec"} if arms else {}
    processes = [
        Process("demo_loader", "demo_loader", namespace, {"demo_path": list(demos)} if demos else {}, files, space),
        Process("learner", "learner", namespace,
                {"run": str(run)} | ({"require_demonstrations": False} if without_demos else {}), files, space,
                required=True),
        Process("monitor", "monitor", namespace, {}, files, space),
    ]
    for arm, below in zip(arms or ("",), namespaces, strict=True):
        processes += [Process("arm_driver", "arm_driver", below, {}, files, arm=arm),
                      Process("actor", "actor", below, {"run": str(run)}, files, shared, arm=arm)]
    chosen = [process for process in _chosen(processes, nodes) if process.name != "demo_loader" or not without_demos]
    if not chosen:
        raise ConfigError("nodes: expected one besides demo_loader, which has nothing to load without demonstrations")
    return chosen


def namespaces_of_arms(namespace: str, arms: Sequence[str]) -> list[str]:
    """Return the namespace of each arm's driver and actor: that of all nodes if the only arm has no name.

    Raises ConfigError for one that is no namespace, and if arms share one: two drivers would command one arm.
    """
    for name, given in [("namespace", namespace), *(("arms", arm) for arm in arms)]:
        check_namespace(name, given)
    if not all(arm.strip("/") for arm in arms):
        raise ConfigError(f"arms: expected names, found an empty one in {list(arms)}")
    namespaces = [f"{namespace.strip('/')}/{arm.strip('/')}".strip("/") for arm in arms or ("",)]
    if len(set(namespaces)) < len(namespaces):
        raise ConfigError(f"arms: expected different names, found {' '.join(arms)}")
    return namespaces


def check_namespace(name: str, namespace: str) -> None:
    """Raise ConfigError unless the option ``name`` has a ROS namespace."""
    from rclpy.exceptions import InvalidNamespaceException
    from rclpy.validate_namespace import validate_namespace

    try:
        validate_namespace(f"/{namespace.strip('/')}")
    except InvalidNamespaceException as error:
        raise ConfigError(f"{name} {namespace}: expected a ROS namespace such as 'left' or 'lab/left': "
                          f"{' '.join(str(error).split())}") from error


def _chosen(processes: list[Process], nodes: tuple[str, ...]) -> list[Process]:
    known = dict.fromkeys(process.name for process in processes)  # each once, however many arms there are
    unknown = [name for name in nodes if name not in known]
    if unknown:
        raise ConfigError(f"nodes: expected some of {', '.join(known)}, found {', '.join(unknown)}")
    return [process for process in processes if not nodes or process.name in nodes]
