# SPDX-License-Identifier: Apache-2.0
"""Monitor node: watches the graph and publishes on /diagnostics, one status per check, what is wrong and what to do."""

from __future__ import annotations

import os
import sys

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from rlpd_ros.diagnosis import Finding, diagnose, faults
from rlpd_ros.ros import qos
from rlpd_ros.ros.graph_watcher import GraphWatcher, status_name
from rlpd_ros.ros.main import run_node
from rlpd_ros.ros.parameters import declare
from rlpd_ros.settings import MonitorConfig


class MonitorNode(Node):
    """The checks of ``rlpd_ros.diagnosis``, again and again."""

    def __init__(self, **kwargs) -> None:
        super().__init__("monitor", **kwargs)
        (self._config,) = declare(self, MonitorConfig)
        self._watcher = GraphWatcher(self, self._config.patience, int(os.environ.get("ROS_DOMAIN_ID") or 0))
        self._diagnostics = qos.publisher(self, qos.DIAGNOSTICS)
        self._told = ""
        self.create_timer(self._config.period, self._examine)

    def _examine(self) -> None:
        findings = diagnose(self._watcher.look())
        message = DiagnosticArray(status=[self._status(finding) for finding in findings])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
        self._tell(faults(findings))

    def _tell(self, found: list[Finding]) -> None:
        """Print the first fault when it has become another one."""
        first = found[0].check.name if found else ""
        if first != self._told:
            self._told = first
            if found:
                self.get_logger().warning(f"{first}: {self._text(found[0].summary)}. {self._text(found[0].remedy)}")
            else:
                self.get_logger().info("no fault found any more")

    def _status(self, finding: Finding) -> DiagnosticStatus:
        values = [KeyValue(key=name, value=str(value)) for name, value in finding.values.items()]
        if finding.level.is_fault:
            values.append(KeyValue(key="remedy", value=self._text(finding.remedy)))
        return DiagnosticStatus(
            level=bytes([finding.level]), name=status_name(self.get_namespace(), finding.check.name),
            message=self._text(finding.summary), hardware_id="rlpd_ros", values=values)

    def _text(self, text) -> str:
        return text.in_language(self._config.language)


def main() -> int:
    return run_node(MonitorNode)


if __name__ == "__main__":
    sys.exit(main())
