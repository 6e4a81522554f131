# SPDX-License-Identifier: Apache-2.0
"""The arm driver: turns actions into motion and motion into observations, episode by episode. No ROS, no threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from rlpd_ros.arm.driver import ArmDriver
from rlpd_ros.errors import DataError
from rlpd_ros.types import ActionRecord, Source, SpaceSpec, TimeStep, expect_shape
from rlpd_ros.untrusted import printable


class DriverOutputs(Protocol):
    """What an arm driver can do to the world, besides moving the arm."""

    def publish_observation(self, now: TimeStep) -> None: ...
    def warn(self, text: str) -> None: ...


class Driver:
    """Step ``arm`` with the actions that answer its observations.

    In lockstep each action is executed as it comes, and an observation that nobody answers is published again. In real
    time ``tick``, called at the control rate, executes the answer that came in time or holds the arm still, and then
    observes afresh: an answer to an older observation is late and is not executed.
    """

    def __init__(self, arm: ArmDriver, out: DriverOutputs, session: str, repeat_period: float,
                 clock: Callable[[], float], wall_ns: Callable[[], int]) -> None:
        self.spec: SpaceSpec = arm.spec
        self.overruns = 0
        self._repeat_period = repeat_period
        self._arm = arm
        self._out = out
        self._session = session
        self._clock = clock
        self._wall_ns = wall_ns
        self._now: TimeStep | None = None
        self._episode = 0
        self._published_at = 0.0
        self._pending: ActionRecord | None = None

    def reset(self) -> None:
        """Begin a new episode."""
        observation = self._arm.reset()
        self._episode += 1
        self._pending = None
        self._publish(TimeStep(self._session, self._episode, 0, observation, stamp=self._wall_ns()))

    def act(self, action: ActionRecord) -> None:
        """Take an answer; execute it now (lockstep) or at the next tick (real time).

        Raises DataError for one that no arm could execute: it does not take the place of a good one.
        """
        expect_shape("action", action.action, (self.spec.action_size,))
        if not np.isfinite(action.action).all():
            raise DataError(f"action: expected finite numbers, found {printable(action.action)}")
        now = self._now
        answers = now is not None and not now.last and (action.episode, action.step, action.stamp) == (
            now.episode, now.step, now.stamp)
        if not answers:  # repeated, late, or meant for an earlier life of this node
            return
        if self.spec.lockstep:
            self._execute(action)
        else:
            self._pending = action

    def tick(self) -> None:
        """Do what time asks for: a control step (real time), or a repetition (lockstep)."""
        if self._now is None:
            return
        if self.spec.lockstep:
            if self._clock() - self._published_at >= self._repeat_period:
                self._publish(self._now)
        elif self._now.last:
            self._arm.hold()
            self._publish(self._now)
        elif self._pending is not None:
            self._execute(self._pending)
        else:
            self.overruns += 1
            self._publish(replace(self._now, observation=self._arm.hold().observation, stamp=self._wall_ns()))

    def _execute(self, action: ActionRecord) -> None:
        assert self._now is not None
        self._pending = None
        try:
            result = self._arm.step(action.action)
        except DataError as error:
            self._out.warn(f"action refused, holding still: {error}")
            return
        self._publish(TimeStep(
            self._session, self._episode, self._now.step + 1, result.observation, result.reward, result.terminated,
            result.truncated, result.success, result.executed_action, Source(action.source), self._wall_ns()))

    def _publish(self, now: TimeStep) -> None:
        self._now = now
        self._published_at = self._clock()
        self._out.publish_observation(now)
