# SPDX-License-Identifier: Apache-2.0
"""Scripted experts that pick up a cube, from one observation at a time and without memory."""

from __future__ import annotations

import numpy as np

_HOVER = 0.07  # m above the cube's centre, at which the tool travels
_CLEAR = 0.05  # m above the cube's centre, from which the open fingers pass over it
_ALIGNED = 0.012  # m beside the cube, from which the tool descends
_AT_DEPTH = 0.008  # m above the cube's centre, from which the fingers close


def pick_motion(tool: np.ndarray, cube: np.ndarray, closed: bool) -> tuple[np.ndarray, bool]:
    """Return how the tool should move, m (3,), and whether the fingers should close; positions in m, z up."""
    motion = cube - tool
    height = -motion[2]
    if np.hypot(motion[0], motion[1]) > _ALIGNED:
        motion[2] += _HOVER
        if height < _CLEAR:
            motion[:2] = 0.0  # up first, or the fingers would knock the cube over
        return motion, False
    if height > _AT_DEPTH:
        return motion, False
    if closed:
        motion[:] = (0.0, 0.0, 1.0)
    return motion, True


class Disturbance:
    """Adds Gaussian noise to the motion part of an action, so that demonstrations differ."""

    def __init__(self, noise: float, seed: int):
        self._noise = noise
        self._rng = np.random.default_rng(seed)

    def __call__(self, motion: np.ndarray) -> np.ndarray:
        if self._noise:
            motion = motion + self._noise * self._rng.standard_normal(motion.shape)
        return np.clip(motion, -1.0, 1.0)
