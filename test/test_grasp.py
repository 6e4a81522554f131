# SPDX-License-Identifier: Apache-2.0
"""The discrete gripper: its losses by hand, what it does, and that it learns what pays."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.losses import grasp_loss, grasp_of, grasp_target
from rlpd_ros.rl.policy import Policy, make_snapshot, verify
from rlpd_ros.types import Batch, Observation, SpaceField, SpaceSpec

SPEC = SpaceSpec("test", (SpaceField.box("state", [-1] * 2, [1] * 2),),
                 (SpaceField.box("motion", [-1] * 2, [1] * 2), SpaceField.box("gripper", [0], [1])), 10.0, "base", 100)
CONFIG = PolicyConfig(hidden_dims=(8,), hybrid_gripper=True, grasp_hidden_dims=(16,))


def test_target_takes_the_critics_choice_and_the_targets_value():
    rewards, masks, grasps = jnp.array([1.0, 2.0, 0.0]), jnp.array([1.0, 1.0, 0.0]), jnp.array([0, 1, 2])
    qs = jnp.array([[5.0, 1.0, 2.0], [0.0, 0.0, 1.0], [9.0, 9.0, 9.5]])
    target_qs = jnp.array([[0.5, 7.0, 8.0], [3.0, 4.0, 6.0], [1.0, 1.0, 1.0]])
    found = grasp_target(rewards, masks, qs, target_qs, grasps, discount=0.9, penalty=0.25)
    np.testing.assert_allclose(found, [1 - 0.25 + 0.9 * 0.5, 2 + 0.9 * 6.0, 0 - 0.25], rtol=1e-6)


def test_success_is_worth_what_it_is_where_the_gripper_is_commanded_all_the_time():
    config, value = AgentConfig(), jnp.zeros((1, 3))
    for left in range(50):  # steps to success, of a demonstration that keeps the gripper closing
        rewards, masks = jnp.full(1, float(left == 0)), jnp.full(1, float(left > 0))
        target = grasp_target(rewards, masks, value, value, jnp.zeros(1, int), config.discount, config.grasp_penalty)
        assert float(target[0]) == pytest.approx(config.discount**left, rel=1e-4)
        value = jnp.broadcast_to(target[:, None], value.shape)


def test_loss_is_of_what_was_done():
    qs = jnp.array([[5.0, 1.0, 2.0], [0.0, 3.0, 1.0]])
    assert grasp_loss(qs, jnp.array([2, 1]), jnp.array([4.0, 0.0])) == pytest.approx((2.0**2 + 3.0**2) / 2)


def test_what_the_gripper_did_is_the_nearest_of_three():
    actions = jnp.array([[9.0, -1.0], [0.0, -0.6], [0.0, -0.4], [0.0, 0.2], [0.0, 0.7], [0.0, 1.0]])
    np.testing.assert_array_equal(grasp_of(actions), [0, 0, 1, 1, 2, 2])


def test_it_closes_holds_or_opens_and_explores_as_often_as_it_shall():
    seen = Observation(np.array([0.1, 0.2], np.float32))
    for epsilon in (0.0, 0.5, 1.0):
        policy = Policy(SPEC, replace(CONFIG, grasp_epsilon=epsilon))
        params = policy.init(0)
        greedy = policy.mode(params, seen)
        assert greedy.shape == (3,)
        for i in range(20):
            other = Observation(np.array([i / 20, 0.2], np.float32))
            worth = np.asarray(policy._grasp_worth(params, {}, policy._inputs(other)))
            assert policy.mode(params, other)[-1] == worth.argmax() - 1
        key, drawn = jax.random.PRNGKey(0), []
        for _ in range(300):
            action, key = policy.sample(params, seen, key)
            drawn.append(action)
        others = np.mean([action[-1] != greedy[-1] for action in drawn])
        assert others == pytest.approx(epsilon * 2 / 3, abs=0.1)
        assert len({action[0] for action in drawn}) > 290


def test_choices_of_the_same_worth_are_no_difference_and_others_are():
    policy, seen = Policy(SPEC, CONFIG), Observation(np.array([0.1, 0.2], np.float32))
    params = jax.tree.map(np.array, policy.init(0))
    bias = params["grasp"]["mlp"]["q"]["bias"]
    worth = np.asarray(policy._grasp_worth(params, {}, policy._inputs(seen)))
    bias += np.float32([3.0, 3.0, 1.0]) - worth
    for gap, same in ((0.0, True), (3e-6, True), (0.3, False)):
        params["grasp"]["mlp"]["q"]["bias"] = bias + np.float32([gap, 0.0, 0.0])
        snapshot = make_snapshot(policy, policy.serialize(params), SPEC, seen, session="learner", version=1,
                                 gradient_step=1)
        for choice in (-1, 0, 1):
            theirs = replace(snapshot, probe_action=np.append(snapshot.probe_action[:-1], np.float32(choice)))
            if choice == -1 or (choice == 0 and same):
                assert verify(theirs, policy, SPEC)[1] < 1e-5
            else:
                with pytest.raises(DataError, match="probe: learner's action"):
                    verify(theirs, policy, SPEC)
    with pytest.raises(DataError, match="probe: learner's action"):  # nothing that a gripper does
        verify(replace(snapshot, probe_action=np.append(snapshot.probe_action[:-1], np.float32(0.5))), policy, SPEC)


def test_the_gripper_counts_in_the_target_entropy_as_any_element_does():
    batch = Batch({"state": np.zeros((1, 8, 2), np.float32)}, np.zeros((1, 8, 3), np.float32),
                  np.zeros((1, 8), np.float32), np.zeros((1, 8), np.float32),
                  {"state": np.zeros((1, 8, 2), np.float32)}, np.zeros((1, 8), np.float32))
    settings = {"num_qs": 1, "num_min_qs": 1, "critic_hidden_dims": (8,), "utd_ratio": 1}
    entropy = float(Agent.create(SPEC, CONFIG, AgentConfig(**settings), 0).update(batch)[1]["entropy"])
    assert entropy > 0.1
    for share, rises in ((1 / 3.5, False), (1 / 2.5, True)):  # of it, per element: of three less than it, and more
        agent = Agent.create(SPEC, CONFIG, AgentConfig(**settings, target_entropy_per_dim=share * entropy), 0)
        before = float(agent.temperature.params)
        assert (float(agent.update(batch)[0].temperature.params) > before) is rises


def test_a_space_without_a_gripper_is_refused():
    with pytest.raises(ConfigError, match=r"expected a last action field of one element.*found motion \(2\)$"):
        Policy(replace(SPEC, action=SPEC.action[:1]), CONFIG)


@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_it_learns_what_pays_and_what_costs(penalty):
    """Opening pays 1, unless it costs 2: then holding is best. The critic of motions never sees the gripper."""
    agent = Agent.create(SPEC, CONFIG, AgentConfig(
        critic_hidden_dims=(8,), utd_ratio=4, discount=0.5, critic_lr=1e-2, grasp_penalty=penalty), 0)
    rng = np.random.default_rng(0)
    for _ in range(150):
        states = rng.uniform(-1, 1, (4, 32, 2)).astype(np.float32)
        actions = rng.uniform(-1, 1, (4, 32, 3)).astype(np.float32)
        actions[..., 2] = rng.integers(-1, 2, (4, 32))
        agent, info = agent.update(Batch({"state": states}, actions, (actions[..., 2] == 1).astype(np.float32),
                                         np.zeros((4, 32), np.float32), {"state": states},
                                         np.zeros((4, 32), np.float32)), 4)
    policy = Policy(SPEC, CONFIG)
    assert policy.mode(agent.policy_params, Observation(np.zeros(2, np.float32)))[-1] == (0 if penalty else 1)
    assert float(info["grasp_loss"]) < 0.05
    assert agent.critic.params["mlp"]["hidden_0"]["kernel"].shape[1] == 2 + 2
