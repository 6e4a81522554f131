# SPDX-License-Identifier: Apache-2.0
"""What comes in: which transitions and demonstrations a learner takes, and what it says of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from learner_world import LENGTH, SPEC, World, make_record

from rlpd_ros.data.demonstrations import DemonstrationManifest, validate_manifest
from rlpd_ros.data.intake import MAX_MANIFESTS, Intake
from rlpd_ros.data.ledger import MAX_SESSIONS
from rlpd_ros.data.replay_buffer import ReplayBuffer
from rlpd_ros.errors import DataError
from rlpd_ros.status import LearnerReport, LearnerState
from rlpd_ros.types import Observation, Source, SpaceField, TransitionRecord


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
    world.intake.expect_demonstrations("demos-1", 0)
    assert waiting(world) == "the demonstrations hold no complete transition"


def test_training_waits_until_every_demonstration_is_complete() -> None:
    world = World(require_demonstrations=True)
    world.feed(1, 40)
    world.intake.expect_demonstrations("demos-1", 10)
    for sequence in range(1, 11):  # each in an episode of its own
        world.intake.receive_demonstration(replace(make_record(sequence, "demos-1"), episode=sequence))
    assert waiting(world).startswith("8 of the 10 demonstration transitions cannot be completed: expected the next one")
    world.intake.receive_demonstration(make_record(1, "others"))  # nobody waits for these
    assert waiting(world).startswith("8 of the 10")


def test_demonstrations_that_have_no_room_are_named_and_not_trained_without() -> None:
    world = World(require_demonstrations=True, demo_buffer_capacity=7)
    world.feed(1, 40)
    world.demonstrate(10)
    assert len(world.warnings) == 1
    assert waiting(world).startswith("demo_buffer_capacity 7: expected room for the 10 transitions that")


def test_demonstrations_that_once_had_room_are_not_missed_when_interventions_push_them_out() -> None:
    """Of images a buffer has room for an eighth more than its capacity, and short interventions need more than that."""
    spec = replace(SPEC, observation=(*SPEC.observation, SpaceField.image("front", 4, 4)))
    image = {"front": np.zeros((4, 4, 3), np.uint8)}

    def seen(record: TransitionRecord) -> TransitionRecord:
        final = record.final_observation and replace(record.final_observation, images=image)
        return replace(record, observation=replace(record.observation, images=image), final_observation=final,
                       space_fingerprint=spec.fingerprint)

    buffers = ReplayBuffer(spec, 1000), ReplayBuffer(spec, 40)
    intake = Intake(spec, *buffers, LearnerReport("learner"), lambda record: None, lambda text: None, lambda: 0.0)
    intake.expect_demonstrations("demos-1", 40)
    for sequence in range(1, 41):
        assert intake.lacking_demonstrations()
        intake.receive_demonstration(seen(make_record(sequence, "demos-1")))
    assert not intake.lacking_demonstrations()
    for sequence in range(1, 201):
        helped = sequence % LENGTH == 2
        intake.receive(seen(make_record(sequence, source=Source.INTERVENTION if helped else Source.POLICY)))
        assert not intake.lacking_demonstrations()
    assert buffers[1].stored < 40


def test_interventions_that_push_demonstrations_out_are_told_of_once() -> None:
    world = World(require_demonstrations=True, demo_buffer_capacity=10)
    world.demonstrate(10)
    assert not world.warnings
    for sequence in range(1, 21):
        world.intake.receive(make_record(sequence, source=Source.INTERVENTION))
    (warning,) = world.warnings
    assert warning.startswith("demo_buffer_capacity 10: the buffer is full: from now on the oldest demonstrations")
    assert world.learner.status().state == LearnerState.TRAINING
