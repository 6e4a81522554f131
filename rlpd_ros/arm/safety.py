# SPDX-License-Identifier: Apache-2.0
"""The limits between what a policy asks for and what an arm is told to do."""

from __future__ import annotations

import numpy as np

from rlpd_ros.errors import DataError


def admit_action(action: np.ndarray, previous: np.ndarray | None, size: int, max_change: float) -> np.ndarray:
    """Return ``action`` clipped to [-1, 1] and to ``previous`` +- ``max_change`` as a new float32 (size,).

    Raises DataError for anything that is not ``size`` finite numbers.
    """
    try:
        admitted = np.array(action, np.float32)
    except (TypeError, ValueError):
        raise DataError(f"action: expected {size} numbers, found {action!r}") from None
    if admitted.shape != (size,):
        raise DataError(f"action: expected shape ({size},), found {admitted.shape}")
    if not np.isfinite(admitted).all():
        raise DataError(f"action: expected finite numbers, found {admitted.tolist()}")
    np.clip(admitted, -1.0, 1.0, out=admitted)
    if previous is not None and max_change < 2.0:
        np.clip(admitted, previous - max_change, previous + max_change, out=admitted)
    return admitted


def limit_joint_motion(position: np.ndarray, motion: np.ndarray, low: np.ndarray, high: np.ndarray,
                       max_motion: np.ndarray) -> np.ndarray:
    """Return the part of ``motion`` (rad) that joints at ``position`` may make in one control period.

    A motion too fast for any joint is slowed as a whole, which keeps its direction; then each joint stops at its
    position limit.
    """
    excess = float(np.max(np.abs(motion) / max_motion))
    slowed = motion / excess if excess > 1.0 else motion
    return np.clip(slowed, low - position, high - position)
