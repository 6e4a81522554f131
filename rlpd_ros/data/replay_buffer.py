# SPDX-License-Identifier: Apache-2.0
"""The replay buffer, and symmetric sampling from experience and demonstrations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod

import numpy as np

from rlpd_ros.data.frames import FeatureFunction, FrameStore
from rlpd_ros.errors import ConfigError
from rlpd_ros.types import EXPERTS, Batch, Observation, SpaceSpec, Transition, expect_shape


class ReplayBuffer:
    """Hold the newest ``capacity`` transitions of one space and draw from them uniformly.

    Everything is copied in and copied out. The numbers of a transition stand in one row, so that drawing it touches
    one place in memory; images are stored once per observation, or ``features`` in place of them: then a transition
    counts, and is drawn, once ``prepare`` has computed them. Where episodes are shorter than eight steps, images
    leave room for fewer than ``capacity`` transitions. Memory is claimed as the buffer fills.

    Raises ConfigError if the machine has less memory than a full buffer takes.
    """

    def __init__(self, spec: SpaceSpec, capacity: int, features: FeatureFunction | None = None) -> None:
        self.spec = spec
        self.capacity = capacity
        width = _width(spec)
        frames = capacity + capacity // 8 + 2 if spec.image_fields else 0
        self.nbytes = 4 * capacity * width + frames * FrameStore.frame_bytes(spec.image_fields, features)
        expect_memory(self.nbytes, capacity)
        self._rows = np.zeros((capacity, width), np.float32)
        self._columns = _columns(spec, self._rows)
        self._frames = FrameStore(spec.image_fields, frames, features) if spec.image_fields else None
        self._image_shapes = {f.name: (features.shapes[f.name][1:] if features else f.shape) for f in spec.image_fields}
        self._newest_images: dict[str, np.ndarray] = {}
        self._frame = np.zeros((capacity, 2), np.intp)  # of the observation, of the next one
        self._oldest = 0
        self._size = 0
        self._ready = 0  # of the oldest ones: what can be drawn

    def __len__(self) -> int:
        return self._ready

    @property
    def stored(self) -> int:
        """Return how many transitions are here, those that cannot be drawn yet among them."""
        return self._size

    @property
    def waiting(self) -> int:
        """Return for how many observations ``prepare`` has still to compute features."""
        return self._frames.waiting if self._frames else 0

    def prepare(self, limit: int) -> None:
        """Compute the features of at most ``limit`` observations, in the order in which they came."""
        if self._frames is not None and self._frames.waiting:
            self._frames.compute(limit)
            self._count_ready()

    def _count_ready(self) -> None:
        while self._ready < self._size and (self._frames is None or all(
                map(self._frames.ready, self._frame[(self._oldest + self._ready) % self.capacity]))):
            self._ready += 1

    def insert(self, transition: Transition) -> None:
        """Store a copy of ``transition``, in place of the oldest one if there is no room.

        Raises DataError if an array has not the shape that the space gives it.
        """
        observation, following = transition.observation, transition.next_observation
        expect_shape("state", observation.state, (self.spec.state_size,))
        expect_shape("next state", following.state, (self.spec.state_size,))
        expect_shape("action", transition.action, (self.spec.action_size,))
        for f in self.spec.image_fields:
            expect_shape(f"image '{f.name}'", observation.images[f.name], f.shape)
            expect_shape(f"next image '{f.name}'", following.images[f.name], f.shape)
        if self._size == self.capacity:
            self._drop_oldest()
        if self._frames is not None:
            while self._frames.free < 2:
                self._drop_oldest()
        i = (self._oldest + self._size) % self.capacity
        states, next_states, actions, rewards, masks, shown = self._columns
        states[i] = observation.state
        next_states[i] = following.state
        actions[i] = transition.action
        rewards[i] = transition.reward
        masks[i] = transition.mask
        shown[i] = transition.source in EXPERTS
        if self._frames is not None:
            self._frame[i] = self._frames.put(observation), self._frames.put(following)
            self._newest_images = {name: following.images[name].copy() for name in self._image_shapes}
        self._size += 1
        self._count_ready()

    def sample(self, shape: int | Sequence[int], rng: np.random.Generator) -> Batch:
        """Draw transitions independently and uniformly; every array begins with ``shape``.

        The arrays are copies of what is stored, not necessarily contiguous. Raises ValueError if the buffer is empty.
        """
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        return _mix([(self, slice(None))], (1, prod(shape)), shape, rng)

    def newest_observation(self) -> Observation:
        """Return a copy of the last inserted transition's next observation. Raises IndexError if there is none."""
        if not self._size:
            raise IndexError("the replay buffer is empty")
        i = (self._oldest + self._size - 1) % self.capacity
        return Observation(self._columns[1][i].copy(), {n: image.copy() for n, image in self._newest_images.items()})

    def _drop_oldest(self) -> None:
        if self._frames is not None:
            for frame in self._frame[self._oldest]:
                self._frames.release(frame)
        self._oldest = (self._oldest + 1) % self.capacity
        self._size -= 1
        self._ready = max(0, self._ready - 1)

    def _draw(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        return (self._oldest + rng.integers(self._ready, size=shape)) % self.capacity


def symmetric_batches(online: ReplayBuffer, demos: ReplayBuffer, utd_ratio: int, batch_size: int,
                      rng: np.random.Generator) -> Batch:
    """Draw ``utd_ratio`` mini-batches of ``batch_size``; every array begins with (utd_ratio, batch_size).

    The first half of every mini-batch is from ``online``, the second half from ``demos`` (RLPD, section 4.1, holds for
    each mini-batch, not just for their sum); an odd one out is a demonstration. While one of them is empty, everything
    is drawn from the other. Raises ValueError if both are.
    """
    shape = (utd_ratio, batch_size)
    if len(online) == 0 or len(demos) == 0:
        return (online if len(online) else demos).sample(shape, rng)
    half = batch_size // 2
    return _mix([(online, slice(0, half)), (demos, slice(half, batch_size))], shape, shape, rng)


def _mix(parts: list[tuple[ReplayBuffer, slice]], rounds_and_size: tuple[int, int], shape: tuple[int, ...],
         rng: np.random.Generator) -> Batch:
    """Draw (rounds, size) transitions, each buffer filling its slice of every round, and give them ``shape``."""
    rounds, size = rounds_and_size
    spec, image_shapes = parts[0][0].spec, parts[0][0]._image_shapes
    rows = np.empty((rounds, size, _width(spec)), np.float32)
    images = {name: [_aligned((rounds, size, prod(item))) for _ in range(2)] for name, item in image_shapes.items()}
    for buffer, part in parts:
        where = buffer._draw((rounds, len(range(size)[part])), rng)
        rows[:, part] = buffer._rows.take(where, axis=0)
        frames = buffer._frames
        if frames is None:
            continue
        frame = buffer._frame[where] * frames.variants  # of now and next
        if frames.variants > 1:
            frame += rng.integers(frames.variants, size=frame.shape)
        for name, both in images.items():
            stored = frames.data[name].reshape(-1, both[0].shape[-1])
            for which, i in np.ndindex(2, rounds):  # straight into place; "clip" spares a buffer, indices are right
                stored.take(frame[i, :, which], axis=0, out=both[which][i, part], mode="clip")
    states, next_states, actions, rewards, masks, shown = (
        column.reshape(*shape, *column.shape[2:]) for column in _columns(spec, rows))
    now, following = ({name: both[which].reshape(*shape, *image_shapes[name]) for name, both in images.items()}
                      for which in (0, 1))
    return Batch({"state": states, **now}, actions, rewards, masks, {"state": next_states, **following}, shown)


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Return room for bytes, at a multiple of 64: JAX computes with such arrays in place, others it copies."""
    size = prod(shape)
    room = np.empty(size + 63, np.uint8)
    return room[-room.ctypes.data % 64:][:size].reshape(shape)


def _width(spec: SpaceSpec) -> int:
    return 2 * spec.state_size + spec.action_size + 3


def _columns(spec: SpaceSpec, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return views of ``rows``: states, next states, actions, rewards, masks, shown."""
    s, a = spec.state_size, spec.action_size
    return rows[..., :s], rows[..., s:2 * s], rows[..., 2 * s:2 * s + a], rows[..., -3], rows[..., -2], rows[..., -1]


def machine_memory() -> int:
    """Return how many bytes of memory the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def expect_memory(nbytes: int, capacity: int, what: str = "a replay buffer") -> None:
    """Raise ConfigError if the machine has less than ``nbytes``, which ``capacity`` transitions take when full."""
    available = machine_memory()
    if nbytes > available:
        raise ConfigError(
            f"{what} of {capacity} transitions takes {nbytes / 1e9:.1f} GB, the machine has {available / 1e9:.1f} GB: "
            "lower replay_buffer_capacity or demo_buffer_capacity, together to at most "
            f"{int(capacity * available / nbytes)}")
