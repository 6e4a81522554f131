# SPDX-License-Identifier: Apache-2.0
"""A subscription to a latched topic without which nothing goes on; it is made anew if what is published never comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from rlpd_ros.ros import qos
from rlpd_ros.untrusted import Refusals

FIRST_PATIENCE = 3.0  # s; doubled with each attempt, for a large policy on a slow network takes its time
LAST_PATIENCE = 60.0  # s


class LatchedSubscription:
    """Subscribe ``node`` to ``topic`` as ``qos.subscription`` does, and anew while its message stays away.

    Late joiners do miss a latched message now and then (github.com/eProsima/Fast-DDS/issues/3822): nobody would ever
    send it again, and a whole run would wait for it. Another subscription is sent it anew.
    """

    def __init__(self, node: Node, topic: qos.Topic, callback: Callable[[Any], None], refusals: Refusals) -> None:
        def receive(message: Any) -> None:
            self._waits_since = time.monotonic()  # something does come
            callback(message)

        self._node = node
        self._subscribe = lambda: qos.subscription(node, topic, receive, refusals)
        self._subscription = self._subscribe()
        self._patience = FIRST_PATIENCE
        self._waits_since = time.monotonic()

    def check(self, missing: bool) -> None:
        """Subscribe anew if the newest message has been ``missing`` for too long although the topic has a publisher.

        To be called often, and from no callback of this subscription.
        """
        now = time.monotonic()
        if not missing or not self._node.count_publishers(self._subscription.topic_name):
            self._patience, self._waits_since = FIRST_PATIENCE, now
        elif now - self._waits_since > self._patience:
            self._node.get_logger().warning(
                f"{self._subscription.topic_name} has a publisher, but nothing of use has come for "
                f"{self._patience:g} s: subscribing anew")
            self._node.destroy_subscription(self._subscription)
            self._subscription = self._subscribe()
            self._patience, self._waits_since = min(2 * self._patience, LAST_PATIENCE), now
