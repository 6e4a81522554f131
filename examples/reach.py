# SPDX-License-Identifier: Apache-2.0
"""An arm of one's own: a tool that must reach a point. See docs/your_arm.md.

``PYTHONPATH=examples:$PYTHONPATH rlpd train --config examples/reach.yaml``
"""

from __future__ import annotations

import numpy as np

from rlpd_ros.arm.config import DriverConfig
from rlpd_ros.arm.driver import Expert
from rlpd_ros.arm.safety import admit_action
from rlpd_ros.errors import DataError
from rlpd_ros.types import Observation, SpaceField, SpaceSpec, StepResult

REACHED = 0.02  # m from the goal
SCALE = 0.03  # m per control period, for an action of 1
WORKSPACE = 0.2  # m, along each axis, to either side


class ReachArm:
    """Move a tool along ``axes``, x and y, to a goal that is elsewhere in each episode. Implements ``ArmDriver``.

    Action (axes): the tool's motion in units of SCALE. Observation (2 axes): the tool's position and the way from there
    to the goal, m. Reward 1 and termination within ``reached`` m of the goal.
    """

    def __init__(self, config: DriverConfig, reached: float = REACHED, axes: int = 2) -> None:
        self._config = config
        self._reached, self._axes = reached, axes
        self._rng = np.random.default_rng(config.seed)
        self.spec = SpaceSpec(
            robot="reach", frame_id="base", control_rate=config.control_rate, lockstep=config.lockstep,
            max_episode_steps=config.max_episode_steps or 40,
            observation=(SpaceField.box("tool_position", [-WORKSPACE] * axes, [WORKSPACE] * axes, "m"),
                         SpaceField.box("goal_offset", [-2 * WORKSPACE] * axes, [2 * WORKSPACE] * axes, "m")),
            action=(SpaceField.box("tool_motion", [-SCALE] * axes, [SCALE] * axes, "m"),))
        self._tool, self._goal = np.zeros(axes), np.zeros(axes)
        self._executed = np.zeros(axes, np.float32)
        self._steps, self._over = 0, True

    def reset(self, seed: int | None = None) -> Observation:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._tool = np.zeros(self._axes)  # a real arm: move to the start, wait until it is there
        self._goal = self._rng.uniform(-0.75 * WORKSPACE, 0.75 * WORKSPACE, self._axes)
        self._executed = np.zeros(self._axes, np.float32)
        self._steps, self._over = 0, False
        return self._observe()

    def step(self, action: np.ndarray) -> StepResult:
        if self._over:
            raise DataError("step: the episode is over; reset the arm first")
        admitted = admit_action(action, self._axes, self._executed, self._config.max_action_change)
        before = self._tool
        self._tool = np.clip(before + SCALE * admitted, -WORKSPACE, WORKSPACE)  # a real arm: command it; wait
        self._executed = ((self._tool - before) / SCALE).astype(np.float32).clip(-1.0, 1.0)
        self._steps += 1
        success = bool(np.linalg.norm(self._goal - self._tool) < self._reached)
        truncated = not success and self._steps >= self.spec.max_episode_steps
        self._over = success or truncated
        return StepResult(self._observe(), float(success), success, truncated, success, self._executed.copy())

    def hold(self) -> StepResult:
        self._executed = np.zeros(self._axes, np.float32)
        return StepResult(self._observe(), 0.0, False, False, False, self._executed.copy())

    def telemetry(self) -> None:
        return None  # a real arm: joint state and tool pose, for joint_states and ee_pose

    def expert(self, noise: float = 0.0, seed: int = 0) -> Expert:
        rng, axes = np.random.default_rng(seed), self._axes

        def act(observation: Observation) -> np.ndarray:
            motion = observation.state[axes:] / SCALE + noise * rng.standard_normal(axes)
            return np.clip(motion, -1.0, 1.0).astype(np.float32)

        return act

    def close(self) -> None:
        self._over = True

    def _observe(self) -> Observation:
        return Observation(np.concatenate([self._tool, self._goal - self._tool]).astype(np.float32))
