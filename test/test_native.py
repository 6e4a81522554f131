# SPDX-License-Identifier: Apache-2.0
"""Native code computes what JAX does: networks, their gradients, Adam, whole updates; and nothing needs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_agent import SPEC, make_batch, same

from rlpd_ros.rl import native
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.compilation import keep_compiled
from rlpd_ros.rl.config import ACTIVATIONS, AgentConfig, PolicyConfig
from rlpd_ros.rl.layers import MLP, Params, ensemble
from rlpd_ros.rl.losses import target_update
from rlpd_ros.rl.policy import Policy

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="native code is for CPUs")
SHAPES = (  # ensemble, batch, inputs, hidden layers, outputs
    (1, 1, 3, (5,), (("a", 2),)),
    (2, 256, 25, (256, 256), (("q", 1),)),
    (10, 37, 21, (33, 17, 64), (("mean", 3), ("log_std", 4))),
    (2, 300, 4, (), (("q", 1),)),
)


def random_params(mlp: MLP, members: int, inputs: int) -> Params:
    shapes = jax.eval_shape(lambda: mlp.init(jax.random.PRNGKey(0), jnp.zeros(inputs)))["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(
        rng.normal(size=(members, *leaf.shape)) / np.sqrt(leaf.shape[0]), jnp.float32), shapes)


def row_by_row(mlp: MLP, params: Params, x: jax.Array) -> tuple[jax.Array, ...]:
    """Do what ``ensemble`` does with single rows, which native code never takes."""
    return jax.vmap(lambda member: jax.vmap(lambda row: mlp.apply({"params": member}, row))(x))(params)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_jax(activation, norm, shape):
    members, batch, inputs, hidden, outputs = shape
    mlp = MLP(hidden, activation, norm, outputs)
    params, rng = random_params(mlp, members, inputs), np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(batch, inputs)), jnp.float32)
    weights = [jnp.asarray(rng.normal(size=(members, batch, size)), jnp.float32) for _, size in outputs]

    def compute(function):
        def loss(params, x):
            values = function(mlp, params, x)
            return sum((w * value).sum() for w, value in zip(weights, values, strict=True)), values

        both = jax.value_and_grad(loss, (0, 1), has_aux=True)
        return jax.jit(lambda: (both(params, x), [jax.grad(loss, i, has_aux=True)(params, x) for i in (0, 1)]))()

    assert native.takes(x)
    for ours, theirs in zip(*map(jax.tree.leaves, (compute(ensemble), compute(row_by_row))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-5 * float(1 + np.abs(theirs).max()))


def test_a_network_of_its_own_and_inputs_with_more_axes():
    mlp = MLP((16,), "relu", True, (("mean", 3), ("log_std", 2)))
    params = random_params(mlp, 1, 6)
    alone = jax.tree.map(lambda leaf: leaf[0], params)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 6)), jnp.float32)
    expected = jax.vmap(jax.vmap(lambda row: mlp.apply({"params": alone}, row)))(x)
    for ours, theirs in zip(mlp.apply({"params": alone}, x), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    batched = jax.vmap(lambda rows: mlp.apply({"params": alone}, rows))(x)
    for ours, theirs in zip(batched, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert jax.tree.structure(mlp.init(jax.random.PRNGKey(0), x)["params"]) == jax.tree.structure(alone)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", [False, True])
def test_what_is_not_a_number_stays_so(activation, norm):
    """The learner stops when its losses are not finite, so nothing may hide that."""
    mlp = MLP((33, 17), activation, norm, (("q", 1),))
    x = jnp.ones((5, 4)).at[2, 1].set(jnp.nan)
    (q,) = ensemble(mlp, random_params(mlp, 2, 4), x)
    np.testing.assert_array_equal(np.isnan(q[0, :, 0]), np.arange(5) == 2)


@pytest.mark.parametrize("tau", [0.0, 0.25])
def test_adam_is_optax_adam(tau):
    rng = np.random.default_rng(0)

    def tree():
        return {"a": jnp.asarray(rng.normal(size=(3, 70_001)), jnp.float32), "b": jnp.float32(rng.normal())}

    params, target = tree(), tree()
    optimiser, expected, followed = optax.adam(1e-2), params, target
    state = expected_state = optimiser.init(params)
    for _ in range(3):
        grads = tree()
        params, state, target = jax.jit(lambda *trees: native.adam(*trees[:3], 1e-2, trees[3], tau))(
            grads, params, state, target)
        updates, expected_state = optimiser.update(grads, expected_state)
        expected = optax.apply_updates(expected, updates)
        followed = target_update(expected, followed, tau)
    ours, theirs = (params, state, target), (expected, expected_state, followed)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def make_agent() -> Agent:
    return Agent.create(SPEC, PolicyConfig(hidden_dims=(32,)), AgentConfig(
        num_qs=3, num_min_qs=2, utd_ratio=2, critic_hidden_dims=(32, 24)), 0)


def updates(count: int = 3) -> tuple[Agent, list[dict[str, Any]]]:
    agent, infos = make_agent(), []
    step = jax.jit(lambda agent, batch: Agent.update.__wrapped__(agent, batch, 4))  # traced anew
    for seed in range(count):
        agent, info = step(agent, make_batch(2, seed))
        infos.append(jax.tree.map(np.asarray, info))
    return agent, infos


def test_updates_are_those_of_jax_and_the_same_each_time(monkeypatch):
    agent, infos = updates()
    again, _ = updates()
    assert same(agent, again)
    monkeypatch.setattr(native, "is_available", lambda: False)
    theirs, their_infos = updates()
    for info, their in zip(infos, their_infos, strict=True):
        for name, value in info.items():
            np.testing.assert_allclose(value, their[name], rtol=2e-3, atol=2e-4, err_msg=name)
    for ours, other in zip(*map(jax.tree.leaves, (agent.critic.params, theirs.critic.params)), strict=True):
        np.testing.assert_allclose(ours, other, atol=2e-3)  # Adam makes steps of 1e-3 of tiny gradients too


def test_the_learner_uses_it_and_the_actor_does_not():
    text = Agent.update.lower(make_agent(), make_batch(2)).as_text()
    assert {name: text.count(f"@{name}(") for name in ("rlpd_forward", "rlpd_backward", "rlpd_adam")} == {
        "rlpd_forward": 5,  # next actions, targets and Q values; the policy and Q values of its actions
        "rlpd_backward": 3, "rlpd_adam": 3}  # critics; the policy and through the critics. The temperature as third
    assert "stablehlo.dot_general" not in text
    policy = Policy(SPEC, PolicyConfig())
    lowered = jax.jit(policy._act_of).lower(policy.init(0), {}, {"state": np.zeros(SPEC.state_size, np.float32)},
                                            jax.random.PRNGKey(0), np.float32(0))
    assert "rlpd_" not in lowered.as_text()


def report() -> None:
    """Print what a process learned that shares compiled programs with others."""
    keep_compiled()
    agent = make_agent()
    for seed in range(2):
        agent, info = agent.update(make_batch(2, seed), 4)
    print(json.dumps({"native": native.is_available(), "loss": float(info["critic_loss"])}))


def test_processes_with_and_without_it_share_a_cache(tmp_path):
    def learned(switch: str) -> dict[str, Any]:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path), native.SWITCH: switch,
                       "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
        found = subprocess.run([sys.executable, "-c", "import test_native; test_native.report()"], env=environment,
                               cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout)

    first, without, again, avx2, baseline = (learned(switch) for switch in ("1", "0", "1", "avx2", "baseline"))
    assert first["native"]
    assert not without["native"]
    assert again == first
    for other in (without, avx2, baseline):
        assert other["loss"] == pytest.approx(first["loss"], rel=1e-3)


@pytest.mark.parametrize("content", [b"", b"not a library"])
def test_a_library_that_does_not_fit_is_told_and_not_used(content, tmp_path, monkeypatch):
    library = tmp_path / "library.so"
    library.write_bytes(content)
    monkeypatch.setattr(native, "_library", lambda: library)
    with pytest.warns(UserWarning, match="build again"):
        assert not native.is_available.__wrapped__()
    monkeypatch.setattr(native, "_library", lambda: None)
    assert not native.is_available.__wrapped__()
