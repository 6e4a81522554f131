# SPDX-License-Identifier: Apache-2.0
"""The policy: its actions, its way over a wire, and every reason to refuse it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rlpd_ros.errors import DataError
from rlpd_ros.exported_policy import save_policy
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.policy import Policy, make_snapshot, verify
from rlpd_ros.types import Observation, PolicySnapshot, SpaceField, SpaceSpec, checksum

CONFIG = PolicyConfig(hidden_dims=(16, 8), activation="tanh", layer_norm=True, normalize_observations=False)
OBSERVATION = Observation(np.array([0.5, -0.2, 0.9], np.float32))


def space(name: str = "state") -> SpaceSpec:
    observation, action = SpaceField.box(name, (-1, -1, -2), (1, 1, 2)), SpaceField.box("motion", (-1, -1), (1, 1))
    return SpaceSpec("test", (observation,), (action,), 10.0, "base", 100)


SPEC = space()


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(SPEC, CONFIG)


@pytest.fixture(scope="module")
def params(policy):
    return policy.init(0)


@pytest.fixture
def snapshot(policy, params) -> PolicySnapshot:
    return make_snapshot(policy, policy.serialize(params), SPEC, OBSERVATION, session="learner", version=7,
                         gradient_step=350, stamp=1)


def with_data(snapshot: PolicySnapshot, data: bytes) -> PolicySnapshot:
    """Replace the data and make the checksum agree with it, as a faulty learner would."""
    return replace(snapshot, data=data, checksum=checksum(data))


def test_mode_is_the_tanh_of_the_mean_by_hand(policy, params):
    x = OBSERVATION.state.astype(np.float64)
    for i in range(2):
        layer, norm = params["mlp"][f"hidden_{i}"], params["mlp"][f"norm_{i}"]
        x = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-6) * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
        x = np.tanh(x)
    expected = np.tanh(x @ np.asarray(params["mlp"]["mean"]["kernel"]) + np.asarray(params["mlp"]["mean"]["bias"]))
    action = policy.mode(params, OBSERVATION)
    assert action.dtype == np.float32
    np.testing.assert_allclose(action, expected, atol=1e-5)


def test_samples_scatter_around_the_mode_and_the_key_moves_on(policy, params):
    key, drawn = jax.random.PRNGKey(0), []
    for _ in range(2000):
        action, key = policy.sample(params, OBSERVATION, key)
        drawn.append(action)
    assert drawn[0].dtype == np.float32
    assert len(np.unique(np.stack(drawn), axis=0)) == 2000
    assert np.abs(drawn).max() <= 1
    np.testing.assert_allclose(np.tanh(np.median(np.arctanh(np.clip(drawn, -0.9999, 0.9999)), 0)),
                               policy.mode(params, OBSERVATION), atol=0.1)
    again, _ = policy.sample(params, OBSERVATION, jax.random.PRNGKey(0))
    np.testing.assert_array_equal(again, drawn[0])


def test_a_state_of_another_size_is_refused(policy, params):
    with pytest.raises(DataError, match=r"observation state: expected shape \(3,\), found \(4,\)"):
        policy.mode(params, Observation(np.zeros(4, np.float32)))


def test_parameters_survive_the_wire_bit_by_bit(policy, params):
    data = policy.serialize(params)
    assert len(data) == policy.data_size == 4 * sum(x.size for x in jax.tree.leaves(params))
    jax.tree.map(np.testing.assert_array_equal, policy.deserialize(data), params)


def test_parameters_are_little_endian_in_the_order_of_their_paths(policy, params):
    values = np.frombuffer(policy.serialize(params), "<f4")
    mlp = params["mlp"]
    by_path = [mlp[layer][name] for layer in sorted(mlp) for name in sorted(mlp[layer])]
    np.testing.assert_array_equal(values, np.concatenate([np.ravel(x) for x in by_path]))


def test_a_good_snapshot_is_accepted(policy, params, snapshot):
    accepted, error = verify(snapshot, policy, SPEC)
    jax.tree.map(np.testing.assert_array_equal, accepted, params)
    assert error <= 1e-6
    np.testing.assert_array_equal(snapshot.probe_action, policy.mode(params, OBSERVATION))


def test_change_is_the_distance_to_the_previous_version(policy, params, snapshot):
    moved = jax.tree.map(lambda x: x + 0.5, params)
    following = make_snapshot(policy, policy.serialize(moved), SPEC, OBSERVATION, session="learner", version=8,
                              gradient_step=400, previous=snapshot.data)
    assert snapshot.change == 0
    assert following.change == pytest.approx(0.5 * np.sqrt(policy.data_size / 4), rel=1e-5)


def test_every_setting_of_the_network_enters_the_fingerprint():
    others: dict[str, Any] = {
        "hidden_dims": (16, 9), "activation": "relu", "layer_norm": False, "normalize_observations": True,
        "log_std_min": -5.0, "log_std_max": 0.0}
    images = {"encoder", "backbone", "backbone_stages", "spatial_embeddings", "bottleneck_dim",
              "proprio_dim"}  # see test_encoders.py
    gripper = {"hybrid_gripper", "grasp_hidden_dims", "grasp_epsilon"}
    assert others.keys() == vars(CONFIG).keys() - images - gripper
    fingerprints = {Policy(SPEC, replace(CONFIG, **{name: value})).fingerprint for name, value in others.items()}
    assert len(fingerprints | {Policy(SPEC, CONFIG).fingerprint}) == len(others) + 1
    assert Policy(space("other"), CONFIG).fingerprint not in fingerprints
    assert Policy(space(), replace(CONFIG)).fingerprint == Policy(SPEC, CONFIG).fingerprint


# Refusals


def refusal(snapshot: PolicySnapshot, policy: Policy, spec: SpaceSpec = SPEC) -> str:
    with pytest.raises(DataError) as caught:
        verify(snapshot, policy, spec)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("policy version 7 refused: ")
    return str(caught.value)


def test_another_network_is_refused_with_what_differs(policy, snapshot):
    other = Policy(SPEC, replace(CONFIG, hidden_dims=(16, 9), activation="silu"))
    text = refusal(snapshot, other)
    assert policy.fingerprint in text
    assert other.fingerprint in text
    assert 'activation: learner "tanh", actor "silu"; hidden_dims: learner [16, 8], actor [16, 9])' in text


@pytest.mark.parametrize("description", ["", "{", "[]", "null", "[" * 100_000, '{"a": "' + "x" * 300_000 + '"}'])
def test_an_unreadable_description_is_refused_like_another_network(policy, snapshot, description):
    text = refusal(replace(snapshot, network=description, network_fingerprint="0" * 16), policy)
    assert "unreadable description from the learner" in text
    assert len(text) < 1000


@pytest.mark.parametrize("data", [b"", b"\0", b"\0" * 4, b"\0" * 10_000])
def test_data_of_another_size_is_refused_before_it_is_looked_at(policy, snapshot, data):
    assert f"size: expected {policy.data_size} bytes, found {len(data)}" in refusal(with_data(snapshot, data), policy)


def test_another_space_is_refused(snapshot):
    other = space("another")
    policy = Policy(other, CONFIG)
    text = refusal(replace(snapshot, network_fingerprint=policy.fingerprint), policy, other)
    assert f"space fingerprint: learner {SPEC.fingerprint}, actor {other.fingerprint}" in text


@pytest.mark.parametrize("position", [0, 101, -1])
def test_one_flipped_bit_is_refused(policy, snapshot, position):
    data = bytearray(snapshot.data)
    data[position] ^= 1
    text = refusal(replace(snapshot, data=bytes(data)), policy)
    assert f"checksum: learner {snapshot.checksum}, received data {checksum(bytes(data))}" in text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_refused(policy, snapshot, value):
    values = np.frombuffer(snapshot.data, "<f4").copy()
    values[-1] = value
    text = refusal(with_data(snapshot, values.tobytes()), policy)
    assert f"found 1 of {values.size} not finite, the first in mlp/norm_1/scale" in text


def test_a_probe_that_is_not_reproduced_is_refused(policy, snapshot):
    text = refusal(replace(snapshot, probe_action=snapshot.probe_action + np.float32(0.01)), policy)
    assert "probe: learner's action [" in text
    assert "difference 0.01, allowed 1e-04" in text


def test_parameters_in_another_order_do_not_pass_the_probe(policy, snapshot):
    """Everything agrees, size and checksum too, but the two sides disagree on what the numbers mean."""
    assert "probe" in refusal(with_data(snapshot, np.frombuffer(snapshot.data, "<f4")[::-1].tobytes()), policy)


@pytest.mark.parametrize("spoil", [
    {"probe_action": np.zeros(3, np.float32)}, {"probe_action": np.full(2, np.nan, np.float32)},
    {"probe": Observation(np.zeros(2, np.float32))}, {"probe": Observation(np.full(3, np.nan, np.float32))},
])
def test_a_probe_that_proves_nothing_is_refused(policy, snapshot, spoil):
    refusal(replace(snapshot, **spoil), policy)


def test_an_actor_needs_neither_optimisers_nor_checkpoints():
    """They would cost an actor process memory and time at its start."""
    code = "import sys, rlpd_ros.rl.policy; print([m for m in ('optax', 'orbax', 'tensorstore') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("platform", ["nonsense", pytest.param("cuda", marks=pytest.mark.skipif(
    Path("/dev/nvidiactl").exists(), reason="there is a GPU"))])
@pytest.mark.parametrize("first", ["find_devices(0)", "Policy(SPEC, CONFIG)"])  # what a learner and an actor do first
def test_a_platform_that_the_machine_has_not_is_said_in_one_line(platform, first):
    code = ("from test_policy import *; from rlpd_ros.errors import ConfigError; "
            "from rlpd_ros.rl.shares import find_devices\n"
            f"try: {first}\n"
            "except ConfigError as error: print(error)")
    said = subprocess.check_output([sys.executable, "-c", code], cwd=Path(__file__).parent, text=True,
                                   env=os.environ | {"JAX_PLATFORMS": platform})
    assert said.startswith(f"JAX_PLATFORMS={platform}: expected what this machine can compute with, found no such")
    assert said.endswith("; unset it, or set it to cpu\n")
    assert said.count("\n") == 1


def test_a_file_that_cannot_be_written_leaves_no_part_of_it(tmp_path, snapshot):
    path = tmp_path / "policy.params"
    path.mkdir()  # in the way
    with pytest.raises(DataError, match=f"{path}: cannot write the policy: Is a directory"):
        save_policy(path, snapshot)
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy.params"]
    with pytest.raises(DataError, match=r"nowhere/policy.params: cannot write the policy: No such file or directory"):
        save_policy(tmp_path / "nowhere" / "policy.params", snapshot)


def test_descriptions_are_readable(policy):
    description = json.loads(policy.description)
    assert description["hidden_dims"] == [16, 8]
    assert description["inputs"] == [["state", 3]]
    assert description["outputs"] == [["motion", 2]]
    assert description["input_scale"] == [1.0, 1.0, 1.0]
    scaled = Policy(SPEC, replace(CONFIG, normalize_observations=True))
    assert json.loads(scaled.description)["input_scale"] == [1.0, 1.0, 0.5]


def test_what_is_done_with_elements_without_bounds_is_part_of_the_network():
    """Of a space that has bounds nothing is said, so that policies of earlier versions stay valid."""
    endless = replace(SPEC, observation=(SpaceField.box("state", (-1, -np.inf, -2), (1, np.inf, 2)),))
    config = replace(CONFIG, normalize_observations=True)
    policy = Policy(endless, config)
    assert json.loads(policy.description)["input_symlog"] == [0.0, 10.0, 0.0]
    for spec, other in ((SPEC, config), (endless, CONFIG)):
        assert "input_symlog" not in json.loads(Policy(spec, other).description)
    params = policy.init(0)
    np.testing.assert_allclose(
        policy.mode(params, Observation(np.array([0.0, 12.0, 0.0], np.float32))),
        Policy(endless, CONFIG).mode(params, Observation(np.array([0.0, 2.0, 0.0], np.float32))), atol=1e-5)
