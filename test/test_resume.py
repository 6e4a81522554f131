# SPDX-License-Identifier: Apache-2.0
"""What a restarted learner has is bit by bit what the one before it had."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from learner_world import AGENT, NETWORK, POLICY, SPEC, World

from rlpd_ros.exported_policy import load_policy, save_policy
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.checkpoint import CheckpointStore
from rlpd_ros.rl.policy import verify
from rlpd_ros.ros.run_log import RunLog
from rlpd_ros.settings import LogConfig
from rlpd_ros.types import Observation

STATE = ("actor", "critic", "target_critic", "temperature", "rng", "step")
OBSERVATION = Observation(np.array([0.25, -1.5], np.float32))


def leaves(tree) -> list[tuple]:
    """Return every bit of a tree of arrays."""
    return [(np.asarray(leaf).dtype.str, np.shape(leaf), np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def rows(buffer) -> list[bytes]:
    """Return what a buffer holds, oldest first."""
    return [buffer._rows[(buffer._oldest + i) % buffer.capacity].tobytes() for i in range(len(buffer))]


@pytest.fixture(params=[1000, 30], ids=["buffer with room", "buffer long full"])
def lives(request, tmp_path) -> tuple[World, World]:
    """Return a learner that was killed right after a checkpoint, and the one that came after it."""
    settings = {"replay_buffer_capacity": request.param}
    first = World(**settings)
    log = RunLog(tmp_path / "log", SPEC, LogConfig(log_file_size=0.01), request.param)

    def store(record) -> None:
        log.write(record)
        log.flush()

    first.intake._store = store
    first.learner.publish()
    first.demonstrate(20)
    for begin in range(1, 60, 12):
        first.feed(begin, begin + 11)
        first.feed(begin, begin + 11, "actor-2")
        assert first.train() > 0
    checkpoints = CheckpointStore(tmp_path / "checkpoints")
    first.save = checkpoints.save
    first.learner.save()
    save_policy(tmp_path / "policy.params", first.learner.newest)

    second = World(session="learner-2", **settings)
    second.learner.agent = Agent.create(SPEC, NETWORK, AGENT, 99)  # what is not restored is seen
    log = RunLog(tmp_path / "log", SPEC, LogConfig(), request.param)
    for record in log.restore():
        second.intake.restore(record)
    for session, account in log.accounts.items():
        second.intake.restore_deleted(session, account)
    second.learner.resume(*checkpoints.restore(second.learner.agent, SPEC, POLICY))
    second.demonstrate(20)
    return first, second


def test_parameters_optimisers_temperature_and_random_keys_are_the_same(lives):
    first, second = lives
    for name in STATE:
        before, after = getattr(first.learner.agent, name), getattr(second.learner.agent, name)
        assert leaves(before) == leaves(after), name
    optimisers = leaves(second.learner.agent.critic.opt_state)
    assert any(np.frombuffer(data, kind).any() for kind, _, data in optimisers if kind == "<f4")


def test_the_buffers_hold_the_same_in_the_same_order(lives):
    first, second = lives
    assert rows(first.learner.online) == rows(second.learner.online) != []
    assert rows(first.learner.demos) == rows(second.learner.demos) != []
    assert first.learner.report.env_steps == second.learner.report.env_steps == 120
    for session in ("actor-1", "actor-2"):
        before, after = first.intake.ledger[session], second.intake.ledger[session]
        assert (before.sequence, before.stored) == (after.sequence, after.stored) == (60, 60)


def test_the_policys_output_is_the_same(lives):
    first, second = lives
    params = [world.learner.agent.actor.params for world in lives]
    before, after = (POLICY.mode(p, OBSERVATION) for p in params)
    assert before.tobytes() == after.tobytes()
    key = jax.random.PRNGKey(5)
    sampled = [POLICY.sample(p, OBSERVATION, key)[0].tobytes() for p in params]
    assert sampled[0] == sampled[1]
    second.learner.publish()
    received, _ = verify(second.policies[-1], POLICY, SPEC)  # as an actor gets it
    assert POLICY.mode(received, OBSERVATION).tobytes() == before.tobytes()
    assert second.policies[-1].version == first.learner.report.version + 1
    assert not np.array_equal(before, POLICY.mode(POLICY.init(99), OBSERVATION))


def test_what_is_drawn_and_learned_next_is_the_same(lives):
    for world in lives:
        world.feed(61, 70)
        assert world.train() == 10
    first, second = lives
    assert json.dumps(first.learner._rng.bit_generator.state) == json.dumps(second.learner._rng.bit_generator.state)
    for name in STATE:
        assert leaves(getattr(first.learner.agent, name)) == leaves(getattr(second.learner.agent, name)), name


def test_the_exported_policy_is_that_of_the_checkpoint(lives, tmp_path):
    first, _ = lives
    exported = load_policy(tmp_path / "policy.params")
    assert exported.version == first.learner.newest.version
