# SPDX-License-Identifier: Apache-2.0
"""Scripted experts that pick up a cube, from one observation at a time and without memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_HOVER = 0.07  # m above the cube's centre, at which the tool travels
_CLEAR = 0.05  # m above the cube's centre, from which the open fingers pass over it
_ALIGNED = 0.012  # m beside the cube, from which the tool descends past _CLEAR
_BETWEEN = 0.02  # m beside the cube, up to which it stays between the open fingers
_AT_DEPTH = 0.008  # m above the cube's centre, from which the fingers close
_GYM_HIL_CLOSED = 250.0  # of 255: command of a gripper that has been closing for long enough
_GYM_HIL_CLOSING = 0.3  # share of the whole way per step, slow enough for the fingers to follow


def pick_motion(offset: np.ndarray, closed: bool) -> tuple[np.ndarray, bool]:
    """Return how the tool should move, m (3,), and whether the fingers should close.

    ``offset`` leads from the tool to the cube, m (3,), z up.
    """
    motion = np.array(offset)
    height = -motion[2]
    if np.hypot(motion[0], motion[1]) > (_ALIGNED if height > _CLEAR else _BETWEEN):
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


def gym_hil_pick_cube(fields: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the action (7,), in its own units, for gym_hil's PandaPickCubeBase without images.

    ``agent_pos`` (18,) ends with the gripper's command, 0 open to 255 closed, and the tool's position in m. What it
    takes for the gripper is a change of that command; the fingers need some steps to follow.
    """
    gripper, tool = fields["agent_pos"][14], fields["agent_pos"][15:18]
    motion, close = pick_motion(fields["environment_state"] - tool, closed=gripper > _GYM_HIL_CLOSED)
    return np.concatenate((motion, np.zeros(3), (_GYM_HIL_CLOSING if close else -1.0,)))
