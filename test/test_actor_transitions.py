# SPDX-License-Identifier: Apache-2.0
"""What an actor makes of observations: transitions, at the pace of the arm and of the learner, and their receipts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from actor_world import EXECUTED, SPEC, World, snapshot, waits_for

from rlpd_ros.status import ActorState
from rlpd_ros.types import (
    Acknowledgement,
    Source,
)

# Observations and transitions


def test_what_was_executed_is_what_is_stored() -> None:
    world = World()
    world.actor.offer(snapshot(4))
    first = world.begin()
    second = world.advance(reward=0.25)
    third = world.advance(reward=2.0, terminated=True, success=True)
    assert [(r.session, r.sequence, r.episode, r.step) for r in world.sent] == [
        ("actor-1", 1, 1, 0), ("actor-1", 2, 1, 1)]
    for record, answer, before, after in zip(world.sent, world.actions, (first, second), (second, third), strict=True):
        np.testing.assert_array_equal(record.action, EXECUTED)
        np.testing.assert_array_equal(record.asked_action, answer.action)
        np.testing.assert_array_equal(record.observation.state, before.observation.state)
        assert (record.reward, record.terminated, record.success) == (after.reward, after.terminated, after.success)
        assert (record.policy_version, record.source, record.stamp) == (4, Source.POLICY, before.stamp)
        assert record.space_fingerprint == SPEC.fingerprint
    assert world.sent[0].final_observation is None
    np.testing.assert_array_equal(world.sent[1].final_observation.state, third.observation.state)


def test_a_person_who_takes_over_on_the_arm_itself_is_learned_from_as_one() -> None:
    world = World()
    world.actor.offer(snapshot(4))
    world.begin()
    world.advance(source=Source.INTERVENTION)
    world.advance(source=Source.POLICY, truncated=True)
    by_hand, by_policy = world.sent
    assert (by_hand.source, by_hand.policy_version, by_hand.asked_action) == (Source.INTERVENTION, 0, None)
    assert (by_policy.source, by_policy.policy_version) == (Source.POLICY, 4)
    assert by_policy.asked_action is not None
    report = world.actor.status()
    assert (report.intervention_actions, report.policy_actions) == (1, 1)
    assert world.episodes[0].intervention_actions == 1


def test_what_a_person_asked_for_is_kept_where_limits_changed_it() -> None:
    world = World()
    world.actor.offer(snapshot(4))
    world.actor.intervene(np.ones(SPEC.action_size, np.float32))
    world.begin()
    world.advance(source=Source.INTERVENTION)
    (record,) = world.sent
    assert record.source is Source.INTERVENTION
    np.testing.assert_array_equal(record.asked_action, world.actions[0].action)


def test_steps_of_another_actor_on_the_same_arm_are_not_taken_for_ones_own() -> None:
    world = World(eval_every=0)
    world.actor.offer(snapshot(4))
    world.begin()
    world.advance(actor="actor-1")
    world.advance(actor="actor-2")
    assert [record.step for record in world.sent] == [0]
    assert world.warnings == ["another actor, actor-2, moves this arm too: stop one of the two"]
    assert world.actor.status().text == world.warnings[0]
    world.advance(actor="actor-1", truncated=True)
    assert [record.step for record in world.sent] == [0, 2]
    world.now += 3.0
    world.begin()
    assert "another actor" not in world.actor.status().text


def test_another_actor_is_told_of_while_this_one_waits() -> None:
    world = World(budget=0, eval_every=0)
    world.actor.offer(snapshot(4))
    world.begin()
    world.advance(actor="actor-2")
    assert world.warnings == ["another actor, actor-2, moves this arm too: stop one of the two"]
    assert (world.actions, world.sent) == ([], [])


def test_a_session_that_changes_between_answer_and_observation_is_no_other_actor() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.advance(actor="actor-1")
    world.acknowledge(1, 1000)
    answered = world.actions[-1].session
    world.learner = "learner-2"
    world.acknowledge(0, 1000)
    assert world.actor.session != answered
    world.advance(actor=answered)
    assert world.sent[-1].step == 1
    assert not any("another actor" in text for text in world.warnings)


def test_a_success_with_another_actor_on_the_arm_is_none_of_the_policys() -> None:
    world = World(eval_every=1)
    world.actor.offer(snapshot(4))
    world.run_episode(2)
    world.begin()
    world.advance(actor="actor-2")
    world.advance(actor="actor-1", terminated=True, success=True)
    assert (world.episodes[-1].evaluation_successes, world.episodes[-1].evaluation_episodes) == (0, 1)


@pytest.mark.parametrize(("terminated", "truncated"), [(True, False), (False, True)])
def test_the_end_of_an_episode_is_kept_as_it_was(terminated: bool, truncated: bool) -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    last = world.advance(terminated=terminated, truncated=truncated)
    (record,) = world.sent
    assert (record.terminated, record.truncated) == (terminated, truncated)
    np.testing.assert_array_equal(record.final_observation.state, last.observation.state)
    assert (world.episodes[0].terminated, world.episodes[0].truncated) == (terminated, truncated)
    assert (world.resets, len(world.actions)) == (1, 1)  # nothing answers the last observation but a reset
    world.actor.observe(last)  # repeated: the request for the reset was lost
    assert (world.resets, len(world.actions)) == (2, 1)


def test_a_repeated_observation_gets_the_same_answer_and_counts_once() -> None:
    world = World()
    world.actor.offer(snapshot())
    now = world.begin()
    world.actor.observe(now)
    world.actor.tick()
    assert len(world.actions) == 2
    assert world.actions[0] is world.actions[1]
    world.advance()
    assert (len(world.sent), world.actor.status().env_steps) == (1, 1)


def test_an_observation_that_was_missed_pairs_with_nothing() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.advance()
    world.observe(3)
    world.advance()
    assert [(r.sequence, r.step) for r in world.sent] == [(1, 0), (2, 3)]
    assert world.actor.status().env_steps == 2


def test_an_episode_cut_short_by_the_arms_restart_pairs_with_nothing() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.advance()
    world.arm = "arm-2"  # it counts its episodes from 1 again
    world.observe(0)
    world.advance()
    assert [(r.sequence, r.episode, r.step) for r in world.sent] == [(1, 1, 0), (2, 2, 0)]
    assert [(e.episode, e.steps, e.success, e.truncated) for e in world.episodes] == [(1, 1, False, True)]


def test_an_episode_that_somebody_else_began_is_not_joined() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.episode = 7
    world.observe(12)
    world.observe(12)
    assert (world.actions, world.resets) == ([], 2)
    world.begin()
    assert len(world.actions) == 1


def test_an_answer_goes_out_before_the_transition_is_sent() -> None:
    world = World()
    order: list[str] = []
    world.act = lambda action: order.append("act")
    world.send = lambda record: order.append("send")
    world.actor.offer(snapshot())
    world.begin()
    world.advance()
    assert order == ["act", "act", "send"]


# Real time


REAL_TIME = replace(SPEC, lockstep=False)


def test_in_real_time_a_late_answer_is_an_overrun_and_the_arm_held() -> None:
    world = World(REAL_TIME)
    world.begin()
    world.observe(0)  # no policy yet: held, but nothing was late
    report = world.actor.status()
    assert (report.held_actions, report.overruns) == (1, 0)
    world.actor.offer(snapshot())
    world.observe(0)  # the answer came too late for this tick
    report = world.actor.status()
    assert (report.held_actions, report.overruns, report.env_steps) == (2, 1, 0)
    now = world.advance()
    assert [(r.sequence, r.stamp) for r in world.sent] == [(1, now.stamp - 1)]
    assert [a.stamp for a in world.actions] == [2, 3, 4]


def test_waiting_at_the_start_of_an_episode_does_not_begin_it_again() -> None:
    world = World(REAL_TIME)
    world.begin()
    for _ in range(5):
        world.observe(0)
    world.actor.offer(snapshot())
    world.advance()
    assert world.sent[0].episode == 1


def test_real_time_knows_no_budget() -> None:
    world = World(REAL_TIME, budget=0)
    world.actor.offer(snapshot())
    world.run_episode(3)
    assert len(world.actions) == 3


# Budget


def test_in_lockstep_the_budget_is_kept_exactly() -> None:
    world = World(budget=3)
    world.actor.offer(snapshot())
    world.begin()
    for _ in range(3):
        world.advance()
    assert len(world.actions) == 3
    waiting, text = waits_for(world)
    assert waiting is ActorState.WAITING_FOR_BUDGET
    assert "3 training steps taken, 3 released" in text
    world.actor.tick()
    assert len(world.actions) == 3
    world.acknowledge(2, 4)
    assert len(world.actions) == 4  # the observation that was waiting
    world.advance()
    assert len(world.actions) == 4


def test_an_evaluation_needs_no_budget() -> None:
    world = World(budget=2, eval_every=1, eval_episodes=1)
    world.actor.offer(snapshot())
    world.run_episode(2)
    assert len(world.actions) == 2
    world.run_episode(4)
    assert len(world.actions) == 6
    assert world.episodes[-1].evaluation
    world.begin()
    assert len(world.actions) == 6
    assert waits_for(world)[0] is ActorState.WAITING_FOR_BUDGET


# The learner's receipts


def test_what_is_acknowledged_is_not_sent_again() -> None:
    world = World(resend_period=1.0)
    world.actor.offer(snapshot())
    world.run_episode(4)
    assert [r.sequence for r in world.sent] == [1, 2, 3, 4]
    world.acknowledge(2, 1000)
    world.now += 1.5
    world.actor.tick()
    assert [r.sequence for r in world.sent[4:]] == [3, 4]
    report = world.actor.status()
    assert (report.transitions_sent, report.transitions_acked, report.transitions_unacked) == (4, 2, 2)


def test_a_receipt_for_another_session_is_not_ours() -> None:
    world = World(budget=1)
    world.actor.acknowledge(Acknowledgement("actor-2", "learner-1", 1, 10**6))
    world.actor.offer(snapshot())
    world.begin()
    world.advance()
    assert len(world.actions) == 1


def test_a_learner_of_another_run_gets_a_new_session() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.run_episode(4)
    world.acknowledge(3, 1000)
    world.learner = "learner-2"
    world.acknowledge(0, 1000)
    assert "another learner (learner-2) lacks transitions" in world.warnings[0]
    assert world.actor.session != "actor-1"
    assert world.actor.status().session == world.actor.session
    world.sent.clear()
    world.acknowledge(0, 1000)
    world.run_episode(1)
    assert [(r.session, r.sequence, r.step) for r in world.sent] == [
        (world.actor.session, 1, 3), (world.actor.session, 2, 0)]
