# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlpd_ros.driver import Driver
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.types import ActionRecord, Observation, Source, SpaceField, SpaceSpec, StepResult, TimeStep

SPEC = SpaceSpec("point", (SpaceField.box("x", [-1], [1], "m"),), (SpaceField.box("dx", [-0.5], [0.5], "m"),), 10.0,
                 "world", 3)


class PointArm:
    """Moves a point by half the action; refuses what is not finite; executes at most 0.8."""

    def __init__(self, lockstep: bool) -> None:
        self.spec = replace(SPEC, lockstep=lockstep)
        self.x, self.steps, self.holds = 0.0, 0, 0

    def _observe(self) -> Observation:
        return Observation(np.array([self.x], np.float32))

    def reset(self, seed: int | None = None) -> Observation:
        self.x, self.steps = 0.0, 0
        return self._observe()

    def step(self, action: np.ndarray) -> StepResult:
        if not np.isfinite(action).all():
            raise DataError("action: not finite")
        executed = np.clip(action, -0.8, 0.8)
        self.x += 0.5 * float(executed[0])
        self.steps += 1
        return StepResult(self._observe(), 0.0, False, self.steps >= 3, False, executed)

    def hold(self) -> StepResult:
        self.holds += 1
        return StepResult(self._observe(), 0.0, False, False, False, np.zeros(1, np.float32))


class Eyes:
    """Show how often they were looked at; shut, they see nothing."""

    fields = (SpaceField.image("front", 1, 1),)

    def __init__(self) -> None:
        self.shut, self.looks = False, []

    def look(self, now: int) -> dict[str, np.ndarray]:
        self.looks.append(now)
        if self.shut:
            raise DataError("camera front: shut")
        return {"front": np.full((1, 1, 3), len(self.looks), np.uint8)}


class World:
    """Records what the driver does; its clocks stand still unless moved."""

    def __init__(self, lockstep: bool, cameras: Eyes | None = None) -> None:
        self.observations: list[TimeStep] = []
        self.warnings: list[str] = []
        self.now = 0.0
        self.arm = PointArm(lockstep)
        self.driver = Driver(self.arm, self, "arm-1", 0.2, lambda: self.now, self._stamp, cameras, max_age=2.0)
        self.driver.reset()

    def _stamp(self) -> int:
        return 1000 + len(self.observations)

    def publish_observation(self, now: TimeStep) -> None:
        self.observations.append(now)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def answer(self, value: float, **changes) -> None:
        last = self.observations[-1]
        action = ActionRecord("actor-1", last.episode, last.step, np.array([value], np.float32), 1, Source.POLICY,
                              last.stamp)
        self.driver.act(replace(action, **changes))


def test_an_answer_is_executed_once_and_what_was_executed_is_told() -> None:
    world = World(lockstep=True)
    first = world.observations[0]
    assert (first.episode, first.step, first.executed_action) == (1, 0, None)
    world.answer(1.0)
    world.answer(1.0, step=0, stamp=first.stamp)  # the same answer again
    assert len(world.observations) == 2
    second = world.observations[1]
    assert (second.step, second.source, second.actor) == (1, Source.POLICY, "actor-1")
    np.testing.assert_allclose(second.executed_action, [0.8])
    np.testing.assert_allclose(second.observation.state, [0.4])


@pytest.mark.parametrize("changes", [{"episode": 2}, {"step": 1}, {"stamp": 5}])
def test_what_answers_another_observation_is_not_executed(changes: dict) -> None:
    world = World(lockstep=True)
    world.answer(1.0, **changes)
    assert world.arm.steps == 0


def test_an_episode_ends_and_waits_for_the_reset() -> None:
    world = World(lockstep=True)
    for _ in range(3):
        world.answer(0.1)
    assert world.observations[-1].truncated
    world.answer(0.1)
    assert world.arm.steps == 3
    world.driver.reset()
    assert (world.observations[-1].episode, world.observations[-1].step) == (2, 0)


def test_an_unanswered_observation_is_repeated_in_lockstep() -> None:
    world = World(lockstep=True)
    world.now = 0.1
    world.driver.tick()
    assert len(world.observations) == 1
    world.now = 0.25
    world.driver.tick()
    assert world.observations[1] is world.observations[0]


def test_in_lockstep_nothing_is_answered_that_was_seen_long_ago() -> None:
    """The arm waits, the world around a real one does not."""
    world = World(lockstep=True)
    old = world.observations[0]
    world.arm.x = 0.3  # somebody pushes it
    for world.now in (1.0, 1.9):
        world.driver.tick()
        assert world.observations[-1] is old
    world.now = 2.0
    world.driver.tick()
    fresh = world.observations[-1]
    assert (fresh.episode, fresh.step, world.arm.holds, world.driver.overruns) == (old.episode, old.step, 1, 0)
    np.testing.assert_allclose(fresh.observation.state, [0.3])
    world.answer(1.0, stamp=old.stamp)
    assert world.arm.steps == 0, "an answer to what was seen before"
    world.answer(1.0)
    assert world.arm.steps == 1
    for _ in range(2):
        world.answer(0.1)
    last = world.observations[-1]
    world.now = 10.0
    world.driver.tick()
    assert world.observations[-1] is last, "what an episode ended with stays as it was"


def test_in_real_time_the_answer_waits_for_the_tick_and_a_late_one_is_not_executed() -> None:
    world = World(lockstep=False)
    world.answer(1.0)
    assert world.arm.steps == 0
    world.driver.tick()
    assert world.observations[-1].step == 1
    late_for = world.observations[-1].stamp
    world.driver.tick()  # nobody answered: hold, observe afresh
    assert (world.arm.holds, world.driver.overruns, world.observations[-1].step) == (1, 1, 1)
    assert world.observations[-1].stamp != late_for
    world.answer(1.0, stamp=late_for)
    world.driver.tick()
    assert (world.arm.steps, world.arm.holds) == (1, 2)


def test_a_refused_action_moves_nothing_and_is_told() -> None:
    world = World(lockstep=True)
    with pytest.raises(DataError, match="action: expected finite numbers, found"):
        world.answer(float("nan"))
    assert len(world.observations) == 1
    assert world.arm.steps == 0


def test_what_an_arm_refuses_is_not_tried_again_on_what_was_seen_before(monkeypatch) -> None:
    world = World(lockstep=True)
    step = world.arm.step

    def refuse(action: np.ndarray) -> None:
        raise DataError("no controller")

    monkeypatch.setattr(world.arm, "step", refuse)
    world.answer(1.0)
    assert world.warnings == ["action refused, holding still: no controller"]
    seen = world.observations[-1].stamp
    monkeypatch.setattr(world.arm, "step", step)
    world.driver.tick()
    assert world.arm.holds == 1
    assert world.observations[-1].stamp != seen
    world.answer(1.0, stamp=seen)
    assert world.arm.steps == 0
    world.answer(-1.0)
    assert world.arm.steps == 1


def test_a_refused_action_does_not_take_the_place_of_a_good_one() -> None:
    world = World(lockstep=False)
    world.answer(0.5)
    with pytest.raises(DataError, match="action: expected finite numbers, found"):
        world.answer(float("inf"))
    world.driver.tick()
    assert (world.arm.steps, world.arm.holds) == (1, 0)


def test_images_belong_to_the_observation_and_to_the_space() -> None:
    eyes = Eyes()
    world = World(True, eyes)
    assert [f.name for f in world.driver.spec.observation] == ["x", "front"]
    world.answer(1.0)
    assert [o.observation.images["front"][0, 0, 0] for o in world.observations] == [1, 2]
    assert eyes.looks == [o.stamp for o in world.observations]
    world.now = 0.3
    world.driver.tick()  # a repetition is the same observation
    assert world.observations[2] is world.observations[1]


@pytest.mark.parametrize("lockstep", [True, False])
def test_what_the_cameras_do_not_show_waits_and_is_then_told_as_it_was(lockstep: bool) -> None:
    eyes = Eyes()
    world = World(lockstep, eyes)
    eyes.shut = True
    first = world.observations[0]
    world.answer(1.0)
    if not lockstep:
        world.driver.tick()  # the step is made, and seen by nobody
    assert (world.arm.steps, world.arm.holds) == (1, 0)
    for holds in (1, 2):
        world.driver.tick()
        assert (len(world.observations), world.arm.steps, world.arm.holds) == (1, 1, holds)
    assert set(world.warnings) == {"holding still: camera front: shut"}
    world.answer(1.0, step=0, stamp=first.stamp)  # answers what is not so any more
    assert world.arm.steps == 1
    eyes.shut = False
    world.driver.tick()
    step = world.observations[-1]
    assert (step.step, step.source, step.truncated) == (1, Source.POLICY, False)
    np.testing.assert_allclose(step.executed_action, [0.8])
    assert world.driver.overruns == 0


def test_a_reset_forgets_what_nobody_has_seen() -> None:
    eyes = Eyes()
    world = World(True, eyes)
    eyes.shut = True
    world.answer(1.0)
    eyes.shut = False
    world.driver.reset()
    world.driver.tick()
    assert [(o.episode, o.step) for o in world.observations] == [(1, 0), (2, 0)]


def test_a_camera_must_not_have_the_name_of_what_the_arm_observes() -> None:
    eyes = Eyes()
    eyes.fields = (SpaceField.image("x", 1, 1),)
    with pytest.raises(ConfigError, match="camera_topics: the arm observes x itself"):
        World(True, eyes)
