# SPDX-License-Identifier: Apache-2.0
"""The policy as a file: complete, atomic, and nothing that a damaged or hostile one could do."""

from __future__ import annotations

import json
import resource
from dataclasses import replace

import numpy as np
import pytest

from rlpd_ros import exported_policy
from rlpd_ros.errors import DataError
from rlpd_ros.exported_policy import load_policy, save_policy
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.policy import Policy, make_snapshot, verify
from rlpd_ros.types import Observation, PolicySnapshot, SpaceField, SpaceSpec

SPEC = SpaceSpec("point", (SpaceField.box("x", [-1, -1], [1, 1], "m"),),
                 (SpaceField.box("dx", [-0.1] * 3, [0.1] * 3, "m"),), 10.0, "world", 100)
POLICY = Policy(SPEC, PolicyConfig(hidden_dims=(8,)))


def make(version: int = 7) -> PolicySnapshot:
    probe = Observation(np.array([0.1, -0.3], np.float32))
    return make_snapshot(POLICY, POLICY.serialize(POLICY.init(version)), SPEC, probe, session="learner-1",
                         version=version, gradient_step=350, stamp=1_700_000_000_123_456_789)


def test_what_is_saved_is_loaded_bit_by_bit(tmp_path) -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    saved = replace(make(), probe=Observation(np.array([0.1, 1e-30], np.float32), {"front": image}), change=0.1 + 0.2)
    save_policy(tmp_path / "policy.params", saved)
    loaded = load_policy(tmp_path / "policy.params")
    for name, value in vars(saved).items():
        found = getattr(loaded, name)
        if name == "probe":
            np.testing.assert_array_equal(found.state, value.state)
            np.testing.assert_array_equal(found.images["front"], image)
        elif name == "probe_action":
            np.testing.assert_array_equal(found, value)
        else:
            assert found == value, name
    assert [path.name for path in tmp_path.iterdir()] == ["policy.params"]


def test_a_loaded_policy_is_proved_like_one_that_was_received(tmp_path) -> None:
    path = tmp_path / "policy.params"
    save_policy(path, make())
    params, error = verify(load_policy(path), POLICY, SPEC)
    assert error == 0.0
    observation = Observation(np.array([0.5, 0.5], np.float32))
    np.testing.assert_array_equal(POLICY.mode(params, observation), POLICY.mode(POLICY.init(7), observation))
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="checksum: learner"):
        verify(load_policy(path), POLICY, SPEC)


def test_a_full_disk_leaves_the_earlier_policy(tmp_path) -> None:
    """A limit on the size of files stands for a disk without space."""
    path = tmp_path / "policy.params"
    save_policy(path, make(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(DataError, match=f"{path}: cannot write the policy: File too large"):
            save_policy(path, make(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_policy(path).version == 1
    save_policy(path, make(3))
    assert load_policy(path).version == 3


@pytest.mark.parametrize("content", [
    b"", b"\n", b"nonsense", b"[1, 2]\n", b"null\ndata", b"{}\n", b"\xff\xfe\n", b'{"version": "seven"}\n',
    b"[" * 100_000 + b"\n", b'{"probe_images": 3}\n'])
def test_a_file_that_is_no_policy_is_named(tmp_path, content: bytes) -> None:
    path = tmp_path / "policy.params"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path}: not a policy file of this package, or damaged: ") as caught:
        load_policy(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [
    ("version", float("inf")), ("version", None), ("change", "much"), ("probe_state", "x"), ("probe_state", {}),
    ("probe_images", {"front": {"shape": [2, 2], "hex": "00"}}), ("probe_images", {"front": {"hex": "zz"}})])
def test_a_field_that_makes_no_sense_is_refused(tmp_path, name: str, value) -> None:
    path = tmp_path / "policy.params"
    save_policy(path, make())
    head, _, data = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps(json.loads(head) | {name: value}).encode() + b"\n" + data)
    with pytest.raises(DataError, match=f"^{path}: not a policy file"):
        load_policy(path)


def test_any_damage_is_noticed(tmp_path) -> None:
    path = tmp_path / "policy.params"
    save_policy(path, make())
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    places = [*rng.integers(whole.index(b"\n"), len(whole), 60)]  # the parameters
    for name in ("checksum", "network_fingerprint", "space_fingerprint"):
        start = whole.index(f'"{name}": "'.encode()) + len(name) + 5
        places += [*rng.integers(start, start + 16, 10)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(DataError):
            verify(load_policy(path), POLICY, SPEC)
    for length in rng.integers(0, len(whole), 30):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            verify(load_policy(path), POLICY, SPEC)


def test_files_that_are_missing_or_far_too_large_are_named(tmp_path, monkeypatch) -> None:
    path = tmp_path / "policy.params"
    with pytest.raises(DataError, match=f"{path}: cannot read the policy: No such file"):
        load_policy(path)
    save_policy(path, make())
    monkeypatch.setattr(exported_policy, "MAX_BYTES", 100)
    with pytest.raises(DataError, match=f"{path}: expected at most 100 bytes, found "):
        load_policy(path)
