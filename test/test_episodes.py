# SPDX-License-Identifier: Apache-2.0
"""Completing records to transitions, and refusing what does not fit."""

from dataclasses import replace

import numpy as np
import pytest

from rlpd_ros.data.episodes import MAX_SESSIONS, TransitionAssembler, validate
from rlpd_ros.errors import DataError
from rlpd_ros.types import Observation, Source, SpaceField, SpaceSpec, TransitionRecord
from rlpd_ros.untrusted import MAX_NAME

SPEC = SpaceSpec("robot", (SpaceField.box("position", [-9, -9], [9, 9], "m"), SpaceField.image("front", 4, 6)),
                 (SpaceField.box("delta", [-1, -1, -1], [1, 1, 1]),), 10.0, "base", 100)


def observe(number: float) -> Observation:
    return Observation(np.full(2, number, np.float32), {"front": np.full((4, 6, 3), number, np.uint8)})


def make(episode: int, step: int, session: str = "actor-1", **changes) -> TransitionRecord:
    """Make the record whose observation is numbered 10 * episode + step."""
    number = 10 * episode + step
    record = TransitionRecord(
        session=session, sequence=number, episode=episode, step=step, observation=observe(number),
        action=np.full(3, number / 100, np.float32), reward=float(number), terminated=False, truncated=False,
        success=False, source=Source.POLICY, space_fingerprint=SPEC.fingerprint)
    return replace(record, **changes)


def last(episode: int, step: int, terminated: bool = True, **changes) -> TransitionRecord:
    return make(episode, step, terminated=terminated, truncated=not terminated,
                final_observation=observe(10 * episode + step + 1), **changes)


def numbers(transitions) -> list[tuple[float, float]]:
    return [(float(t.observation.state[0]), float(t.next_observation.state[0])) for t in transitions]


def feed(assembler: TransitionAssembler, *records: TransitionRecord) -> list:
    return [t for record in records for t in assembler.add(record)]


def test_an_episode_becomes_complete_transitions():
    assembler = TransitionAssembler()
    done = feed(assembler, make(1, 0), make(1, 1), last(1, 2))
    assert numbers(done) == [(10, 11), (11, 12), (12, 13)]
    assert [t.mask for t in done] == [1, 1, 0]
    assert [t.reward for t in done] == [10, 11, 12]
    assert all(t.action[0] == pytest.approx(t.reward / 100) for t in done)
    assert (assembler.incomplete("actor-1"), assembler.waiting) == (0, 0)


def test_truncation_bootstraps():
    (only,) = feed(TransitionAssembler(), last(1, 0, terminated=False))
    assert only.mask == 1
    (both,) = feed(TransitionAssembler(), replace(last(1, 0), truncated=True))
    assert both.mask == 0


def test_an_episode_of_one_step_after_an_open_one():
    assembler = TransitionAssembler()
    assert numbers(feed(assembler, make(1, 0), last(2, 0), make(3, 0), make(3, 1))) == [(20, 21), (30, 31)]
    assert (assembler.incomplete("actor-1"), assembler.waiting) == (2, 1)  # one is lost, the newest waits


@pytest.mark.parametrize("following", [
    make(1, 5),  # a step is missing
    make(1, 3),  # a step is repeated
    make(2, 4),  # another episode
    make(2, 0),
    make(1, 0),
])
def test_nothing_is_completed_across_a_gap_or_an_episode(following):
    assembler = TransitionAssembler()
    assert feed(assembler, make(1, 3), following) == []
    assert assembler.incomplete("actor-1") == 2  # the newest waits
    number = 10 * following.episode + following.step
    assert numbers(feed(assembler, make(following.episode, following.step + 1))) == [(number, number + 1)]


def test_sessions_alternate_without_mixing():
    assembler = TransitionAssembler()
    done = feed(assembler, make(1, 0, "a"), make(1, 1, "b"), make(1, 1, "a"), make(1, 2, "b"), make(1, 2, "c"))
    assert numbers(done) == [(10, 11), (11, 12)]
    assert ([assembler.incomplete(session) for session in "abcd"], assembler.waiting) == ([1, 1, 1, 0], 3)


def test_memory_for_sessions_is_bounded():
    assembler = TransitionAssembler()
    for i in range(3 * MAX_SESSIONS):
        assembler.add(make(1, 0, f"actor-{i}"))
    assert assembler.waiting == MAX_SESSIONS
    assert all(assembler.incomplete(f"actor-{i}") == 1 for i in range(3 * MAX_SESSIONS))
    assert assembler.add(make(1, 1, "actor-0")) == []  # the oldest sessions are forgotten, the newest are not
    assert numbers(assembler.add(make(1, 1, f"actor-{3 * MAX_SESSIONS - 1}"))) == [(10, 11)]


def test_good_records_are_valid():
    for record in (make(1, 0), last(1, 1), last(2, 3, terminated=False), make(1, 0, action=np.float32([1, -1, 0]))):
        validate(record, SPEC)


def with_state(*values) -> Observation:
    return Observation(np.array(values, np.float32), observe(1).images)


@pytest.mark.parametrize(("record", "message"), [
    (make(1, 0, space_fingerprint="feed"), f"space_fingerprint: expected {SPEC.fingerprint}, found 'feed'"),
    (make(1, 0, ""), "session: expected a name of 1 to 128 characters, found 0"),
    (make(1, 0, "x" * (MAX_NAME + 1)), "session: expected a name of 1 to 128 characters, found 129"),
    (make(1, 0, sequence=0), "sequence: expected a number from 1, found 0"),
    (replace(make(1, 0), episode=0), "episode: expected a number from 1, found 0"),
    (replace(make(1, 0), step=-1), "step: expected a number from 0, found -1"),
    (make(1, 0, action=np.zeros(2, np.float32)), r"action: expected shape \(3,\), found \(2,\)"),
    (make(1, 0, action=np.float32([0, 1.01, 0])), "action: expected values from -1 to 1, found"),
    (make(1, 0, action=np.float32([0, np.nan, 0])), "action: expected values from -1 to 1, found"),
    (make(1, 0, reward=float("nan")), "reward: expected a finite number within .*, found nan"),
    (make(1, 0, reward=float("-inf")), "reward: expected a finite number within .*, found -inf"),
    (make(1, 0, observation=with_state(1)), r"^state: expected shape \(2,\), found \(1,\)"),
    (make(1, 0, observation=with_state(1, np.inf)), "^state: expected finite .* found inf for element 1"),
    (make(1, 0, observation=with_state(np.nan, 1)), "^state: expected finite .* found nan for element 0"),
    (make(1, 0, observation=Observation(np.zeros(2, np.float32))), r"images: expected \['front'\], found \[\]"),
    (make(1, 0, observation=Observation(np.zeros(2, np.float32), {"front": np.zeros((6, 4, 3), np.uint8)})),
     r"image 'front': expected shape \(4, 6, 3\), found \(6, 4, 3\)"),
    (make(1, 0, observation=Observation(np.zeros(2, np.float32), {"front": np.zeros((4, 6, 3), np.float32)})),
     "image 'front': expected uint8, found float32"),
    (make(1, 0, terminated=True), "final_observation: expected one with terminated True and truncated False"),
    (make(1, 0, truncated=True), "final_observation: expected one"),
    (make(1, 0, final_observation=observe(1)), "final_observation: expected none"),
    (replace(last(1, 0), final_observation=with_state(1)),
     r"final_state: expected shape \(2,\), found \(1,\)"),
    (replace(last(1, 0), final_observation=with_state(1, np.nan)), "final_state: expected finite values"),
])
def test_bad_records_are_refused_by_name(record, message):
    with pytest.raises(DataError, match=message):
        validate(record, SPEC)


def test_a_step_that_limits_changed_teaches_the_executed_and_the_asked_action():
    asked = np.full(3, 0.9, np.float32)
    first, executed, wanted, final = feed(TransitionAssembler(), make(1, 0), make(1, 1, asked_action=asked), last(1, 2))
    assert numbers([executed, wanted]) == [(11, 12), (11, 12)]
    np.testing.assert_array_equal(executed.action, np.full(3, 0.11, np.float32))
    np.testing.assert_array_equal(wanted.action, asked)
    assert (wanted.reward, wanted.mask) == (executed.reward, executed.mask)
    assert numbers([first, final]) == [(10, 11), (12, 13)]


@pytest.mark.parametrize("asked", [[0, 0], [0, 0, 2], [0, 0, np.nan]])
def test_an_asked_action_must_fit_too(asked):
    with pytest.raises(DataError, match="asked_action"):
        validate(make(1, 0, asked_action=np.array(asked, np.float32)), SPEC)
