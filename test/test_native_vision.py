# SPDX-License-Identifier: Apache-2.0
"""Native code sees what JAX sees: the frozen network's maps, cameras' maps to vectors, and those gradients."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_encoders import AGENT, BACKBONE, SIDE, SMALL, SPEC, batch, numbers, observation

from rlpd_ros.rl import native
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.backbone import load_backbone
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.encoders import Compression, Features, feature_shape, frozen_features, pack
from rlpd_ros.rl.networks import make_encoder
from rlpd_ros.rl.policy import Policy, make_snapshot, verify
from rlpd_ros.rl.sight import prepare

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="native code is for CPUs")


def both_ways(monkeypatch, function) -> list:
    """Return what ``function`` computes by native code and by JAX alone."""
    assert native.is_available()
    ours = function()
    with monkeypatch.context() as patch:
        patch.setattr(native, "is_available", lambda: False)
        return [ours, function()]


def expect_close(ours, theirs, rtol: float = 1e-4) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(mine, other, rtol=rtol, atol=rtol * float(np.abs(other).max()))


@pytest.mark.parametrize("kind", ["packed", "bytes", "numbers"])
@pytest.mark.parametrize(("leading", "stages", "places", "embeddings", "n"), [
    ((2, 256), 2, 64, 8, 256), ((300,), 2, 20, 3, 33), ((129,), 1, 5, 8, 1), ((1,), 2, 64, 8, 256),
    ((37,), 4, 16, 8, 40), ((3, 1, 7), 1, 1, 1, 17)], ids=str)
def test_compression_and_its_gradients_are_those_of_jax(leading, stages, places, embeddings, n, kind, monkeypatch):
    config = PolicyConfig(backbone_stages=stages, spatial_embeddings=embeddings, bottleneck_dim=n)
    rng, network, shape = np.random.default_rng(0), Compression(config), (*leading, 2 ** (stages + 5), places)
    maps = np.maximum(rng.normal(size=shape) * rng.uniform(0.1, 2, (*leading, 1, 1)), 0).astype(np.float32)
    packed = pack(maps.reshape(-1, *shape[-2:])).reshape(*leading, -1)
    scale = rng.uniform(0.01, 0.02, leading).astype(np.float32)
    seen = {"packed": packed, "numbers": Features(maps, scale),
            "bytes": Features(rng.integers(0, 256, shape, np.uint8), scale)}[kind]
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(leaf.shape[0]), jnp.float32),
                          network.init(jax.random.PRNGKey(0), Features(maps, scale))["params"])
    weights = jnp.asarray(rng.normal(size=(*leading, n)), jnp.float32)

    def compute():
        def loss(params):
            outputs = network.apply({"params": params}, seen)
            return (outputs * weights).sum(), outputs

        return network.apply({"params": params}, seen), jax.value_and_grad(loss, has_aux=True)(params)

    if n == 1:  # LayerNorm of one number is always 0, and its gradient but for rounding
        weights *= 0
    (alone, ours), (_, theirs) = both_ways(monkeypatch, compute)
    expect_close(ours, theirs)
    np.testing.assert_array_equal(alone, ours[0][1])


@pytest.mark.parametrize(("count", "height", "width", "colours", "stages"), [
    (3, 128, 128, 3, 2), (2, 128, 128, 3, 1), (5, 64, 48, 3, 2), (2, 33, 47, 3, 2), (1, 17, 31, 1, 2), (2, 9, 8, 3, 2),
    (2, 64, 64, 3, 3), (2, 100, 77, 3, 4)], ids=str)
def test_frozen_maps_are_those_of_jax_whatever_else_is_seen(count, height, width, colours, stages, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, height, width, colours), np.uint8)

    def altered(leaf: np.ndarray) -> np.ndarray:  # scales and shifts make a difference, and some are negative
        return np.float32(leaf * rng.normal(1, 0.5, leaf.shape) + (leaf.ndim == 1) * rng.normal(0, 0.3, leaf.shape))

    backbone = jax.tree.map(altered, load_backbone("", stages).params)

    def seen(images):
        return np.asarray(frozen_features(backbone, {"front": images})["front"].maps)

    ours, theirs = both_ways(monkeypatch, lambda: seen(images))
    expect_close(ours, theirs, 2e-5)
    assert ours.shape == (count, *feature_shape(images.shape[1:], stages))
    for image, maps in zip(images, ours, strict=True):
        alone = seen(image)
        np.testing.assert_allclose(alone, maps, atol=1e-5)
        assert stages > 2 or np.array_equal(alone, maps)  # what XLA computes depends on how many there are


def test_learner_and_actor_agree_though_only_one_has_it(monkeypatch):
    config = replace(SMALL, hidden_dims=(64, 64), bottleneck_dim=64)
    errors = []
    for seed in range(3):
        policy = Policy(SPEC, config)
        snapshot = make_snapshot(policy, policy.serialize(policy.init(seed)), SPEC, observation(seed),
                                 session="learner", version=1, gradient_step=1)
        with monkeypatch.context() as patch:
            patch.setattr(native, "is_available", lambda: False)
            errors.append(verify(snapshot, Policy(SPEC, config), SPEC)[1])
    assert 0 < max(errors) < 1e-5


def test_images_of_a_batch_are_seen_by_it(monkeypatch):
    """Within a loop over many, as ``prepare`` makes one."""
    images = np.random.default_rng(0).integers(0, 256, (2, 11, SIDE, SIDE, 3), np.uint8)
    offsets = {"state": np.zeros((2, 11, 3), np.float32), "front": images, "wrist": images}
    encoder = make_encoder(SPEC, SMALL)
    ours, theirs = both_ways(monkeypatch, lambda: prepare(encoder, BACKBONE, offsets, jax.random.PRNGKey(0)))
    expect_close(ours, theirs)


def test_feature_maps_have_no_gradient():
    maps = jnp.ones((2, 64, 4))
    network = Compression(replace(SMALL, backbone_stages=1))
    params = network.init(jax.random.PRNGKey(0), Features(maps, jnp.ones(2)))
    with pytest.raises(AssertionError, match="no gradient of feature maps"):
        jax.grad(lambda maps: network.apply(params, Features(maps, jnp.ones(2))).sum())(maps)


def test_updates_from_features_are_those_of_jax_and_the_same_each_time(monkeypatch):
    def updated() -> tuple:
        agent = Agent.create(SPEC, SMALL, AGENT, 0)
        step = jax.jit(lambda agent, batch: Agent.update.__wrapped__(agent, batch, 2))  # traced anew
        for _ in range(2):
            agent, info = step(agent, batch(images=False))
        return numbers((agent.encoder.params, agent.target_encoder, agent.critic.params)), info

    ours, again = updated(), updated()
    assert all(map(np.array_equal, ours[0], again[0]))
    monkeypatch.setattr(native, "is_available", lambda: False)
    theirs = updated()
    for mine, other in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-3)  # Adam makes steps of 1e-3 of tiny gradients too
    for name, value in ours[1].items():
        np.testing.assert_allclose(value, theirs[1][name], rtol=2e-3, atol=2e-4, err_msg=name)


def test_a_batch_is_compressed_natively_and_an_observation_is_not():
    step = Agent.update.lower(Agent.create(SPEC, SMALL, AGENT, 0), batch(images=False)).as_text()
    assert step.count("@rlpd_compress(") == 2 * 4  # next actions, targets, Q values, the policy's step: two cameras
    assert step.count("@rlpd_compress_backward(") == 2
    network, seen = Compression(SMALL), Features(np.zeros((128, 4), np.float32), np.float32(1))
    params = network.init(jax.random.PRNGKey(0), seen)
    assert "rlpd_" not in jax.jit(network.apply).lower(params, seen).as_text()
    policy = Policy(SPEC, SMALL)
    acting = jax.jit(policy._act_of).lower(policy.init(0), policy._frozen, policy._inputs(observation(0)),
                                           jax.random.PRNGKey(0), np.float32(0)).as_text()
    assert acting.count("@rlpd_see(") == 1  # both cameras at once
    assert "stablehlo.convolution" not in acting
