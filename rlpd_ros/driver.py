# SPDX-License-Identifier: Apache-2.0
"""The arm driver: turns actions into motion and motion into observations, episode by episode. No ROS, no threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from rlpd_ros.arm.driver import ArmDriver
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.types import ActionRecord, Source, SpaceField, SpaceSpec, TimeStep, expect_shape
from rlpd_ros.untrusted import printable


class DriverOutputs(Protocol):
    """What an arm driver can do to the world, besides moving the arm."""

    def publish_observation(self, now: TimeStep) -> None: ...
    def warn(self, text: str) -> None: ...


class Cameras(Protocol):
    """Cameras that are not the arm's own: their images, and whether they belong to what it observes."""

    @property
    def fields(self) -> tuple[SpaceField, ...]: ...
    def look(self, now: int) -> dict[str, np.ndarray]: ...  # of ``now``, ns; raises DataError if there are none of then


class Driver:
    """Step ``arm`` with the actions that answer its observations.

    In lockstep each action is executed as it comes, and an observation that nobody answers is published again; beyond
    ``max_age`` s the arm is observed afresh instead, since the world does not wait even where the arm does. In real
    time ``tick``, called at the control rate, executes the answer that came in time or holds the arm still, and then
    observes afresh: an answer to an older observation is late and is not executed.

    With ``cameras`` their images are part of the observation. What they do not show is not published: the arm holds
    still and is observed afresh until they do.
    """

    def __init__(self, arm: ArmDriver, out: DriverOutputs, session: str, repeat_period: float,
                 clock: Callable[[], float], wall_ns: Callable[[], int], cameras: Cameras | None = None,
                 max_age: float = math.inf) -> None:
        self.spec: SpaceSpec = arm.spec
        if cameras is not None:
            twice = {f.name for f in arm.spec.observation} & {f.name for f in cameras.fields}
            if twice:
                raise ConfigError(f"camera_topics: the arm observes {', '.join(sorted(twice))} itself; give that "
                                  "camera another name")
            self.spec = replace(arm.spec, observation=(*arm.spec.observation, *cameras.fields))
        self._cameras = cameras
        self._unseen: TimeStep | None = None  # waits for the cameras
        self.overruns = 0
        self._repeat_period = repeat_period
        self._max_age = max_age
        self._arm = arm
        self._out = out
        self._session = session
        self._clock = clock
        self._wall_ns = wall_ns
        self._now: TimeStep | None = None
        self._episode = 0
        self._observed_at = self._published_at = 0.0
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
        if self._unseen is not None:
            self._observe_again(self._unseen)
        elif self._now is None:
            return
        elif self.spec.lockstep:
            if not self._now.last and self._clock() - self._observed_at >= self._max_age:
                self._observe_again(self._now)
            elif self._clock() - self._published_at >= self._repeat_period:
                self._send(self._now)
        elif self._now.last:
            self._arm.hold()
            self._send(self._now)
        elif self._pending is not None:
            self._execute(self._pending)
        else:
            self.overruns += 1
            self._observe_again(self._now)

    def _execute(self, action: ActionRecord) -> None:
        assert self._now is not None
        self._pending = None
        try:
            result = self._arm.step(action.action)
        except DataError as error:
            self._out.warn(f"action refused, holding still: {error}")
            self._observed_at = -math.inf  # what is tried again shall answer what is seen then
            return
        self._publish(TimeStep(
            self._session, self._episode, self._now.step + 1, result.observation, result.reward, result.terminated,
            result.truncated, result.success, result.executed_action, Source(action.source), action.session,
            self._wall_ns()))

    def _observe_again(self, now: TimeStep) -> None:
        self._publish(replace(now, observation=self._arm.hold().observation, stamp=self._wall_ns()))

    def _publish(self, now: TimeStep) -> None:
        """Publish what is observed, or wait until the cameras show it too."""
        self._now, self._unseen, self._observed_at = None, None, self._clock()
        if self._cameras is not None:
            try:
                images = self._cameras.look(now.stamp)
            except DataError as error:
                self._unseen = now
                self._out.warn(f"holding still: {error}")
                return
            now = replace(now, observation=replace(now.observation, images={**now.observation.images, **images}))
        self._send(now)

    def _send(self, now: TimeStep) -> None:
        self._now = now
        self._published_at = self._clock()
        self._out.publish_observation(now)
