# SPDX-License-Identifier: Apache-2.0
"""RLPD's agent: soft actor-critic with a LayerNorm critic ensemble and a high update-to-data ratio.

SAC: Haarnoja et al. 2018, arXiv:1812.05905. REDQ's random subsets: Chen et al. 2021, arXiv:2101.05982. RLPD, which adds
LayerNorm and symmetric sampling: Ball et al. 2023, arXiv:2302.02948. Arrays without a leading batch axis are scalars.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from rlpd_ros.errors import ConfigError
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.networks import (
    Actor,
    Critic,
    Params,
    distribution,
    ensemble_q,
    init_actor,
    init_critics,
    make_actor,
    make_critic,
    members,
    sample_action,
    stack,
)
from rlpd_ros.types import Batch, SpaceSpec

Info = dict[str, jax.Array]


def target_value(rewards: jax.Array, masks: jax.Array, next_qs: jax.Array, next_log_probs: jax.Array,
                 temperature: jax.Array, discount: float, backup_entropy: bool) -> jax.Array:
    """Return y = r + discount * mask * (min_i Q_i(s', a') - temperature * log pi(a'|s')), shape (batch,).

    ``next_qs`` (num_min_qs, batch) come from the target critics. Without ``backup_entropy`` the second term is left
    out. RLPD, algorithm 1; REDQ, equation 1.
    """
    chex.assert_rank(next_qs, 2)
    chex.assert_equal_shape([rewards, masks, next_log_probs, next_qs[0]])
    value = next_qs.min(axis=0)
    if backup_entropy:
        value -= temperature * next_log_probs
    return rewards + discount * masks * value


def critic_loss(qs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return mean_i (Q_i(s, a) - y)^2 over ensemble and batch: RLPD, algorithm 1. ``qs``: (num_qs, batch)."""
    chex.assert_equal_shape([qs[0], targets])
    return jnp.square(qs - targets).mean()


def actor_loss(qs: jax.Array, log_probs: jax.Array, temperature: jax.Array, reduction: str) -> jax.Array:
    """Return mean(temperature * log pi(a|s) - Q(s, a)) for a ~ pi; SAC, equation 7.

    Q is the mean of all critics (RLPD, algorithm 1) or their minimum (SAC). ``qs``: (num_qs, batch).
    """
    chex.assert_equal_shape([qs[0], log_probs])
    q = qs.mean(axis=0) if reduction == "mean" else qs.min(axis=0)
    return (temperature * log_probs - q).mean()


def temperature_loss(log_temperature: jax.Array, entropy: jax.Array, target_entropy: float) -> jax.Array:
    """Return temperature * (entropy - target entropy): it rises while the entropy is too low; SAC, equation 18."""
    chex.assert_rank([log_temperature, entropy], 0)
    return jnp.exp(log_temperature) * (entropy - target_entropy)


def target_update(params: Params, target: Params, tau: float) -> Params:
    """Return tau * params + (1 - tau) * target."""
    return jax.tree.map(lambda p, t: tau * p + (1 - tau) * t, params, target)


def draw_subset(key: jax.Array, num_qs: int, num_min_qs: int) -> jax.Array:
    """Return indices of ``num_min_qs`` different critics, uniformly at random; REDQ, algorithm 1."""
    return jax.random.permutation(key, num_qs)[:num_min_qs]


class TrainState(NamedTuple):
    """Parameters and the state of their Adam optimiser."""

    params: Params
    opt_state: Any

    @staticmethod
    def create(params: Params, learning_rate: float) -> TrainState:
        return TrainState(params, optax.adam(learning_rate).init(params))

    def apply_gradients(self, grads: Params, learning_rate: float) -> TrainState:
        updates, opt_state = optax.adam(learning_rate).update(grads, self.opt_state)
        return TrainState(optax.apply_updates(self.params, updates), opt_state)


class Agent(struct.PyTreeNode):
    """Everything that learning changes, immutable: ``update`` returns a new agent.

    ``actor``, ``critic`` (its arrays stacked over the ensemble) and ``temperature`` (the logarithm) are trained,
    ``target_critic`` follows the critic. ``step`` counts updates.
    """

    actor: TrainState
    critic: TrainState
    target_critic: Params
    temperature: TrainState
    rng: jax.Array
    step: jax.Array
    actor_network: Actor = struct.field(pytree_node=False)
    critic_network: Critic = struct.field(pytree_node=False)
    config: AgentConfig = struct.field(pytree_node=False)

    @partial(jax.jit, static_argnames="demonstrations", donate_argnames="self")
    def update(self, batch: Batch, demonstrations: int = 0) -> tuple[Agent, Info]:
        """Make ``utd_ratio`` critic steps, each on its own mini-batch, then one step of actor and temperature.

        ``batch``: arrays (utd_ratio, batch, ...); they must not change until the result is ready. The last
        ``demonstrations`` rows of every mini-batch are demonstrations. Returns the next agent and float32 scalars. This
        agent's arrays are given up (donated): copy what is still needed, such as parameters to publish, before.

        As in RLPD's code the actor and temperature steps use the last mini-batch and the updated critics.
        """
        utd_ratio, size = batch.rewards.shape
        chex.assert_shape([batch.rewards, batch.masks], (self.config.utd_ratio, size))
        chex.assert_shape(batch.actions, (utd_ratio, size, self.actor_network.action_size))
        rng, next_key, subset_key, actor_key = jax.random.split(self.rng, 4)

        critic, target_critic, critic_info = self._critic_steps(batch, next_key, subset_key)
        last = {name: values[-1] for name, values in batch.observations.items()}
        (_, (entropy, mode, actor_info)), grads = jax.value_and_grad(self._actor_loss, has_aux=True)(
            self.actor.params, critic.params, last, actor_key)
        actor = self.actor.apply_gradients(grads, self.config.actor_lr)
        target_entropy = self.config.target_entropy_per_dim * self.actor_network.action_size
        grads = jax.grad(temperature_loss)(self.temperature.params, entropy, target_entropy)
        temperature = self.temperature.apply_gradients(grads, self.config.temperature_lr)

        info = {**critic_info, **actor_info, "temperature": jnp.exp(self.temperature.params)}
        if demonstrations:
            distance = jnp.abs(mode - batch.actions[-1])[-demonstrations:]
            info["demo_action_distance"] = distance.mean()
        return self.replace(actor=actor, critic=critic, target_critic=target_critic, temperature=temperature, rng=rng,
                            step=self.step + 1), info

    def _critic_steps(self, batch: Batch, next_key: jax.Array, subset_key: jax.Array
                      ) -> tuple[TrainState, Params, Info]:
        # The actor stays as it is during these steps, so all next actions can be drawn at once; a scan compiles one
        # step, whatever the update-to-data ratio.
        next_actions, next_log_probs = sample_action(
            *distribution(self.actor_network, self.actor.params, batch.next_observations), next_key)
        subsets = jax.vmap(draw_subset, (0, None, None))(
            jax.random.split(subset_key, self.config.utd_ratio), self.config.num_qs, self.config.num_min_qs)
        (critic, target_critic), info = jax.lax.scan(
            self._critic_step, (self.critic, self.target_critic), (batch, next_actions, next_log_probs, subsets))
        reductions = {name: jnp.max if name.endswith("max") else jnp.mean for name in info}
        return critic, target_critic, {name: reductions[name](values) for name, values in info.items()}

    def _critic_step(self, carry: tuple[TrainState, Params], inputs: tuple) -> tuple[tuple[TrainState, Params], Info]:
        (critic, target_critic), (batch, next_actions, next_log_probs, subset) = carry, inputs
        config = self.config
        everyone = config.num_min_qs == config.num_qs
        chosen = target_critic if everyone else jax.tree.map(lambda x: x[subset], target_critic)
        next_qs = ensemble_q(self.critic_network, members(chosen), batch.next_observations, next_actions)
        targets = target_value(batch.rewards, batch.masks, next_qs, next_log_probs,
                               jnp.exp(self.temperature.params), config.discount, config.backup_entropy)

        def loss(params: list[Params]) -> tuple[jax.Array, jax.Array]:
            qs = ensemble_q(self.critic_network, params, batch.observations, batch.actions)
            return critic_loss(qs, targets), qs

        (value, qs), grads = jax.value_and_grad(loss, has_aux=True)(members(critic.params))
        critic = critic.apply_gradients(stack(grads), config.critic_lr)
        target_critic = target_update(critic.params, target_critic, config.tau)
        info = {"critic_loss": value, "q_mean": qs.mean(), "q_max": qs.max(), "q_spread": qs.std(axis=0).mean(),
                "target_q_mean": targets.mean(), "target_q_max": targets.max()}
        return (critic, target_critic), info

    def _actor_loss(self, params: Params, critic_params: Params, observations: dict[str, jax.Array], key: jax.Array
                    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array, Info]]:
        mean, log_std = distribution(self.actor_network, params, observations)
        actions, log_probs = sample_action(mean, log_std, key)
        qs = ensemble_q(self.critic_network, members(critic_params), observations, actions)
        value = actor_loss(qs, log_probs, jnp.exp(self.temperature.params), self.config.actor_q_reduction)
        entropy = -log_probs.mean()
        return value, (entropy, jnp.tanh(mean), {"actor_loss": value, "entropy": entropy})

    @staticmethod
    def create(spec: SpaceSpec, policy: PolicyConfig, config: AgentConfig, seed: int) -> Agent:
        """Make an untrained agent for a space. Raises ConfigError for settings that contradict each other."""
        if config.num_min_qs > config.num_qs:
            raise ConfigError(f"parameter 'num_min_qs': expected at most num_qs = {config.num_qs}, "
                              f"found {config.num_min_qs}")
        return _create(make_actor(spec, policy), make_critic(spec, policy, config), config, seed)


@partial(jax.jit, static_argnames=("actor_network", "critic_network", "config"))
def _create(actor_network: Actor, critic_network: Critic, config: AgentConfig, seed: int) -> Agent:
    rng, actor_key, critic_key = jax.random.split(jax.random.PRNGKey(seed), 3)
    critic_params = init_critics(critic_network, actor_network.action_size, config.num_qs, critic_key)
    return Agent(
        actor=TrainState.create(init_actor(actor_network, actor_key), config.actor_lr),
        critic=TrainState.create(critic_params, config.critic_lr),
        target_critic=critic_params,
        temperature=TrainState.create(jnp.log(jnp.float32(config.init_temperature)), config.temperature_lr),
        rng=rng, step=jnp.int32(0), actor_network=actor_network, critic_network=critic_network, config=config)
