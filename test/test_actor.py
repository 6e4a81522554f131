# SPDX-License-Identifier: Apache-2.0
"""The actor's logic, with a real policy: which policies it applies, and what it says about itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from actor_world import PARAMS, POLICY, SPEC, World, snapshot, state, waits_for

from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.policy import Policy, make_snapshot
from rlpd_ros.status import ActorState, LearnerReport, LearnerState
from rlpd_ros.types import (
    Source,
)

# Before the first policy


def test_without_a_policy_it_holds_still_and_says_so() -> None:
    world = World()
    for step in (0, 0, 0):
        world.observe(step)
        world.actor.tick()
    assert world.actions == []
    waiting, text = waits_for(world)
    assert waiting is ActorState.WAITING_FOR_POLICY
    assert "holding still: no policy received yet" in text
    world.actor.offer(snapshot())
    assert [a.source for a in world.actions] == [Source.POLICY]  # to the observation that was waiting
    assert world.actions[0].stamp == world.stamp
    assert waits_for(world)[0] is ActorState.ACTING


def test_a_person_needs_no_policy() -> None:
    world = World()
    world.begin()
    assert world.actions == []
    world.actor.intervene(np.ones(3))
    world.actor.tick()
    assert [(a.source, a.policy_version) for a in world.actions] == [(Source.INTERVENTION, 0)]
    world.now += 1.0
    world.observe(1)
    assert len(world.actions) == 1  # the person has let go
    assert waits_for(world)[0] is ActorState.WAITING_FOR_POLICY


@pytest.mark.parametrize("state", [LearnerState.FINISHED, LearnerState.FAILED])
def test_when_training_is_over_the_arm_holds_still_until_it_goes_on(state: LearnerState) -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    assert len(world.actions) == 1
    world.actor.hear(LearnerReport("learner-1", state=state, text="success rate 100%"))
    world.actor.intervene(np.ones(3))
    world.observe(1)
    assert len(world.actions) == 1
    assert len(world.sent) == 1  # what was done before is still told
    found, text = waits_for(world)
    assert found is ActorState.FINISHED
    assert "success rate 100%" in text
    world.actor.hear(LearnerReport("learner-1", state=LearnerState.TRAINING))
    world.actor.tick()
    assert len(world.actions) == 2


def test_random_steps_are_counted_exactly_and_marked() -> None:
    world = World(random_steps=7)
    for _ in range(2):
        world.run_episode(3)
    world.begin()
    assert "RANDOM for 1 more" in world.actor.status().text
    world.advance()
    assert len(world.actions) == 7
    assert waits_for(world)[0] is ActorState.WAITING_FOR_POLICY
    world.actor.offer(snapshot(2))
    world.advance()
    assert [a.source for a in world.actions] == [Source.RANDOM] * 7 + [Source.POLICY] * 2
    assert [a.policy_version for a in world.actions] == [0] * 7 + [2] * 2
    report = world.actor.status()
    assert (report.random_actions, report.policy_actions, report.env_steps) == (7, 1, 8)
    assert report.random_share == pytest.approx(7 / 8)
    drawn = np.array([a.action for a in world.actions[:7]])
    assert len(np.unique(drawn)) == drawn.size
    assert drawn.min() < -0.5 < 0.5 < drawn.max()


def test_random_steps_come_once_in_a_run_however_often_the_actor_is_started() -> None:
    world = World(random_steps=50)
    world.actor.offer(snapshot())
    world.acknowledge(0, 10**6, env_steps=48)  # 48 were taken in an earlier life
    world.run_episode(1)
    assert "RANDOM for 2 more" in world.actor.status().text
    world.acknowledge(1, 10**6, env_steps=49)
    world.run_episode(2)
    world.acknowledge(3, 10**6, env_steps=51)
    world.run_episode(1)
    assert [a.source for a in world.actions] == [Source.RANDOM] * 3 + [Source.POLICY]


def test_no_random_steps_are_none() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.run_episode(5)
    assert {a.source for a in world.actions} == {Source.POLICY}


# Policies


WIDER = Policy(SPEC, PolicyConfig(hidden_dims=(16,)))


@pytest.mark.parametrize(("changes", "says"), [
    ({"checksum": "0" * 16}, "checksum: learner 0000000000000000"),
    ({"space_fingerprint": "feed"}, "space fingerprint: learner feed"),
    ({"data": snapshot(2).data[:-4]}, "size: expected"),
    ({"data": b"\0" * len(snapshot(2).data)}, "checksum"),
    ({"network": WIDER.description, "network_fingerprint": WIDER.fingerprint}, "hidden_dims: learner [16], actor [8]"),
    ({"probe_action": np.array([0.9, 0.9, 0.9], np.float32)}, "probe: learner's action [0.9"),
    ({"data": snapshot(3).data, "checksum": snapshot(3).checksum}, "probe: learner's action"),
])
def test_a_policy_that_is_not_what_was_learned_is_refused_and_the_old_one_kept(changes: dict, says: str) -> None:
    world = World(deterministic=True)
    world.actor.offer(snapshot(1))
    world.actor.offer(snapshot(2, **changes))
    report = world.actor.status()
    assert (report.applied_version, report.refused_version) == (1, 2)
    assert says in report.refusal
    assert len(world.warnings) == 1
    assert says in world.warnings[0]
    now = world.begin()
    np.testing.assert_array_equal(world.actions[0].action, POLICY.mode(PARAMS[1], now.observation))
    world.actor.offer(snapshot(2))
    report = world.actor.status()
    assert (report.applied_version, report.refused_version, report.refusal) == (2, 0, "")


def test_while_the_only_policy_is_refused_it_holds_still_and_says_why() -> None:
    world = World()
    world.actor.offer(snapshot(1, checksum="0" * 16))
    world.begin()
    assert world.actions == []
    assert "was refused: policy version 1 refused: checksum: learner 0000000000000000" in world.actor.status().text


def test_the_newest_policy_acts_and_its_arrival_is_told() -> None:
    world = World(deterministic=True)
    for version in (1, 2, 5, 5):
        world.actor.offer(snapshot(version))
    now = world.begin()
    np.testing.assert_array_equal(world.actions[0].action, POLICY.mode(PARAMS[5], now.observation))
    assert world.actions[0].policy_version == 5
    assert [line.split(",")[0] for line in world.said] == [
        f"received network parameters: version {version}" for version in (1, 2, 5)]
    assert world.said[-1].endswith(f"learner step 250, checksum {snapshot(5).checksum}, change 0, age 2.0 ms")
    report = world.actor.status()
    assert report.applied_gradient_step == 250
    assert report.applied_checksum == snapshot(5).checksum
    assert report.probe_error < 1e-6
    assert report.policy_age == pytest.approx(0.002)


def test_a_restarted_learners_policy_is_taken_though_its_version_is_known() -> None:
    world = World(deterministic=True)
    world.actor.offer(snapshot(1))
    world.actor.offer(replace(snapshot(2), version=1, session="learner-2"))
    now = world.begin()
    np.testing.assert_array_equal(world.actions[0].action, POLICY.mode(PARAMS[2], now.observation))


def test_exploration_varies_and_greed_does_not() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.advance(observation=state(1, 0))
    world.advance(observation=state(1, 0))
    first, second, third = (a.action for a in world.actions)
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)
    assert (np.abs([first, second, third]) <= 1).all()


# What it says about itself


def test_an_episodes_statistics_add_up() -> None:
    world = World(random_steps=2, deterministic=True)
    world.actor.offer(snapshot(2))
    world.begin()
    world.now += 1.5
    for _ in range(4):
        world.advance(reward=0.5)
    world.actor.offer(snapshot(5))
    world.advance(reward=0.5)  # was answered with version 2, three behind
    world.actor.intervene(np.zeros(3))
    world.advance(reward=0.5)
    world.advance(reward=1.0, terminated=True, success=True)
    (episode,) = world.episodes
    assert (episode.steps, episode.episode_return, episode.duration) == (7, 4.0, 1.5)
    assert (episode.random_actions, episode.policy_actions, episode.intervention_actions) == (2, 4, 1)
    assert (episode.policy_version, episode.gradient_step, episode.env_steps) == (5, 250, 7)
    assert episode.policy_lag == pytest.approx(3 / 4)
    assert (episode.success, episode.terminated, episode.truncated) == (True, True, False)
    world.run_episode(2, reward=0.5)
    assert (world.episodes[1].steps, world.episodes[1].episode_return, world.episodes[1].env_steps) == (2, 1.0, 9)


def test_an_arm_that_falls_silent_is_missed() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.now += 4
    waiting, text = waits_for(world)
    assert waiting is ActorState.WAITING_FOR_ARM
    assert "no observation for 4.0 s" in text
    world.run_episode(1)
    assert waits_for(world)[0] is ActorState.ACTING
    world.now += 2.5  # at the end of an episode too
    assert waits_for(world)[0] is ActorState.WAITING_FOR_ARM


def test_an_arm_that_resets_is_waited_for_and_asked_once() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.run_episode(1)
    world.resetting = True
    last = replace(world.observe(1, truncated=True))
    world.now += 60.0
    assert waits_for(world) == (ActorState.WAITING_FOR_ARM, "waiting until the arm has reset: 60.0 s so far")
    report = world.actor.status()
    assert (report.resetting, report.observation_age) == (True, 60.0)
    world.actor.observe(last)  # an arm that shows its state meanwhile
    assert world.resets == 1
    world.begin()
    assert waits_for(world)[0] is ActorState.ACTING
    assert not world.actor.status().resetting


def test_an_arm_that_was_started_again_has_not_been_asked_to_reset() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.run_episode(1)
    world.resetting = True  # and it will be for ever: who was asked is dead
    world.arm = "arm-2"
    world.begin()
    assert not world.actor.status().resetting
    last = world.advance(truncated=True)
    assert world.resets == 2
    world.actor.observe(replace(last, session="arm-3"))
    assert world.resets == 3


def test_an_evaluation_goes_on_while_the_arm_resets() -> None:
    world = World(eval_every=1, eval_episodes=20)
    world.actor.offer(snapshot())
    world.run_episode(1)
    world.run_episode(1)
    world.resetting = True
    world.actor.offer(snapshot(2))  # waits for the end of it
    world.now += 60.0
    assert waits_for(world) == (ActorState.EVALUATING, "waiting until the arm has reset: 60.0 s so far")
    assert world.actor.status().applied_version == 1


def test_saturation_is_measured() -> None:
    world = World(deterministic=True)
    params = {**PARAMS[0]}
    biased = make_snapshot(POLICY, POLICY.serialize(_scaled(params, 1e4)), SPEC, state(0, 0), session="learner-1",
                           version=1, gradient_step=0)
    world.actor.offer(biased)
    world.run_episode(10)
    assert world.actor.status().saturated_share > 0.5
    world = World(deterministic=True)
    world.actor.offer(snapshot())
    world.run_episode(10)
    assert world.actor.status().saturated_share == 0.0


def _scaled(params, factor: float):
    import jax

    return jax.tree.map(lambda x: factor * x, params)
