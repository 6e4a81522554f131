# SPDX-License-Identifier: Apache-2.0
"""What a sender keeps until the learner has it on disk, and when to send it again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from rlpd_ros.types import Acknowledgement, TransitionRecord


class Outbox:
    """Hold the records of one session, numbered from 1, until they are acknowledged.

    ``due(now)`` hands out what is to be sent: new records at once, and everything that is unacknowledged again after
    ``resend_period`` seconds without progress or when another learner answers. At most ``window`` records are under
    way, so that no middleware queue overflows. With ``keep`` acknowledged records stay, for a learner that lost them
    (demonstrations: the loader is their only source).
    """

    def __init__(self, resend_period: float = 1.0, window: int = 500, keep: bool = False) -> None:
        self._resend_period = resend_period
        self._window = window
        self._keep = keep
        self._records: deque[TransitionRecord] = deque()
        self._first = 1  # sequence of the oldest record held
        self._next = 1  # sequence that the next record added must have
        self._to_send = 1  # sequence of the next record to hand out
        self._progress_at = 0.0
        self._learner = ""
        self.acknowledged = 0
        self.budget = 0

    @property
    def next_sequence(self) -> int:
        return self._next

    @property
    def unacknowledged(self) -> int:
        return self._next - 1 - self.acknowledged

    @property
    def sent(self) -> int:
        """Return the highest sequence handed out."""
        return self._to_send - 1

    def add(self, record: TransitionRecord) -> None:
        assert record.sequence == self._next
        self._records.append(record)
        self._next += 1

    def is_foreign(self, ack: Acknowledgement) -> bool:
        """Tell whether a learner lacks records that are gone from here because an earlier learner had them."""
        return ack.learner_session != self._learner and ack.sequence + 1 < self._first

    def renumber(self, session: str) -> None:
        """Begin again as ``session`` with the records held: their sequence starts from 1."""
        held = [replace(record, session=session, sequence=i) for i, record in enumerate(self._records, start=1)]
        self._records = deque(held)
        self._first, self._next, self._to_send = 1, len(held) + 1, 1
        self.acknowledged = self.budget = 0
        self._learner = ""

    def acknowledge(self, ack: Acknowledgement, now: float) -> None:
        """Take the learner's receipt: forget what is on its disk, start over for a learner that has less."""
        new_learner = ack.learner_session != self._learner
        self._learner = ack.learner_session
        self.budget = ack.budget
        if new_learner or ack.sequence > self.acknowledged:
            self._progress_at = now
        # Never beyond what was produced: a receipt for another life of this session proves nothing about this one.
        self.acknowledged = min(ack.sequence if new_learner else max(ack.sequence, self.acknowledged), self._next - 1)
        if not self._keep:
            while self._records and self._first <= self.acknowledged:
                self._records.popleft()
                self._first += 1
        self._to_send = self.acknowledged + 1 if new_learner else max(self._to_send, self.acknowledged + 1)

    def due(self, now: float) -> Iterable[TransitionRecord]:
        """Return what to send at ``now`` (s, monotonic), oldest first, and consider it sent."""
        if self.sent <= self.acknowledged:
            self._progress_at = now  # nothing is under way, so nothing can be late
        elif now - self._progress_at > self._resend_period:
            self._progress_at = now
            self._to_send = self.acknowledged + 1
        end = min(self._next, self.acknowledged + 1 + self._window)
        if end <= self._to_send:
            return []
        due = [self._records[sequence - self._first] for sequence in range(self._to_send, end)]
        self._to_send = end
        return due
