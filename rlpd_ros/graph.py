# SPDX-License-Identifier: Apache-2.0
"""The system as data: which processes make up a run, with which parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rlpd_ros.errors import ConfigError

RESPAWN_DELAY = 1.0  # s
MAX_RESPAWNS = 5  # of one process within RESPAWN_WINDOW: then something is wrong that starting again does not mend
RESPAWN_WINDOW = 60.0  # s


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


def train_graph(run: str | Path, parameter_files: tuple[str, ...] = (), demos: tuple[str, ...] = (),
                nodes: tuple[str, ...] = (), namespace: str = "") -> list[Process]:
    """Return the processes of a training run.

    ``run`` is the run directory, ``demos`` the bags for the demo loader ("none" as the only one: train without
    demonstrations), ``nodes`` the names to start here (empty: all; the others run on another machine).
    """
    files = tuple(str(path) for path in parameter_files)
    without_demos = demos == ("none",)
    processes = [
        Process("arm_driver", "arm_driver", namespace, {}, files),
        Process("demo_loader", "demo_loader", namespace, {"demo_path": list(demos)} if demos else {}, files),
        Process("learner", "learner", namespace,
                {"run": str(run)} | ({"require_demonstrations": False} if without_demos else {}), files, required=True),
        Process("actor", "actor", namespace, {"run": str(run)}, files),
        Process("monitor", "monitor", namespace, {}, files),
    ]
    if without_demos:
        processes = [process for process in processes if process.name != "demo_loader"]
    known = [process.name for process in processes]
    unknown = [name for name in nodes if name not in known]
    if unknown:
        raise ConfigError(f"nodes: expected some of {', '.join(known)}, found {', '.join(unknown)}")
    return [process for process in processes if not nodes or process.name in nodes]
