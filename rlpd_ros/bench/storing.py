# SPDX-License-Identifier: Apache-2.0
"""A node that stores transitions exactly as the learner does and does nothing else: for spaces with images too."""

from __future__ import annotations

import sys
import time

from rclpy.node import Node

from rlpd_ros.bench.workload import space
from rlpd_ros.data.intake import Intake
from rlpd_ros.data.replay_buffer import ReplayBuffer
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.main import run_node, wall_ns
from rlpd_ros.ros.run_log import RunLog
from rlpd_ros.runs import RunDirectory
from rlpd_ros.settings import LogConfig
from rlpd_ros.status import LearnerReport
from rlpd_ros.types import Acknowledgement, new_session

CAPACITY = 5_000  # transitions


class StoringNode(Node):
    """Parameters: ``run``, the folder; ``images``, the number of cameras of 128 x 128."""

    def __init__(self) -> None:
        super().__init__("learner")
        self._spec = space(self.declare_parameter("images", 0).value, lockstep=False)
        run = RunDirectory.open(self.declare_parameter("run", "").value)
        self._log = RunLog(run.transitions, self._spec, LogConfig(), CAPACITY)
        self._session = new_session("learner")
        self._intake = Intake(self._spec, ReplayBuffer(self._spec, CAPACITY), ReplayBuffer(self._spec, 1),
                              LearnerReport(self._session), self._log.write, self.get_logger().warning, time.monotonic)
        self._acks = qos.publisher(self, qos.TRANSITIONS_ACK)
        qos.subscription(self, qos.TRANSITIONS, self._on_transition)

    def _on_transition(self, message) -> None:
        self._intake.receive(messages.to_transition(message, self._spec))

    def work(self) -> bool:
        if self._intake.to_acknowledge:
            self._log.flush()
        for session in self._intake.to_acknowledge:
            sequence = self._intake.ledger[session].sequence
            self._acks.publish(messages.from_fields(qos.TRANSITIONS_ACK.type, Acknowledgement(
                session, self._session, sequence, sequence), wall_ns()))
        self._intake.to_acknowledge.clear()
        return False

    def close(self) -> None:
        self._log.close()


if __name__ == "__main__":
    sys.exit(run_node(StoringNode))
