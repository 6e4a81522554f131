# SPDX-License-Identifier: Apache-2.0
"""A person's end of the topics: the arm's space comes in, the person's actions go out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.latched import LatchedSubscription
from rlpd_ros.ros.main import wall_ns
from rlpd_ros.types import ActionRecord, Command, SpaceSpec, new_session
from rlpd_ros.untrusted import Refusals

LAST_WORDS = 3  # times that the last action is sent
LAST_PAUSE = 0.03  # s after each of them


class Interventions:
    """Let ``node`` send actions on `intervention`; call ``on_space`` with the arm's space when it is known or new."""

    def __init__(self, node: Node, on_space: Callable[[SpaceSpec], None], refusals: Refusals) -> None:
        self._session = new_session(node.get_name())
        self._on_space = on_space
        self._spec: SpaceSpec | None = None
        self._publisher = qos.publisher(node, qos.INTERVENTION)
        self._outcomes = qos.publisher(node, qos.OUTCOME)
        self._space = LatchedSubscription(node, qos.SPACE_SPEC, self._receive, refusals)

    def _receive(self, message: Any) -> None:
        spec = messages.to_space_spec(message)
        if self._spec is None or self._spec.changes(spec):
            self._on_space(spec)
            self._spec = spec

    def check(self) -> None:
        """Ask for the space again if it was published and never came. To be called often."""
        self._space.check(missing=self._spec is None)

    @property
    def listeners(self) -> int:
        return self._publisher.get_subscription_count()

    def send(self, command: Command) -> None:
        """Publish a command. It answers no observation: episode and step are 0."""
        self._publisher.publish(messages.from_action(
            ActionRecord(self._session, 0, 0, command.action, 0, command.source, wall_ns())))

    def judge(self, success: bool) -> None:
        """Publish that the episode is over."""
        self._outcomes.publish(messages.from_outcome(success, wall_ns()))

    def close(self, command: Command | None) -> None:
        """Publish the last command of this process, if there is one, so that the arm stands still at once.

        Without it the arm would go on with the one before until that is too old. It is sent again and time passes, for
        what a publisher sends just before it goes away is lost now and then.
        """
        if command is not None:
            for _ in range(LAST_WORDS):
                self.send(command)
                time.sleep(LAST_PAUSE)
