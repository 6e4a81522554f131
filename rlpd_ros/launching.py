# SPDX-License-Identifier: Apache-2.0
"""The graph as launch actions: for launch files only, since ROS 2 from wheels has no ``launch``."""

from __future__ import annotations

import time

from launch.actions import EmitEvent, LogInfo
from launch.events import Shutdown
from launch_ros.actions import Node

from rlpd_ros.errors import USER_ERROR
from rlpd_ros.graph import MAX_RESPAWNS, RESPAWN_DELAY, RESPAWN_WINDOW, Process


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
        package="rlpd_ros", executable=process.executable, name=process.name, namespace=process.namespace,
        parameters=[*process.parameter_files, *([process.parameters] if process.parameters else [])],
        remappings=list(process.remaps.items()), additional_env=process.environment,
        ros_arguments=["--log-level", log_level, *process.enclave_arguments],
        respawn=process.respawn, respawn_delay=RESPAWN_DELAY, on_exit=on_exit, output="screen", emulate_tty=True)


def split(text: str) -> tuple[str, ...]:
    """Return the parts of a list that is written with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
