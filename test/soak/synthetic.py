# SPDX-License-Identifier: Apache-2.0
"""An arm of numbers and pictures only; and nodes whose networks look at the numbers alone: ``synthetic.py NODE``."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module

import numpy as np

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.safety import admit_action
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.policy import Policy
from rlpd_ros.types import Observation, SpaceField, SpaceSpec, StepResult

SIDE = 128  # pixels
CAMERAS = ("front", "wrist")
LENGTH = 200  # steps of an episode


class SyntheticArm:
    """A state of noise, and two cameras that see noise: nothing of it can be shared or packed."""

    def __init__(self, config: ArmConfig) -> None:
        self.spec = SpaceSpec(
            "synthetic", (SpaceField.box("position", [-1] * 7, [1] * 7, "m"),
                          *(SpaceField.image(name, SIDE, SIDE) for name in CAMERAS)),
            (SpaceField.box("motion", [-0.1] * 4, [0.1] * 4, "m"),), config.control_rate, "base", LENGTH,
            config.lockstep)
        self._rng = np.random.default_rng(config.seed)
        self._steps = 0

    def _observe(self) -> Observation:
        return Observation(self._rng.uniform(-1, 1, 7).astype(np.float32), {
            name: np.frombuffer(self._rng.bytes(SIDE * SIDE * 3), np.uint8).reshape(SIDE, SIDE, 3) for name in CAMERAS})

    def reset(self, seed: int | None = None) -> Observation:
        self._steps = 0
        return self._observe()

    def step(self, action: np.ndarray) -> StepResult:
        executed = admit_action(action, 4, np.zeros(4, np.float32), 2.0)
        self._steps += 1
        return StepResult(self._observe(), float(executed[0]), False, self._steps >= LENGTH, False, executed)

    def hold(self) -> StepResult:
        return StepResult(self._observe(), 0.0, False, False, False, np.zeros(4, np.float32))

    def telemetry(self) -> None:
        return None

    def expert(self, noise: float = 0.0, seed: int = 0) -> None:
        return None

    def close(self) -> None:
        pass


def look_away() -> None:
    """Let policies and agents be built as if there were no images: to see 50 a second takes more than a processor."""
    policy, create = Policy.__init__, Agent.create

    def blind(spec: SpaceSpec) -> SpaceSpec:
        return replace(spec, observation=spec.state_fields)

    Policy.__init__ = lambda self, spec, config: policy(self, blind(spec), config)
    Agent.create = staticmethod(lambda spec, *rest: create(blind(spec), *rest))


if __name__ == "__main__":
    name = sys.argv.pop(1)
    look_away()
    sys.exit(import_module(f"rlpd_ros.nodes.{name}").main())
