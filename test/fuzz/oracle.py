# SPDX-License-Identifier: Apache-2.0
"""What a transition must be to be stored, said once more and in another way than in the package: the fuzzer's judge."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlpd_ros.types import SpaceSpec


def transition_is_valid(m: Any, spec: SpaceSpec) -> bool:
    """Tell whether a Transition message may be stored, its sequence and what came before aside."""
    ends = m.terminated or m.truncated
    pixels = sum(f.size for f in spec.image_fields)
    arrays = [(m.state, spec.state_size, 1e6), (m.action, spec.action_size, 1.0)]
    arrays += [(m.asked_action, spec.action_size, 1.0)] if len(m.asked_action) else []
    arrays += [(m.final_state, spec.state_size, 1e6)] if ends else []
    return all([
        m.space_fingerprint == spec.fingerprint, 1 <= len(m.session) <= 128, m.session.isprintable(),
        m.sequence >= 1, m.episode >= 1, m.source <= 4, bool(abs(m.reward) <= 1e6),
        m.header.stamp.sec >= 0, m.header.stamp.nanosec < 1_000_000_000,
        all(len(a) == size and bool((np.abs(a) <= bound).all())
            for a, size, bound in ((np.asarray(a, np.float64), size, bound) for a, size, bound in arrays)),
        len(m.images) == pixels, len(m.final_images) == (pixels if ends else 0), ends or not len(m.final_state)])


def content(m: Any) -> tuple:
    """Return everything that a Transition message says, but for the name of its frame, in a form to be compared."""
    numbers = [np.asarray(a, np.float32).tobytes() for a in (m.state, m.action, m.asked_action, m.final_state)]
    pixels = [np.asarray(a, np.uint8).tobytes() for a in (m.images, m.final_images)]
    return (m.session, m.sequence, m.episode, m.step, m.space_fingerprint, np.float32(m.reward).tobytes(),
            m.terminated, m.truncated, m.success, m.source, m.policy_version,
            m.header.stamp.sec, m.header.stamp.nanosec, *numbers, *pixels)
