# SPDX-License-Identifier: Apache-2.0
"""The learner's logic, with a real agent, against actors, demonstrations and a disk that the test plays by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from learner_world import AGENT, LENGTH, REAL_TIME, World, evaluation

from rlpd_ros.data.living_actors import ALIVE, MAX_ACTORS
from rlpd_ros.errors import DataError
from rlpd_ros.rl.agent import Agent
from rlpd_ros.ros import messages, qos
from rlpd_ros.status import ActorState, LearnerState
from rlpd_ros.types import Source

# Receipts


def test_a_receipt_is_given_only_for_what_is_on_disk() -> None:
    world = World()
    world.feed(1, 2)
    assert world.acks == {}
    world.learner.service()
    assert world.calls == ["store 1", "store 2", "flush", "acknowledge 2"]
    assert world.durable == 2
    world.learner.service()
    assert len(world.calls) == 4  # nothing new, nothing to say


def test_all_who_send_share_what_may_be_under_way() -> None:
    world = World()
    world.feed(1, 1)
    assert world.answer().window == 500
    for i in range(1, 5):
        world.feed(1, 1, f"actor-{i}")
    assert world.answer("actor-4").window == 125
    world.now += 3.0
    world.feed(2, 2)
    assert world.answer().window == 500  # the others have ended
    for i in range(1, 3):
        world.hear(f"actor-{i}")
    world.now += 2.5
    world.feed(3, 3)
    assert world.answer().window == 250  # the other one lives, and may send at any time


def test_a_full_disk_stops_the_receipts_and_nothing_else() -> None:
    world = World(training_starts=5)
    world.learner.publish()
    world.feed(1, 5)
    world.learner.service()
    world.disk_full = True
    for sequence in range(6, 11):
        world.feed(sequence, sequence)
        world.learner.train()
        world.learner.service()
        world.now += 1
    assert world.acks["actor-1"].sequence == 5
    assert len(world.warnings) == 1
    assert "No space left on device. Nothing is acknowledged until it can be" in world.warnings[0]
    assert "cannot be stored, and so are not acknowledged" in world.learner.status().text
    assert world.learner.report.gradient_step == 5
    world.now += 10
    world.learner.service()
    assert len(world.warnings) == 2
    world.disk_full = False
    world.learner.service()
    assert (world.acks["actor-1"].sequence, world.durable) == (10, 10)
    assert world.said[-1] == "transitions can be stored again: nothing was lost"
    assert "cannot be stored" not in world.learner.status().text


def test_a_new_actor_is_given_a_receipt_and_so_a_budget() -> None:
    world = World(training_starts=10, steps_ahead=4)
    world.hear("actor-1")
    ack = world.answer()
    assert (ack.sequence, ack.budget) == (0, 14)
    world.acks.clear()
    world.hear("actor-1")
    world.learner.service()
    assert world.acks == {}
    world.learner.status()
    world.learner.service()
    assert world.acks["actor-1"].budget == 14  # repeated now and then, should it have been lost


# Training


def test_nothing_is_trained_before_training_starts() -> None:
    world = World(training_starts=10)
    for sequence in range(1, 11):
        report = world.learner.status()
        assert report.state == LearnerState.FILLING
        assert report.text.startswith("filling the online buffer: ")
        assert world.train() == 0
        world.feed(sequence, sequence)
    assert world.train() == 0  # as many steps as transitions beyond training_starts
    assert world.learner.status().state == LearnerState.WAITING_FOR_DATA
    world.feed(11, 13)
    assert world.train() == 3
    assert world.learner.report.gradient_step == int(world.learner.agent.step) == 3


class Spy:
    """Looks over an agent's shoulder."""

    def __init__(self, agent: Agent, seen: list) -> None:
        self._agent = agent
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    def update(self, batch, demonstrations: int):
        self._seen.append((jax.tree.map(np.array, batch), demonstrations))
        agent, info = self._agent.update(batch, demonstrations)
        return Spy(agent, self._seen), info


def test_every_mini_batch_is_half_demonstrations_and_they_come_last() -> None:
    world = World(require_demonstrations=True)
    world.demonstrate(20)
    world.feed(1, 20)
    seen: list = []
    world.learner.agent = Spy(world.learner.agent, seen)
    assert world.train() == 10
    for batch, demonstrations in seen:
        assert demonstrations == 4
        offsets = batch.observations["state"][..., 1]
        assert offsets.shape == (AGENT.utd_ratio, 8)
        np.testing.assert_array_equal(offsets, np.tile([0] * 4 + [100] * 4, (AGENT.utd_ratio, 1)))
        numbers, following = (100 * part["state"][..., 0] for part in (batch.observations, batch.next_observations))
        np.testing.assert_allclose(following, numbers + 1, atol=1e-3)
        np.testing.assert_array_equal(batch.masks, np.round(numbers) % LENGTH != 0)
    assert len({batch.observations["state"].tobytes() for batch, _ in seen}) == len(seen)


def test_before_it_compiles_it_says_that_it_will_be_silent() -> None:
    world = World()
    world.feed(1, 12)
    assert world.train() == 2
    (first,) = world.statuses
    assert (first.compiling, first.gradient_step) == (True, 0)
    assert first.text == "compiling the update without demonstrations: some seconds of silence"
    world.feed(13, 20, source=Source.INTERVENTION)
    assert not world.learner.status().compiling
    world.train()
    second = world.statuses[-1]
    assert len(world.statuses) == 2
    assert (second.compiling, second.gradient_step) == (True, 2)
    assert second.text == "compiling the update with demonstrations: some seconds of silence"
    assert not world.learner.status().compiling


def test_without_demonstrations_no_row_is_taken_for_one() -> None:
    world = World()
    world.feed(1, 12)
    seen: list = []
    world.learner.agent = Spy(world.learner.agent, seen)
    assert world.train() == 2
    assert [demonstrations for _, demonstrations in seen] == [0, 0]


def test_the_update_to_data_ratio_is_honest_in_lockstep() -> None:
    world = World(training_starts=20, steps_ahead=3, log_period=10)
    world.hear()
    taken = 0
    for _ in range(60):
        budget = world.answer().budget
        world.feed(taken + 1, budget)  # an actor as fast as it may be
        taken = max(taken, budget)
        world.learner.train()
        assert taken <= 20 + world.learner.report.gradient_step + 3
    world.train()
    report = world.learner.status()
    assert report.gradient_step == taken - 20 == 62
    rows = [row for table, _, row in world.rows if table == "learner"]
    assert rows[-1]["utd_measured"] == AGENT.utd_ratio
    assert world.answer().budget == report.env_step_budget == 20 + 62 + 3


def test_rates_do_not_count_what_came_before_the_first_step() -> None:
    world = World(training_starts=200, steps_ahead=3, log_period=10)
    world.feed(1, 200)
    world.now += 100
    for last in range(201, 212):
        world.learner.train()
        world.feed(last, last)
        world.now += 0.5
    row = next(row for table, _, row in world.rows if table == "learner")
    assert row["utd_measured"] == pytest.approx(AGENT.utd_ratio, rel=0.2)
    assert row["updates_per_second"] == pytest.approx(2.0, rel=0.2)


def test_in_real_time_nobody_waits() -> None:
    world = World(REAL_TIME)
    world.feed(1, 11)
    assert world.answer().budget == 2**63 - 1
    assert world.train(30) == 30


def test_actors_share_the_budget() -> None:
    world = World(training_starts=10, steps_ahead=5)
    world.hear("actor-1")
    world.hear("actor-2")
    world.learner.service()
    assert [ack.budget for ack in world.acks.values()] == [8, 8]  # of 15, rounded up
    world.feed(1, 8, "actor-1")
    world.learner.service()
    assert world.acks["actor-1"].budget == 8 + 4
    world.now += 10  # actor-2 says nothing any more
    world.hear("actor-1")
    world.feed(9, 9, "actor-1")
    assert world.answer().budget == 9 + 6 + 1  # one step is no transition yet: it waits for its successor


def test_many_actors_with_little_to_share_do_not_wait_for_each_other() -> None:
    world = World(training_starts=1, steps_ahead=1)
    for number in range(5):
        world.hear(f"actor-{number}")
    world.learner.service()
    assert all(ack.budget > ack.sequence for ack in world.acks.values())


def test_steps_that_became_no_transition_are_made_up_for() -> None:
    """Actors that die again and again leave steps behind that nothing completes."""
    world = World(training_starts=10, steps_ahead=2)
    for number in range(12):
        world.feed(1, 1, f"actor-{number}")
    assert len(world.learner.online) == 0
    world.hear("actor-99")
    assert world.answer("actor-99").budget == 12
    world.feed(1, 12, "actor-99")
    assert world.learner.status().state == LearnerState.TRAINING
    assert world.train() == 24 - 10


# The end


def test_an_evaluation_that_reaches_the_target_ends_training_with_that_policy() -> None:
    world = World(success_target=0.95, eval_episodes=20)
    world.learner.publish()
    world.feed(1, 10 + 8)
    world.train()
    assert len(world.policies) == 2
    world.learner.finish_episode(evaluation(19, 20, version=1))
    report = world.learner.status()
    assert report.state == LearnerState.FINISHED
    assert report.text == ("success rate 95% in 20 greedy episodes (95 % confidence: 76% to 99%), in evaluation 1: the "
                           "first that was good enough, so `rlpd eval` measures it more fairly")
    assert (report.success_rate, report.evaluation_episodes) == (0.95, 20)
    assert world.learner.result is world.policies[0]
    assert [p.gradient_step for p in world.policies] == [0, 5, 8]  # what was learned since is not lost either
    assert [saved["gradient_step"] for saved in world.saved] == [8]
    assert world.train() == 0


@pytest.mark.parametrize(("successes", "episodes", "done", "rate"), [
    (18, 20, True, 0.9), (12, 12, True, 1.0), (19, 19, False, -1.0), (20, 20, False, -1.0)])
def test_a_weaker_evaluation_does_not(successes: int, episodes: int, done: bool, rate: float) -> None:
    world = World(success_target=0.95, eval_episodes=20)
    world.learner.publish()
    world.learner.finish_episode(evaluation(successes, episodes, version=1, done=done))
    report = world.learner.status()
    assert report.state == LearnerState.FILLING
    assert report.success_rate == rate


@pytest.mark.parametrize(("successes", "episodes"), [(0, 0), (21, 20), (-1, 20)])
def test_an_evaluation_that_makes_no_sense_is_ignored(successes: int, episodes: int) -> None:
    world = World()
    world.learner.publish()
    with pytest.raises(DataError, match=f"evaluation_successes: .* found {successes} in {episodes}"):
        world.learner.finish_episode(evaluation(successes, episodes, version=1))
    assert world.learner.status().success_rate == -1.0
    assert not [row for row in world.rows if row[0] == "episodes"]


def test_an_actor_without_a_proper_name_is_nobody() -> None:
    world = World()
    for name in ("", "x" * 129, "two\nlines"):
        with pytest.raises(DataError, match=r"^session: expected"):
            world.hear(name)
        with pytest.raises(DataError, match=r"^session: expected"):
            world.learner.finish_episode(replace(evaluation(1, 1, version=1), session=name))
    assert world.learner.lowest_applied_version() == (0, 0)


def test_no_more_than_a_multitude_of_actors_is_heard_at_a_time() -> None:
    world = World()
    for number in range(MAX_ACTORS):
        world.hear(f"actor-{number}")
    with pytest.raises(DataError, match=f"more than {MAX_ACTORS} actors"):
        world.hear("actor-x")
    world.hear("actor-0", version=3)
    world.now += ALIVE
    world.hear("actor-x")
    assert world.learner.lowest_applied_version() == (0, 1)


def test_the_policy_under_evaluation_stays_available_and_others_do_not() -> None:
    world = World(REAL_TIME, success_target=0.95, eval_episodes=20, steps_per_update=1)
    world.learner.publish()
    world.feed(1, 20)
    world.train(3)
    for _ in range(60):  # while the actor evaluates version 2, slowly
        world.hear("actor-1", version=2)
        world.train(1)
    world.learner.finish_episode(evaluation(20, 20, version=1))
    assert "version 1 is good enough, but not here any more: it is of an earlier life" in world.warnings[0]
    assert world.learner.status().state == LearnerState.TRAINING
    world.learner.finish_episode(evaluation(20, 20, version=2))
    assert world.learner.result is world.policies[1]


def test_an_evaluation_of_the_policy_that_is_just_out_counts() -> None:
    world = World(REAL_TIME, success_target=0.95, eval_episodes=20)
    world.slow = True
    world.learner.publish()
    world.deliver()  # to the actor; the learner has not looked since
    world.learner.finish_episode(evaluation(20, 20, version=1))
    assert not world.warnings
    assert world.learner.result is world.policies[0]


def test_an_evaluation_outlives_a_gap_in_the_actors_network() -> None:
    world = World(REAL_TIME, success_target=0.95, eval_episodes=20, steps_per_update=1)
    world.learner.publish()
    world.feed(1, 20)
    world.train(2)
    world.hear("actor-1", version=2, state=ActorState.EVALUATING)
    world.hear("actor-2", version=1, state=ActorState.ACTING)
    for _ in range(60):
        world.now += 5.0  # nobody is heard
        world.train(1)
    world.learner.finish_episode(evaluation(20, 20, version=1))
    assert "version 1 is good enough, but not here" in world.warnings[0]
    world.learner.finish_episode(evaluation(20, 20, version=2))
    assert world.learner.result is world.policies[1]


@pytest.mark.parametrize(("limits", "steps", "why"), [
    ({"max_steps": 7}, 7, "max_steps 7 reached"), ({"max_env_steps": 40}, 0, "max_env_steps 40 reached")])
def test_a_limit_ends_training_with_the_newest_policy(limits: dict, steps: int, why: str) -> None:
    world = World(**limits)
    world.learner.publish()
    world.feed(1, 40)
    assert world.train() == steps
    report = world.learner.status()
    assert (report.state, report.text) == (LearnerState.FINISHED, why)
    assert world.learner.result is world.policies[-1]
    assert world.learner.result.gradient_step == steps
    assert len({p.gradient_step for p in world.policies}) == len(world.policies)  # none twice
    assert world.saved[-1]["gradient_step"] == steps
    world.learner.finish_episode(evaluation(20, 20, version=1))
    assert world.learner.report.text == why


def test_a_run_that_is_resumed_at_its_limit_ends_at_once() -> None:
    first = World(max_steps=5)
    first.learner.publish()
    first.feed(1, 20)
    first.train()
    second = World(max_steps=5, session="learner-2", require_demonstrations=True)
    second.learner.resume(first.learner.agent, first.saved[-1])
    second.learner.publish()
    assert second.train() == 0
    assert second.learner.report.state == LearnerState.FINISHED
    assert second.learner.report.gradient_step == 5


# Who is there


def test_live_actors_and_what_they_act_on() -> None:
    world = World()
    assert world.learner.lowest_applied_version() == (0, 0)
    world.hear("actor-1", 5)
    world.hear("actor-2", 3)
    assert world.learner.lowest_applied_version() == (3, 2)
    world.now += 2
    world.hear("actor-1", 6)
    world.now += 2  # actor-2 was heard 4 s ago
    assert world.learner.lowest_applied_version() == (6, 1)
    world.hear("actor-1", 6)
    applied = [(row["actor"], row["version"]) for table, _, row in world.rows if table == "policies"]
    assert applied == [("actor-1", 5), ("actor-2", 3), ("actor-1", 6)]


def test_the_status_counts_each_actor_for_itself() -> None:
    world = World()
    world.feed(1, 3, "left-1")
    world.feed(2, 3, "left-1")
    world.now += 2.0
    world.feed(1, 2, "right-1")
    world.feed(3, 3, "right-1", reward=float("nan"))
    for session, version in (("right-1", 4), ("left-1", 3), ("idle-1", 0)):
        world.hear(session, version)
    report = world.learner.status()
    assert report.actors == ["idle-1", "left-1", "right-1"]
    assert report.actors_stored == [0, 3, 2]
    assert report.actors_duplicate == [0, 2, 0]
    assert report.actors_rejected == [0, 0, 1]
    assert report.actors_version == [0, 3, 4]
    assert report.actors_data_age == [-1.0, 2.0, 0.0]
    world.now += 10.0
    world.hear("left-1", 2**63)  # a claim that must not end the learner
    report = world.learner.status()
    assert report.actors == ["left-1"]
    messages.from_fields(qos.LEARNER_STATUS.type, report)
