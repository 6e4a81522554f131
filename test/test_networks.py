# SPDX-License-Identifier: Apache-2.0
"""Networks: normalisation, the policy's density, independent critics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.layers import layer_norm
from rlpd_ros.rl.networks import (
    distribution,
    encode,
    ensemble_q,
    init_critics,
    init_network,
    make_actor,
    make_critic,
    make_encoder,
    squash,
    state_scaling,
)
from rlpd_ros.types import SpaceField, SpaceSpec

KEY = jax.random.PRNGKey(0)


def space(low=(-1.0, -1.0, -1.0), high=(1.0, 1.0, 1.0), extra=()) -> SpaceSpec:
    observation = (SpaceField.box("position", low, high, "m"), *extra)
    return SpaceSpec("test", observation, (SpaceField.box("motion", (-1, -1), (1, 1)),), 10.0, "base", 100)


def reference_layer_norm(x, scale, bias):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + bias


def test_layer_norm_and_its_written_out_gradient():
    x, scale, bias, weight = (jax.random.normal(key, shape) for key, shape in zip(
        jax.random.split(KEY, 4), ((5, 3, 8), (8,), (8,), (5, 3, 8)), strict=True))

    def value_and_grads(function):
        return jax.value_and_grad(lambda *args: (weight * jnp.sin(function(*args))).sum(), argnums=(0, 1, 2))(
            x, scale, bias)

    for ours, automatic in zip(jax.tree.leaves(value_and_grads(layer_norm)),
                               jax.tree.leaves(value_and_grads(reference_layer_norm)), strict=True):
        np.testing.assert_allclose(ours, automatic, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("critics", [False, True])
@pytest.mark.parametrize("on", [False, True])
def test_layer_norm_is_where_the_configuration_says(critics, on):
    """Only with LayerNorm do huge inputs leave the output bounded."""
    policy, config = PolicyConfig(activation="relu", layer_norm=on), AgentConfig(
        critic_activation="relu", critic_layer_norm=on)
    huge = jnp.array([1e6, -2e6, 3e6])
    if critics:
        critic = make_critic(space(), policy, config)
        output = ensemble_q(critic, init_critics(critic, 3, KEY), huge, jnp.zeros(2))
    else:
        actor = make_actor(space(), policy)
        output = distribution(actor, init_network(actor, KEY), huge)[0]
    assert (np.abs(output).max() < 100) == on


def test_bounded_elements_are_scaled_and_the_others_are_told_apart():
    largest = np.finfo(np.float32).max
    spec = space(low=(1.0, -np.inf, 5.0, 0.0, -largest), high=(3.0, np.inf, 5.0, np.inf, largest))
    center, scale, unbounded = (np.array(x) for x in state_scaling(spec, PolicyConfig(normalize_observations=True)))
    state = np.array([1.5, 7.0, 9.0, 8.0, 6.0])
    np.testing.assert_allclose((state - center) * scale, [-0.5, 7.0, 9.0, 8.0, 6.0])  # a field of no width passes
    np.testing.assert_array_equal(unbounded, [False, True, False, True, True])
    center, scale, unbounded = (np.array(x) for x in state_scaling(spec, PolicyConfig(normalize_observations=False)))
    np.testing.assert_array_equal((state - center) * scale, state)
    assert not unbounded.any()


def seen_by_encoder(spec, states, **settings):
    return np.asarray(encode(make_encoder(spec, PolicyConfig(**settings)), {}, {"state": jnp.asarray(states)}))


def test_the_encoder_applies_the_scaling():
    wide = space(high=(3.0, 3.0, 3.0), low=(1.0, 1.0, 1.0))
    np.testing.assert_allclose(seen_by_encoder(wide, [1.5, 2.0, 3.0]), [-0.5, 0.0, 1.0], rtol=1e-6)


def test_the_encoder_brings_elements_without_bounds_to_the_size_of_the_others():
    endless = space(low=(-2.0, -np.inf, -np.inf), high=(2.0, np.inf, np.inf))
    states = np.array([[1.0, 0.0, -1.0], [1.0, 0.01, -0.02], [1.0, 50.0, -10_000.0]], np.float32)
    expected = [[0.5, 0.0, -1.0], [0.5, np.log(1.1) / np.log(11), -np.log(1.2) / np.log(11)],
                [0.5, np.log(501) / np.log(11), -np.log(100_001) / np.log(11)]]
    found = seen_by_encoder(endless, states)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(found).max() < 5
    np.testing.assert_array_equal(seen_by_encoder(endless, states, normalize_observations=False), states)


def test_log_std_stays_within_its_bounds():
    config = PolicyConfig(log_std_min=-0.01, log_std_max=0.02)
    actor = make_actor(space(), config)
    states = 10 * jax.random.normal(KEY, (100, 3))
    _, log_std = distribution(actor, init_network(actor, KEY), states)
    assert log_std.min() == np.float32(-0.01)
    assert log_std.max() == np.float32(0.02)


def test_density_of_tanh_gaussian_integrates_to_one():
    """The density that goes with each sampled action, checked by integrating it over the action interval."""
    mean, log_std = jnp.full((20001, 1), 0.3), jnp.full((20001, 1), -0.7)
    actions, log_probs = squash(mean, log_std, jax.random.normal(KEY, mean.shape))
    order = np.argsort(actions[:, 0])
    a, density = np.asarray(actions[order, 0], np.float64), np.exp(np.asarray(log_probs[order], np.float64))
    assert np.trapezoid(density, a) == pytest.approx(1.0, abs=0.01)
    raw, std = np.arctanh(a[10000]), np.exp(-0.7)
    normal = np.exp(-0.5 * ((raw - 0.3) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    assert density[10000] == pytest.approx(normal / (1 - a[10000] ** 2), rel=1e-3)


def test_saturated_actions_have_a_finite_density():
    actions, log_probs = squash(
        jnp.array([[50.0], [-50.0]]), jnp.array([[-5.0], [1.0]]), jax.random.normal(KEY, (2, 1)))
    assert np.abs(actions).max() == 1.0
    assert np.isfinite(log_probs).all()


def test_densities_of_elements_multiply():
    mean, log_std = jnp.array([0.1, -0.4]), jnp.array([-1.0, 0.2])
    actions, log_prob = squash(mean, log_std, jax.random.normal(KEY, mean.shape))
    raw = np.arctanh(np.asarray(actions, np.float64))
    std = np.exp(log_std)
    log_normal = -0.5 * ((raw - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    assert log_prob == pytest.approx(float((log_normal - np.log(1 - np.tanh(raw) ** 2)).sum()), rel=1e-4)


def test_critics_differ_and_stay_in_their_order():
    critic = make_critic(space(), PolicyConfig(), AgentConfig())
    params = init_critics(critic, 4, KEY)
    seen, actions = jnp.ones((5, 3)), jnp.ones((5, 2))
    qs = ensemble_q(critic, params, seen, actions)
    assert qs.shape == (4, 5)
    assert len(np.unique(qs[:, 0])) == 4
    alone = ensemble_q(critic, jax.tree.map(lambda x: x[2:3], params), seen, actions)
    np.testing.assert_allclose(qs[2], alone[0], rtol=1e-6)
