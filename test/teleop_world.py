# SPDX-License-Identifier: Apache-2.0
"""Arms that a person can move, and what a person at a device is expected to ask of them."""

from __future__ import annotations

import math

import numpy as np

from rlpd_ros.types import Source, SpaceField, SpaceSpec

KEEP = math.nan  # of a gripper


def space(*fields: SpaceField) -> SpaceSpec:
    return SpaceSpec("test", (SpaceField.box("state", [-1], [1]),), fields, 10.0, "base", 100)


def box(name: str, size: int) -> SpaceField:
    return SpaceField.box(name, [-1] * size, [1] * size)


PANDA = space(box("ee_motion", 3), box("gripper_opening", 1))
PLAIN = space(box("action", 4))
TURNING = space(box("tool", 12), box("gripper", 1))


def moves(person, now: float, *action: float) -> None:
    """Expect that the person acts."""
    command = person.command(now)
    assert command.source is Source.INTERVENTION
    assert command.action.dtype == np.float32
    np.testing.assert_allclose(command.action, action, rtol=1e-6)


def holds(person, now: float, gripper: float | None = None) -> None:
    """Expect that the arm is held, which nobody learns from."""
    command = person.command(now)
    assert command.source is Source.HOLD
    assert not command.action[person.moved].any()
    if gripper is not None:
        np.testing.assert_array_equal(command.action[-1], np.float32(gripper))
