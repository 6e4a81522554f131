# SPDX-License-Identifier: Apache-2.0
"""The way out of a learner for policies, during which it goes on learning."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from rclpy.node import Node

from rlpd_ros.ros import messages, qos
from rlpd_ros.types import PolicySnapshot


class PolicyPublisher:
    """Publish on `policy_params` of ``node`` in a thread: to copy and send a large policy takes milliseconds."""

    def __init__(self, node: Node) -> None:
        self._publisher = qos.publisher(node, qos.POLICY_PARAMS)
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def publish(self, snapshot: PolicySnapshot) -> None:
        """Publish as soon as the policy before is out; raises what went wrong with that."""
        if self._last is not None:
            self._last.result()
        self._last = self._thread.submit(self._send, snapshot)

    def _send(self, snapshot: PolicySnapshot) -> None:
        self._publisher.publish(messages.from_policy_snapshot(snapshot))

    def close(self) -> None:
        """Return when the last policy is out."""
        self._thread.shutdown()
