# SPDX-License-Identifier: Apache-2.0
"""What this machine shows without ROS: the processes of nodes, with their domain, and what is left of its resources."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter
from pathlib import Path

from rlpd_ros.diagnosis.evidence import LocalProcess, Machine

PROC = Path("/proc")
KNOWN = 3  # looks at a process after which it is not taken for a node any more
NETWORK = Path("/sys/class/net")
KINDS = ("learner", "actor", "arm_driver", "demo_loader")
LOCAL_PROFILE = "/rlpd_ros/config/fastdds_local.xml"  # in place of a discovery range, as ros/middleware.py has it
PROFILES = ("/rlpd_ros/config/fastdds.xml", LOCAL_PROFILE)  # without shared memory
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def look(domain: int, namespace: str, run: str = "", strangers: Counter[str] | None = None) -> Machine:
    """Return what this machine is like; ``run``: a run directory, whose disk is looked at if it is here.

    Who looks again and again keeps the ``strangers`` of ``processes``.
    """
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(run).free if run else None
        return Machine(domain=domain, namespace=namespace, disk_free=free, shm_free=_free("/dev/shm"),
                       socket_buffer=_number(PROC / "sys/net/core/rmem_max"), networked=_networked(),
                       processes=tuple(processes(strangers)))
    return Machine(domain=domain, namespace=namespace, networked=_networked(), processes=tuple(processes(strangers)))


def processes(strangers: Counter[str] | None = None) -> list[LocalProcess]:
    """Return the nodes of this package that run here and may be looked into; [] where there is no /proc.

    ``strangers`` counts by process id how often one was looked at and was something else; it is brought up to date, and
    who is known by it is not looked at: one look may have come between its fork and its exec.
    """
    found, folders = [], [folder for folder in os.listdir(PROC) if folder.isdecimal()] if PROC.is_dir() else []
    strangers = Counter() if strangers is None else strangers
    for gone in strangers.keys() - set(folders):
        del strangers[gone]
    for pid in folders:
        if strangers[pid] >= KNOWN:
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):  # gone meanwhile, or somebody else's
            arguments = (PROC / pid / "cmdline").read_bytes().decode(errors="replace").split("\0")
            node = kind_of(arguments)
            if node:
                found.append(_process(PROC / pid, node, arguments))
            else:
                strangers[pid] += 1
    return found


def kind_of(arguments: list[str]) -> str:
    """Return which node a command line starts, "" if none of this package."""
    if "--ros-args" not in arguments:
        return ""
    for argument in arguments[:3]:
        folder, _, name = argument.rpartition("/")
        if name in KINDS and folder.endswith("rlpd_ros"):
            return name
    names = [a.partition(":=")[2] for a in arguments if a.startswith("__node:=")]
    return names[0] if names and names[0] in KINDS and any("rlpd_ros" in a for a in arguments) else ""


def _process(folder: Path, node: str, arguments: list[str]) -> LocalProcess:
    environment = dict(entry.partition("=")[::2] for entry in (folder / "environ").read_bytes().decode(
        errors="replace").split("\0"))
    namespaces = [a.partition(":=")[2] for a in arguments if a.startswith("__ns:=")]
    state, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
    if state in "ZX":
        raise ValueError("dead")
    started = int(rest[18]) / _TICKS
    cpu = (int(rest[10]) + int(rest[11])) / _TICKS
    files = [environment.get(f"{name}_DEFAULT_PROFILES_FILE", "") for name in ("FASTRTPS", "FASTDDS")]
    local = environment.get("ROS_LOCALHOST_ONLY") == "1"
    discovery = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST" if local else "SUBNET")
    if discovery == "SYSTEM_DEFAULT" and any(file.endswith(LOCAL_PROFILE) for file in files):
        discovery = "LOCALHOST"
    return LocalProcess(
        pid=int(folder.name), node=node, namespace=namespaces[0] if namespaces else "/",
        domain=int(environment.get("ROS_DOMAIN_ID") or 0), discovery=discovery.upper(),
        age=time.clock_gettime(time.CLOCK_BOOTTIME) - started, stopped=state in "Tt", cpu=cpu,
        secured=(environment.get("ROS_SECURITY_ENABLE"), environment.get("ROS_SECURITY_STRATEGY")) == ("true", "Enforce"),
        shared_memory=not any(file.endswith(PROFILES) for file in files))


def _networked() -> bool:
    """Tell whether an interface besides the loopback is up."""
    for interface in NETWORK.glob("*"):
        with contextlib.suppress(OSError):
            if interface.name != "lo" and (interface / "operstate").read_text().strip() in ("up", "unknown"):
                return True
    return False


def _free(folder: str) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
