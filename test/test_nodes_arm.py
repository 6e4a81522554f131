# SPDX-License-Identifier: Apache-2.0
"""Nodes on real middleware whose arm is restarted, becomes another, or takes long to reset."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from rclpy.task import Future
from recordings import STATE
from std_srvs.srv import Trigger

from rlpd_ros.nodes.actor import ActorNode
from rlpd_ros.nodes.arm_driver import ArmDriverNode
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.bags import TransitionLog
from rlpd_ros.types import Observation, TimeStep

NETWORK = {"hidden_dims": [8]}


def test_of_two_actors_on_an_arm_each_tells_its_own_steps_and_of_the_other(graph, learn, run):
    graph.listen(qos.OBSERVATION, qos.ACTOR_STATUS)
    driver = graph.add(ArmDriverNode)
    actors = [graph.add(ActorNode, **NETWORK) for _ in range(2)]
    learn()
    told = "moves this arm too: stop one of the two"
    graph.until(lambda: any(told in s.text for s in graph.heard["actor_status"]) and all(
        actor._actor is not None and actor._actor.report.env_steps > 20 for actor in actors))
    sessions = {actor._actor.session for actor in actors}
    graph.until(lambda: len(list(TransitionLog.read(run.transitions, driver._driver.spec))) > 60)
    executed = {(o.header.stamp.sec, o.header.stamp.nanosec): o.actor for o in graph.heard["observation"]}
    assert set(executed.values()) >= sessions
    for record in TransitionLog.read(run.transitions, driver._driver.spec):
        after = [o for o in graph.heard["observation"] if o.step == record.step + 1 and np.array_equal(
            np.asarray(o.executed_action, np.float32), record.action)]
        assert record.session in {o.actor for o in after}


def test_a_restarted_arm_is_taken_up_again(graph, learn):
    driver = graph.add(ArmDriverNode)
    actor = graph.add(ActorNode, **NETWORK)
    learn()
    graph.until(lambda: actor._actor is not None and actor._actor.report.episodes >= 1)
    actor.reset_arm()
    graph.remove(driver, properly=False)  # before it answers
    steps = actor._actor.report.env_steps
    graph.add(ArmDriverNode)
    graph.until(lambda: actor._actor.report.env_steps > steps + 60)  # beyond the end of an episode


class SlowArm(Node):
    """Show how an episode ended, again and again, and take as long for a reset as the test wants."""

    def __init__(self, session: str = "arm-1", **kwargs) -> None:
        super().__init__("arm_driver", **kwargs)
        self.asked = 0
        self.answer: Future = Future(executor=None)
        self._last = TimeStep(session, 1, 3, Observation(np.zeros(STATE.state_size, np.float32)), truncated=True,
                              executed_action=np.zeros(STATE.action_size, np.float32), stamp=1)
        self._space = qos.publisher(self, qos.SPACE_SPEC)
        self._space.publish(messages.from_space_spec(STATE, 1))
        self._observations = qos.publisher(self, qos.OBSERVATION)
        self._reset = self.create_service(Trigger, "reset", self._on_reset)
        self.create_timer(0.05, lambda: self._observations.publish(messages.from_time_step(self._last, STATE)))

    async def _on_reset(self, request, response):
        self.asked += 1
        await self.answer
        return response


def test_an_arm_is_asked_once_for_a_reset_that_takes_long_and_again_if_it_was_started_again(graph):
    graph.listen(qos.ACTOR_STATUS)
    arm = graph.add(SlowArm)
    graph.add(ActorNode, random_steps=9, **NETWORK)
    graph.until(lambda: arm.asked, "the request")
    graph.heard["actor_status"].clear()
    graph.until(lambda: len(graph.heard["actor_status"]) > 3)
    assert arm.asked == 1
    assert all(s.resetting for s in graph.heard["actor_status"])
    arm.answer.set_result(None)
    graph.until(lambda: arm.asked > 1, "another request, since no episode began")
    graph.remove(arm)
    graph.until(lambda: not graph.last(qos.ACTOR_STATUS).resetting, "no hope for an answer of who is gone")
    again = graph.add(SlowArm)
    graph.until(lambda: again.asked, "the request to the one that was started again")


def test_an_arm_that_is_restarted_as_another_and_then_as_before_gets_the_policy_again(graph, learn):
    graph.listen(qos.ACTOR_STATUS)
    driver = graph.add(ArmDriverNode)
    actor = graph.add(ActorNode, **NETWORK)
    learn()
    graph.until(lambda: actor._actor is not None and actor._actor.report.env_steps > 20)
    graph.remove(driver)
    other = graph.add(ArmDriverNode, control_rate=20.0)
    refused = graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and "was refused" in s.text and s.text,
                          "words on the space that the policy was not made for")
    assert "space" in refused
    graph.remove(other)
    graph.add(ArmDriverNode)
    graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)).applied_version and s.env_steps > 20, "the policy again")
