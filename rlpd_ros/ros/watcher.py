# SPDX-License-Identifier: Apache-2.0
"""Listen to a running graph's status from a process that is not part of it."""

from __future__ import annotations

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from rlpd_ros.enclaves import WATCH, enclave_arguments
from rlpd_ros.ros import messages, qos
from rlpd_ros.status import ActorReport, LearnerReport
from rlpd_ros.untrusted import Refusals


class StatusWatcher:
    """Hold the newest status of the learner and of the actor (of several actors: the one heard last)."""

    def __init__(self, namespace: str = "") -> None:
        self.learner: LearnerReport | None = None
        self.actor: ActorReport | None = None
        self._context = Context()
        rclpy.init(args=["--ros-args", *enclave_arguments(WATCH, namespace)], context=self._context,
                   signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("rlpd_progress", namespace=namespace, context=self._context,
                                       use_global_arguments=False, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        refusals = Refusals(self._node.get_logger().warning)
        qos.subscription(self._node, qos.LEARNER_STATUS, self._on_learner, refusals)
        qos.subscription(self._node, qos.ACTOR_STATUS, self._on_actor, refusals)

    def _on_learner(self, message) -> None:
        self.learner = messages.to_fields(LearnerReport, message)

    def _on_actor(self, message) -> None:
        self.actor = messages.to_fields(ActorReport, message)

    def spin(self, seconds: float) -> None:
        """Take in what arrives within ``seconds``, or one message."""
        self._executor.spin_once(timeout_sec=seconds)

    def __enter__(self) -> StatusWatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)
