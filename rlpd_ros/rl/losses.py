# SPDX-License-Identifier: Apache-2.0
"""One equation per function. SAC: Haarnoja et al. 2018, arXiv:1812.05905. REDQ: Chen et al. 2021, arXiv:2101.05982.
RLPD: Ball et al. 2023, arXiv:2302.02948. HIL-SERL: Luo et al. 2024, arXiv:2410.21845.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from rlpd_ros.rl.networks import Params


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


def imitation_loss(modes: jax.Array, actions: jax.Array, weights: jax.Array) -> jax.Array:
    """Return sum_i w_i |mode(s_i) - a_i|^2: behaviour cloning. ``modes``, ``actions``: (batch, n); weights: (batch,).

    Beside Q values as in Nair et al. 2018, arXiv:1709.10089, and Fujimoto and Gu 2021, arXiv:2106.06860.
    """
    chex.assert_equal_shape([modes, actions])
    chex.assert_equal_shape([modes[:, 0], weights])
    return (weights * jnp.square(modes - actions).sum(-1)).sum()


def temperature_loss(log_temperature: jax.Array, entropy: jax.Array, target_entropy: float) -> jax.Array:
    """Return temperature * (entropy - target entropy): it rises while the entropy is too low; SAC, equation 18."""
    chex.assert_rank([log_temperature, entropy], 0)
    return jnp.exp(log_temperature) * (entropy - target_entropy)


def grasp_target(rewards: jax.Array, masks: jax.Array, next_qs: jax.Array, next_target_qs: jax.Array, grasps: jax.Array,
                 discount: float, penalty: float) -> jax.Array:
    """Return y = r - penalty [g is not hold] + discount * mask * Q'(s', argmax_g' Q(s', g')), shape (batch,).

    Double Q-learning: van Hasselt et al. 2016, arXiv:1509.06461, equation 4. HIL-SERL has the penalty only where the
    gripper's state changes, which its observations tell. ``next_qs`` and ``next_target_qs`` (batch, GRASPS) are of the
    critic and of its target, ``grasps`` (batch,) what was done.
    """
    chex.assert_equal_shape([next_qs, next_target_qs])
    chex.assert_equal_shape([rewards, masks, grasps])
    best = next_qs.argmax(-1)
    value = jnp.take_along_axis(next_target_qs, best[:, None], axis=-1)[:, 0]
    return rewards - penalty * (grasps != 1) + discount * masks * value


def grasp_loss(qs: jax.Array, grasps: jax.Array, targets: jax.Array) -> jax.Array:
    """Return mean (Q(s, g) - y)^2. ``qs``: (batch, GRASPS)."""
    chex.assert_equal_shape([grasps, targets])
    return jnp.square(jnp.take_along_axis(qs, grasps[:, None], axis=-1)[:, 0] - targets).mean()


def grasp_of(actions: jax.Array) -> jax.Array:
    """Return what the gripper did (...), 0 to GRASPS - 1, in actions (..., n): the nearest to the last element."""
    return jnp.clip(jnp.round(actions[..., -1]), -1, 1).astype(jnp.int32) + 1


def target_update(params: Params, target: Params, tau: float) -> Params:
    """Return tau * params + (1 - tau) * target."""
    return jax.tree.map(lambda p, t: tau * p + (1 - tau) * t, params, target)


def draw_subset(key: jax.Array, num_qs: int, num_min_qs: int) -> jax.Array:
    """Return indices of ``num_min_qs`` different critics, uniformly at random; REDQ, algorithm 1."""
    return jax.random.permutation(key, num_qs)[:num_min_qs]
