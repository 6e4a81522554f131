# SPDX-License-Identifier: Apache-2.0
"""RLPD's agent: soft actor-critic with a LayerNorm critic ensemble and a high update-to-data ratio.

SAC: Haarnoja et al. 2018, arXiv:1812.05905. REDQ's random subsets: Chen et al. 2021, arXiv:2101.05982. RLPD, which adds
LayerNorm and symmetric sampling: Ball et al. 2023, arXiv:2302.02948. Images: one encoder, trained by the critics, from
which the policy's gradient is stopped (DrQ, arXiv:2004.13649), and a discrete gripper (HIL-SERL, arXiv:2410.21845).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from rlpd_ros.errors import ConfigError
from rlpd_ros.rl import native
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.encoders import Encoder
from rlpd_ros.rl.losses import (
    actor_loss,
    critic_loss,
    draw_subset,
    grasp_loss,
    grasp_of,
    grasp_target,
    imitation_loss,
    target_update,
    target_value,
    temperature_loss,
)
from rlpd_ros.rl.networks import (
    Actor,
    Critic,
    GraspCritic,
    Params,
    distribution,
    encode,
    ensemble_q,
    grasp_q,
    init_critics,
    init_encoder,
    init_network,
    make_actor,
    make_critic,
    make_encoder,
    make_grasp_critic,
    squash,
    with_grasp,
)
from rlpd_ros.rl.shares import Shares
from rlpd_ros.rl.sight import prepare
from rlpd_ros.types import Batch, SpaceSpec

Info = dict[str, jax.Array]
_COMPILER = {"xla_backend_optimization_level": 1}  # compiles in a quarter less time, computes as fast
_BY_CRITIC_STEPS = ("critic", "target_critic", "encoder", "target_encoder", "grasp", "target_grasp")  # what they change


class TrainState(NamedTuple):
    """Parameters and the state of their Adam optimiser; both empty for what there is not."""

    params: Params
    opt_state: Any

    @staticmethod
    def create(params: Params, learning_rate: float) -> TrainState:
        return TrainState(params, optax.adam(learning_rate).init(params) if jax.tree.leaves(params) else ())

    def apply_gradients(self, grads: Params, learning_rate: float) -> TrainState:
        return self.apply_and_follow(grads, learning_rate, None, 0.0)[0]

    def apply_and_follow(self, grads: Params, learning_rate: float, target: Params, tau: float
                         ) -> tuple[TrainState, Params]:
        """Return the next state, and the target, which goes by ``tau`` of the way towards its parameters."""
        if not jax.tree.leaves(self.params):
            return self, target
        if native.is_available():
            params, opt_state, target = native.adam(grads, *self, learning_rate, target, tau)
            return TrainState(params, opt_state), target
        updates, opt_state = optax.adam(learning_rate).update(grads, self.opt_state)
        state = TrainState(optax.apply_updates(self.params, updates), opt_state)
        return state, target_update(state.params, target, tau) if tau else target


class Agent(struct.PyTreeNode):
    """Everything that learning changes, immutable: ``update`` returns a new agent.

    ``actor``, ``critic`` (its arrays stacked over the ensemble) and ``temperature`` (the logarithm) are trained, and
    with images ``encoder``, with a discrete gripper ``grasp``: without, those are empty. The targets follow. ``step``
    counts updates. ``backbone`` stays as it is; it is empty unless the agent computes frozen features itself.
    """

    actor: TrainState
    critic: TrainState
    target_critic: Params
    encoder: TrainState
    target_encoder: Params
    grasp: TrainState
    target_grasp: Params
    temperature: TrainState
    rng: jax.Array
    step: jax.Array
    backbone: Params
    actor_network: Actor = struct.field(pytree_node=False)
    critic_network: Critic = struct.field(pytree_node=False)
    encoder_network: Encoder = struct.field(pytree_node=False)
    grasp_network: GraspCritic | None = struct.field(pytree_node=False)
    config: AgentConfig = struct.field(pytree_node=False)
    shares: Shares = struct.field(pytree_node=False, default=Shares())

    @property
    def policy_params(self) -> Params:
        """Return what an actor needs of what was trained: see ``Policy``."""
        parts = {"encoder": self.encoder.params, "grasp": self.grasp.params}
        return {**self.actor.params, **{name: params for name, params in parts.items() if params}}

    @partial(jax.jit, static_argnames="demonstrations", donate_argnames="self", compiler_options=_COMPILER)
    def update(self, batch: Batch, demonstrations: int = 0) -> tuple[Agent, Info]:
        """Make ``utd_ratio`` critic steps, each on its own mini-batch, then one step of actor and temperature.

        ``batch``: arrays (utd_ratio, batch, ...); they must not change until the result is ready. The last
        ``demonstrations`` rows of every mini-batch are demonstrations. Returns the next agent and float32 scalars. This
        agent's arrays are given up (donated): copy what is still needed, such as parameters to publish, before.

        As in RLPD's code the actor and temperature steps use the last mini-batch and the updated critics.
        """
        utd_ratio, size = batch.rewards.shape
        discrete = int(self.grasp_network is not None)
        chex.assert_shape([batch.rewards, batch.masks], (self.config.utd_ratio, size))
        chex.assert_shape(batch.actions, (utd_ratio, size, self.actor_network.action_size + discrete))
        chex.assert_is_divisible(size, self.shares.count)
        return self.shares.deal(
            lambda agent, batch: agent._update(batch, demonstrations), self, self._is_dealt(), batch)

    def _is_dealt(self) -> Agent:
        """Return which arrays are dealt to the devices by ensemble member; each has a copy of the others."""
        dealt = {name: jax.tree.map(jnp.ndim, getattr(self, name)) for name in ("critic", "target_critic")}
        return jax.tree.map(bool, jax.tree.map(lambda _: 0, self).replace(**dealt))

    def _update(self, batch: Batch, demonstrations: int) -> tuple[Agent, Info]:
        rng, next_key, subset_key, actor_key, shift_key = jax.random.split(self.rng, 5)
        batch = self._prepared(batch, shift_key)

        agent, critic_info = self._critic_steps(batch, next_key, subset_key)
        last = jax.tree.map(lambda x: x[-1], batch.observations)
        seen = encode(self.encoder_network, agent.encoder.params, last)  # the critics train the encoder, nobody else
        (_, (mode, actor_info)), grads = jax.value_and_grad(self._actor_loss, has_aux=True)(
            self.actor.params, agent.critic.params, seen, actor_key, batch.actions[-1], batch.shown[-1])
        grads, actor_info = self.shares.total((grads, actor_info))
        actor = self.actor.apply_gradients(grads, self.config.actor_lr)
        discrete = int(self.grasp_network is not None)  # the gripper counts, although it is not drawn: as in HIL-SERL
        target_entropy = self.config.target_entropy_per_dim * (self.actor_network.action_size + discrete)
        grads = jax.grad(temperature_loss)(self.temperature.params, actor_info["entropy"], target_entropy)
        temperature = self.temperature.apply_gradients(grads, self.config.temperature_lr)

        info = {**critic_info, **actor_info, "temperature": jnp.exp(self.temperature.params)}
        if demonstrations:
            mode = self.shares.gather(mode)
            if self.grasp_network is not None:
                mode = with_grasp(mode, grasp_q(self.grasp_network, agent.grasp.params, seen).argmax(-1))
            distance = jnp.abs(mode - batch.actions[-1])[-demonstrations:]
            info["demo_action_distance"] = distance.mean()
        return agent.replace(actor=actor, temperature=temperature, rng=rng, step=self.step + 1), info

    def _prepared(self, batch: Batch, key: jax.Array) -> Batch:
        """Return the batch with observations as the encoder takes them."""
        keys = jax.random.split(key)
        now, following = (prepare(self.encoder_network, self.backbone, observations, key) for observations, key in zip(
            (batch.observations, batch.next_observations), keys, strict=True))
        return batch._replace(observations=now, next_observations=following)

    def _critic_steps(self, batch: Batch, next_key: jax.Array, subset_key: jax.Array) -> tuple[Agent, Info]:
        # The policy stays as it is during these steps, its encoder too, so all next actions can be drawn at once; a
        # scan compiles one step, whatever the update-to-data ratio.
        seen = encode(self.encoder_network, self.encoder.params, batch.next_observations)
        rows, gather = partial(self.shares.rows, axis=1), partial(self.shares.gather, axis=1)
        noise = jax.random.normal(next_key, (*batch.rewards.shape, self.actor_network.action_size))
        next_actions, next_log_probs = gather(squash(
            *distribution(self.actor_network, self.actor.params, rows(seen)), rows(noise)))
        subsets = jax.vmap(draw_subset, (0, None, None))(
            jax.random.split(subset_key, self.config.utd_ratio), self.config.num_qs, self.config.num_min_qs)
        changed, (qs, targets, losses) = jax.lax.scan(
            self._critic_step, {name: getattr(self, name) for name in _BY_CRITIC_STEPS},
            (batch, next_actions, next_log_probs, subsets))
        qs = gather(qs)
        info = {"critic_loss": jax.vmap(critic_loss)(qs, targets), "q_mean": qs, "q_spread": qs.std(axis=1),
                "target_q_mean": targets, **losses}
        return self.replace(**changed), {
            "q_max": qs.max(), "target_q_max": targets.max(), **{name: x.mean() for name, x in info.items()}}

    def _critic_step(self, carry: dict[str, Any], inputs: tuple) -> tuple[dict[str, Any], tuple]:
        agent, config, shares = self.replace(**carry), self.config, self.shares
        batch, next_actions, next_log_probs, subset = inputs
        target_seen = encode(self.encoder_network, agent.target_encoder, batch.next_observations)
        if config.num_min_qs == config.num_qs:
            next_qs = shares.gather(ensemble_q(
                self.critic_network, agent.target_critic, target_seen, next_actions))
        else:
            next_qs = shares.gather(ensemble_q(
                self.critic_network, shares.chosen(agent.target_critic, subset),
                *shares.rows((target_seen, next_actions))), axis=1)
        targets = target_value(batch.rewards, batch.masks, next_qs, next_log_probs,
                               jnp.exp(self.temperature.params), config.discount, config.backup_entropy)
        actions, grasps = batch.actions, grasp_of(batch.actions)
        if self.grasp_network is not None:
            actions = actions[..., :-1]
            next_seen = encode(self.encoder_network, agent.encoder.params, batch.next_observations)
            grasp_targets = grasp_target(
                batch.rewards, batch.masks, grasp_q(self.grasp_network, agent.grasp.params, next_seen),
                grasp_q(self.grasp_network, agent.target_grasp, target_seen), grasps, config.discount,
                config.grasp_penalty)

        def loss(encoder: Params, critics: Params, grasp: Params) -> tuple[jax.Array, tuple[jax.Array, Info]]:
            seen = encode(self.encoder_network, encoder, batch.observations)
            qs = ensemble_q(self.critic_network, critics, seen, actions)
            value, losses = critic_loss(qs, targets) / shares.count, {}
            if self.grasp_network is not None:
                losses["grasp_loss"] = grasp_loss(grasp_q(self.grasp_network, grasp, seen), grasps, grasp_targets)
            return sum(losses.values(), value), (qs, losses)

        (_, (qs, losses)), grads = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(
            agent.encoder.params, agent.critic.params, agent.grasp.params)
        return agent._follow(*grads), (qs, targets, losses)

    def _follow(self, *grads: Params) -> dict[str, Any]:
        """Return what a critic step changes, by the gradients of encoder, critics and gripper's critic."""
        changed: dict[str, Any] = {}
        for name, grad in zip(("encoder", "critic", "grasp"), grads, strict=True):
            changed[name], changed[f"target_{name}"] = getattr(self, name).apply_and_follow(
                grad, self.config.critic_lr, getattr(self, f"target_{name}"), self.config.tau)
        return changed

    def _actor_loss(self, params: Params, critic_params: Params, seen: jax.Array, key: jax.Array,
                    done: jax.Array, shown: jax.Array) -> tuple[jax.Array, tuple[jax.Array, Info]]:
        """Return this device's part of the loss, over its rows; the action without noise there; and statistics.

        ``done``: the actions of the batch, to be imitated where ``shown`` is 1.
        """
        shares, config = self.shares, self.config
        mean, log_std = distribution(self.actor_network, params, shares.rows(seen))
        noise = jax.random.normal(key, (len(seen), self.actor_network.action_size))
        actions, log_probs = squash(mean, log_std, shares.rows(noise))
        qs = shares.to_rows(ensemble_q(self.critic_network, critic_params, seen, shares.gather(actions)))
        temperature = jnp.exp(self.temperature.params)
        value = actor_loss(qs, log_probs, temperature, config.actor_q_reduction) / shares.count
        info = {"actor_loss": value, "entropy": -log_probs.mean() / shares.count}
        mode = jnp.tanh(mean)
        if config.imitation_weight:
            # A mean over what was shown, so that its weight is the same however many people's actions a batch has.
            weights = shown / jnp.maximum(shown.sum(), 1)
            value += config.imitation_weight * imitation_loss(mode, *shares.rows((done[:, :mode.shape[-1]], weights)))
        return value, (mode, info)

    @staticmethod
    def create(spec: SpaceSpec, policy: PolicyConfig, config: AgentConfig, seed: int,
               backbone: Params | None = None, devices: Sequence[jax.Device] = ()) -> Agent:
        """Make an untrained agent for a space, whose updates ``devices`` share (see ``find_devices``).

        ``backbone``: parameters of a frozen network, for batches with images in place of features. Raises ConfigError
        for settings that contradict each other.
        """
        if config.num_min_qs > config.num_qs:
            raise ConfigError(f"parameter 'num_min_qs': expected at most num_qs = {config.num_qs}, "
                              f"found {config.num_min_qs}")
        if spec.image_fields and len(devices) > 1:
            raise ConfigError(f"parameter 'devices': expected 1 with cameras, found {len(devices)}: the critics that "
                              "devices deal among them share an encoder")
        networks = {"actor_network": make_actor(spec, policy), "critic_network": make_critic(spec, policy, config),
                    "encoder_network": make_encoder(spec, policy), "grasp_network": make_grasp_critic(spec, policy)}
        agent = _create(spec, tuple(networks.items()), config, seed, backbone or {})
        agent = agent.replace(shares=Shares(tuple(devices)))
        return agent.shares.place(agent, agent._is_dealt())


@partial(jax.jit, static_argnames=("spec", "networks", "config"))
def _create(spec: SpaceSpec, networks: tuple, config: AgentConfig, seed: int, backbone: Params) -> Agent:
    made = dict(networks)
    rng, actor_key, critic_key, encoder_key, grasp_key = jax.random.split(jax.random.PRNGKey(seed), 5)
    critics = init_critics(made["critic_network"], config.num_qs, critic_key)
    encoder = init_encoder(spec, made["encoder_network"], encoder_key)
    grasp_network = made["grasp_network"]
    grasp = init_network(grasp_network, grasp_key) if grasp_network else {}
    return Agent(
        actor=TrainState.create(init_network(made["actor_network"], actor_key), config.actor_lr),
        critic=TrainState.create(critics, config.critic_lr), target_critic=critics,
        encoder=TrainState.create(encoder, config.critic_lr), target_encoder=encoder,
        grasp=TrainState.create(grasp, config.critic_lr), target_grasp=grasp,
        temperature=TrainState.create(jnp.log(jnp.float32(config.init_temperature)), config.temperature_lr),
        rng=rng, step=jnp.int32(0), backbone=backbone, config=config, **made)
