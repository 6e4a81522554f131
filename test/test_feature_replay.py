# SPDX-License-Identifier: Apache-2.0
"""Features in the replay buffer: numbers painted into the pixels must come out beside the states they belong to."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from rlpd_ros.data.intake import Intake
from rlpd_ros.data.replay_buffer import ReplayBuffer, symmetric_batches
from rlpd_ros.status import LearnerReport
from rlpd_ros.types import Observation, Source, SpaceField, SpaceSpec, TransitionRecord

CAMERAS, VARIANTS = ("front", "wrist"), 3
SPEC = SpaceSpec("test", (SpaceField.box("state", [0], [1e6]), *(SpaceField.image(name, 4, 4) for name in CAMERAS)),
                 (SpaceField.box("motion", [-1], [1]),), 10.0, "base", 100)


class Painted:
    """Reads the number that is painted into an image: [camera, variant, number in two bytes]."""

    def __init__(self) -> None:
        self.shapes: Mapping[str, tuple[int, int]] = dict.fromkeys(CAMERAS, (VARIANTS, 4))
        self.computed: list[float] = []

    def __call__(self, observation: Observation) -> dict[str, np.ndarray]:
        self.computed.append(float(observation.state[0]))
        return {name: np.array([[i, v, *observation.images[name][0, 0, :2]] for v in range(VARIANTS)], np.uint8)
                for i, name in enumerate(CAMERAS)}


def observe(number: int) -> Observation:
    images = {}
    for name in CAMERAS:
        images[name] = np.zeros((4, 4, 3), np.uint8)
        images[name][..., 0], images[name][..., 1] = divmod(number, 256)
    return Observation(np.array([number], np.float32), images)


def record(session: str, sequence: int, episode: int, step: int, number: int, last: bool = False,
           source: Source = Source.POLICY) -> TransitionRecord:
    return TransitionRecord(session, sequence, episode, step, observe(number), np.array([0.5], np.float32),
                            float(number), last, False, False, source, 1,
                            observe(number + 1) if last else None, SPEC.fingerprint)


def numbers(batch) -> np.ndarray:
    """Return the numbers of the transitions, after having checked that every row's parts belong together."""
    found = batch.rewards.astype(int)
    for observations, offset in ((batch.observations, 0), (batch.next_observations, 1)):
        np.testing.assert_array_equal(observations["state"][..., 0], found + offset)
        for i, name in enumerate(CAMERAS):
            camera, variant, high, low = np.moveaxis(observations[name].astype(int), -1, 0)
            np.testing.assert_array_equal(256 * high + low, found + offset)
            assert (camera == i).all()
            assert set(np.unique(variant)) <= set(range(VARIANTS))
    return found


class World:
    """Buffers behind an intake, as the learner has them."""

    def __init__(self, capacity: int = 1000) -> None:
        self.features = Painted()
        self.online, self.demos = (ReplayBuffer(SPEC, capacity, self.features) for _ in range(2))
        self.intake = Intake(SPEC, self.online, self.demos, LearnerReport(""), lambda r: None, lambda text: None,
                             lambda: 0.0)
        self.sequences = {"actor-1": itertools.count(1), "actor-2": itertools.count(1)}

    def send(self, session: str, *args, **kwargs) -> None:
        self.intake.receive(record(session, next(self.sequences[session]), *args, **kwargs))

    def prepare(self) -> None:
        while self.online.waiting or self.demos.waiting:
            self.online.prepare(3)
            self.demos.prepare(3)


@pytest.mark.parametrize("capacity", [1000, 40, 9])
def test_no_wrong_pairing_across_episodes_gaps_interventions_actors_and_wrap_around(capacity):
    """Two actors in turn, episodes of uneven length, lost steps, interventions; buffers with room and without."""
    world, rng, drawn = World(capacity), np.random.default_rng(0), set()
    number, places = 0, dict.fromkeys(world.sequences, (0, 0, 0, False))
    for i in range(600):
        session = "actor-1" if rng.random() < 0.6 else "actor-2"
        episode, step, base, open_ = places[session]
        if not open_:
            number += 100
            episode, step, base = episode + 1, 0, number
        elif rng.random() < 0.05:
            step += 1  # a step was lost: its predecessor has no observation to follow
        last = rng.random() < 0.15
        source = Source.INTERVENTION if rng.random() < 0.2 else Source.POLICY
        world.send(session, episode, step, base + step, last, source)
        places[session] = (episode, step + 1, base, not last)
        if i % 7 == 0:
            world.online.prepare(int(rng.integers(1, 6)))
            world.demos.prepare(int(rng.integers(1, 6)))
        if len(world.online):
            drawn |= set(numbers(symmetric_batches(world.online, world.demos, 2, 8, rng)).ravel())
    world.prepare()
    for _ in range(50):
        drawn |= set(numbers(symmetric_batches(world.online, world.demos, 2, 32, rng)).ravel())
    assert len(drawn) > 200


def test_each_observation_is_computed_once_and_counts_only_then():
    world = World()
    for step in range(10):
        world.send("actor-1", 1, step, 100 + step, last=step == 9)
    assert (len(world.online), world.online.stored, world.online.waiting) == (0, 10, 11)
    world.online.prepare(4)
    assert (len(world.online), world.online.waiting) == (3, 7)
    assert set(numbers(world.online.sample(100, np.random.default_rng(0)))) == {100, 101, 102}
    world.prepare()
    assert len(world.online) == 10
    assert world.features.computed == [float(100 + i) for i in range(11)]
    assert world.online.newest_observation().images["front"].shape == (4, 4, 3)


def test_every_variant_is_drawn_and_now_and_next_independently():
    world = World()
    for step in range(2):
        world.send("actor-1", 1, step, 100 + step, last=step == 1)
    world.prepare()
    batch = world.online.sample(600, np.random.default_rng(0))
    pairs = np.stack([batch.observations["front"][:, 1], batch.next_observations["front"][:, 1]], -1)
    counts = np.unique(pairs, axis=0, return_counts=True)[1]
    assert len(counts) == VARIANTS**2
    assert counts.min() > 35


def test_what_was_evicted_while_it_waited_is_not_computed():
    world = World(4)
    for step in range(40):
        world.send("actor-1", 1, step, 100 + step)
    assert len(world.online) == 0
    world.prepare()
    assert len(world.features.computed) == 5
    assert set(numbers(world.online.sample(100, np.random.default_rng(0)))) == {135, 136, 137, 138}


def test_memory_is_that_of_the_features():
    with_images, with_features = ReplayBuffer(SPEC, 1000), ReplayBuffer(SPEC, 1000, Painted())
    frames = 1000 + 1000 // 8 + 2
    assert with_images.nbytes - frames * 2 * 48 == with_features.nbytes - frames * 2 * VARIANTS * 4
    assert sum(data.nbytes for data in with_features._frames.data.values()) == frames * 2 * VARIANTS * 4
