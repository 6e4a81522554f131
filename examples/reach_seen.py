# SPDX-License-Identifier: Apache-2.0
"""The arm of reach.py, whose goal only a camera shows. See docs/your_arm.md.

``PYTHONPATH=examples:$PYTHONPATH rlpd train --config examples/reach_seen.yaml``
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from reach import SCALE, WORKSPACE, ReachArm

from rlpd_ros.arm.config import DriverConfig
from rlpd_ros.arm.driver import Expert
from rlpd_ros.types import Observation, SpaceField

SIDE = 64  # pixels of the image, which shows the workspace from above
RADIUS = 4  # pixels of what marks tool and goal


class SeenReachArm(ReachArm):
    """Observation: the tool's position, m, and an image in which the tool is red and the goal green."""

    def __init__(self, config: DriverConfig) -> None:
        super().__init__(config)
        self.spec = replace(self.spec, robot="reach_seen", observation=(
            self.spec.observation[0], SpaceField.image("above", SIDE, SIDE)))

    def expert(self, noise: float = 0.0, seed: int = 0) -> Expert:
        rng = np.random.default_rng(seed)

        def act(observation: Observation) -> np.ndarray:
            motion = (self._goal - self._tool) / SCALE + noise * rng.standard_normal(2)  # it need not look
            return np.clip(motion, -1.0, 1.0).astype(np.float32)

        return act

    def _observe(self) -> Observation:
        image = np.full((SIDE, SIDE, 3), 90, np.uint8)
        for at, channel in ((self._goal, 1), (self._tool, 0)):
            column, row = np.round((at / WORKSPACE + 1.0) / 2.0 * (SIDE - 1)).astype(int)
            part = image[max(0, row - RADIUS):row + RADIUS, max(0, column - RADIUS):column + RADIUS]
            part[:] = 0
            part[..., channel] = 255
        return Observation(self._tool.astype(np.float32), {"above": image})
