# SPDX-License-Identifier: Apache-2.0
"""A learner whose arm has cameras: what it waits for, and that a resumed one goes on bit by bit."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from learner_world import AGENT, SETTINGS, World, make_record
from test_encoders import SMALL, numbers
from test_encoders import SPEC as SEEN

from rlpd_ros import learner as learner_module
from rlpd_ros.kept import Kept
from rlpd_ros.learner import SHIFTS_AT_ONCE, Learner
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.checkpoint import CheckpointStore
from rlpd_ros.rl.policy import Policy, verify
from rlpd_ros.settings import LearnerConfig
from rlpd_ros.status import LearnerState
from rlpd_ros.types import Observation, TransitionRecord

SPEC = replace(SEEN, max_episode_steps=5)
POLICY = Policy(SPEC, SMALL)


def observe(number: float) -> Observation:
    rng = np.random.default_rng(int(number))
    return Observation(rng.uniform(-1, 1, 3).astype(np.float32),
                       {f.name: rng.integers(0, 256, f.shape, np.uint8) for f in SPEC.image_fields})


def record(sequence: int, session: str, first: int) -> TransitionRecord:
    """Make a record with the places of the usual ones, and what cameras see."""
    plain, number = make_record(sequence, session), first + 2 * sequence  # the next episode does not begin as one ended
    return replace(plain, observation=observe(number), action=np.full(3, 0.25, np.float32),
                   final_observation=observe(number + 1) if plain.last else None, space_fingerprint=SPEC.fingerprint)


def life(session: str, seed: int) -> World:
    world = World(session=session)
    config = LearnerConfig(**SETTINGS, feature_shifts=2, demo_feature_shifts=4)
    world.learner = Learner(
        config, Agent.create(SPEC, SMALL, AGENT, seed), POLICY, SPEC, world, session, "/runs/x", lambda: world.now,
        lambda: 5_000_000, Kept.of(POLICY, SPEC, config))
    world.intake = world.learner.intake
    return world


@pytest.mark.parametrize("replay", [True, False])
def test_what_is_kept_is_what_the_configuration_says(replay):
    kept = Kept.of(POLICY, SPEC, LearnerConfig(feature_replay=replay, feature_shifts=2, demo_feature_shifts=5))
    assert (kept.backbone is None) == replay
    if replay:
        assert {shape[0] for shape in kept.online.shapes.values()} == {2}
        assert {shape[0] for shape in kept.demos.shapes.values()} == {5}
    else:
        assert (kept.online, kept.demos) == (None, None)
        assert kept.backbone is POLICY.backbone.params


def demonstrate(world: World) -> None:
    world.intake.expect_demonstrations("demos-1", 20)
    for sequence in range(1, 21):
        world.intake.receive_demonstration(record(sequence, "demos-1", 1000))


def settle(world: World) -> None:
    while world.learner.train() or world.learner.online.waiting or world.learner.demos.waiting:
        pass


def test_demonstrations_count_when_their_features_are_there_and_receipts_do_not_wait_for_them():
    world = life("learner-1", 0)
    demonstrate(world)
    world.learner.service()
    assert world.acks["demos-1"].sequence == 20
    waiting = world.learner.demos.waiting
    at_once = SHIFTS_AT_ONCE // world.learner.config.demo_feature_shifts
    assert waiting > at_once
    assert not world.learner.train()
    assert world.learner.demos.waiting == waiting - at_once
    assert world.learner.report.state == LearnerState.WAITING_FOR_DEMONSTRATIONS
    assert f"features of demonstrations: {waiting - at_once} observations" in world.learner.report.text
    world.intake.receive(record(1, "actor-1", 0))
    world.intake.receive(record(2, "actor-1", 0))
    world.learner.service()  # a transition that waits for its features is none that was lost
    assert world.acks["actor-1"].budget == SETTINGS["training_starts"] + world.learner.config.steps_ahead + 1
    settle(world)
    assert len(world.learner.demos) > 0
    assert world.learner.report.state == LearnerState.FILLING
    assert "the machine has" in world.learner.memory()


def test_a_resumed_learner_goes_on_bit_by_bit(tmp_path):
    first, checkpoints = life("learner-1", 0), CheckpointStore(tmp_path)
    first.save = checkpoints.save
    first.learner.publish()
    demonstrate(first)
    for sequence in range(1, 19):
        first.intake.receive(record(sequence, "actor-1", 0))
    settle(first)
    assert first.learner.report.gradient_step == 8
    first.learner.publish()
    verify(first.policies[-1], POLICY, SPEC)  # its probe is what cameras saw
    assert first.policies[-1].probe.images.keys() == {"front", "wrist"}
    first.learner.save()

    second = life("learner-2", 99)
    for stored in first.log:
        second.intake.restore(stored)
    second.learner.resume(*checkpoints.restore(second.learner.agent, SPEC, POLICY))
    demonstrate(second)
    for world in (first, second):
        for sequence in range(19, 23):
            world.intake.receive(record(sequence, "actor-1", 0))
        settle(world)
    assert second.learner.report.gradient_step == first.learner.report.gradient_step == 12
    for name in ("actor", "critic", "encoder", "target_encoder"):
        before, after = (numbers(getattr(world.learner.agent, name)) for world in (first, second))
        assert all(map(np.array_equal, before, after)), name
    jax.tree.map(np.testing.assert_array_equal, first.learner.agent.rng, second.learner.agent.rng)


def test_images_do_not_pile_up_in_memory(monkeypatch):
    """Neither while a log is read nor when much comes at once."""
    monkeypatch.setattr(learner_module, "BACKLOG", 10)
    world, resumed = life("learner-1", 0), life("learner-2", 0)
    for sequence in range(1, 31):
        world.intake.receive(record(sequence, "actor-1", 0))
    assert world.learner.backlog > 20
    world.learner.service()
    assert world.learner.backlog <= 10
    assert world.acks["actor-1"].sequence == 30
    for stored in world.log:
        resumed.learner.restore(stored)
        assert resumed.learner.backlog <= 10
    settle(world)
    settle(resumed)
    assert len(resumed.learner.online) == len(world.learner.online) > 20
