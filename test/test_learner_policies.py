# SPDX-License-Identifier: Apache-2.0
"""What a learner publishes, remembers and takes up again: policies, and the state that a resumed run goes on from."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from learner_world import POLICY, SPEC, World

from rlpd_ros.rl.checkpoint import CheckpointStore
from rlpd_ros.rl.policy import verify
from rlpd_ros.ros.bags import TransitionLog
from rlpd_ros.status import LearnerState

# Policies


def test_the_initial_policy_is_version_1() -> None:
    world = World()
    world.learner.publish()
    (first,) = world.policies
    assert (first.version, first.gradient_step, first.session, first.stamp) == (1, 0, "learner-1", 5_000_000)
    assert world.said[0].startswith("sent initial network to actor: version 1, learner step 0, checksum ")
    params, error = verify(first, POLICY, SPEC)
    assert error == 0.0
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, params, world.learner.agent.actor.params)))


def test_policies_follow_each_other_with_rising_versions() -> None:
    world = World(training_starts=10, steps_per_update=5)
    world.learner.publish()
    world.feed(1, 10 + 17)
    assert world.train() == 17
    assert [(p.version, p.gradient_step) for p in world.policies] == [(1, 0), (2, 5), (3, 10), (4, 15)]
    for before, after in zip(world.policies, world.policies[1:], strict=False):
        verify(after, POLICY, SPEC)
        difference = np.frombuffer(after.data, "<f4") - np.frombuffer(before.data, "<f4")
        assert after.change == pytest.approx(float(np.linalg.norm(difference)))
        assert after.change > 0
    assert np.any(world.policies[-1].probe.state)  # a real observation
    assert world.learner.newest is world.policies[-1]
    published = [row for table, _, row in world.rows if table == "policies"]
    assert [row["version"] for row in published] == [1, 2, 3, 4]
    assert any(line.startswith(f"published: version 4, learner step 15, checksum {published[-1]['checksum']}, change ")
               for line in world.said)


def test_training_goes_on_while_a_policy_is_on_its_way() -> None:
    world = World(training_starts=10, steps_per_update=5)
    world.learner.publish()
    world.feed(1, 10 + 7)
    world.slow = True
    assert world.train() == 7
    assert (len(world.policies), world.learner.status().version, len(world.under_way)) == (1, 1, 1)
    world.deliver()
    world.learner.train()
    second = world.policies[1]
    assert (second.version, second.gradient_step, world.learner.status().version) == (2, 5, 2)
    verify(second, POLICY, SPEC)  # what later steps did to the parameters is not in it
    assert second.data != POLICY.serialize(world.learner.agent.actor.params)
    assert world.said[-1].startswith("published: version 2, learner step 5")
    assert world.learner.newest is second


def test_an_action_that_is_not_finite_reaches_nobody_and_fails_the_run(monkeypatch) -> None:
    world = World(training_starts=10, steps_per_update=5)
    world.learner.publish()
    world.feed(1, 10 + 7)
    world.slow = True
    assert world.train() == 7
    monkeypatch.setattr(POLICY, "mode", lambda *_: np.full(2, np.nan, np.float32))
    world.deliver()
    assert world.train() == 0
    report = world.learner.status()
    assert (report.state, len(world.policies), report.version) == (LearnerState.FAILED, 1, 1)
    assert report.text.startswith("the policy's action is not finite at gradient step 5. Training has stopped")
    assert world.warnings == [report.text]


@pytest.mark.parametrize("then", ["train", "publish", "save", "finish"])
def test_what_is_not_finite_fails_the_run_and_reaches_nobody(then: str) -> None:
    world = World(training_starts=5, steps_per_update=1, checkpoint_period=1, max_steps=2)
    world.learner.publish()
    world.feed(1, 6)
    world.learner.online._columns[3][:] = 3e38  # rewards that nobody can send
    if then == "train":
        assert world.train() == 1
    else:
        world.learner.config = replace(world.learner.config, steps_per_update=50, checkpoint_period=50)
        world.learner.train()
        {"publish": world.learner.publish, "save": world.learner.save,
         "finish": lambda: world.learner.finish("max_steps 1 reached")}[then]()
    report = world.learner.status()
    assert report.state == LearnerState.FAILED
    assert report.text.startswith("not finite at gradient step 1: ")
    assert "critic_loss" in report.text
    assert (len(world.policies), world.saved, len(world.warnings)) == (1, [], 1)
    world.feed(7, 20)
    assert world.train() == 0
    assert world.answer().sequence == 20  # what comes is stored all the same


def test_metrics_and_what_people_look_for() -> None:
    world = World(require_demonstrations=True, log_period=10)
    world.demonstrate(10)
    world.feed(1, 30)
    assert world.learner.train()
    world.now += 4.0
    world.train()
    rows = [(step, row) for table, step, row in world.rows if table == "learner"]
    assert [(step, row["gradient_step"], row["online_buffer_size"], row["demo_buffer_size"]) for step, row in rows] == [
        (30, 10, 30, 10), (30, 20, 30, 10)]
    assert rows[0][1]["updates_per_second"] == 10 / 4.0
    line = next(text for text in world.said if text.startswith("step 10:"))
    assert line.startswith("step 10: online buffer size: 30, demo buffer size: 10, 2.5 steps/s, critic_loss ")
    report = world.learner.status()
    assert report.critic_loss == pytest.approx(rows[-1][1]["critic_loss"])
    assert report.demo_action_distance > 0
    assert (report.reward_seen, report.data_age, report.online_buffer_size) == (1.0, 4.0, 30)


def test_checkpoints_come_regularly_and_a_full_disk_does_not_end_training() -> None:
    world = World(checkpoint_period=4)
    world.learner.publish()
    world.feed(1, 10 + 9)
    world.train()
    assert [saved["gradient_step"] for saved in world.saved] == [4, 8]
    world.disk_full = True
    world.feed(20, 25)
    assert world.train() == 6
    assert world.warnings == ["going on without this checkpoint: /runs/x/checkpoints: cannot write checkpoint: "
                              "No space left on device"]


# Resuming


def test_a_resumed_run_goes_on_exactly_as_if_it_had_never_stopped(tmp_path) -> None:
    first = World(log_period=10)
    first.learner.publish()
    first.demonstrate(20)
    first.feed(1, 25)
    assert first.train() == 15
    assert first.learner.report.demo_action_distance_first > 0
    first.now += 7
    checkpoints = CheckpointStore(tmp_path / "checkpoints")
    first.save = checkpoints.save
    first.learner.save()
    log = TransitionLog(tmp_path / "transitions", SPEC)
    for record in first.log:
        log.write(record)
    log.close()

    second = World(session="learner-2", seed=99)
    for record in TransitionLog.read(tmp_path / "transitions", SPEC):
        second.intake.restore(record)
    second.learner.resume(*checkpoints.restore(second.learner.agent, SPEC, POLICY))
    second.learner.publish()
    assert second.policies[0].data == POLICY.serialize(first.learner.agent.actor.params)
    assert second.policies[0].version == first.learner.report.version + 1
    assert not second.said[0].startswith("sent initial network")
    report = second.learner.status()
    assert (report.gradient_step, report.env_steps, report.online_buffer_size) == (15, 25, 25)
    assert report.demo_action_distance_first == first.learner.report.demo_action_distance_first
    assert second.learner.wall_s == pytest.approx(7)
    second.hear("actor-2")
    assert second.answer("actor-2").env_steps == 25
    second.now += 10
    second.demonstrate(20)
    for world in (first, second):
        world.feed(26, 40)
        assert world.train() == 15
    for name in ("actor", "critic", "target_critic", "temperature", "rng", "step"):
        same = jax.tree.map(np.array_equal, getattr(first.learner.agent, name), getattr(second.learner.agent, name))
        assert all(jax.tree.leaves(same)), name
    assert second.answer("actor-1").sequence == 40
    second.feed(1, 40)  # an actor that was away and sends everything again
    assert second.learner.report.env_steps == 40
    assert len(second.log) == 15


def test_refusals_of_an_earlier_life_do_not_make_a_gap() -> None:
    first = World()
    first.feed(1, 3)
    first.feed(4, 4, reward=float("nan"))
    first.feed(5, 7)
    second = World()
    for record in first.log:
        second.intake.restore(record)
    second.feed(8, 8)
    ack = second.answer()
    assert (ack.sequence, ack.stored) == (8, 7)
