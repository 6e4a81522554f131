# SPDX-License-Identifier: Apache-2.0
"""The networks: a tanh-Gaussian policy, an ensemble of critics, and a critic of a gripper that is discrete."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rlpd_ros.errors import ConfigError
from rlpd_ros.rl.config import FROZEN, AgentConfig, PolicyConfig
from rlpd_ros.rl.encoders import Encoder, Features, feature_shape
from rlpd_ros.rl.layers import MLP, Params, ensemble
from rlpd_ros.types import SpaceSpec

_NO_BOUND = 1e30  # simulators have the largest float32 for none
GRASPS = 3  # what a discrete gripper can do: close, hold, open, as the actions -1, 0 and 1


class Actor(nn.Module):
    """The policy: what the encoder sees to mean and log standard deviation of a Gaussian, which tanh squashes."""

    config: PolicyConfig
    action_size: int  # of the Gaussian: a discrete gripper is not part of it
    inputs: int

    @nn.compact
    def __call__(self, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
        c = self.config
        outputs = (("mean", self.action_size), ("log_std", self.action_size))
        mean, log_std = MLP(c.hidden_dims, c.activation, c.layer_norm, outputs, name="mlp")(seen)
        return mean, jnp.clip(log_std, c.log_std_min, c.log_std_max)


class Critic(nn.Module):
    """One member of the ensemble: what the encoder sees and actions (..., action_size) to Q (...)."""

    config: AgentConfig
    action_size: int
    inputs: int

    @nn.compact
    def __call__(self, seen: jax.Array, actions: jax.Array) -> jax.Array:
        (q,) = self.mlp(name="mlp")(jnp.concatenate([seen, actions], axis=-1))
        return q[..., 0]

    def mlp(self, **settings: Any) -> MLP:
        """Define all that there is to a critic."""
        c = self.config
        return MLP(c.critic_hidden_dims, c.critic_activation, c.critic_layer_norm, (("q", 1),), **settings)


class GraspCritic(nn.Module):
    """What the encoder sees to Q (..., GRASPS) of everything that the gripper can do."""

    config: PolicyConfig
    inputs: int

    @nn.compact
    def __call__(self, seen: jax.Array) -> jax.Array:
        c = self.config
        (q,) = MLP(c.grasp_hidden_dims, c.activation, True, (("q", GRASPS),), name="mlp")(seen)  # as every critic
        return q


def make_encoder(spec: SpaceSpec, config: PolicyConfig) -> Encoder:
    """Define what sees in a space. Raises ConfigError for images, or numbers, that it could not take."""
    for f in spec.image_fields:
        if config.encoder != "small" and f.shape[-1] not in (1, 3):
            raise ConfigError(f"observation '{f.name}': expected 1 or 3 channels for encoder {config.encoder}, found "
                              f"{f.shape[-1]}")
    if spec.image_fields and not spec.state_size:
        raise ConfigError("observation: expected numbers beside the images, at least one, found none")
    return Encoder(config, tuple(f.name for f in spec.image_fields), *state_scaling(spec, config))


def make_actor(spec: SpaceSpec, config: PolicyConfig) -> Actor:
    """Define the policy network for a space. Raises ConfigError if there is no gripper that could be discrete."""
    return Actor(config, _gaussian_size(spec, config), _inputs(spec, config))


def make_critic(spec: SpaceSpec, policy: PolicyConfig, config: AgentConfig) -> Critic:
    """Define one critic for a space."""
    return Critic(config, _gaussian_size(spec, policy), _inputs(spec, policy))


def make_grasp_critic(spec: SpaceSpec, config: PolicyConfig) -> GraspCritic | None:
    """Define the critic of the discrete gripper, or return None where there is none."""
    return GraspCritic(config, _inputs(spec, config)) if config.hybrid_gripper else None


def _gaussian_size(spec: SpaceSpec, config: PolicyConfig) -> int:
    last = spec.action[-1]
    if config.hybrid_gripper and (last.size != 1 or spec.action_size < 2):
        raise ConfigError("parameter 'hybrid_gripper': expected a last action field of one element, the gripper's, "
                          f"after others, found {', '.join(f'{f.name} ({f.size})' for f in spec.action)}")
    return spec.action_size - config.hybrid_gripper


def _inputs(spec: SpaceSpec, config: PolicyConfig) -> int:
    cameras = len(spec.image_fields)
    return cameras * config.bottleneck_dim + config.proprio_dim if cameras else spec.state_size


@partial(jax.jit, static_argnames=("spec", "encoder"))
def init_encoder(spec: SpaceSpec, encoder: Encoder, key: jax.Array) -> Params:
    """Return fresh parameters of what sees; none without cameras."""
    observations: dict[str, Any] = {"state": jnp.zeros(spec.state_size)}
    for f in spec.image_fields:
        shape = feature_shape(f.shape, encoder.config.backbone_stages)
        observations[f.name] = (Features(jnp.zeros(shape), jnp.ones(()))
                                if encoder.config.encoder == FROZEN else jnp.zeros(f.shape, jnp.uint8))
    return encoder.init(key, observations).get("params", {})


@partial(jax.jit, static_argnames="network")
def init_network(network: Actor | GraspCritic, key: jax.Array) -> Params:
    """Return fresh parameters of the policy or of the gripper's critic."""
    return network.init(key, jnp.zeros(network.inputs))["params"]


@partial(jax.jit, static_argnames=("critic", "num_qs"))
def init_critics(critic: Critic, num_qs: int, key: jax.Array) -> Params:
    """Return fresh parameters of an ensemble of independent critics, stacked: every array is (num_qs, ...)."""
    seen, actions = jnp.zeros(critic.inputs), jnp.zeros(critic.action_size)
    return jax.vmap(lambda k: critic.init(k, seen, actions)["params"])(jax.random.split(key, num_qs))


def state_scaling(spec: SpaceSpec, config: PolicyConfig
                  ) -> tuple[tuple[float, ...], tuple[float, ...], tuple[bool, ...]]:
    """Return for each state element center, scale, and whether it is unbounded.

    Networks see ``(state - center) * scale``, of unbounded elements the ``symlog``. Values outside the bounds are not
    clipped. Bounds that are equal scale nothing.
    """
    low, high = (bound.astype(np.float64) for bound in spec.state_bounds)
    finite = (np.abs(low) < _NO_BOUND) & (np.abs(high) < _NO_BOUND)
    bounded = finite & (high > low) & config.normalize_observations
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    return (tuple(((low + high) / 2).tolist()), tuple((2 / (high - low)).tolist()),
            tuple((~finite & config.normalize_observations).tolist()))


def encode(encoder: Encoder, params: Params, observations: Mapping[str, Any]) -> jax.Array:
    """Return what ``encoder`` sees (..., inputs) in observations: "state" (..., n) and one entry for each camera."""
    seen: Any = encoder.apply({"params": params}, observations)
    return seen


def distribution(actor: Actor, params: Params, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and log standard deviation (..., action_size) of the policy's Gaussian before tanh."""
    outputs: Any = actor.apply({"params": params}, seen)
    return outputs


def grasp_q(critic: GraspCritic, params: Params, seen: jax.Array) -> jax.Array:
    """Return Q (..., GRASPS) of everything that the gripper can do."""
    q: Any = critic.apply({"params": params}, seen)
    return q


def with_grasp(motion: jax.Array, grasp: jax.Array) -> jax.Array:
    """Return actions (..., n + 1) of motions (..., n) and grasps (...), 0 to GRASPS - 1."""
    return jnp.concatenate([motion, (grasp - 1)[..., None].astype(motion.dtype)], axis=-1)


def squash(mean: jax.Array, log_std: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the tanh-Gaussian actions (..., n) of standard normal ``noise``, and their log densities (...).

    log pi(a) = sum_i log N(u_i) - log(1 - tanh(u_i)^2), the latter as 2 (log 2 - u - softplus(-2 u)), which stays
    finite for saturated actions (Haarnoja et al. 2018, appendix C, equation 21).
    """
    raw = mean + jnp.exp(log_std) * noise
    log_normal = -0.5 * jnp.square(noise) - log_std - 0.5 * np.log(2 * np.pi)
    log_squash = 2 * (np.log(2) - raw - nn.softplus(-2 * raw))
    return jnp.tanh(raw), (log_normal - log_squash).sum(-1)


def ensemble_q(critic: Critic, params: Params, seen: jax.Array, actions: jax.Array) -> jax.Array:
    """Return Q (num_qs, ...) of every critic; their parameters are stacked."""
    (q,) = ensemble(critic.mlp(parent=None), params["mlp"], jnp.concatenate([seen, actions], axis=-1))
    return q[..., 0]
