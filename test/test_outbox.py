# SPDX-License-Identifier: Apache-2.0
import random
from dataclasses import replace

import numpy as np

from rlpd_ros.data.outbox import Outbox
from rlpd_ros.types import Acknowledgement, Observation, Source, TransitionRecord


def record(sequence: int, session: str = "a") -> TransitionRecord:
    zero = np.zeros(1, np.float32)
    return TransitionRecord(session, sequence, 1, sequence, Observation(zero), zero, 0.0, False, False, False,
                            Source.POLICY)


def ack(sequence: int, learner: str = "l1", budget: int = 100, session: str = "a") -> Acknowledgement:
    return Acknowledgement(session, learner, sequence, budget)


def filled(n: int, **kwargs) -> Outbox:
    outbox = Outbox(**kwargs)
    for i in range(1, n + 1):
        outbox.add(record(i))
    return outbox


def sequences(records) -> list[int]:
    return [r.sequence for r in records]


def test_new_records_go_out_once() -> None:
    outbox = filled(3)
    assert sequences(outbox.due(0.0)) == [1, 2, 3]
    assert sequences(outbox.due(0.1)) == []
    outbox.add(record(4))
    assert sequences(outbox.due(0.2)) == [4]
    assert outbox.sent == 4


def test_what_is_not_acknowledged_goes_out_again_after_the_period() -> None:
    outbox = filled(3, resend_period=1.0)
    outbox.due(0.0)
    outbox.acknowledge(ack(1), 0.5)
    outbox.due(0.5)  # another learner than none: everything it lacks
    assert sequences(outbox.due(1.4)) == []
    assert sequences(outbox.due(1.6)) == [2, 3]
    assert sequences(outbox.due(1.7)) == []


def test_a_new_learner_gets_what_it_lacks_at_once() -> None:
    outbox = filled(5)
    outbox.due(0.0)
    outbox.acknowledge(ack(2), 0.1)
    outbox.due(0.1)
    outbox.acknowledge(ack(3, learner="l2"), 0.2)
    assert sequences(outbox.due(0.2)) == [4, 5]
    assert outbox.unacknowledged == 2


def test_a_receipt_says_how_many_may_be_under_way() -> None:
    outbox = filled(300)
    assert sequences(outbox.due(0.0)) == list(range(1, 101))  # before the first one
    for window, end in ((20, 100), (150, 151), (0, 151), (2**32 - 1, 300)):
        outbox.acknowledge(replace(ack(1), window=window), 0.1)
        outbox.due(0.1)
        assert outbox.sent == end


def test_no_more_than_the_window_is_under_way() -> None:
    outbox = filled(10, window=4)
    assert sequences(outbox.due(0.0)) == [1, 2, 3, 4]
    outbox.acknowledge(ack(0), 0.0)
    assert sequences(outbox.due(0.0)) == [1, 2, 3, 4]
    outbox.acknowledge(ack(3), 0.1)
    assert sequences(outbox.due(0.1)) == [5, 6, 7]


def test_kept_records_go_to_a_learner_that_starts_from_nothing() -> None:
    outbox = filled(3, keep=True)
    outbox.due(0.0)
    outbox.acknowledge(ack(3), 0.1)
    assert outbox.unacknowledged == 0
    outbox.acknowledge(ack(0, learner="l2"), 0.2)
    assert sequences(outbox.due(0.2)) == [1, 2, 3]


def test_a_stale_receipt_changes_nothing() -> None:
    outbox = filled(3)
    outbox.due(0.0)
    outbox.acknowledge(ack(3), 0.1)
    outbox.acknowledge(ack(1), 0.2)
    assert outbox.acknowledged == 3
    assert sequences(outbox.due(5.0)) == []


def test_a_learner_that_lacks_what_is_gone_is_foreign_and_gets_a_new_numbering() -> None:
    outbox = filled(5)
    outbox.due(0.0)
    outbox.acknowledge(ack(3), 0.1)
    assert not outbox.is_foreign(ack(3, learner="l2"))
    assert outbox.is_foreign(ack(0, learner="l2"))
    assert not outbox.is_foreign(ack(0))  # merely old
    outbox.renumber("b")
    due = outbox.due(0.2)
    assert [(r.session, r.sequence, r.step) for r in due] == [("b", 1, 4), ("b", 2, 5)]
    assert outbox.next_sequence == 3


def test_everything_arrives_in_order_over_a_link_that_loses_and_restarts() -> None:
    rng = random.Random(7)
    outbox = Outbox(resend_period=1.0, window=20)
    stored: list[int] = []  # what the learner has on disk: survives its restarts
    learner, now = 0, 0.0
    for i in range(1, 2001):
        outbox.add(record(i))
        now += 0.3
        if rng.random() < 0.01:
            learner += 1
        for r in outbox.due(now):
            if rng.random() < 0.8 and r.sequence == len(stored) + 1:
                stored.append(r.sequence)
        if rng.random() < 0.7:
            outbox.acknowledge(ack(len(stored), f"l{learner}"), now)
    for _ in range(2000):
        now += 1.1
        for r in outbox.due(now):
            if rng.random() < 0.8 and r.sequence == len(stored) + 1:
                stored.append(r.sequence)
        outbox.acknowledge(ack(len(stored), f"l{learner}"), now)
    assert stored == list(range(1, 2001))
    assert outbox.unacknowledged == 0
