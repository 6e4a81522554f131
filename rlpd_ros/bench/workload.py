# SPDX-License-Identifier: Apache-2.0
"""What is benchmarked with: spaces of the usual size, transitions, full buffers."""

from __future__ import annotations

import numpy as np

from rlpd_ros.data.replay_buffer import ReplayBuffer
from rlpd_ros.types import Observation, Source, SpaceField, SpaceSpec, Transition, TransitionRecord

STATES, ACTIONS, BATCH = 21, 4, 256


def space(images: int = 0, lockstep: bool = True, control_rate: float = 10.0) -> SpaceSpec:
    """Return a space with 21 numbers, ``images`` cameras of 128 x 128 and 4 actions."""
    cameras = tuple(SpaceField.image(f"camera_{i}", 128, 128) for i in range(images))
    return SpaceSpec("bench", (SpaceField.box("state", [-1] * STATES, [1] * STATES), *cameras),
                     (SpaceField.box("motion", [-1] * ACTIONS, [1] * ACTIONS),), control_rate, "base", 100, lockstep)


SPACES = {"state": space(), "two 128 x 128 images": space(images=2)}


def observation(spec: SpaceSpec, rng: np.random.Generator) -> Observation:
    """Return a random observation of ``spec``."""
    return Observation(rng.uniform(-1, 1, STATES).astype(np.float32),
                       {f.name: rng.integers(0, 256, f.shape, np.uint8) for f in spec.image_fields})


def filled_buffer(spec: SpaceSpec, capacity: int, size: int, seed: int = 0) -> ReplayBuffer:
    """Return a buffer with ``size`` random transitions."""
    rng, buffer = np.random.default_rng(seed), ReplayBuffer(spec, capacity)
    for _ in range(size):
        buffer.insert(transition(spec, rng))
    return buffer


def transition(spec: SpaceSpec, rng: np.random.Generator) -> Transition:
    """Return a random complete transition."""
    return Transition(observation(spec, rng), rng.uniform(-1, 1, ACTIONS).astype(np.float32), float(rng.random()),
                      observation(spec, rng), False, Source.POLICY)


def records(spec: SpaceSpec, session: str, count: int, episode_steps: int = 100) -> list[TransitionRecord]:
    """Return the transitions of one session as they travel, in order, in episodes that a time limit ends."""
    rng, made = np.random.default_rng(0), []
    observations = [observation(spec, rng) for _ in range(16)]  # generating more would cost memory, not realism
    for i in range(count):
        episode, step = divmod(i, episode_steps)
        over = step == episode_steps - 1
        made.append(TransitionRecord(
            session, i + 1, episode + 1, step, observations[i % 16], rng.uniform(-1, 1, ACTIONS).astype(np.float32),
            0.0, False, over, False, Source.POLICY, 1, observations[(i + 1) % 16] if over else None, spec.fingerprint,
            i + 1))
    return made
