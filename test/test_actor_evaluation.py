# SPDX-License-Identifier: Apache-2.0
"""An actor that is evaluated, and one that a person helps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from actor_world import EXECUTED, PARAMS, POLICY, SPEC, World, snapshot, state, waits_for

from rlpd_ros.errors import DataError
from rlpd_ros.status import ActorState
from rlpd_ros.types import (
    Acknowledgement,
    Observation,
    Source,
)

# Evaluation


def test_evaluation_is_greedy_with_one_version_and_not_stored() -> None:
    world = World(eval_every=2, eval_episodes=3)
    world.actor.offer(snapshot(1))
    world.run_episode(2)
    world.run_episode(2)
    sent = len(world.sent)
    assert sent == 4
    for i in range(3):
        world.begin()
        assert waits_for(world)[0] is ActorState.EVALUATING
        world.actor.offer(snapshot(2 + i))
        world.advance()
        world.advance(truncated=True, success=True)
    evaluated = world.actions[4:]
    assert {a.policy_version for a in evaluated} == {1}
    for action, (episode, step) in zip(evaluated, [(e, s) for e in (3, 4, 5) for s in (0, 1)], strict=True):
        np.testing.assert_array_equal(action.action, POLICY.mode(PARAMS[1], state(episode, step)))
    assert len(world.sent) == sent
    report = world.actor.status()
    assert (report.env_steps, report.episodes) == (4, 2)
    assert report.applied_version == 4  # the newest of those that came meanwhile
    assert [(e.evaluation, e.evaluation_id, e.evaluation_episodes, e.evaluation_successes, e.evaluation_done)
            for e in world.episodes] == [(False, 0, 0, 0, False)] * 2 + [
                (True, 1, 1, 1, False), (True, 1, 2, 2, False), (True, 1, 3, 3, True)]
    world.run_episode(2)
    assert not world.episodes[-1].evaluation
    assert {a.policy_version for a in world.actions[-2:]} == {4}
    world.run_episode(2)
    world.run_episode(2)
    assert (world.episodes[-1].evaluation, world.episodes[-1].evaluation_id) == (True, 2)


def test_a_policy_that_is_played_acts_greedily_and_nothing_is_sent() -> None:
    world = World(eval_episodes=3, eval_min_episodes=3, random_steps=100, eval_every=0)
    world.actor.play(snapshot(2))
    for i in range(3):
        assert not world.actor.has_played
        world.begin()
        if i == 1:
            world.actor.intervene(np.zeros(3))
        world.advance()
        world.now += 1.0
        world.advance(truncated=True, success=i > 0, reward=1.5)
    assert [e.evaluation_successes for e in world.episodes] == [0, 0, 1]
    assert [line.split("; ") for line in world.said if line.startswith("episode")] == [
        ["episode 1: no success after 2 steps, return 1.500", "0 of 1 successful"],
        ["episode 2: success with help after 2 steps, return 1.500", "0 of 2 successful"],
        ["episode 3: success after 2 steps, return 1.500", "1 of 3 successful"]]
    played = [a for a in world.actions if a.source is not Source.INTERVENTION]
    assert {(a.policy_version, a.source) for a in played} == {(2, Source.POLICY)}
    np.testing.assert_array_equal(played[0].action, POLICY.mode(PARAMS[2], state(1, 0)))
    assert world.actor.has_played
    assert world.resets == 2  # and none after the last episode
    done = len(world.actions)
    world.begin()
    assert len(world.actions) == done
    assert waits_for(world) == (ActorState.FINISHED, "holding still: all episodes have been played")
    assert world.sent == []


def test_a_policy_that_is_not_what_it_says_is_not_played() -> None:
    world = World()
    with pytest.raises(DataError, match="checksum"):
        world.actor.play(snapshot(2, checksum="0"))
    world.begin()
    assert world.actions == []


@pytest.mark.parametrize(("outcomes", "episodes"), [
    ("1" * 20, 20),  # reached only at the end
    ("0" + "1" * 19, 20),  # 95 % of 20 allows one failure
    ("00" + "1" * 18, 10),  # hopeless from the second on, but ten are measured in any case
    ("1" * 10 + "0" * 10, 12),  # hopeless after the twelfth
    ("1" * 18 + "00", 20),
])
def test_an_evaluation_ends_when_its_outcome_is_known(outcomes: str, episodes: int) -> None:
    world = World(eval_every=1, eval_episodes=20, eval_min_episodes=10, success_target=0.95)
    world.actor.offer(snapshot())
    world.run_episode(1)
    for outcome in outcomes:
        world.run_episode(1, success=outcome == "1")
        if world.episodes[-1].evaluation_done:
            break
    last = world.episodes[-1]
    assert (last.evaluation_episodes, last.evaluation_successes) == (episodes, outcomes[:episodes].count("1"))


def test_no_evaluation_without_a_policy_or_if_it_is_switched_off() -> None:
    for config, policy in (({"random_steps": 100, "eval_every": 1}, None), ({"eval_every": 0}, snapshot())):
        world = World(**config)
        if policy:
            world.actor.offer(policy)
        for _ in range(5):
            world.run_episode(1)
        assert not any(e.evaluation for e in world.episodes)


def test_evaluation_is_not_random_even_while_training_is() -> None:
    world = World(random_steps=100, eval_every=1, eval_episodes=1)
    world.actor.offer(snapshot())
    world.run_episode(2)
    world.run_episode(2)
    assert [a.source for a in world.actions] == [Source.RANDOM] * 2 + [Source.POLICY] * 2
    assert world.episodes[-1].evaluation


def test_what_a_person_helped_with_is_no_success_of_the_policy() -> None:
    world = World(eval_every=1, eval_episodes=2)
    world.actor.offer(snapshot())
    world.run_episode(1)
    world.actor.intervene(np.zeros(3))
    world.run_episode(2, success=True)
    assert world.actions[-1].source is Source.INTERVENTION  # who holds the joystick always has the arm
    world.now += 10
    world.run_episode(2, success=True)
    assert [(e.evaluation_episodes, e.evaluation_successes) for e in world.episodes[1:]] == [(1, 0), (2, 1)]


def test_what_a_person_only_stopped_and_judged_is_a_success_of_the_policy() -> None:
    world = World(eval_every=1, eval_episodes=3, eval_min_episodes=3)
    world.actor.offer(snapshot())
    world.run_episode(1)
    for helps in (False, True):
        world.begin()
        world.advance()
        if helps:
            world.actor.intervene(np.full(3, 0.1))
            world.advance()
        world.now += 1.0
        world.actor.intervene(None)
        world.actor.judge(True)
        world.advance()
        world.now += 1.0
    assert [(e.success, e.evaluation_episodes, e.evaluation_successes) for e in world.episodes[1:]] == [
        (True, 1, 1), (True, 2, 1)]


# Interventions


def test_a_person_goes_before_the_policy_for_a_short_while() -> None:
    world = World(intervention_timeout=0.3)
    world.actor.offer(snapshot(1))
    world.begin()
    world.actor.intervene(np.array([2.0, -3.0, 0.5]))
    world.advance()
    world.now += 0.25
    world.advance()
    world.now += 0.25
    world.advance()
    assert [a.source for a in world.actions] == [
        Source.POLICY, Source.INTERVENTION, Source.INTERVENTION, Source.POLICY]
    np.testing.assert_array_equal(world.actions[1].action, [1.0, -1.0, 0.5])
    assert [a.policy_version for a in world.actions] == [1, 0, 0, 1]
    world.advance()
    assert [r.source for r in world.sent] == [a.source for a in world.actions[:4]]
    np.testing.assert_array_equal(world.sent[1].action, EXECUTED)
    assert world.actor.status().intervention_actions == 2


@pytest.mark.parametrize("action", [[0.0, 0.0], [0.0, 0.0, float("nan")], [[0.0, 0.0, 0.0]]])
def test_a_persons_command_that_makes_no_sense_is_refused(action: list) -> None:
    world = World()
    world.actor.offer(snapshot())
    with pytest.raises(DataError, match="action: expected 3 finite numbers, found"):
        world.actor.intervene(np.array(action))
    world.begin()
    assert world.actions[0].source is Source.POLICY


@pytest.mark.parametrize(("changes", "error"), [
    ({"reward": float("nan")}, "reward: expected a finite number"),
    ({"session": "a\x1b[2J"}, "session: expected printable"),
    ({"executed_action": np.array([0.0, 0.0, 1.5], np.float32)}, "executed_action: expected values from -1 to 1"),
    ({"executed_action": np.full(3, np.nan, np.float32)}, "executed_action: expected values from -1 to 1"),
    ({"executed_action": None}, "executed_action: expected one after the first step, found none"),
    ({"observation": Observation(np.full(SPEC.state_size, np.inf, np.float32))}, "state: expected finite values")])
def test_an_observation_that_makes_no_sense_changes_nothing(changes: dict, error: str) -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    seen = world.advance()
    before = (len(world.actions), len(world.sent), replace(world.actor.status()))
    good = replace(seen, step=2, stamp=9)
    with pytest.raises(DataError, match=f"^{error}"):
        world.actor.observe(replace(good, **changes))
    assert (len(world.actions), len(world.sent), world.actor.status()) == before
    world.actor.observe(good)
    assert len(world.actions) == before[0] + 1


def test_a_receipt_for_what_was_never_sent_is_refused() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.advance()
    with pytest.raises(DataError, match=r"sequence: expected at most 1, .* found 2"):
        world.actor.acknowledge(Acknowledgement(world.actor.session, "learner-1", 2, 99))
    assert world.actor.status().transitions_unacked == 1


def test_a_forged_version_does_not_count_as_the_newest() -> None:
    world = World()
    world.actor.offer(snapshot(1))
    world.actor.offer(snapshot(2, version=2**63, checksum="0" * 16))
    assert world.actor.status().newest_version == 1
