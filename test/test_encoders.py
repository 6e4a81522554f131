# SPDX-License-Identifier: Apache-2.0
"""What sees: networks against arithmetic done otherwise, features as they are kept, and learning from images."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.exported_policy import load_policy, save_policy
from rlpd_ros.rl import native
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.backbone import backbone_of, load_backbone
from rlpd_ros.rl.checkpoint import CheckpointStore
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.encoders import (
    PAD,
    Compression,
    Features,
    ResNet10,
    feature_bytes,
    feature_shape,
    frozen_features,
    pack,
    random_shift,
    stages_of,
    unpack,
)
from rlpd_ros.rl.networks import make_encoder
from rlpd_ros.rl.policy import Policy, make_snapshot, verify
from rlpd_ros.rl.sight import FeatureReplay, prepare
from rlpd_ros.types import Batch, Observation, SpaceField, SpaceSpec

SIDE = 32
SPEC = SpaceSpec("test", (SpaceField.box("state", [-1] * 3, [1] * 3), SpaceField.image("front", SIDE, SIDE),
                          SpaceField.image("wrist", SIDE, SIDE)),
                 (SpaceField.box("motion", [-1] * 2, [1] * 2), SpaceField.box("gripper", [-1], [1])), 10.0, "base", 100)
SMALL = PolicyConfig(hidden_dims=(8,), bottleneck_dim=4, proprio_dim=3, spatial_embeddings=2, grasp_hidden_dims=(8,))
STAGES = SMALL.backbone_stages
BACKBONE = load_backbone("", STAGES).params
AGENT = AgentConfig(critic_hidden_dims=(8,), utd_ratio=2)
BATCH = 4


@cache
def policy_of(**settings) -> Policy:
    return Policy(SPEC, replace(SMALL, **settings))


def observation(seed: int) -> Observation:
    rng = np.random.default_rng(seed)
    return Observation(rng.uniform(-1, 1, 3).astype(np.float32),
                       {f.name: rng.integers(0, 256, f.shape, np.uint8) for f in SPEC.image_fields})


def batch(images: bool) -> Batch:
    rng = np.random.default_rng(0)
    replay = None if images else FeatureReplay(SPEC, BACKBONE, 1)

    def observations(first: int) -> dict[str, np.ndarray]:
        seen = [observation(first + i) for i in range(2 * BATCH)]
        kept = [o.images if replay is None else {n: np.asarray(x)[0] for n, x in replay(o).items()} for o in seen]
        parts = {"state": np.stack([o.state for o in seen]), **{n: np.stack([k[n] for k in kept]) for n in kept[0]}}
        return {name: part.reshape(2, BATCH, *part.shape[1:]) for name, part in parts.items()}

    return Batch(observations(0), rng.uniform(-1, 1, (2, BATCH, 3)).astype(np.float32),
                 rng.standard_normal((2, BATCH)).astype(np.float32), np.ones((2, BATCH), np.float32), observations(100),
                 np.zeros((2, BATCH), np.float32))


def numbers(tree) -> list[np.ndarray]:
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]


def moved(before: list[np.ndarray], after) -> list[bool]:
    return [not np.array_equal(a, b) for a, b in zip(before, numbers(after), strict=True)]


# Networks


def by_hand(params, images: np.ndarray) -> np.ndarray:
    """Compute ResNet-10 with plain operations, as the paper and HIL-SERL's layout have it."""
    def conv(p, x, stride, padding):
        return lax.conv_general_dilated(x, p["kernel"], (stride, stride), padding,
                                        dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def norm(p, x):
        groups = np.asarray(x).reshape(*x.shape[:3], 4, -1)
        mean, var = groups.mean((1, 2, 4), keepdims=True), groups.var((1, 2, 4), keepdims=True)
        return ((groups - mean) / np.sqrt(var + 1e-5)).reshape(x.shape) * p["scale"] + p["bias"]

    x = (images / 255 - np.array((0.485, 0.456, 0.406))) / np.array((0.229, 0.224, 0.225))
    x = jnp.asarray(x, jnp.float32)
    x = np.maximum(norm(params["norm_init"], conv(params["conv_init"], x, 2, [(3, 3), (3, 3)])), 0)
    x = lax.reduce_window(jnp.asarray(x, jnp.float32), -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for i in range(stages_of(params)):
        p, stride = params[f"ResNetBlock_{i}"], 1 if i == 0 else 2
        x = jnp.asarray(x, jnp.float32)
        y = np.maximum(norm(p["MyGroupNorm_0"], conv(p["Conv_0"], x, stride, "SAME")), 0)
        y = norm(p["MyGroupNorm_1"], conv(p["Conv_1"], jnp.asarray(y, jnp.float32), 1, "SAME"))
        shortcut = x if i == 0 else norm(p["norm_proj"], conv(p["conv_proj"], x, stride, "SAME"))
        x = np.maximum(shortcut + y, 0)
    return np.asarray(x)


def test_resnet_computes_what_the_paper_says():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 32, 3), np.uint8)
    params = load_backbone("").params
    maps = ResNet10().apply({"params": params}, images)
    assert maps.shape == (2, 2, 1, 512)
    np.testing.assert_allclose(maps, by_hand(params, images), atol=2e-3)


@pytest.mark.parametrize(("stages", "window"), [(1, 4), (2, 2), (3, 1), (4, 1)])
def test_frozen_features_are_the_maps_of_the_last_stage_used_averaged_to_sixteen_pixels(stages, window):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), np.uint8)
    params = load_backbone("", stages).params
    maps = by_hand(params, images)
    if window > 1:
        rows, columns = maps.shape[1] // window, maps.shape[2] // window
        maps = maps.reshape(2, rows, window, columns, window, -1).mean((2, 4))
    features = frozen_features(params, {"front": images})["front"]
    assert features.maps.shape == (2, *feature_shape((64, 48, 3), stages))
    np.testing.assert_allclose(features.maps, np.swapaxes(maps.reshape(2, -1, maps.shape[-1]), 1, 2), atol=2e-3)


@pytest.mark.parametrize("count", [1, 7])
def test_compression_is_embeddings_then_a_dense_layer(count):
    rng = np.random.default_rng(0)
    maps, scale = rng.integers(0, 256, (count, 6, 5), np.uint8), rng.uniform(0.01, 0.02, count).astype(np.float32)
    network = Compression(SMALL)
    params = network.init(jax.random.PRNGKey(0), Features(maps, scale))["params"]
    features = maps * scale[:, None, None]
    sums = np.einsum("bcp,cpk->bck", features, params["embeddings"]).reshape(count, -1)
    y = sums @ params["kernel"] + params["bias"]
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(network.apply({"params": params}, Features(maps, scale)), np.tanh(y), atol=1e-4)


def test_a_shift_moves_pixels_and_continues_edges():
    image = np.arange(2 * 6 * 6 * 3, dtype=np.uint8).reshape(2, 6, 6, 3)
    shifted = np.asarray(random_shift(image, np.array([[PAD, PAD], [PAD + 2, PAD - 1]])))
    np.testing.assert_array_equal(shifted[0], image[0])
    rows, columns = np.clip(np.arange(6) + 2, 0, 5), np.clip(np.arange(6) - 1, 0, 5)
    np.testing.assert_array_equal(shifted[1], image[1][rows][:, columns])


def test_features_survive_packing_to_a_255th_of_the_largest():
    maps = np.maximum(np.random.default_rng(0).standard_normal((3, 512, 4)) * [[[1]], [[30]], [[0]]], 0)
    data = np.asarray(pack(maps.astype(np.float32)))
    assert data.shape == (3, feature_bytes((64, 64, 3), 4))
    assert data.dtype == np.uint8
    features = unpack(data, 4)
    again = np.asarray(features.maps) * np.asarray(features.scale)[:, None, None]
    for before, after in zip(maps, again, strict=True):
        assert np.abs(before - after).max() <= before.max() / 509


# Learning


@pytest.mark.parametrize(("settings", "lr"), [
    ({"hybrid_gripper": True}, 0.0), ({"hybrid_gripper": True}, 1e-3), ({"encoder": "small"}, 1e-3)], ids=str)
def test_the_critics_train_what_sees_and_the_policy_does_not(settings, lr):
    config, trained = replace(SMALL, **settings), lr > 0
    agent = Agent.create(SPEC, config, replace(AGENT, critic_lr=lr), 0)
    encoder, actor, target = (numbers(x) for x in (agent.encoder.params, agent.actor.params, agent.target_encoder))
    agent, info = agent.update(batch(images="encoder" in settings), 2)
    assert all(np.isfinite(value) for value in info.values())
    assert any(moved(actor, agent.actor.params))
    assert any(moved(encoder, agent.encoder.params)) == trained
    followed = [np.abs(a - b).max() > 1e-6 for a, b in zip(target, numbers(agent.target_encoder), strict=True)]
    assert any(followed) == trained
    assert set(agent.policy_params) == {"mlp", "encoder", *(["grasp"] if config.hybrid_gripper else [])}


def test_a_policy_that_learns_faster_changes_nothing_of_what_sees():
    learned = []
    for lr in (0.0, 1e-2):
        agent, _ = Agent.create(SPEC, SMALL, replace(AGENT, actor_lr=lr), 0).update(batch(images=False), 2)
        learned.append(numbers((agent.encoder.params, agent.target_encoder, agent.critic.params)))
    assert all(map(np.array_equal, *learned))


def test_each_critic_step_chooses_the_grippers_next_action_as_the_one_before_left_its_critic():
    """So two at once are two updates, while the policy stays as it is: here it does the same whatever it sees."""
    def start(utd_ratio: int) -> Agent:
        config = replace(SMALL, hybrid_gripper=True, log_std_min=-30.0, log_std_max=-30.0)
        settings = replace(AGENT, utd_ratio=utd_ratio, critic_lr=0.03, actor_lr=0.0, temperature_lr=0.0)
        agent = Agent.create(SPEC, config, settings, 0)
        return agent.replace(actor=agent.actor._replace(params=jax.tree.map(jnp.zeros_like, agent.actor.params)))

    both = batch(images=False)
    at_once, _ = start(2).update(both)
    one_by_one = start(1)
    for i in range(2):
        one_by_one, _ = one_by_one.update(jax.tree.map(lambda x, i=i: x[i:i + 1], both))
    for name in ("grasp", "target_grasp", "encoder"):
        for ours, theirs in zip(numbers(getattr(at_once, name)), numbers(getattr(one_by_one, name)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4, err_msg=name)


def test_images_of_a_batch_are_shifted_each_by_itself():
    encoder = make_encoder(SPEC, replace(SMALL, encoder="small"))
    at = np.arange(SIDE, dtype=np.uint8)
    image = np.stack(np.broadcast_arrays(at[:, None], at, 0), -1)  # says where each of its pixels was
    images = np.broadcast_to(image, (2, 20, *image.shape))
    seen = [prepare(encoder, {}, {"state": np.zeros((2, 20, 3), np.float32), "front": images, "wrist": images}, key)
            for key in jax.random.split(jax.random.PRNGKey(0))]
    shifts = np.stack([np.asarray(s[name])[:, :, SIDE // 2, SIDE // 2, :2].astype(int) - SIDE // 2
                       for s in seen for name in ("front", "wrist")]).reshape(4, 40, 2)  # (draw and camera, image, 2)
    assert (shifts.min(), shifts.max()) == (-PAD, PAD)
    assert len({shift.tobytes() for shift in shifts.reshape(-1, 2)}) > 40
    assert len({draw.tobytes() for draw in shifts}) == 4
    for s in seen:
        assert s["front"].shape == images.shape


def test_features_that_were_kept_are_those_of_the_images():
    """With a shift of zero, replayed and recomputed features differ by their rounding only."""
    replay = FeatureReplay(SPEC, BACKBONE, 1)
    replay._offsets = lambda _: np.full((2, 1, 2), PAD, np.int32)
    seen = observation(1)
    kept = unpack(np.stack([np.asarray(replay(seen)["front"])[0]]), STAGES)
    maps = frozen_features(BACKBONE, {"front": seen.images["front"][None]})["front"].maps
    np.testing.assert_allclose(np.asarray(kept.maps) * float(kept.scale[0]), maps, atol=float(maps.max()) / 500)


def test_an_agent_that_recomputes_keeps_its_backbone_as_it_is():
    agent = Agent.create(SPEC, SMALL, AGENT, 0, BACKBONE)
    before = numbers(agent.encoder.params)
    agent, info = agent.update(batch(images=True), 2)
    assert np.isfinite(info["critic_loss"])
    assert any(moved(before, agent.encoder.params))
    assert not any(moved(numbers(BACKBONE), agent.backbone))


def test_shifts_follow_from_the_observation_and_differ():
    replay = FeatureReplay(SPEC, BACKBONE, 3)
    one, other = observation(1), observation(2)
    again = FeatureReplay(SPEC, BACKBONE, 3)
    for name, (shifts, size) in replay.shapes.items():
        first = np.asarray(replay(one)[name])
        assert first.shape == (shifts, size) == (3, feature_bytes((SIDE, SIDE, 3), STAGES))
        np.testing.assert_array_equal(first, np.asarray(again(one)[name]))
        assert len({row.tobytes() for row in first}) > 1
    offsets = np.stack([replay._offsets(observation(i)) for i in range(50)])
    assert offsets.min() == 0
    assert offsets.max() == 2 * PAD
    assert not np.array_equal(replay._offsets(one), replay._offsets(other))
    at_home = [Observation(one.state, observation(i).images) for i in range(5)]  # as after each reset
    assert len({replay._offsets(o).tobytes() for o in at_home}) == 5


# Policies


def test_a_policy_sees_its_cameras_and_the_backbone_does_not_travel(tmp_path):
    policy = policy_of()
    params = policy.init(0)
    seen = observation(0)
    action = policy.mode(params, seen)
    other = replace(seen, images={**seen.images, "wrist": 255 - seen.images["wrist"]})
    assert not np.array_equal(action, policy.mode(params, other))
    assert policy.data_size == len(policy.serialize(params)) < 100_000 < sum(x.nbytes for x in numbers(
        policy.backbone.params))
    snapshot = make_snapshot(policy, policy.serialize(params), SPEC, seen, session="learner", version=1,
                             gradient_step=1)
    save_policy(tmp_path / "policy.params", snapshot)
    _, error = verify(load_policy(tmp_path / "policy.params"), policy, SPEC)
    assert error <= 1e-6
    with pytest.raises(DataError, match=r"image 'wrist': expected shape \(32, 32, 3\), found \(0,\)"):
        policy.mode(params, replace(seen, images={"front": seen.images["front"]}))


def test_all_that_acts_is_computed_in_full_precision(monkeypatch):
    """What a GPU would otherwise round, no other machine could reproduce."""
    monkeypatch.setattr(native, "is_available", lambda: False)  # as on a GPU
    policy = policy_of(hybrid_gripper=True)
    program = str(jax.make_jaxpr(policy._act_of)(
        policy.init(0), policy._frozen, policy._inputs(observation(0)), jax.random.PRNGKey(0), np.float32(0)))
    products = program.count("dot_general[") + program.count("conv_general_dilated[")
    assert products > 10
    assert program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") + program.count(
        "precision=HIGHEST") + program.count("precision=Precision.HIGHEST") == products


def test_policies_with_different_backbones_refuse_one_another(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    flat = {}
    for block, arrays in load_backbone("").params.items():
        for name, part in arrays.items():
            for leaf, array in part.items() if isinstance(part, dict) else [("", part)]:
                flat["/".join(filter(None, (block, name, leaf)))] = np.array(array)
    flat["conv_init/kernel"][0, 0, 0, 0] += 1e-3
    save_file(flat, path)
    policy, other = policy_of(), policy_of(backbone=str(path))
    assert other.backbone.digest != policy.backbone.digest
    snapshot = make_snapshot(other, other.serialize(other.init(0)), SPEC, observation(0), session="learner", version=1,
                             gradient_step=1)
    theirs, ours = other.backbone.digest, policy.backbone.digest
    with pytest.raises(DataError, match=f'backbone: learner "{theirs}", actor "{ours}"'):
        verify(snapshot, policy, SPEC)


@pytest.mark.parametrize(("fields", "says"), [
    ((SpaceField.box("state", [-1], [1]), SpaceField.image("rgbd", SIDE, SIDE, 4)),
     "observation 'rgbd': expected 1 or 3 channels for encoder resnet10-frozen, found 4"),
    ((SpaceField.image("front", SIDE, SIDE),), "observation: expected numbers beside the images")],
    ids=["rgbd", "alone"])
def test_what_cannot_be_seen_is_named(fields, says):
    with pytest.raises(ConfigError, match=says):
        Policy(replace(SPEC, observation=fields), SMALL)


def test_every_setting_of_what_sees_enters_the_fingerprint():
    others = [{"encoder": "small"}, {"encoder": "resnet10"}, {"backbone_stages": 3}, {"spatial_embeddings": 3},
              {"bottleneck_dim": 5}, {"proprio_dim": 4}, {"hybrid_gripper": True},
              {"hybrid_gripper": True, "grasp_hidden_dims": (9,)}]
    assert len({policy_of(**settings).fingerprint for settings in [{}, *others]}) == len(others) + 1
    with pytest.raises(ConfigError, match="expected none with encoder small"):
        backbone_of(SPEC, replace(SMALL, encoder="small", backbone="x"))


def test_a_checkpoint_brings_back_what_sees(tmp_path):
    config = replace(SMALL, hybrid_gripper=True)
    policy = policy_of(hybrid_gripper=True)
    agent, _ = Agent.create(SPEC, config, AGENT, 0).update(batch(images=False), 2)
    metadata = {"space_fingerprint": SPEC.fingerprint, "network_fingerprint": policy.fingerprint}
    CheckpointStore(tmp_path).save(agent, metadata)
    restored, _ = CheckpointStore(tmp_path).restore(Agent.create(SPEC, config, AGENT, 1), SPEC, policy)
    for name in ("encoder", "target_encoder", "grasp", "target_grasp", "actor", "critic"):
        assert not any(moved(numbers(getattr(agent, name)), getattr(restored, name))), name
    np.testing.assert_array_equal(policy.mode(agent.policy_params, observation(5)),
                                  policy.mode(restored.policy_params, observation(5)))
