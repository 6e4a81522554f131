# SPDX-License-Identifier: Apache-2.0
"""The replay buffer. Every array of a transition encodes which transition it belongs to."""

import json

import numpy as np
import pytest

from rlpd_ros.data.replay_buffer import ReplayBuffer, symmetric_batches
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.types import Observation, Source, SpaceField, SpaceSpec, Transition


def make_spec(cameras: int = 0, side: int = 8) -> SpaceSpec:
    fields = [SpaceField.box("position", [-1e6] * 2, [1e6] * 2, "m"), SpaceField.box("speed", [-1e6], [1e6], "m/s")]
    fields += [SpaceField.image(f"camera{i}", side, side) for i in range(cameras)]
    return SpaceSpec("robot", tuple(fields), (SpaceField.box("delta", [-1] * 2, [1] * 2),), 10.0, "base", 100)


STATE, PIXELS = make_spec(), make_spec(cameras=2)


def observe(number: float, spec: SpaceSpec) -> Observation:
    """Make the observation with a number: state (n, n + 0.1, n + 0.2), images filled with n and n + 1 modulo 256."""
    state = np.array([number, number + 0.1, number + 0.2], np.float32)
    images = {f.name: np.full(f.shape, (int(number) + i) % 256, np.uint8) for i, f in enumerate(spec.image_fields)}
    return Observation(state, images)


def step(number: float, spec: SpaceSpec = STATE, terminated: bool = False) -> Transition:
    action = np.array([number, -number], np.float32)
    return Transition(observe(number, spec), action, number * 10, observe(number + 1, spec), terminated,
                      Source(int(number) % len(Source)))


def expect_whole(batch, terminated=lambda number: False) -> np.ndarray:
    """Check that every row consists of parts of one transition; return the numbers of the transitions."""
    numbers = batch.observations["state"][..., 0]
    for offset in (0, 1, 2):
        np.testing.assert_allclose(batch.observations["state"][..., offset], numbers + 0.1 * offset, atol=1e-3)
        np.testing.assert_allclose(batch.next_observations["state"][..., offset], numbers + 1 + 0.1 * offset, atol=1e-3)
    np.testing.assert_array_equal(batch.actions, np.stack([numbers, -numbers], axis=-1))
    np.testing.assert_array_equal(batch.rewards, numbers * 10)
    np.testing.assert_array_equal(batch.masks, 1.0 - np.vectorize(terminated, otypes=[float])(numbers))
    by_experts = [Source.INTERVENTION, Source.DEMONSTRATION]
    np.testing.assert_array_equal(batch.shown, np.isin(numbers % len(Source), by_experts))
    for i, name in enumerate(sorted(set(batch.observations) - {"state"})):
        for images, shift in ((batch.observations[name], 0), (batch.next_observations[name], 1)):
            expected = np.broadcast_to(((numbers + i + shift) % 256)[..., None, None, None], images.shape)
            np.testing.assert_array_equal(images, expected)
    return numbers


@pytest.mark.parametrize("spec", [STATE, PIXELS])
def test_holds_the_newest_transitions_whole(spec):
    buffer = ReplayBuffer(spec, 20)
    for number in range(53):
        buffer.insert(step(number, spec, terminated=number % 5 == 4))
        assert len(buffer) == min(number + 1, 20)
    batch = buffer.sample(2000, np.random.default_rng(0))
    numbers = expect_whole(batch, lambda number: number % 5 == 4)
    assert set(numbers) == set(range(33, 53))


def test_sampling_is_uniform():
    buffer = ReplayBuffer(STATE, 10)
    for number in range(17):
        buffer.insert(step(number))
    numbers = buffer.sample(20_000, np.random.default_rng(0)).rewards / 10
    counts = np.bincount(numbers.astype(int))[7:]
    assert counts.min() > 1800  # 2000 expected, standard deviation 42
    assert counts.max() < 2200


@pytest.mark.parametrize("shape", [7, (3, 4), (2, 3, 5)])
@pytest.mark.parametrize("spec", [STATE, PIXELS])
def test_batches_have_the_shape_asked_for(shape, spec):
    buffer = ReplayBuffer(spec, 10)
    for number in range(10):
        buffer.insert(step(number, spec))
    batch = buffer.sample(shape, np.random.default_rng(0))
    lead = (shape,) if isinstance(shape, int) else shape
    assert batch.rewards.shape == batch.masks.shape == lead
    assert batch.actions.shape == (*lead, 2)
    assert batch.actions.dtype == batch.rewards.dtype == batch.masks.dtype == np.float32
    for observations in (batch.observations, batch.next_observations):
        assert list(observations) == ["state"] + [f.name for f in spec.image_fields]
        assert observations["state"].shape == (*lead, 3)
        for f in spec.image_fields:
            assert observations[f.name].shape == (*lead, *f.shape)
            assert observations[f.name].dtype == np.uint8
            assert observations[f.name].ctypes.data % 64 == 0  # JAX takes it without a copy
    expect_whole(batch)


def test_copies_what_it_is_given_and_what_it_gives():
    buffer = ReplayBuffer(PIXELS, 4)
    transition = step(3, PIXELS)
    buffer.insert(transition)
    arrays = [transition.action]
    for observation in (transition.observation, transition.next_observation):
        arrays += [observation.state, *observation.images.values()]
    batch = buffer.sample(5, np.random.default_rng(0))
    newest = buffer.newest_observation()
    arrays += [*batch.observations.values(), *batch.next_observations.values(), batch.actions, batch.rewards,
               newest.state, *newest.images.values()]
    for array in arrays:
        array[...] = 99
    assert set(expect_whole(buffer.sample(5, np.random.default_rng(1)))) == {3}


def test_one_reused_observation_array_does_not_mix_transitions():
    buffer = ReplayBuffer(PIXELS, 8)
    now, following = observe(0, PIXELS), observe(0, PIXELS)
    for number in range(5):  # a driver that overwrites its arrays
        for target, source in ((now, observe(number, PIXELS)), (following, observe(number + 1, PIXELS))):
            target.state[...] = source.state
            for name, image in target.images.items():
                image[...] = source.images[name]
        buffer.insert(Transition(now, np.array([number, -number], np.float32), number * 10, following, False,
                                 Source(number % len(Source))))
    assert set(expect_whole(buffer.sample(100, np.random.default_rng(0)))) == set(range(5))


def test_an_observation_is_stored_once():
    spec = make_spec(cameras=2, side=64)
    raw = 2 * 64 * 64 * 3
    buffer = ReplayBuffer(spec, 1000)
    assert 1000 * raw < buffer.nbytes < 1.2 * 1000 * raw
    for number in range(1500):  # one long episode: all 1000 fit although next images are needed as well
        buffer.insert(step(number, spec))
    assert len(buffer) == 1000


def test_images_stay_paired_across_episodes_actors_and_evictions():
    buffer = ReplayBuffer(PIXELS, 50)
    rng = np.random.default_rng(0)
    position = {actor: 1000 * actor for actor in range(5)}  # actors take turns at random
    for _ in range(600):
        actor = int(rng.integers(5))
        buffer.insert(step(position[actor], PIXELS))
        # Sometimes a new episode: the next observation is not the one that the last transition ended with.
        position[actor] += 1 if rng.random() < 0.9 else 5
    numbers = expect_whole(buffer.sample(3000, rng))
    assert len(set(numbers)) == len(buffer) > 45


def test_images_stay_paired_when_scenes_come_back():
    buffer = ReplayBuffer(PIXELS, 16)
    rng = np.random.default_rng(0)
    for _ in range(500):  # few scenes, so that one is often let go of and then seen again
        buffer.insert(step(int(rng.integers(30)), PIXELS))
        expect_whole(buffer.sample(30, rng))


def test_equal_states_with_other_images_are_not_shared():
    buffer = ReplayBuffer(PIXELS, 10)
    state = np.zeros(3, np.float32)  # the arm stands still, the scene moves
    frames = [Observation(state, observe(number, PIXELS).images) for number in range(6)]
    for number in range(5):
        buffer.insert(Transition(frames[number], np.full(2, number, np.float32), 0.0, frames[number + 1], False,
                                 Source.POLICY))
    batch = buffer.sample(200, np.random.default_rng(0))
    numbers = batch.actions[:, 0]
    np.testing.assert_array_equal(batch.observations["camera0"][:, 0, 0, 0], numbers)
    np.testing.assert_array_equal(batch.next_observations["camera0"][:, 0, 0, 0], numbers + 1)


def test_transitions_without_common_images_take_the_room_of_two():
    buffer = ReplayBuffer(PIXELS, 40)
    for number in range(0, 400, 2):  # episodes of one step
        buffer.insert(step(number, PIXELS))
    numbers = expect_whole(buffer.sample(1000, np.random.default_rng(0)))
    assert set(numbers) == set(range(400 - 2 * len(buffer), 400, 2))
    assert len(buffer) == (40 + 5 + 2) // 2


@pytest.mark.parametrize("spec", [STATE, PIXELS])
def test_symmetric_in_every_mini_batch(spec):
    online, demos = ReplayBuffer(spec, 50), ReplayBuffer(spec, 50)
    for number in range(50):
        online.insert(step(number, spec))
        demos.insert(step(number + 1000, spec))
    batch = symmetric_batches(online, demos, 6, 10, np.random.default_rng(0))
    numbers = expect_whole(batch)
    assert numbers.shape == (6, 10)
    assert (numbers[:, :5] < 1000).all()
    assert (numbers[:, 5:] >= 1000).all()
    assert len(set(map(tuple, numbers))) == 6  # mini-batches are drawn independently
    odd = expect_whole(symmetric_batches(online, demos, 2, 5, np.random.default_rng(0)))
    np.testing.assert_array_equal((odd >= 1000).sum(axis=1), [3, 3])


def test_symmetric_with_one_empty_buffer_draws_all_from_the_other():
    full, empty = ReplayBuffer(STATE, 50), ReplayBuffer(STATE, 50)
    for number in range(50):
        full.insert(step(number))
    for online, demos in ((full, empty), (empty, full)):
        batch = symmetric_batches(online, demos, 3, 8, np.random.default_rng(0))
        assert expect_whole(batch).shape == (3, 8)
    with pytest.raises(ValueError, match="high <= 0"):
        symmetric_batches(empty, empty, 1, 2, np.random.default_rng(0))


def test_sampling_repeats_from_a_stored_generator_state():
    online, demos = ReplayBuffer(PIXELS, 50), ReplayBuffer(PIXELS, 50)
    for number in range(50):
        online.insert(step(number, PIXELS))
        demos.insert(step(number + 100, PIXELS))
    rng = np.random.default_rng(7)
    symmetric_batches(online, demos, 2, 8, rng)
    saved = json.dumps(rng.bit_generator.state)
    expected = symmetric_batches(online, demos, 2, 8, rng)
    again = np.random.default_rng(0)
    again.bit_generator.state = json.loads(saved)
    repeated = symmetric_batches(online, demos, 2, 8, again)
    np.testing.assert_array_equal(repeated.rewards, expected.rewards)
    np.testing.assert_array_equal(repeated.observations["camera1"], expected.observations["camera1"])


def test_newest_observation():
    buffer = ReplayBuffer(PIXELS, 3)
    with pytest.raises(IndexError):
        buffer.newest_observation()
    for number in range(5):
        buffer.insert(step(number, PIXELS))
        newest = buffer.newest_observation()
        assert newest.state[0] == number + 1
        assert (newest.images["camera0"] == number + 1).all()


def test_wrong_shapes_are_refused_and_nothing_changes():
    buffer = ReplayBuffer(PIXELS, 3)
    good = step(1, PIXELS)
    for bad in (
        Transition(Observation(np.zeros(1, np.float32), good.observation.images), good.action, 0.0,
                   good.next_observation, False, Source.POLICY),
        Transition(good.observation, np.zeros(1, np.float32), 0.0, good.next_observation, False, Source.POLICY),
        Transition(good.observation, good.action, 0.0, Observation(np.zeros(3, np.float32), {
            "camera0": np.zeros((8, 8, 1), np.uint8), "camera1": np.zeros((8, 8, 3), np.uint8)}), False, Source.POLICY),
    ):
        with pytest.raises(DataError, match="expected shape"):
            buffer.insert(bad)
    assert len(buffer) == 0


def test_more_than_the_machine_has_is_refused_with_what_fits():
    with pytest.raises(ConfigError, match=r"takes .* GB, .* replay_buffer_capacity or .*, together to at most \d+"):
        ReplayBuffer(make_spec(cameras=2, side=1024), 100_000_000)
