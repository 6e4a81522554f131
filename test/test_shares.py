# SPDX-License-Identifier: Apache-2.0
"""Several devices learn what one does. They are asked for in a process of their own, before JAX computes anything."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from test_agent import ACTIONS, SPEC, STATES, same

from rlpd_ros.errors import ConfigError
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.checkpoint import CheckpointStore
from rlpd_ros.rl.compilation import keep_compiled
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.policy import Policy
from rlpd_ros.rl.shares import find_devices
from rlpd_ros.types import Batch, SpaceField, SpaceSpec

POLICY = PolicyConfig(hidden_dims=(8,))
CASES: dict[str, tuple[int, dict[str, Any]]] = {  # devices and settings
    "each critic alone": (4, {"num_qs": 4, "num_min_qs": 4}),
    "two critics each, subsets": (2, {"num_qs": 4, "num_min_qs": 3, "actor_q_reduction": "min", "backup_entropy": True,
                                      "init_temperature": 1.0}),
}


def start(settings: dict[str, Any], devices: int = 0) -> Agent:
    config = AgentConfig(critic_hidden_dims=(8,), utd_ratio=2, critic_lr=1e-2, tau=0.3, **settings)
    return Agent.create(SPEC, POLICY, config, 0, devices=jax.devices()[:devices])


def learn(agent: Agent, updates: int = 4) -> tuple[Agent, dict[str, float]]:
    rng = np.random.default_rng(int(agent.step))

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((2, 16, *shape), np.float32)

    info: dict[str, jax.Array] = {}
    for _ in range(updates):
        batch = Batch({"state": normal(STATES)}, np.tanh(normal(ACTIONS)), normal(), (normal() > -1).astype(np.float32),
                      {"state": normal(STATES)}, (normal() > 0).astype(np.float32))
        agent, info = agent.update(batch, 8)
    return agent, {name: float(value) for name, value in info.items()}


def compare() -> dict[str, Any]:
    """Return what several devices learned beside what one did; called in a process that has several."""
    keep_compiled()
    found: dict[str, Any] = {"devices": len(find_devices(4, num_qs=4))}
    for name, (devices, settings) in CASES.items():
        (one, info), (several, their_info) = learn(start(settings)), learn(start(settings, devices))
        state, their_state = (jax.tree.leaves(jax.tree.map(np.asarray, agent)) for agent in (one, several))
        found[name] = {
            "info": (info, their_info), "again": same(several, learn(start(settings, devices))[0]),
            "on": len(several.critic.params["mlp"]["q"]["bias"].sharding.device_set),
            "far apart": sum(not np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in
                             zip(state, their_state, strict=True))}
    found["resumed"] = same(*_resumed(*CASES["each critic alone"]))
    return found


def _resumed(devices: int, settings: dict[str, Any]) -> tuple[Agent, Agent]:
    """Return an agent that several devices go on with from a checkpoint, and one that was never interrupted."""
    agent, policy = learn(start(settings, devices))[0], Policy(SPEC, POLICY)
    metadata = {"space_fingerprint": SPEC.fingerprint, "network_fingerprint": policy.fingerprint}
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder))
        store.save(agent, metadata)
        restored = store.restore(start(settings, devices), SPEC, policy)
    assert restored is not None
    return learn(restored[0])[0], learn(agent)[0]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    call = "import json, test_shares; print(json.dumps(test_shares.compare()))"
    output = subprocess.run([sys.executable, "-c", call], cwd=Path(__file__).parent, stdout=subprocess.PIPE, check=True)
    outcome = json.loads(output.stdout.splitlines()[-1])
    assert outcome["devices"] == 4
    return outcome


@pytest.mark.parametrize("case", CASES)
def test_several_devices_learn_what_one_does(found, case):
    one, several = found[case]["info"]
    assert several == pytest.approx(one, rel=1e-4, abs=1e-5)
    assert found[case]["far apart"] == 0
    assert found[case]["on"] == CASES[case][0]


@pytest.mark.parametrize("case", CASES)
def test_several_devices_do_the_same_again(found, case):
    assert found[case]["again"]


def test_several_devices_go_on_where_a_checkpoint_was_made(found):
    assert found["resumed"]


def test_what_cannot_be_dealt_evenly_is_refused():
    with pytest.raises(ConfigError, match="'devices': expected a divisor of batch_size = 9, found 2"):
        find_devices(2, num_qs=2, batch_size=9)


def test_devices_do_not_share_an_encoder_of_images():
    spec = SpaceSpec("test", (*SPEC.observation, SpaceField.image("front", 16, 16)), SPEC.action, 10.0, "base", 100)
    with pytest.raises(ConfigError, match="'devices': expected 1 with cameras, found 2"):
        Agent.create(spec, POLICY, AgentConfig(), 0, devices=jax.devices()[:1] * 2)


def test_more_devices_than_there_are_are_refused():
    jax.devices()  # from now on there are as many as there are
    with pytest.raises(ConfigError, match=r"'devices': expected at most \d+ \(.*\), found 1000"):
        find_devices(1000)
