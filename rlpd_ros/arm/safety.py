# SPDX-License-Identifier: Apache-2.0
"""The limits between what a policy asks for and what an arm is told to do."""

from __future__ import annotations

import numpy as np

from rlpd_ros.errors import DataError

NO_CHANGE_LIMIT = 2.0  # the whole range of a normalised action


def clip(values: np.ndarray, low, high) -> np.ndarray:
    """Return ``values`` within bounds; several times faster than np.clip for a handful of numbers."""
    return np.minimum(np.maximum(values, low), high)


def admit_action(action: np.ndarray, size: int, previous: np.ndarray, max_change: float) -> np.ndarray:
    """Return ``action`` clipped to [-1, 1] and to ``previous`` +- ``max_change`` as a new float32 (size,).

    Raises DataError for anything that is not ``size`` finite numbers.
    """
    try:
        asked = np.array(action, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"action: expected {size} numbers, found {action!r}") from None
    if asked.shape != (size,):
        raise DataError(f"action: expected shape ({size},), found {asked.shape}")
    if not np.isfinite(asked).all():
        raise DataError(f"action: expected finite numbers, found {asked.tolist()}")
    admitted = clip(asked, -1.0, 1.0).astype(np.float32)
    if max_change < NO_CHANGE_LIMIT:
        admitted = clip(admitted, previous - np.float32(max_change), previous + np.float32(max_change))
    return admitted


def limit_joint_motion(position: np.ndarray, motion: np.ndarray, low: np.ndarray, high: np.ndarray,
                       max_motion: np.ndarray) -> np.ndarray:
    """Return the part of ``motion`` that joints at ``position`` (both rad) may make in one control period.

    A motion too fast for any joint is slowed as a whole, which keeps its direction; then each joint stops at its
    position limit.
    """
    excess = np.abs(motion / max_motion).max()
    slowed = motion / excess if excess > 1.0 else motion
    return clip(slowed, low - position, high - position)
