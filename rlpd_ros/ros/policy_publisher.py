# SPDX-License-Identifier: Apache-2.0
"""The way out of a learner for policies, during which it goes on learning."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from rclpy.node import Node

from rlpd_ros.ros import messages, qos
from rlpd_ros.types import PolicySnapshot


class PolicyPublisher:
    """Publish on `policy_params` of ``node`` in a thread: to prove and send a large policy takes milliseconds."""

    def __init__(self, node: Node) -> None:
        self._publisher = qos.publisher(node, qos.POLICY_PARAMS)
        self._thread = ThreadPoolExecutor(1)

    def publish(self, make: Callable[[], PolicySnapshot]) -> Future[PolicySnapshot]:
        """Make a policy and publish it, once those before are out; the future is done when it is out as well."""
        return self._thread.submit(self._send, make)

    def _send(self, make: Callable[[], PolicySnapshot]) -> PolicySnapshot:
        snapshot = make()
        self._publisher.publish(messages.from_policy_snapshot(snapshot))
        return snapshot

    def close(self) -> None:
        """Return when the last policy is out."""
        self._thread.shutdown()
