# SPDX-License-Identifier: Apache-2.0
"""The graph as launch actions: for launch files only, since ROS 2 from wheels has no ``launch``."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Mapping
from typing import Any

from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo
from launch.events import Shutdown
from launch.launch_context import LaunchContext
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from rlpd_ros.errors import USER_ERROR
from rlpd_ros.graph import MAX_RESPAWNS, RESPAWN_DELAY, RESPAWN_WINDOW, SAVE_TIMEOUT, Process
from rlpd_ros.untrusted import parse_json

LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


def declared(arguments: Mapping[str, tuple[str | None, str]]) -> list[DeclareLaunchArgument]:
    """Return the actions that declare launch arguments: name -> default, description."""
    return [DeclareLaunchArgument(name, default_value=default, description=text,
                                  choices=LOG_LEVELS if name == "log_level" else None)
            for name, (default, text) in arguments.items()]


def arguments_of(context: LaunchContext, names: Iterable[str]) -> dict[str, str]:
    """Return the values of launch arguments, the namespace below that of a PushRosNamespace around the launch file.

    The names that topics and parameter sections go by have all of it in them, so nodes cannot be left to add it.
    """
    values = {name: LaunchConfiguration(name).perform(context) for name in names}
    if not values["namespace"].startswith("/"):
        above = context.launch_configurations.get("ros_namespace", "")
        values["namespace"] = f"{above}/{values['namespace']}".strip("/")
    return values


def to_action(process: Process, log_level: str) -> Node:
    """Turn one process of the graph into a launch action."""
    exits: list[float] = []

    def on_exit(event, _context):
        now = time.monotonic()
        exits[:] = [at for at in exits if now - at < RESPAWN_WINDOW] + [now]
        final = event.returncode == USER_ERROR or (process.required and event.returncode == 0)
        if final or not process.respawn or len(exits) > MAX_RESPAWNS:
            reason = f"{process.name} ended with status {event.returncode}: stopping all"
            return [LogInfo(msg=reason), EmitEvent(event=Shutdown(reason=reason))]
        return None

    return Node(
        package="rlpd_ros", executable=process.executable, name=process.name,
        namespace=f"/{process.namespace.strip('/')}",  # absolute: nothing is put before it once more
        parameters=[*process.parameter_files, *([process.parameters] if process.parameters else [])],
        remappings=list(process.remaps.items()), additional_env=process.environment,
        ros_arguments=["--log-level", log_level, *process.enclave_arguments],
        respawn=process.respawn, respawn_delay=RESPAWN_DELAY, on_exit=on_exit, output="both", emulate_tty=True,
        sigterm_timeout=LaunchConfiguration("sigterm_timeout", default=SAVE_TIMEOUT))


def prepared(values: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    """Let the nodes' own Python prepare what shall start: this one may lack their libraries.

    ``values``: those of the launch arguments that the command has by the same name; an empty one is its default.
    Raises RuntimeError in one line, after what an arm has printed.
    """
    command = ["python3", "-m", "rlpd_ros.cli.prepare", *arguments,
               *(f"--{name}={value}" for name, value in values.items() if value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return parse_json(done.stdout)


def split(text: str) -> tuple[str, ...]:
    """Return the parts of a list that is written with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
