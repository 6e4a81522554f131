# SPDX-License-Identifier: Apache-2.0
"""The learner's logic, with a real agent, against actors, demonstrations and a disk that the test plays by hand."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from rlpd_ros.actor import Actor
from rlpd_ros.data.demonstrations import DemonstrationManifest, validate_manifest
from rlpd_ros.data.intake import MAX_MANIFESTS
from rlpd_ros.data.ledger import MAX_SESSIONS
from rlpd_ros.data.sender import Sender
from rlpd_ros.driver import Driver
from rlpd_ros.errors import DataError
from rlpd_ros.learner import ALIVE, MAX_ACTORS, Learner
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.checkpoint import CheckpointStore
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.policy import Policy, verify
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.bags import TransitionLog
from rlpd_ros.settings import ActorConfig, LearnerConfig
from rlpd_ros.status import ActorReport, LearnerState
from rlpd_ros.types import (
    Acknowledgement,
    EpisodeSummary,
    Observation,
    PolicySnapshot,
    Source,
    SpaceField,
    SpaceSpec,
    StepResult,
    TransitionRecord,
)

SPEC = SpaceSpec("point", (SpaceField.box("x", [-9, -9], [9, 9], "m"),),
                 (SpaceField.box("dx", [-0.1] * 2, [0.1] * 2, "m"),), 10.0, "world", 100)
REAL_TIME = replace(SPEC, lockstep=False)
NETWORK = PolicyConfig(hidden_dims=(8,))
AGENT = AgentConfig(num_qs=2, num_min_qs=1, critic_hidden_dims=(8,), utd_ratio=2)
POLICY = Policy(SPEC, NETWORK)
SETTINGS: dict[str, Any] = {
    "batch_size": 8, "training_starts": 10, "steps_per_update": 5, "log_period": 10, "checkpoint_period": 10**6,
    "replay_buffer_capacity": 1000, "demo_buffer_capacity": 1000, "require_demonstrations": False, "seed": 3}
LENGTH = 5  # steps per episode


class World:
    """A learner with its disk. Its clock stands still unless moved."""

    def __init__(self, spec: SpaceSpec = SPEC, session: str = "learner-1", **settings: Any) -> None:
        self.now = 100.0
        self.calls: list[str] = []  # in order
        self.log: list[TransitionRecord] = []
        self.durable = 0  # how many of them
        self.disk_full = False
        self.acks: dict[str, Acknowledgement] = {}
        self.policies: list[PolicySnapshot] = []
        self.saved: list[dict[str, Any]] = []
        self.rows: list[tuple[str, int, Mapping[str, Any]]] = []
        self.said: list[str] = []
        self.warnings: list[str] = []
        agent = Agent.create(spec, NETWORK, AGENT, 0)
        self.learner = Learner(LearnerConfig(**{**SETTINGS, **settings}), agent, POLICY, spec, self, session,
                               "/runs/x", lambda: self.now, lambda: 5_000_000)
        self.intake = self.learner.intake

    # What the learner does

    def publish_policy(self, snapshot: PolicySnapshot) -> None:
        self.policies.append(snapshot)

    def acknowledge(self, ack: Acknowledgement) -> None:
        self.calls.append(f"acknowledge {ack.sequence}")
        self.acks[ack.session] = ack

    def store(self, record: TransitionRecord) -> None:
        self.calls.append(f"store {record.sequence}")
        self.log.append(record)

    def flush(self) -> None:
        self.calls.append("flush")
        if self.disk_full:
            raise DataError("/runs/x/transitions: cannot write transitions: No space left on device")
        self.durable = len(self.log)

    def save(self, agent: Agent, metadata: dict[str, Any]) -> None:
        if self.disk_full:
            raise DataError("/runs/x/checkpoints: cannot write checkpoint: No space left on device")
        self.saved.append(metadata)

    def measure(self, table: str, step: int, values: Mapping[str, Any]) -> None:
        self.rows.append((table, step, values))

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    # What the world does

    def feed(self, first: int, last: int, session: str = "actor-1", **changes: Any) -> None:
        for sequence in range(first, last + 1):
            self.intake.receive(replace(make_record(sequence, session), **changes))

    def demonstrate(self, count: int, session: str = "demos-1") -> None:
        self.intake.expect_demonstrations(session, count)
        for sequence in range(1, count + 1):
            self.intake.receive_demonstration(make_record(sequence, session, 100.0))

    def hear(self, session: str = "actor-1", version: int = 0) -> None:
        self.learner.hear(ActorReport(session, applied_version=version, applied_gradient_step=version))

    def train(self, limit: int = 1000) -> int:
        """Train until there is no reason to; return the number of steps."""
        for steps in range(limit):
            if not self.learner.train():
                return steps
        return limit

    def answer(self, session: str = "actor-1") -> Acknowledgement:
        self.learner.service()
        return self.acks[session]


def make_record(sequence: int, session: str = "actor-1", offset: float = 0.0, spec: SpaceSpec = SPEC,
                source: Source = Source.POLICY) -> TransitionRecord:
    """Make a record in which everything follows from its number; every fifth ends an episode."""
    episode, step = divmod(sequence - 1, LENGTH)
    last = step == LENGTH - 1

    def observe(number: int) -> Observation:
        return Observation(np.array([number / 100, offset], np.float32))

    rng = np.random.default_rng(sequence)
    return TransitionRecord(
        session, sequence, episode + 1, step, observe(sequence), rng.uniform(-1, 1, 2).astype(np.float32),
        float(last), last, False, last, source, 1, observe(sequence + 1) if last else None, spec.fingerprint,
        1000 + sequence)


def evaluation(successes: int, episodes: int, version: int, done: bool = True) -> EpisodeSummary:
    return EpisodeSummary("actor-1", 9, 5, 1.0, True, True, False, True, 1, done, episodes, successes, version, 0, 0,
                          0.0, 5, 0, 0, 0.5)


# What comes in


def test_only_the_next_in_order_is_taken() -> None:
    world = World()
    world.feed(1, 3)
    world.feed(5, 6)  # 4 is missing
    assert [r.sequence for r in world.log] == [1, 2, 3]
    assert world.answer().sequence == 3
    world.feed(2, 6)  # sent again
    assert [r.sequence for r in world.log] == [1, 2, 3, 4, 5, 6]
    report = world.learner.status()
    assert (report.transitions_received, report.transitions_stored, report.transitions_duplicate, report.gaps) == (
        10, 6, 2, 2)
    ack = world.answer()
    assert (ack.sequence, ack.stored, ack.duplicates, ack.rejected) == (6, 6, 2, 0)
    assert ack.env_steps == 6
    assert ack.learner_session == "learner-1"


def test_sessions_do_not_disturb_each_other() -> None:
    world = World()
    for sequence in range(1, 8):
        world.feed(sequence, sequence, "actor-1")
        if sequence != 3:
            world.feed(sequence, sequence, "actor-2")
    world.learner.service()
    assert (world.acks["actor-1"].sequence, world.acks["actor-2"].sequence) == (7, 2)
    assert len(world.learner.online) == 6 + 1


POISON = [
    ({"reward": float("nan")}, "reward: expected a finite number within +-1e+06, found nan"),
    ({"action": np.array([0.0, 2.0], np.float32)}, "action: expected values from -1 to 1"),
    ({"observation": Observation(np.array([0.0, np.inf], np.float32))}, "state: expected finite values within"),
    ({"terminated": True}, "final_observation: expected one"),
]


@pytest.mark.parametrize(("changes", "says"), POISON)
def test_poison_is_passed_over_and_told(changes: dict, says: str) -> None:
    world = World()
    world.feed(1, 2)
    world.feed(3, 3, **changes)
    world.feed(4, 5)
    assert [r.sequence for r in world.log] == [1, 2, 4, 5]
    ack = world.answer()
    assert (ack.sequence, ack.stored, ack.rejected) == (5, 4, 1)
    assert ack.text.startswith(f"transition 3: {says}")
    assert says in world.warnings[0]
    assert len(world.learner.online) == 3  # step 1 of the episode has no successor, 2 was refused


def test_a_transition_of_another_space_stays_with_its_sender() -> None:
    world = World()
    for _ in range(5):
        world.feed(1, 1, space_fingerprint="feed")
    ack = world.answer()
    assert (ack.sequence, ack.stored, ack.rejected) == (0, 0, 5)
    assert "space_fingerprint: expected" in ack.text
    assert len(world.warnings) == 3  # the 1st, 2nd and 4th
    world.feed(1, 1)
    assert world.answer().stored == 1


def test_what_cannot_be_read_is_refused_like_what_makes_no_sense() -> None:
    world = World()
    error = DataError("action: expected 2 values, found 3")
    world.intake.refuse("actor-1", 1, "feed", error)
    assert world.answer().sequence == 0
    world.intake.refuse("actor-1", 1, SPEC.fingerprint, error)
    world.intake.refuse("actor-1", 1, SPEC.fingerprint, error)  # again: a duplicate by now
    world.feed(2, 2)
    ack = world.answer()
    assert (ack.sequence, ack.stored, ack.rejected, ack.duplicates) == (2, 1, 2, 1)


@pytest.mark.parametrize("name", ["", "x" * 1000])
def test_names_are_bounded(name: str) -> None:
    world = World()
    world.feed(1, 1, name)
    assert world.log == []
    assert "session: expected a name of 1 to 128 characters" in world.warnings[0]
    assert world.learner.status().transitions_rejected == 1


def test_strangers_cannot_claim_memory_for_ever() -> None:
    world = World()
    for number in range(MAX_SESSIONS + 10):
        world.intake.refuse(f"stranger-{number}", 1, "feed", DataError("nonsense"))
    assert len(world.intake.ledger._accounts) == MAX_SESSIONS
    world.feed(1, 1)  # strangers have brought nothing: they do not keep others out
    assert [record.session for record in world.log] == ["actor-1"]
    for number in range(MAX_SESSIONS):
        world.feed(1, 1, f"busy-{number}")
    assert f"more than {MAX_SESSIONS} sessions" in world.warnings[-1]
    assert len(world.log) == len(world.intake.ledger._accounts) == MAX_SESSIONS


def test_steps_only_go_forward() -> None:
    world = World()
    world.feed(1, 3)
    before = world.log[-1]
    world.intake.receive(replace(make_record(4), episode=before.episode, step=before.step))
    assert world.intake.ledger["actor-1"].text == (
        f"transition 4: step: expected one after step {before.step} of episode {before.episode}, found step "
        f"{before.step} of episode {before.episode}")
    world.intake.receive(replace(make_record(5), episode=2**63))
    world.feed(6, 8)  # the way back costs one
    assert [record.sequence for record in world.log] == [1, 2, 3, 5, 7, 8]
    assert world.learner.status().transitions_rejected == 2


def test_only_so_many_sets_of_demonstrations_are_waited_for() -> None:
    world = World(require_demonstrations=True)
    for number in range(MAX_MANIFESTS):
        world.intake.expect_demonstrations(f"demos-{number}", 1)
    with pytest.raises(DataError, match=f"more than {MAX_MANIFESTS} sets"):
        world.intake.expect_demonstrations("demos-x", 1)
    assert world.intake.demonstrations_expected == MAX_MANIFESTS


MANIFEST = DemonstrationManifest("demos-1", ["a", "b"], [3, 4], [1, 1], [1, 0], ["d", "e"], 7,
                                 space_fingerprint=SPEC.fingerprint, complete=True)


@pytest.mark.parametrize(("changes", "error"), [
    ({"session": ""}, "session: expected a name"), ({"total": 8}, "total: expected the sum of all bags, 7"),
    ({"transitions": [2**60, 0], "total": 2**60}, "total: expected .* at most"),
    ({"digest": ["d"]}, "digest: expected one per bag, 2, found 1"),
    ({"space_fingerprint": "feed"}, "space_fingerprint: expected .*, found 'feed'")])
def test_manifests_that_make_no_sense_are_refused(changes: dict[str, Any], error: str) -> None:
    validate_manifest(MANIFEST, SPEC)
    validate_manifest(replace(MANIFEST, **changes, error="it says itself that it is none"), SPEC)
    with pytest.raises(DataError, match=f"^{error}"):
        validate_manifest(replace(MANIFEST, **changes), SPEC)


def test_what_a_person_did_is_a_demonstration_too() -> None:
    world = World()
    for sequence in range(1, 11):
        person = sequence in (3, 4)
        world.feed(sequence, sequence, source=Source.INTERVENTION if person else Source.POLICY)
    assert (len(world.learner.online), len(world.learner.demos)) == (10, 2)


# Receipts


def test_a_receipt_is_given_only_for_what_is_on_disk() -> None:
    world = World()
    world.feed(1, 2)
    assert world.acks == {}
    world.learner.service()
    assert world.calls == ["store 1", "store 2", "flush", "acknowledge 2"]
    assert world.durable == 2
    world.learner.service()
    assert len(world.calls) == 4  # nothing new, nothing to say


def test_a_full_disk_stops_the_receipts_and_nothing_else() -> None:
    world = World(training_starts=5)
    world.learner.publish()
    world.feed(1, 5)
    world.learner.service()
    world.disk_full = True
    for sequence in range(6, 11):
        world.feed(sequence, sequence)
        world.learner.train()
        world.learner.service()
        world.now += 1
    assert world.acks["actor-1"].sequence == 5
    assert len(world.warnings) == 1
    assert "No space left on device. Nothing is acknowledged until it can be" in world.warnings[0]
    assert "cannot be stored, and so are not acknowledged" in world.learner.status().text
    assert world.learner.report.gradient_step == 5
    world.now += 10
    world.learner.service()
    assert len(world.warnings) == 2
    world.disk_full = False
    world.learner.service()
    assert (world.acks["actor-1"].sequence, world.durable) == (10, 10)
    assert world.said[-1] == "transitions can be stored again: nothing was lost"
    assert "cannot be stored" not in world.learner.status().text


def test_a_new_actor_is_given_a_receipt_and_so_a_budget() -> None:
    world = World(training_starts=10, steps_ahead=4)
    world.hear("actor-1")
    ack = world.answer()
    assert (ack.sequence, ack.budget) == (0, 14)
    world.acks.clear()
    world.hear("actor-1")
    world.learner.service()
    assert world.acks == {}
    world.learner.status()
    world.learner.service()
    assert world.acks["actor-1"].budget == 14  # repeated now and then, should it have been lost


# Demonstrations


def test_a_loader_whose_receipt_was_lost_is_given_another() -> None:
    world = World()
    world.intake.expect_demonstrations("demos-1", 2)
    world.learner.service()
    world.acks.clear()
    world.learner.status()
    world.learner.service()
    assert world.acks["demos-1"].sequence == 0
    world.demonstrate(2)
    world.learner.service()
    world.acks.clear()
    world.learner.status()
    world.learner.service()
    assert world.acks == {}  # it has everything


def waiting(world: World) -> str:
    report = world.learner.status()
    assert report.state == LearnerState.WAITING_FOR_DEMONSTRATIONS
    assert world.train() == 0
    return report.text


def test_training_waits_until_every_demonstration_is_here() -> None:
    world = World(require_demonstrations=True)
    world.feed(1, 40)
    assert "no manifest from a demo loader yet" in waiting(world)
    world.intake.expect_demonstrations("demos-1", 10)
    assert waiting(world) == "received 0 of 10 demonstration transitions"
    for sequence in range(1, 11):
        assert f"received {sequence - 1} of 10" in waiting(world)
        world.intake.receive_demonstration(make_record(sequence, "demos-1"))
    assert world.learner.status().state == LearnerState.TRAINING
    assert (len(world.learner.demos), world.learner.status().demo_expected) == (10, 10)
    assert world.answer("demos-1").sequence == 10
    assert [r.session for r in world.log] == ["actor-1"] * 40  # demonstrations are in their bag
    assert world.learner.report.env_steps == 40


def test_a_refused_demonstration_is_missing_and_named() -> None:
    world = World(require_demonstrations=True)
    world.feed(1, 40)
    world.intake.expect_demonstrations("demos-1", 5)
    for sequence in range(1, 6):
        record = make_record(sequence, "demos-1")
        world.intake.receive_demonstration(replace(record, reward=float("inf")) if sequence == 2 else record)
    assert waiting(world) == ("received 4 of 5 demonstration transitions; refused transition 2: reward: expected a "
                              "finite number within +-1e+06, found inf")


def test_the_loaders_fault_is_told_until_it_has_none() -> None:
    world = World(require_demonstrations=True)
    world.intake.expect_demonstrations("", 0, "/demos: expected at least one bag, found none")
    assert waiting(world) == "the demo loader found a fault: /demos: expected at least one bag, found none"
    world.intake.expect_demonstrations("demos-1", 5)
    assert waiting(world) == "received 0 of 5 demonstration transitions"
    world.intake.expect_demonstrations("", 0, "of another space")
    assert waiting(world) == "the demo loader found a fault: of another space"
    world.demonstrate(5)
    assert world.learner.status().state == LearnerState.FILLING


def test_demonstrations_that_complete_nothing_are_not_enough() -> None:
    world = World(require_demonstrations=True)
    world.demonstrate(1)
    assert waiting(world) == "the demonstrations hold no complete transition"


# Training


def test_nothing_is_trained_before_training_starts() -> None:
    world = World(training_starts=10)
    for sequence in range(1, 11):
        report = world.learner.status()
        assert report.state == LearnerState.FILLING
        assert report.text.startswith("filling the online buffer: ")
        assert world.train() == 0
        world.feed(sequence, sequence)
    assert world.train() == 0  # as many steps as transitions beyond training_starts
    assert world.learner.status().state == LearnerState.WAITING_FOR_DATA
    world.feed(11, 13)
    assert world.train() == 3
    assert world.learner.report.gradient_step == int(world.learner.agent.step) == 3


class Spy:
    """Looks over an agent's shoulder."""

    def __init__(self, agent: Agent, seen: list) -> None:
        self._agent = agent
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    def update(self, batch, demonstrations: int):
        self._seen.append((jax.tree.map(np.array, batch), demonstrations))
        agent, info = self._agent.update(batch, demonstrations)
        return Spy(agent, self._seen), info


def test_every_mini_batch_is_half_demonstrations_and_they_come_last() -> None:
    world = World(require_demonstrations=True)
    world.demonstrate(20)
    world.feed(1, 20)
    seen: list = []
    world.learner.agent = Spy(world.learner.agent, seen)
    assert world.train() == 10
    for batch, demonstrations in seen:
        assert demonstrations == 4
        offsets = batch.observations["state"][..., 1]
        assert offsets.shape == (AGENT.utd_ratio, 8)
        np.testing.assert_array_equal(offsets, np.tile([0] * 4 + [100] * 4, (AGENT.utd_ratio, 1)))
        numbers, following = (100 * part["state"][..., 0] for part in (batch.observations, batch.next_observations))
        np.testing.assert_allclose(following, numbers + 1, atol=1e-3)
        np.testing.assert_array_equal(batch.masks, np.round(numbers) % LENGTH != 0)
    assert len({batch.observations["state"].tobytes() for batch, _ in seen}) == len(seen)


def test_without_demonstrations_no_row_is_taken_for_one() -> None:
    world = World()
    world.feed(1, 12)
    seen: list = []
    world.learner.agent = Spy(world.learner.agent, seen)
    assert world.train() == 2
    assert [demonstrations for _, demonstrations in seen] == [0, 0]


def test_the_update_to_data_ratio_is_honest_in_lockstep() -> None:
    world = World(training_starts=20, steps_ahead=3, log_period=10)
    world.hear()
    taken = 0
    for _ in range(60):
        budget = world.answer().budget
        world.feed(taken + 1, budget)  # an actor as fast as it may be
        taken = max(taken, budget)
        world.learner.train()
        assert taken <= 20 + world.learner.report.gradient_step + 3
    world.train()
    report = world.learner.status()
    assert report.gradient_step == taken - 20 == 62
    rows = [row for table, _, row in world.rows if table == "learner"]
    assert rows[-1]["utd_measured"] == AGENT.utd_ratio
    assert world.answer().budget == report.env_step_budget == 20 + 62 + 3


def test_in_real_time_nobody_waits() -> None:
    world = World(REAL_TIME)
    world.feed(1, 11)
    assert world.answer().budget == 2**63 - 1
    assert world.train(30) == 30


def test_actors_share_the_budget() -> None:
    world = World(training_starts=10, steps_ahead=5)
    world.hear("actor-1")
    world.hear("actor-2")
    world.learner.service()
    assert [ack.budget for ack in world.acks.values()] == [8, 8]  # of 15, rounded up
    world.feed(1, 8, "actor-1")
    world.learner.service()
    assert world.acks["actor-1"].budget == 8 + 4
    world.now += 10  # actor-2 says nothing any more
    world.hear("actor-1")
    world.feed(9, 9, "actor-1")
    assert world.answer().budget == 9 + 6 + 1  # one step is no transition yet: it waits for its successor


def test_many_actors_with_little_to_share_do_not_wait_for_each_other() -> None:
    world = World(training_starts=1, steps_ahead=1)
    for number in range(5):
        world.hear(f"actor-{number}")
    world.learner.service()
    assert all(ack.budget > ack.sequence for ack in world.acks.values())


def test_steps_that_became_no_transition_are_made_up_for() -> None:
    """Actors that die again and again leave steps behind that nothing completes."""
    world = World(training_starts=10, steps_ahead=2)
    for number in range(12):
        world.feed(1, 1, f"actor-{number}")
    assert len(world.learner.online) == 0
    world.hear("actor-99")
    assert world.answer("actor-99").budget == 12
    world.feed(1, 12, "actor-99")
    assert world.learner.status().state == LearnerState.TRAINING
    assert world.train() == 24 - 10


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


@pytest.mark.parametrize("then", ["train", "publish", "save", "finish"])
def test_what_is_not_finite_fails_the_run_and_reaches_nobody(then: str) -> None:
    world = World(training_starts=5, steps_per_update=1, checkpoint_period=1, max_steps=2)
    world.learner.publish()
    world.feed(1, 6)
    world.learner.online._rows[:, -2] = 3e38  # rewards that nobody can send
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


# The end


def test_an_evaluation_that_reaches_the_target_ends_training_with_that_policy() -> None:
    world = World(success_target=0.95, eval_episodes=20)
    world.learner.publish()
    world.feed(1, 10 + 8)
    world.train()
    assert len(world.policies) == 2
    world.learner.finish_episode(evaluation(19, 20, version=1))
    report = world.learner.status()
    assert report.state == LearnerState.FINISHED
    assert report.text == "success rate 95% in 20 greedy episodes"
    assert (report.success_rate, report.evaluation_episodes) == (0.95, 20)
    assert world.learner.result is world.policies[0]
    assert [p.gradient_step for p in world.policies] == [0, 5, 8]  # what was learned since is not lost either
    assert [saved["gradient_step"] for saved in world.saved] == [8]
    assert world.train() == 0


@pytest.mark.parametrize(("successes", "episodes", "done", "rate"), [
    (18, 20, True, 0.9), (12, 12, True, 1.0), (19, 19, False, -1.0), (20, 20, False, -1.0)])
def test_a_weaker_evaluation_does_not(successes: int, episodes: int, done: bool, rate: float) -> None:
    world = World(success_target=0.95, eval_episodes=20)
    world.learner.publish()
    world.learner.finish_episode(evaluation(successes, episodes, version=1, done=done))
    report = world.learner.status()
    assert report.state == LearnerState.FILLING
    assert report.success_rate == rate


@pytest.mark.parametrize(("successes", "episodes"), [(0, 0), (21, 20), (-1, 20)])
def test_an_evaluation_that_makes_no_sense_is_ignored(successes: int, episodes: int) -> None:
    world = World()
    world.learner.publish()
    with pytest.raises(DataError, match=f"evaluation_successes: .* found {successes} in {episodes}"):
        world.learner.finish_episode(evaluation(successes, episodes, version=1))
    assert world.learner.status().success_rate == -1.0
    assert not [row for row in world.rows if row[0] == "episodes"]


def test_an_actor_without_a_proper_name_is_nobody() -> None:
    world = World()
    for name in ("", "x" * 129, "two\nlines"):
        with pytest.raises(DataError, match=r"^session: expected"):
            world.hear(name)
        with pytest.raises(DataError, match=r"^session: expected"):
            world.learner.finish_episode(replace(evaluation(1, 1, version=1), session=name))
    assert world.learner.lowest_applied_version() == (0, 0)


def test_no_more_than_a_multitude_of_actors_is_heard_at_a_time() -> None:
    world = World()
    for number in range(MAX_ACTORS):
        world.hear(f"actor-{number}")
    with pytest.raises(DataError, match=f"more than {MAX_ACTORS} actors"):
        world.hear("actor-x")
    world.hear("actor-0", version=3)
    world.now += ALIVE
    world.hear("actor-x")
    assert world.learner.lowest_applied_version() == (0, 1)


def test_the_policy_under_evaluation_stays_available_and_others_do_not() -> None:
    world = World(REAL_TIME, success_target=0.95, eval_episodes=20, steps_per_update=1)
    world.learner.publish()
    world.feed(1, 20)
    world.train(3)
    for _ in range(60):  # while the actor evaluates version 2, slowly
        world.hear("actor-1", version=2)
        world.train(1)
    world.learner.finish_episode(evaluation(20, 20, version=1))
    assert "version 1 is good enough, but it is of an earlier life" in world.warnings[0]
    assert world.learner.status().state == LearnerState.TRAINING
    world.learner.finish_episode(evaluation(20, 20, version=2))
    assert world.learner.result is world.policies[1]


@pytest.mark.parametrize(("limits", "steps", "why"), [
    ({"max_steps": 7}, 7, "max_steps 7 reached"), ({"max_env_steps": 40}, 0, "max_env_steps 40 reached")])
def test_a_limit_ends_training_with_the_newest_policy(limits: dict, steps: int, why: str) -> None:
    world = World(**limits)
    world.learner.publish()
    world.feed(1, 40)
    assert world.train() == steps
    report = world.learner.status()
    assert (report.state, report.text) == (LearnerState.FINISHED, why)
    assert world.learner.result is world.policies[-1]
    assert world.learner.result.gradient_step == steps
    assert len({p.gradient_step for p in world.policies}) == len(world.policies)  # none twice
    assert world.saved[-1]["gradient_step"] == steps
    world.learner.finish_episode(evaluation(20, 20, version=1))
    assert world.learner.report.text == why


def test_a_run_that_is_resumed_at_its_limit_ends_at_once() -> None:
    first = World(max_steps=5)
    first.learner.publish()
    first.feed(1, 20)
    first.train()
    second = World(max_steps=5, session="learner-2", require_demonstrations=True)
    second.learner.resume(first.learner.agent, first.saved[-1])
    second.learner.publish()
    assert second.train() == 0
    assert second.learner.report.state == LearnerState.FINISHED
    assert second.learner.report.gradient_step == 5


# Who is there


def test_live_actors_and_what_they_act_on() -> None:
    world = World()
    assert world.learner.lowest_applied_version() == (0, 0)
    world.hear("actor-1", 5)
    world.hear("actor-2", 3)
    assert world.learner.lowest_applied_version() == (3, 2)
    world.now += 2
    world.hear("actor-1", 6)
    world.now += 2  # actor-2 was heard 4 s ago
    assert world.learner.lowest_applied_version() == (6, 1)
    world.hear("actor-1", 6)
    applied = [(row["actor"], row["version"]) for table, _, row in world.rows if table == "policies"]
    assert applied == [("actor-1", 5), ("actor-2", 3), ("actor-1", 6)]


def test_the_status_counts_each_actor_for_itself() -> None:
    world = World()
    world.feed(1, 3, "left-1")
    world.feed(2, 3, "left-1")
    world.now += 2.0
    world.feed(1, 2, "right-1")
    world.feed(3, 3, "right-1", reward=float("nan"))
    for session, version in (("right-1", 4), ("left-1", 3), ("idle-1", 0)):
        world.hear(session, version)
    report = world.learner.status()
    assert report.actors == ["idle-1", "left-1", "right-1"]
    assert report.actors_stored == [0, 3, 2]
    assert report.actors_duplicate == [0, 2, 0]
    assert report.actors_rejected == [0, 0, 1]
    assert report.actors_version == [0, 3, 4]
    assert report.actors_data_age == [-1.0, 2.0, 0.0]
    world.now += 10.0
    world.hear("left-1", 2**63)  # a claim that must not end the learner
    report = world.learner.status()
    assert report.actors == ["left-1"]
    messages.from_fields(qos.LEARNER_STATUS.type, report)


# Resuming


def test_a_resumed_run_goes_on_exactly_as_if_it_had_never_stopped(tmp_path) -> None:
    first = World()
    first.learner.publish()
    first.demonstrate(20)
    first.feed(1, 25)
    assert first.train() == 15
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


# Together with an actor and an arm


class Point:
    """An arm whose state tells which observation of all it is, so that no wrong pair goes unnoticed."""

    spec = SPEC

    def __init__(self) -> None:
        self.count = 0.0
        self.true_steps: dict[float, tuple[list[float], float]] = {}  # state -> executed action, next state
        self._steps = 0

    def _observe(self) -> Observation:
        self.count += 1
        return Observation(np.array([self.count, 0], np.float32))

    def reset(self, seed: int | None = None) -> Observation:
        self._steps = 0
        return self._observe()

    def step(self, action: np.ndarray) -> StepResult:
        executed, before = np.round(action, 1), self.count
        self._steps += 1
        observation = self._observe()
        self.true_steps[before] = executed.tolist(), self.count
        return StepResult(observation, 0.0, False, self._steps == LENGTH, False, executed)


class LossyWorld:
    """Arm, actor and learner, joined by links that lose messages; each of them may die at any time."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.arm = Point()
        self.disk: list[TransitionRecord] = []
        self.acknowledged: dict[str, int] = {}
        self.lives = 0
        self.queue: deque[Callable[[], None]] = deque()
        self.start_driver()
        self.start_learner()
        self.start_actor()

    def start_driver(self) -> None:
        self.driver = Driver(self.arm, self, self.life("arm"), 0.2, lambda: self.now, lambda: int(1e9 * self.now))
        self.driver.reset()

    def start_actor(self) -> None:
        config = ActorConfig(random_steps=10**9, eval_every=0, resend_period=0.5)
        sender = Sender(self.life("actor"), config.resend_period, config.outbox_memory, self.warn)
        self.actor = Actor(config, POLICY, SPEC, self, sender, lambda: self.now, lambda: 0)

    def start_learner(self) -> None:
        self.unflushed: list[TransitionRecord] = []
        self.learner = Learner(LearnerConfig(training_starts=10**6, require_demonstrations=False), AGENT_OF_NO_USE,
                               POLICY, SPEC, self, self.life("learner"), "", lambda: self.now, lambda: 0)
        for record in self.disk:
            self.learner.intake.restore(record)

    def life(self, kind: str) -> str:
        self.lives += 1
        return f"{kind}-{self.lives}"

    def link(self, deliver: Callable[[], None]) -> None:
        if self.rng.random() < 0.9:
            self.queue.append(deliver)

    # What the three do: the parts that are alive when it arrives get it

    def publish_observation(self, now) -> None:
        self.link(lambda: self.actor.observe(now))

    def act(self, action) -> None:
        self.link(lambda: self.driver.act(action))

    def reset_arm(self) -> None:
        self.link(self._reset)

    def _reset(self) -> None:
        self.driver.reset()

    def send(self, record) -> None:
        self.link(lambda: self.learner.intake.receive(record))

    def acknowledge(self, ack) -> None:
        self.acknowledged[ack.session] = max(ack.sequence, self.acknowledged.get(ack.session, 0))
        self.link(lambda: self.actor.acknowledge(ack))

    def store(self, record) -> None:
        self.unflushed.append(record)

    def flush(self) -> None:
        self.disk += self.unflushed
        self.unflushed.clear()

    def ignore(self, *_: object) -> None:
        """Take note of nothing: the rest does not matter here."""

    finish_episode = say = warn = measure = ignore

    def run(self, rounds: int, deaths: float) -> None:
        for _ in range(rounds):
            self.now += 0.05
            for kind in ("driver", "actor", "learner"):
                if self.rng.random() < deaths:
                    getattr(self, f"start_{kind}")()
            for _ in range(len(self.queue)):
                self.queue.popleft()()
            self.driver.tick()
            self.actor.tick()
            if self.rng.random() < 0.5:
                self.learner.hear(self.actor.status())
                self.learner.status()
                self.learner.service()


AGENT_OF_NO_USE = Agent.create(SPEC, NETWORK, AGENT, 0)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_acknowledged_is_lost_and_nothing_is_stored_wrongly(seed: int) -> None:
    world = LossyWorld(seed)
    world.run(3000, deaths=0.004)
    world.run(200, deaths=0.0)
    stored: dict[str, list[int]] = {}
    for record in world.disk:
        stored.setdefault(record.session, []).append(record.sequence)
        executed, following = world.arm.true_steps[record.observation.state[0]]
        np.testing.assert_allclose(record.action, executed)
        if record.final_observation is not None:
            assert record.final_observation.state[0] == following
    assert len(world.disk) > 500
    assert len(stored) > 5
    for session, sequences in stored.items():
        assert sequences == list(range(1, len(sequences) + 1)), session
        assert world.acknowledged[session] <= len(sequences)
    assert world.actor.status().transitions_unacked < 30  # what was lost on the way goes out again, not for ever
    online = world.learner.online
    batch = online.sample(5 * len(online), np.random.default_rng(0))
    for before, after in zip(batch.observations["state"][:, 0], batch.next_observations["state"][:, 0], strict=True):
        assert world.arm.true_steps[before][1] == after
