# SPDX-License-Identifier: Apache-2.0
"""Latched messages that get lost, or come anew: nobody goes on by an old one, and nobody waits for ever."""

from __future__ import annotations

import time
from dataclasses import replace

from recordings import STATE

from rlpd_ros.nodes.actor import ActorNode
from rlpd_ros.nodes.arm_driver import ArmDriverNode
from rlpd_ros.nodes.demo_loader import DemoLoaderNode
from rlpd_ros.ros import latched, messages, qos

NETWORK = {"hidden_dims": [8]}


def lose(node, *topics):
    """Take the message that waits for ``node`` on each of the topics out of its way, as if it had never come."""
    for topic in topics:
        subscription = next(s for s in node.subscriptions if s.topic_name == f"/{topic.name}")
        deadline = time.monotonic() + 10
        while subscription.handle.take_message(subscription.msg_type, False) is None:
            assert time.monotonic() < deadline, topic.name
            time.sleep(0.001)


def test_a_learner_that_misses_the_space_or_the_manifest_gets_them_all_the_same(graph, learn, demonstrations,
                                                                               monkeypatch):
    monkeypatch.setattr(latched, "FIRST_PATIENCE", 0.3)
    graph.listen(qos.LEARNER_STATUS, qos.DEMO_TRANSITIONS)
    graph.add(ArmDriverNode)
    loader = graph.add(DemoLoaderNode, demo_path=[str(demonstrations)])
    first = learn(require_demonstrations=True)
    graph.until(lambda: loader._told, "a loader that has no reason to say anything")
    graph.remove(first)
    second = learn(require_demonstrations=True)
    lose(second, qos.SPACE_SPEC, qos.DEMO_MANIFEST)
    graph.until(lambda: (s := graph.last(qos.LEARNER_STATUS)) and s.session == second._session
                and s.demo_buffer_size, "demonstrations")


def test_an_actor_that_misses_the_space_and_the_policy_gets_them_all_the_same(graph, learn, monkeypatch):
    monkeypatch.setattr(latched, "FIRST_PATIENCE", 0.3)
    graph.listen(qos.POLICY_VERSION, qos.ACTOR_STATUS)
    graph.add(ArmDriverNode)
    learn(training_starts=10**6)
    graph.until(lambda: graph.last(qos.POLICY_VERSION), "a policy, the only one for a long time")
    lose(graph.add(ActorNode, **NETWORK), qos.SPACE_SPEC, qos.POLICY_PARAMS)
    graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and s.policy_actions, "an actor that acts")


def test_who_waits_for_a_node_that_is_not_there_yet_does_not_subscribe_anew(graph, monkeypatch):
    monkeypatch.setattr(latched, "FIRST_PATIENCE", 0.3)
    graph.listen(qos.ACTOR_STATUS)
    actor = graph.add(ActorNode, **NETWORK)
    first, began = actor._space._subscription, time.monotonic()
    graph.until(lambda: time.monotonic() - began > 1.0)
    assert actor._space._subscription is first
    graph.add(ArmDriverNode)
    graph.until(lambda: actor._actor is not None, "the space")


def test_an_arm_that_comes_back_as_another_is_not_moved_by_the_space_of_the_one_before(graph, monkeypatch):
    monkeypatch.setattr(latched, "FIRST_PATIENCE", 1.0)
    driver = graph.add(ArmDriverNode, lockstep=False)
    actor = graph.add(ActorNode, **NETWORK, random_steps=10**6)
    graph.until(lambda: actor._actor is not None and actor._actor.report.env_steps > 3, "an actor that acts")
    graph.remove(driver)
    graph.drain()
    before = actor._actor
    steps = before.report.env_steps
    graph.listen(qos.OBSERVATION, qos.ACTION)
    driver = graph.add(ArmDriverNode, lockstep=False, translation_scale=[0.005] * 3)
    lose(actor, qos.SPACE_SPEC)
    graph.until(lambda: len(graph.heard["observation"]) > 5, "the arm shows its state")
    assert (actor._actor, graph.heard["action"]) == (before, [])
    graph.until(lambda: actor._actor is not before and actor._actor.report.env_steps > 3, "an actor that follows")
    assert actor._actor.spec.fingerprint == driver._driver.spec.fingerprint
    assert before.report.env_steps == steps


def test_an_arm_that_comes_back_with_another_pace_is_noticed(graph, learn, capfd):
    graph.listen(qos.LEARNER_STATUS)
    spaces = qos.publisher(graph.ears, qos.SPACE_SPEC)
    spaces.publish(messages.from_space_spec(STATE))
    actor, learner = graph.add(ActorNode, **NETWORK), learn(status_period=0.05)
    graph.until(lambda: actor._actor is not None and learner._starting is not None, "the first space")
    before = actor._actor
    spaces.publish(messages.from_space_spec(replace(STATE, max_episode_steps=7)))  # of which nobody needs to know
    spaces.publish(messages.from_space_spec(replace(STATE, lockstep=not STATE.lockstep)))
    graph.until(lambda: actor._actor is not before)
    assert actor._actor.spec.lockstep is not STATE.lockstep
    told = graph.until(lambda: (status := graph.last(qos.LEARNER_STATUS)) and status.space_difference)
    assert told == f"lockstep: this run has {STATE.lockstep}, the arm now has {not STATE.lockstep}"
    said = "".join(capfd.readouterr())
    assert said.count("the arm driver's space has changed: ") == 1
    assert f"changed: lockstep: before {STATE.lockstep}, now {not STATE.lockstep}. Starting over" in said
