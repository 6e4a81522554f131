# SPDX-License-Identifier: Apache-2.0
"""An arm of one's own, as a Gymnasium environment: a tool that must reach a point. See docs/your_arm.md.

``PYTHONPATH=examples rlpd train --config examples/reach.yaml --demos none``
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

REACHED = 0.02  # m


class Reach(gymnasium.Env):
    """Move a tool in x and y to a goal that is elsewhere in each episode.

    Observation: ``tool`` m (2,), ``goal`` m (2,), the way from tool to goal. Action: motion of the tool in this control
    period, m (2,). Reward 1 and termination within REACHED of the goal. The time limit is that of the registration.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Dict({
            "tool": spaces.Box(-0.2, 0.2, (2,), np.float32), "goal": spaces.Box(-0.4, 0.4, (2,), np.float32)})
        self.action_space = spaces.Box(-0.03, 0.03, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._tool = np.zeros(2)  # a real arm: move to the start position, wait until it is there
        self._goal = self.np_random.uniform(-0.15, 0.15, 2)
        return self._observe(), {}

    def step(self, action: np.ndarray):
        self._tool = np.clip(self._tool + action, -0.2, 0.2)  # a real arm: command it, wait for the period to end
        reached = bool(np.linalg.norm(self._goal - self._tool) < REACHED)
        return self._observe(), float(reached), reached, False, {"is_success": reached}

    def _observe(self) -> dict[str, np.ndarray]:
        return {"tool": self._tool.astype(np.float32), "goal": (self._goal - self._tool).astype(np.float32)}


gymnasium.register("my_lab/Reach-v0", entry_point=Reach, max_episode_steps=40)
