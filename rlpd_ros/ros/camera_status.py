# SPDX-License-Identifier: Apache-2.0
"""What an arm driver says of its cameras on /diagnostics, and what a diagnosis reads there."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from rlpd_ros.diagnosis.evidence import CameraSight
from rlpd_ros.diagnosis.finding import Level
from rlpd_ros.ros.cameras import CameraInput
from rlpd_ros.untrusted import printable

WAITED = ("missing", "stale", "refused")  # why an observation had to wait
OFTEN = 0.2  # share of observations that waited for a camera at which it is said
STATUS = re.compile(r"rlpd(/[\w/]{1,200})?: camera (\w{1,100})")


class CameraStatus:
    """Tell how each camera did since it was last asked for."""

    def __init__(self, namespace: str, inputs: dict[str, CameraInput]) -> None:
        self._namespace = namespace.rstrip("/")
        self._inputs = inputs
        self._before: dict[str, Counter[str]] = {name: Counter() for name in inputs}

    def messages(self) -> list[Any]:
        """Return a diagnostic_msgs/DiagnosticStatus for each camera."""
        from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

        statuses = []
        for name, camera in self._inputs.items():
            level, text = self._judge(camera)
            values = {count: str(camera.counts[count]) for count in ("received", "used", *WAITED)}
            statuses.append(DiagnosticStatus(
                level=bytes([level]), name=f"rlpd{self._namespace}: camera {name}", message=text, hardware_id=name,
                values=[KeyValue(key=key, value=value) for key, value in values.items()]))
            self._before[name] = Counter(camera.counts)
        return statuses

    def _judge(self, camera: CameraInput) -> tuple[Level, str]:
        if camera.fault:
            return Level.ERROR, camera.fault
        since = camera.counts - self._before[camera.name]
        waited = sum(since[why] for why in WAITED)
        looked = waited + since["used"]
        if waited > OFTEN * looked:
            why = ", ".join(f"{since[why]} {why}" for why in WAITED if since[why])
            return Level.WARN, f"{waited} of the last {looked} observations waited for {camera.topic.name}: {why}"
        return Level.OK, f"{since['used']} images used"


def read_statuses(message: Any, namespace: str, at: float) -> dict[str, CameraSight]:
    """Return what a diagnostic_msgs/DiagnosticArray says of the cameras of ``namespace`` and below, by their names."""
    found = {}
    for status in message.status:
        match = STATUS.fullmatch(status.name)
        if match and f"{match[1] or ''}/".startswith(f"{namespace.rstrip('/')}/"):
            name = f"{(match[1] or '')[len(namespace.rstrip('/')):]}/{match[2]}".lstrip("/")
            level = Level(status.level[0]) if status.level[0] in tuple(Level) else Level.ERROR
            found[name] = CameraSight(at, level.is_fault, level == Level.ERROR, printable(status.message))
    return found
