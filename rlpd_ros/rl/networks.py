# SPDX-License-Identifier: Apache-2.0
"""The networks: a tanh-Gaussian policy and an ensemble of critics, both multilayer perceptrons over the state."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rlpd_ros.errors import ConfigError
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.types import SpaceSpec

Params = Any  # a pytree of arrays: nested dictionaries, as Flax makes them
Observations = Mapping[str, Any]  # "state": (..., state_size)

_ACTIVATIONS = {"tanh": jnp.tanh, "relu": nn.relu, "silu": nn.silu}
_INIT = nn.initializers.xavier_uniform()
_EPSILON = 1e-6  # Flax's default, with which both papers' code was run


@jax.custom_vjp
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Normalise ``x`` (..., n) over its last axis, then scale and shift (Ba et al. 2016, equation 4).

    The gradient is written out because the automatic one makes more passes over memory, which is what bounds small
    networks on a CPU: a tenth of a critic step with ten critics.
    """
    return _layer_norm_forward(x, scale, bias)[0]


def _layer_norm_forward(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    inverse_std = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + _EPSILON)
    normal = centred * inverse_std
    return normal * scale + bias, (normal, inverse_std, scale)


def _layer_norm_backward(residuals, grad):
    # With h the normalised input and g' = g * scale: dx = (g' - mean(g') - h * mean(g' * h)) / std.
    normal, inverse_std, scale = residuals
    scaled = grad * scale
    grad_x = inverse_std * (
        scaled - scaled.mean(-1, keepdims=True) - normal * (scaled * normal).mean(-1, keepdims=True))
    leading = tuple(range(grad.ndim - 1))
    return grad_x, (grad * normal).sum(leading), grad.sum(leading)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class LayerNorm(nn.Module):
    """``layer_norm`` with learned scale and bias."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return layer_norm(x, scale, bias)


class MLP(nn.Module):
    """Hidden layers, each dense, LayerNorm (optional), nonlinearity; then one linear layer per output."""

    hidden_dims: tuple[int, ...]
    activation: str
    layer_norm: bool
    outputs: tuple[tuple[str, int], ...]  # name and size

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        for i, size in enumerate(self.hidden_dims):
            x = nn.Dense(size, kernel_init=_INIT, name=f"hidden_{i}")(x)
            if self.layer_norm:
                x = LayerNorm(name=f"norm_{i}")(x)
            x = _ACTIVATIONS[self.activation](x)
        return tuple(nn.Dense(size, kernel_init=_INIT, name=name)(x) for name, size in self.outputs)


def _scaled(observations: Observations, center: tuple[float, ...], scale: tuple[float, ...]) -> jax.Array:
    return (observations["state"] - np.asarray(center, np.float32)) * np.asarray(scale, np.float32)


class Actor(nn.Module):
    """The policy: observations to mean and log standard deviation of a Gaussian, which tanh squashes into [-1, 1]."""

    config: PolicyConfig
    action_size: int
    center: tuple[float, ...]  # see ``state_scaling``
    scale: tuple[float, ...]

    @nn.compact
    def __call__(self, observations: Observations) -> tuple[jax.Array, jax.Array]:
        c = self.config
        outputs = (("mean", self.action_size), ("log_std", self.action_size))
        x = _scaled(observations, self.center, self.scale)
        mean, log_std = MLP(c.hidden_dims, c.activation, c.layer_norm, outputs, name="mlp")(x)
        return mean, jnp.clip(log_std, c.log_std_min, c.log_std_max)


class Critic(nn.Module):
    """One member of the ensemble: observations and actions (..., action_size) to Q (...)."""

    config: AgentConfig
    center: tuple[float, ...]
    scale: tuple[float, ...]

    @nn.compact
    def __call__(self, observations: Observations, actions: jax.Array) -> jax.Array:
        c = self.config
        x = jnp.concatenate([_scaled(observations, self.center, self.scale), actions], axis=-1)
        (q,) = MLP(c.critic_hidden_dims, c.critic_activation, c.critic_layer_norm, (("q", 1),), name="mlp")(x)
        return q[..., 0]


def make_actor(spec: SpaceSpec, config: PolicyConfig) -> Actor:
    """Define the policy network for a space. Raises ConfigError if it observes images, which these networks cannot."""
    return Actor(config, spec.action_size, *state_scaling(spec, config))


def make_critic(spec: SpaceSpec, policy: PolicyConfig, config: AgentConfig) -> Critic:
    """Define one critic for a space; it scales observations as the policy does."""
    return Critic(config, *state_scaling(spec, policy))


@partial(jax.jit, static_argnames="actor")
def init_actor(actor: Actor, key: jax.Array) -> Params:
    """Return fresh parameters of the policy."""
    return actor.init(key, {"state": jnp.zeros(len(actor.center))})["params"]


@partial(jax.jit, static_argnames=("critic", "action_size", "num_qs"))
def init_critics(critic: Critic, action_size: int, num_qs: int, key: jax.Array) -> Params:
    """Return fresh parameters of an ensemble of independent critics, stacked: every array is (num_qs, ...)."""
    observations, actions = {"state": jnp.zeros(len(critic.center))}, jnp.zeros(action_size)
    return jax.vmap(lambda k: critic.init(k, observations, actions)["params"])(jax.random.split(key, num_qs))


def state_scaling(spec: SpaceSpec, config: PolicyConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return center and scale, one per state element: networks see ``(state - center) * scale``.

    Elements without two finite bounds pass unchanged. Values outside the bounds are not clipped.
    """
    if spec.image_fields:
        names = ", ".join(f.name for f in spec.image_fields)
        raise ConfigError(f"space of {spec.robot}: expected state observations only, found images ({names}): "
                          "switch the arm driver's cameras off")
    low, high = (bound.astype(np.float64) for bound in spec.state_bounds)
    bounded = np.isfinite(low) & np.isfinite(high) & (high > low) & config.normalize_observations
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    return tuple(((low + high) / 2).tolist()), tuple((2 / (high - low)).tolist())


def distribution(actor: Actor, params: Params, observations: Observations) -> tuple[jax.Array, jax.Array]:
    """Return mean and log standard deviation (..., action_size) of the policy's Gaussian before tanh."""
    outputs: Any = actor.apply({"params": params}, observations)
    return outputs


def sample_action(mean: jax.Array, log_std: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw tanh-Gaussian actions (..., n) and their log densities (...).

    log pi(a) = sum_i log N(u_i) - log(1 - tanh(u_i)^2), the latter as 2 (log 2 - u - softplus(-2 u)), which stays
    finite for saturated actions (Haarnoja et al. 2018, appendix C, equation 21).
    """
    noise = jax.random.normal(key, mean.shape)
    raw = mean + jnp.exp(log_std) * noise
    log_normal = -0.5 * jnp.square(noise) - log_std - 0.5 * np.log(2 * np.pi)
    log_squash = 2 * (np.log(2) - raw - nn.softplus(-2 * raw))
    return jnp.tanh(raw), (log_normal - log_squash).sum(-1)


def members(params: Params) -> list[Params]:
    """Split stacked ensemble parameters (num_qs, ...) into one tree per critic."""
    size = len(jax.tree.leaves(params)[0])
    return [jax.tree.map(lambda x, i=i: x[i], params) for i in range(size)]


def stack(trees: list[Params]) -> Params:
    """Undo ``members``."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def ensemble_q(critic: Critic, params: list[Params], observations: Observations, actions: jax.Array) -> jax.Array:
    """Return Q (num_qs, ...) of every critic.

    Unrolled rather than vmapped: on a CPU the activations of one critic stay in its core's cache and different critics
    run on different cores, which makes a step with ten critics a fifth faster than one batched matrix multiply.
    """
    qs: list[Any] = [critic.apply({"params": p}, observations, actions) for p in params]
    return jnp.stack(qs)
