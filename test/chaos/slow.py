# SPDX-License-Identifier: Apache-2.0
"""An actor that takes 0.2 s to take over a policy while 20 are published a second: how old is what it acts on?"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from unittest import mock

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from rlpd_ros import actor as actor_module
from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.factory import make_arm
from rlpd_ros.bench.timing import paced
from rlpd_ros.nodes.actor import ActorNode
from rlpd_ros.nodes.arm_driver import ArmDriverNode
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.policy import Policy, make_snapshot
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.main import wall_ns
from rlpd_ros.tables import Row, at_least, at_most, informative
from rlpd_ros.types import WINDOW, Observation

UPDATE = 0.2  # s that the actor takes for each policy
PERIOD = 0.05  # s between two publications
SETTLING = 2.0  # s that are not counted: everybody finds the others


@dataclass
class Ages:
    """Ages of policies, s since their publication: when their update began, when it ended, when they were acted on."""

    begun: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    acted: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)


class _Life:
    """A context of its own, whose nodes a thread spins."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._over = False

    def add(self, node) -> None:
        self._executor.add_node(node)

    def start(self) -> None:
        self._thread.start()

    def _spin(self) -> None:
        while not self._over:
            self._executor.spin_once(timeout_sec=0.02)

    def stop(self) -> None:
        self._over = True
        self._thread.join(10)
        rclpy.shutdown(context=self.context)


def measure(seconds: float) -> list[Row]:
    """Act for ``seconds`` on 20 policies a second, each of which takes 0.2 s to apply."""
    arm = make_arm(ArmConfig())
    arm.close()
    policy = Policy(arm.spec, PolicyConfig(hidden_dims=(8,)))
    params, probe = policy.init(0), Observation(np.zeros(arm.spec.state_size, np.float32))
    ages, published, began = Ages(), {}, time.monotonic()
    verify = actor_module.verify

    def slowly(snapshot, *arguments):
        ages.begun.append((wall_ns() - snapshot.stamp) / 1e9)
        time.sleep(UPDATE)  # the actor's thread is busy, as a large network makes it
        result = verify(snapshot, *arguments)
        ages.ended.append((wall_ns() - snapshot.stamp) / 1e9)
        return result

    def acted(message) -> None:
        if message.policy_version and time.monotonic() - began > SETTLING:
            ages.acted.append((wall_ns() - published[message.policy_version]) / 1e9)
            ages.versions.append(message.policy_version)

    lives = _Life(), _Life()
    learner = rclpy.create_node("learner", context=lives[0].context)
    policies = qos.publisher(learner, qos.POLICY_PARAMS)
    acks = qos.publisher(learner, qos.TRANSITIONS_ACK)
    qos.subscription(learner, qos.ACTION, acted)
    qos.subscription(learner, qos.ACTOR_STATUS, lambda m: acks.publish(qos.TRANSITIONS_ACK.type(
        session=m.session, learner_session="learner", sequence=m.transitions_sent, budget=10**9,
        window=WINDOW)))
    driver = ArmDriverNode(context=lives[0].context)
    lives[0].add(learner)
    lives[0].add(driver)
    actor = ActorNode(context=lives[1].context,
                      cli_args=["--ros-args", "-p", "hidden_dims:=[8]", "-p", "eval_every:=0"])
    lives[1].add(actor)
    try:
        for life in lives:
            life.start()
        with mock.patch.object(actor_module, "verify", slowly):
            for version, _ in enumerate(paced(PERIOD), 1):
                if time.monotonic() - began > seconds + SETTLING:
                    break
                snapshot = make_snapshot(policy, policy.serialize(params), arm.spec, probe, session="learner",
                                         version=version, gradient_step=version, stamp=wall_ns())
                published[version] = snapshot.stamp
                policies.publish(messages.from_policy_snapshot(snapshot))
    finally:
        for life in reversed(lives):
            life.stop()
    begun = np.array(ages.begun[len(ages.begun) // 10:]) / PERIOD
    return [
        informative("publications", len(published)),
        at_least("policies applied", len(ages.ended), 0.5 * seconds / (UPDATE + PERIOD)),
        at_least("actions", len(ages.acted), 10),
        informative("age of a policy when its update began, median", float(np.median(begun)), "periods"),
        at_most("age of a policy when its update began, longest", float(begun.max()), 2.0, "periods"),
        informative("age of a policy when it was acted on, median", float(np.median(ages.acted)), "s"),
        at_most("age of a policy when it was acted on, longest", max(ages.acted), 2 * (UPDATE + 2 * PERIOD), "s"),
        at_most("actions on an older policy than the one before",
                sum(b < a for a, b in pairwise(ages.versions)), 0)]
