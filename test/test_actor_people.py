# SPDX-License-Identifier: Apache-2.0
"""An actor and the people beside it: who holds the arm, who moves it, who says how an episode ended."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from actor_world import EXECUTED, SPEC, World, snapshot, waits_for

from rlpd_ros.errors import DataError
from rlpd_ros.status import ActorState
from rlpd_ros.types import Acknowledgement, Source, SpaceField

GRIPPING = replace(SPEC, action=(SpaceField.box("dx", [-0.1] * 2, [0.1] * 2, "m"),
                                 SpaceField.box("gripper_opening", [0.0], [0.08], "m")))


def test_a_person_holds_the_arm_and_nothing_is_learned_of_that() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.actor.intervene(None)
    world.begin()
    assert world.actions == []
    assert waits_for(world) == (ActorState.WAITING_FOR_PERSON, "holding still: a person keeps the arm from moving")
    world.now += 0.2
    world.actor.intervene(None)
    world.observe(0)  # in real time the arm is seen anew
    assert world.actions == []
    world.now += 0.3  # intervention_timeout
    world.actor.tick()
    assert [a.source for a in world.actions] == [Source.POLICY]
    world.advance()
    assert [r.source for r in world.sent] == [Source.POLICY]


def test_where_the_policy_shall_not_act_the_arm_waits_for_a_person() -> None:
    world = World(policy_acts=False, random_steps=5, eval_every=1)
    world.actor.offer(snapshot())
    world.begin()
    world.now += 10.0
    world.observe(0)
    assert world.actions == []
    assert waits_for(world) == (ActorState.WAITING_FOR_PERSON,
                                "holding still until a person acts: policy_acts is false")
    for step in range(2):
        world.actor.intervene(np.full(3, 0.5))
        world.actor.tick()
        world.observe(step + 1, truncated=step == 1)
    world.now += 1.0
    world.begin()
    assert waits_for(world)[0] is ActorState.WAITING_FOR_PERSON  # and evaluates nothing
    assert [r.source for r in world.sent] == [Source.INTERVENTION] * 2


def test_a_person_need_not_wait_for_the_learner() -> None:
    world = World(budget=0)
    world.actor.offer(snapshot())
    world.begin()
    assert waits_for(world)[0] is ActorState.WAITING_FOR_BUDGET
    world.actor.intervene(np.ones(3))
    world.actor.tick()
    world.advance()
    assert [a.source for a in world.actions] == [Source.INTERVENTION] * 2
    world.now += 1.0
    world.advance()
    assert len(world.actions) == 2
    assert waits_for(world)[0] is ActorState.WAITING_FOR_BUDGET


def test_a_gripper_stays_as_it_is_where_a_person_does_not_say() -> None:
    world = World(GRIPPING)
    world.begin()
    world.actor.intervene(np.array([0.5, 0.0, math.nan]))
    world.actor.tick()
    assert world.actions[-1].action.tolist() == [0.5, 0.0, 1.0]  # after a reset it is open
    world.advance(executed_action=np.array([0.5, 0.0, -1.0], np.float32))
    assert world.actions[-1].action.tolist() == [0.5, 0.0, -1.0]
    world.actor.intervene(np.array([0.5, 0.0, 0.25]))
    world.advance()
    assert world.actions[-1].action.tolist() == [0.5, 0.0, 0.25]
    with pytest.raises(DataError, match="action: expected 3 finite numbers, found"):
        world.actor.intervene(np.array([math.nan, 0.0, 1.0]))
    with pytest.raises(DataError, match="action: expected 3 finite numbers, found"):
        world.actor.intervene(np.array([0.0, 0.0, math.inf]))
    with pytest.raises(DataError, match="action: expected 3 finite numbers, found"):
        World().actor.intervene(np.array([0.0, 0.0, math.nan]))  # no gripper


@pytest.mark.parametrize(("success", "ends"), [(True, (1.0, True, False, True)), (False, (0.0, False, True, False))])
def test_a_person_ends_the_episode_with_its_next_step(success: bool, ends: tuple) -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.advance(reward=-0.5)
    world.actor.judge(success)
    world.advance()
    last = world.sent[-1]
    assert (last.reward, last.terminated, last.truncated, last.success) == ends
    assert last.final_observation is not None
    assert (world.episodes[-1].success, world.episodes[-1].steps, world.resets) == (success, 2, 1)
    acted = len(world.actions)
    world.observe(2)  # its driver does not know
    world.advance()
    assert len(world.actions) == acted
    assert len(world.sent) == 2
    world.begin()
    world.advance()
    assert not world.sent[-1].last
    assert len(world.sent) == 3


def test_where_nobody_acts_a_step_of_standing_still_ends_the_episode() -> None:
    world = World(GRIPPING, policy_acts=False)
    world.begin()
    world.actor.intervene(np.array([1.0, 0.0, -1.0]))
    world.actor.tick()
    world.advance(executed_action=np.array([1.0, 0.0, -1.0], np.float32))
    world.now += 9.0
    world.observe(1, executed_action=np.array([1.0, 0.0, -1.0], np.float32))
    asked = len(world.actions)
    world.actor.judge(True)
    assert [(a.source, a.action.tolist()) for a in world.actions[asked:]] == [(Source.INTERVENTION, [0.0, 0.0, -1.0])]
    world.advance()
    assert (world.sent[-1].success, world.sent[-1].source) == (True, Source.INTERVENTION)


def test_what_the_arm_itself_says_stays_true_where_a_person_sees_no_success() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.advance()
    world.actor.judge(False)
    world.advance(terminated=True, reward=-2.0)
    assert (world.sent[-1].terminated, world.sent[-1].truncated, world.sent[-1].reward) == (True, False, -2.0)
    world.begin()
    world.advance()
    world.actor.judge(False)
    world.advance(terminated=True, success=True, reward=1.0)
    last = world.sent[-1]
    assert (last.terminated, last.truncated, last.success, last.reward) == (False, True, False, 0.0)


def test_a_word_on_no_episode_is_refused_and_does_not_end_the_next_one() -> None:
    world = World()
    with pytest.raises(DataError, match="success: expected an episode under way, found none"):
        world.actor.judge(True)
    world.actor.offer(snapshot())
    world.begin()
    world.advance(terminated=True)
    with pytest.raises(DataError, match="success: expected an episode under way"):
        world.actor.judge(True)
    world.begin()
    world.advance()
    assert not world.sent[-1].last


def test_an_episode_that_is_broken_off_counts_in_an_evaluation() -> None:
    world = World(eval_every=1, eval_episodes=3, eval_min_episodes=3)
    world.actor.offer(snapshot())
    world.run_episode(1)
    world.begin()
    world.advance()
    world.begin()  # somebody has reset the arm
    world.begin()  # and again, before it moved
    world.advance(terminated=True, success=True)
    world.arm = "arm-2"  # its driver was started again
    world.begin()
    world.advance()
    world.arm = "arm-3"
    world.begin()
    assert [(e.success, e.evaluation_episodes, e.evaluation_successes, e.evaluation_done)
            for e in world.episodes if e.evaluation] == [
                (False, 1, 0, False), (True, 2, 1, False), (False, 3, 1, True)]


def test_each_life_of_an_actor_explores_otherwise() -> None:
    def explored(env_steps: int, **config) -> list:
        world = World(**config)
        world.actor.acknowledge(Acknowledgement(world.actor.session, world.learner, 0, 10**6, env_steps))
        world.actor.offer(snapshot())
        world.begin()
        return world.actions[0].action.tolist()

    for config in ({}, {"random_steps": 10**6}):
        assert explored(0, **config) == explored(0, **config)
        assert explored(100, **config) == explored(100, **config)
        assert len({tuple(explored(steps, **config)) for steps in (0, 100, 200)}) == 3


def test_who_is_executed_otherwise_is_still_told_apart() -> None:
    world = World(GRIPPING)
    world.begin()
    world.actor.intervene(np.array([0.5, 0.0, math.nan]))
    world.actor.tick()
    world.advance()
    np.testing.assert_array_equal(world.sent[0].action, EXECUTED)
    assert world.sent[0].asked_action.tolist() == [0.5, 0.0, 1.0]


def test_a_word_on_an_episode_that_is_broken_off_does_not_end_the_next_one() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.advance()
    world.actor.judge(True)
    world.begin()
    world.advance()
    assert not world.sent[-1].last


def test_a_word_before_anything_was_done_meant_the_episode_before() -> None:
    world = World(policy_acts=False)
    world.begin()
    for _ in range(3):  # a key that is held, or was pressed twice
        with pytest.raises(DataError, match="success: expected an episode in which something was done"):
            world.actor.judge(True)
    world.actor.tick()
    assert (world.actions, world.sent) == ([], [])


def test_who_holds_the_arm_keeps_it_from_its_reset_too() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.actor.intervene(None)
    world.advance(truncated=True)  # by what was under way
    assert world.resets == 0
    assert waits_for(world) == (ActorState.WAITING_FOR_PERSON,
                                "holding still: a person keeps the arm from moving, and from its reset")
    assert len(world.episodes) == 1
    world.now += 0.2
    world.actor.intervene(None)
    world.observe(1)  # the arm repeats it
    assert world.resets == 0
    world.now += 0.3  # intervention_timeout
    world.observe(1)
    assert (world.resets, len(world.episodes)) == (1, 1)


def test_who_holds_the_arm_and_ends_the_episode_wants_its_reset() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.advance()
    world.actor.intervene(None)
    world.actor.judge(False)
    world.advance()
    assert (world.resets, world.sent[-1].truncated) == (1, True)
    world.begin()
    world.advance(terminated=True)  # this one they have not ended
    assert world.resets == 1


def test_an_actor_that_comes_into_an_episode_resets_nothing_while_a_person_holds_the_arm() -> None:
    world = World()
    world.actor.intervene(None)
    world.episode = 7
    world.observe(5)
    assert world.resets == 0
    assert waits_for(world)[1] == "holding still: a person keeps the arm from moving, and from its reset"
    world.now += 0.3
    world.observe(5)
    assert world.resets == 1


def test_what_was_lost_is_not_sent_again_while_a_person_holds_the_arm() -> None:
    world = World()
    world.actor.offer(snapshot())
    now = world.begin()
    world.actor.observe(now)
    assert len(world.actions) == 2
    world.actor.intervene(None)
    world.actor.observe(now)
    assert len(world.actions) == 2
    world.now += 0.3
    world.actor.observe(now)
    assert len(world.actions) == 3
