# SPDX-License-Identifier: Apache-2.0
"""The interface between the system and an arm. Every driver passes the same conformance test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rlpd_ros.types import Observation, SpaceSpec, StepResult

Expert = Callable[[Observation], np.ndarray]
"""Chooses an action, float32 (action_size,) in [-1, 1], for the arm's newest observation, without memory."""


@dataclass(frozen=True)
class Telemetry:
    """Joint state and tool pose for people and plots; arrays are float64.

    ``position`` rad (fingers: m), ``velocity`` rad/s (m/s), ``effort`` N m (N), one per name; ``ee_position`` m (3,)
    and ``ee_orientation`` as a quaternion x, y, z, w (4,) in the specification's ``frame_id``.
    """

    joint_names: tuple[str, ...]
    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray
    ee_position: np.ndarray
    ee_orientation: np.ndarray


class ArmDriver(Protocol):
    """An arm with its task: moves for one control period at a time, and says what it really did.

    It may also have ``render() -> np.ndarray | None``: a picture of it for people, uint8 (height, width, 3), as in
    Gymnasium. ``rlpd eval RUN --video FILE`` films by it.
    """

    @property
    def spec(self) -> SpaceSpec:
        """Describe observation and action. A normalised action maps linearly onto the action fields' bounds."""

    def reset(self, seed: int | None = None) -> Observation:
        """Start an episode. The same seed gives the same start; without one the driver's own sequence goes on."""

    def step(self, action: np.ndarray) -> StepResult:
        """Act for one control period on ``action``, (action_size,) in normalised units.

        Values beyond [-1, 1] are clipped and the safety limits applied last; the result holds what was executed.
        Raises DataError, without moving, for a wrong size, a value that is not finite or an episode that is over.
        """

    def hold(self) -> StepResult:
        """Stay still for one control period: what a real-time loop does when no action arrives.

        It is no step of the episode: it is not counted, earns no reward and ends nothing.
        """

    def telemetry(self) -> Telemetry | None:
        """Return joint state and tool pose; None, each time, where the arm does not tell, or publishes them itself."""

    def expert(self, noise: float = 0.0, seed: int = 0) -> Expert | None:
        """Return a scripted expert for the task, or None where there is none.

        ``noise`` is the standard deviation of the disturbance of its motions, in normalised units.
        """

    def close(self) -> None:
        """Release the arm; may be called twice."""
