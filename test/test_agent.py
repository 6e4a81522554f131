# SPDX-License-Identifier: Apache-2.0
"""The agent: every loss against arithmetic done by hand, and learning on problems whose Q values are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlpd_ros.errors import ConfigError
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.layers import members
from rlpd_ros.rl.losses import (
    actor_loss,
    critic_loss,
    draw_subset,
    imitation_loss,
    target_update,
    target_value,
    temperature_loss,
)
from rlpd_ros.rl.networks import distribution, ensemble_q
from rlpd_ros.types import Batch, SpaceField, SpaceSpec

STATES, ACTIONS, SIZE = 3, 2, 8
SPEC = SpaceSpec("test", (SpaceField.box("state", [-1] * STATES, [1] * STATES),),
                 (SpaceField.box("motion", [-1] * ACTIONS, [1] * ACTIONS),), 10.0, "base", 100)
# A policy without noise makes an update's arithmetic reproducible by hand.
QUIET = PolicyConfig(hidden_dims=(8,), activation="relu", layer_norm=False, log_std_min=-30.0, log_std_max=-30.0)
FIXED: dict[str, Any] = {"actor_lr": 0.0, "critic_lr": 0.0, "temperature_lr": 0.0}
TINY: dict[str, Any] = {"num_qs": 1, "num_min_qs": 1, "critic_hidden_dims": (), "utd_ratio": 1}  # quick to compile


def make_agent(policy: PolicyConfig = QUIET, seed: int = 0, **settings: Any) -> Agent:
    return Agent.create(SPEC, policy, AgentConfig(**{**TINY, **settings}), seed)


def make_batch(utd_ratio: int = 1, seed: int = 0, masks: float | None = None) -> Batch:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((utd_ratio, SIZE, *shape), np.float32)

    shape = (utd_ratio, SIZE)
    return Batch({"state": normal(STATES)}, np.tanh(normal(ACTIONS)), normal(),
                 rng.integers(0, 2, shape).astype(np.float32) if masks is None else np.full(shape, masks, np.float32),
                 {"state": normal(STATES)}, np.zeros(shape, np.float32))


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def copy(tree):
    return jax.tree.map(np.array, tree)


# The losses


def test_target_value():
    rewards, masks, log_probs = jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 0.0, 1.0]), jnp.array([-2.0, 5.0, 4.0])
    next_qs, temperature = jnp.array([[10.0, 20.0, 30.0], [12.0, 18.0, 33.0]]), jnp.float32(0.5)
    plain = target_value(rewards, masks, next_qs, log_probs, temperature, 0.9, backup_entropy=False)
    np.testing.assert_allclose(plain, [1 + 0.9 * 10, 2, 3 + 0.9 * 30], rtol=1e-6)
    soft = target_value(rewards, masks, next_qs, log_probs, temperature, 0.9, backup_entropy=True)
    np.testing.assert_allclose(soft, [1 + 0.9 * (10 + 0.5 * 2), 2, 3 + 0.9 * (30 - 0.5 * 4)], rtol=1e-6)


def test_critic_loss():
    loss = critic_loss(jnp.array([[1.0, 2.0], [3.0, 5.0]]), jnp.array([2.0, 4.0]))
    assert loss == pytest.approx((1 + 4 + 1 + 1) / 4)


@pytest.mark.parametrize(("reduction", "expected"), [("mean", (0.1 * -1 - 2 + 0.1 * 3 - 5) / 2),
                                                     ("min", (0.1 * -1 - 1 + 0.1 * 3 - 4) / 2)])
def test_actor_loss(reduction, expected):
    qs, log_probs = jnp.array([[1.0, 6.0], [3.0, 4.0]]), jnp.array([-1.0, 3.0])
    assert actor_loss(qs, log_probs, jnp.float32(0.1), reduction) == pytest.approx(expected, rel=1e-6)


def test_temperature_loss():
    gradient = jax.grad(temperature_loss)
    log_temperature = jnp.log(0.2)
    assert temperature_loss(log_temperature, jnp.float32(-3.0), -2.0) == pytest.approx(0.2 * -1.0)
    assert gradient(log_temperature, jnp.float32(-3.0), -2.0) < 0  # too little entropy: descent raises it
    assert gradient(log_temperature, jnp.float32(-1.0), -2.0) > 0


def test_target_update():
    np.testing.assert_allclose(target_update({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([3.0, 6.0])}, 0.25)["w"],
                               [0.25 * 1 + 0.75 * 3, 0.25 * 2 + 0.75 * 6])


def test_subsets_are_drawn_uniformly_and_without_replacement():
    subsets = jax.vmap(draw_subset, (0, None, None))(jax.random.split(jax.random.PRNGKey(0), 3000), 5, 2)
    assert (subsets[:, 0] != subsets[:, 1]).all()
    counts = np.bincount(np.ravel(subsets), minlength=5)
    np.testing.assert_allclose(counts / 6000, 0.2, atol=0.03)


# One update


def dense(params, x):
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def critic_by_hand(params, states, actions):
    p = params["mlp"]
    x = dense(p["hidden_0"], np.concatenate([states, actions], -1))
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = np.maximum(x * p["norm_0"]["scale"] + p["norm_0"]["bias"], 0)
    return dense(p["q"], x)[..., 0]


def policy_by_hand(params, states):
    return np.tanh(dense(params["mlp"]["mean"], np.maximum(dense(params["mlp"]["hidden_0"], states), 0)))


def test_an_update_computes_what_the_paper_says():
    agent = make_agent(num_qs=3, num_min_qs=3, critic_hidden_dims=(8,), critic_activation="relu", discount=0.9,
                       init_temperature=0.01, actor_q_reduction="mean", **FIXED)
    agent = agent.replace(target_critic=jax.tree.map(lambda x: 1.1 * x, agent.target_critic))
    batch = make_batch()
    critics, targets, actor = (copy(x) for x in (agent.critic.params, agent.target_critic, agent.actor.params))

    def qs(params, states, actions):
        return np.stack([critic_by_hand(p, states, actions) for p in members(params)])

    states, next_states = batch.observations["state"][0], batch.next_observations["state"][0]
    next_q = qs(targets, next_states, policy_by_hand(actor, next_states)).min(0)
    y = batch.rewards[0] + 0.9 * batch.masks[0] * next_q
    q = qs(critics, states, batch.actions[0])
    q_of_policy = qs(critics, states, policy_by_hand(actor, states)).mean(0).mean()

    agent, info = agent.update(batch, demonstrations=3)
    distance = np.abs(policy_by_hand(actor, states) - batch.actions[0])[-3:].mean()
    expected = {
        "critic_loss": ((q - y) ** 2).mean(), "q_mean": q.mean(), "q_max": q.max(), "q_spread": q.std(0).mean(),
        "target_q_mean": y.mean(), "target_q_max": y.max(), "temperature": 0.01, "demo_action_distance": distance,
        "actor_loss": 0.01 * -float(info["entropy"]) - q_of_policy}
    assert info.keys() == {*expected, "entropy"}
    for name, value in expected.items():
        assert float(info[name]) == pytest.approx(value, rel=1e-4), name
        assert info[name].dtype == np.float32
    assert float(info["entropy"]) < -40  # two elements of standard deviation e^-30
    assert same((actor, critics), (agent.actor.params, agent.critic.params))  # learning rates of zero


def test_the_entropy_backup_is_cut_off_where_an_episode_terminated():
    batch = make_batch(masks=0.0)
    agent, info = make_agent(backup_entropy=True, init_temperature=1.0, discount=0.97, **FIXED).update(batch)
    assert float(info["target_q_mean"]) == pytest.approx(batch.rewards.mean(), rel=1e-4)
    _, info = agent.update(batch._replace(masks=np.ones_like(batch.masks)))
    assert float(info["target_q_mean"]) - batch.rewards.mean() < -0.97 * 40  # the entropy is about -60


def test_the_target_is_the_minimum_of_different_critics():
    agent = make_agent(num_qs=3, num_min_qs=2, discount=1.0, tau=0.0, **FIXED)
    constant = jax.tree.map(jnp.zeros_like, agent.target_critic)
    constant["mlp"]["q"]["bias"] = jnp.array([[1.0], [2.0], [3.0]])
    agent = agent.replace(target_critic=constant)
    batch = make_batch(masks=1.0)._replace(rewards=np.zeros((1, SIZE), np.float32))
    targets = []
    for _ in range(60):
        agent, info = agent.update(batch)
        targets.append(round(float(info["target_q_max"]), 4))
    assert set(targets) == {1.0, 2.0}  # a draw with replacement would also give 3
    assert 10 < targets.count(2.0) < 30


def test_high_utd_is_as_many_critic_steps_each_on_its_own_mini_batch():
    batch = make_batch(utd_ratio=3)
    settings: dict[str, Any] = {"actor_lr": 0.0, "temperature_lr": 0.0, "critic_lr": 1e-2, "tau": 0.3}
    at_once, _ = make_agent(utd_ratio=3, **settings).update(batch)
    one_by_one = make_agent(**settings)
    for i in range(3):
        one_by_one, _ = one_by_one.update(jax.tree.map(lambda x, i=i: x[i:i + 1], batch))
    for name in ("critic", "target_critic"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
                     getattr(at_once, name), getattr(one_by_one, name))
    assert int(at_once.step) == 1


def test_the_actor_learns_from_the_last_mini_batch_and_the_updated_critics():
    def actor_after(critic_lr: float = 0.0, change: int | None = None):
        batch = make_batch(utd_ratio=2)
        if change is not None:
            batch.observations["state"][change] += 1
        return make_agent(utd_ratio=2, critic_lr=critic_lr, critic_hidden_dims=(8,)).update(batch)[0].actor

    reference = actor_after()
    assert same(actor_after(change=0), reference)
    assert not same(actor_after(change=1), reference)
    assert not same(actor_after(critic_lr=0.1), reference)


def test_imitation_loss():
    modes, actions = jnp.array([[0.5, 0.0], [1.0, -1.0]]), jnp.array([[0.5, 1.0], [0.0, 1.0]])
    assert float(imitation_loss(modes, actions, jnp.array([0.0, 1.0]))) == pytest.approx(1.0 + 4.0)
    assert float(imitation_loss(modes, actions, jnp.array([0.5, 0.5]))) == pytest.approx((1.0 + 5.0) / 2)


def test_demonstrations_are_imitated_and_nothing_else():
    def actor_after(change: int | None = None, updates: int = 1, **settings: Any):
        batch = make_batch()
        if change is not None:
            batch.actions[0, change] *= -1
        agent = make_agent(**{"critic_lr": 0.0, "temperature_lr": 0.0, "init_temperature": 1e-8, "actor_lr": 1e-2,
                              **settings})
        nothing = jax.tree.map(jnp.zeros_like, agent.critic.params)  # all actions are worth the same
        agent = agent.replace(critic=agent.critic._replace(params=nothing))
        batch.shown[0, -3:-1] = 1.0
        for _ in range(updates):
            agent, info = agent.update(batch, demonstrations=3)
        return agent.actor.params, float(info["demo_action_distance"])

    reference, before = actor_after()
    for row in (SIZE - 4, SIZE - 1):
        assert same(actor_after(change=row)[0], reference)
    assert not same(actor_after(change=SIZE - 3)[0], reference)
    _, after = actor_after(updates=100)
    _, without = actor_after(updates=100, imitation_weight=0.0)  # only the entropy counts
    assert after < 0.5 * before
    assert without > 0.6 * before


@pytest.mark.parametrize("shown", [0, 1, 5, SIZE])
def test_the_weight_of_imitation_is_the_same_however_much_was_shown(shown):
    """With interventions there is more to imitate than the demonstrations' half, with other runs' bags less."""
    agent, batch = make_agent(imitation_weight=2.0), make_batch()
    states, actions = batch.observations["state"][0], batch.actions[0]

    def loss(rows: int) -> float:
        is_shown = (np.arange(SIZE) < rows).astype(np.float32)
        return float(agent._actor_loss(agent.actor.params, agent.critic.params, states, jax.random.PRNGKey(0), actions,
                                       is_shown)[0])

    distances = ((policy_by_hand(copy(agent.actor.params), states) - actions) ** 2).sum(-1)[:shown]
    assert loss(shown) - loss(0) == pytest.approx(2.0 * distances.mean() if shown else 0.0, rel=1e-4)


def test_target_entropy_counts_every_action_element():
    """An entropy between one and two times the setting is high enough for two elements, so the temperature falls."""
    agent = make_agent(target_entropy_per_dim=-35.0)
    before = float(agent.temperature.params)
    agent, info = agent.update(make_batch())
    assert -70.0 < float(info["entropy"]) < -35.0
    assert float(agent.temperature.params) < before


def test_program_does_not_grow_with_the_update_to_data_ratio():
    def size(utd_ratio: int) -> int:
        return len(Agent.update.lower(make_agent(utd_ratio=utd_ratio), make_batch(utd_ratio)).as_text())

    assert size(40) < 1.1 * size(2)


def test_settings_that_contradict_each_other():
    with pytest.raises(ConfigError, match="'num_min_qs': expected at most num_qs = 2, found 3"):
        make_agent(num_qs=2, num_min_qs=3)


@pytest.mark.parametrize("spoil", [
    lambda b: b._replace(actions=b.actions[..., :1]),
    lambda b: b._replace(masks=b.masks[:, :1]),
    lambda b: jax.tree.map(lambda x: np.concatenate([x, x]), b),
])
def test_batches_of_another_shape_are_refused(spoil: Callable[[Batch], Batch]):
    with pytest.raises(AssertionError):
        make_agent().update(spoil(make_batch()))


# Learning

LEARNING: dict[str, Any] = {
    "num_qs": 2, "num_min_qs": 2, "utd_ratio": 10, "discount": 0.6, "critic_lr": 5e-3, "actor_lr": 5e-3, "tau": 0.1,
    "critic_hidden_dims": (32,)}
ONE_HOT = np.eye(STATES, dtype=np.float32)


def learn(updates: int, seed: int = 0) -> tuple[Agent, dict]:
    """State 0: reward 1 - (a - 0.5)^2 of the first action element, the end. State 1: no reward, then state 0.
    State 2: reward 1, cut off by a time limit, then state 2.
    """
    rng = np.random.default_rng(0)
    agent, info = make_agent(PolicyConfig(hidden_dims=(16,)), seed, **LEARNING), {}
    for _ in range(updates):
        state = rng.integers(0, 3, (10, 32))
        actions = rng.uniform(-1, 1, (10, 32, ACTIONS)).astype(np.float32)
        rewards = np.choose(state, [1 - (actions[..., 0] - 0.5) ** 2, 0.0, 1.0]).astype(np.float32)
        agent, info = agent.update(Batch({"state": ONE_HOT[state]}, actions, rewards, (state > 0).astype(np.float32),
                                         {"state": ONE_HOT[np.choose(state, [0, 0, 2])]}, 0.0 * rewards))
    return agent, info


def test_q_values_and_policy_of_problems_with_a_known_answer():
    agent, info = learn(300)
    mean, _ = distribution(agent.actor_network, agent.actor.params, ONE_HOT[0])
    best = np.tanh(np.asarray(mean))
    assert best[0] == pytest.approx(0.5, abs=0.2)
    for state, value in ((0, 1.0), (1, 0.6), (2, 1 / (1 - 0.6))):
        qs = ensemble_q(agent.critic_network, agent.critic.params, ONE_HOT[state], best)
        np.testing.assert_allclose(qs, value, atol=0.15, err_msg=f"state {state}")
    assert float(info["critic_loss"]) < 0.05


def test_the_target_critic_begins_as_the_critic():
    agent = make_agent(num_qs=2)
    assert same(agent.target_critic, agent.critic.params)


def test_the_same_seed_gives_the_same_agent_and_another_seed_another():
    first, _ = learn(3)
    assert same(first, learn(3)[0])
    assert not same(first.actor, learn(3, seed=1)[0].actor)
