# SPDX-License-Identifier: Apache-2.0
"""What a person beside the arm wants: a motion, that it stands still, that an episode is over. No ROS."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rlpd_ros.errors import DataError
from rlpd_ros.types import SpaceSpec, TimeStep
from rlpd_ros.untrusted import printable

OPEN = 1.0  # a gripper after a reset


class Person:
    """The last that a person asked for, which counts for ``timeout`` s of ``clock``, and their word on an episode."""

    def __init__(self, spec: SpaceSpec, timeout: float, clock: Callable[[], float]) -> None:
        self.verdict: bool | None = None  # whether the episode under way, which ends with it, is a success
        self._spec = spec
        self._timeout = timeout
        self._clock = clock
        self._asked: np.ndarray | None = None  # None: to stand still
        self._asked_at = -math.inf

    def ask(self, action: np.ndarray | None) -> None:
        """Take an action, normalised to [-1, 1], NaN for a gripper that stays as it is; None: to stand still.

        Raises DataError for another number of elements or one that is not finite.
        """
        if action is not None:
            given, gripper = np.isfinite(action), self._spec.gripper
            fits = np.shape(action) == (self._spec.action_size,)
            if fits and gripper is not None:
                given[gripper] |= np.isnan(action[gripper])
            if not (fits and given.all()):
                raise DataError(f"action: expected {self._spec.action_size} finite numbers, found {printable(action)}")
            action = np.clip(np.asarray(action, np.float32), -1.0, 1.0)
        self._asked, self._asked_at = action, self._clock()

    @property
    def acts(self) -> bool:
        return self._is_there and self._asked is not None

    @property
    def holds(self) -> bool:
        return self._is_there and self._asked is None

    @property
    def _is_there(self) -> bool:
        return self._clock() - self._asked_at <= self._timeout

    def action(self, now: TimeStep) -> np.ndarray:
        """Return the answer to ``now``, float32 (action_size,): what was asked for, or to stand still."""
        action, gripper = np.zeros(self._spec.action_size, np.float32), self._spec.gripper
        if self.acts:
            assert self._asked is not None
            action[:] = self._asked
        if gripper is not None and (not self.acts or np.isnan(action[gripper])):
            action[gripper] = OPEN if now.executed_action is None else now.executed_action[gripper]
        return action

    def judge(self, step: TimeStep) -> TimeStep:
        """Return ``step`` as the end that the person has said it is, if they have."""
        verdict, self.verdict = self.verdict, None
        if verdict is None:
            return step
        if verdict:
            return replace(step, reward=1.0, terminated=True, truncated=False, success=True)
        failed = step.terminated and not step.success  # as the arm says itself
        return replace(step, reward=min(step.reward, 0.0), terminated=failed, truncated=not failed, success=False)
