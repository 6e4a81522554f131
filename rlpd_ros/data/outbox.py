# SPDX-License-Identifier: Apache-2.0
"""What a sender keeps until the learner has it on disk, and when to send it again."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace

from rlpd_ros.data.spool import Spool
from rlpd_ros.types import WINDOW, Acknowledgement, TransitionRecord

FIRST_WINDOW = WINDOW // 5


class Outbox:
    """Hold the records of one session, numbered from 1, until they are acknowledged.

    ``due(now)`` hands out what is to be sent: new records at once, and everything that is unacknowledged again after
    ``resend_period`` seconds without progress or when another learner answers. At most ``window`` records are under
    way, and no more than the last receipt allows, so that no middleware queue overflows, and nothing is sent again that
    only waits its turn there. With ``keep`` acknowledged records stay, for a learner that lost them
    (demonstrations: the loader is their only source).

    With a ``spool`` every record goes to disk once more than ``spool_beyond`` are unacknowledged, and memory holds only
    those that are to be sent soon. What an earlier life left in it is held from the beginning. At most ``memory``
    records that are not on disk are held; further ones are refused and counted in ``lost``.
    """

    def __init__(self, resend_period: float = 1.0, window: int = WINDOW, keep: bool = False,
                 memory: int = sys.maxsize, spool: Spool | None = None, spool_beyond: int = 0) -> None:
        self._resend_period = resend_period
        self._most = window
        self._window = min(window, FIRST_WINDOW)
        self._keep = keep
        self._memory = memory
        self._spool = spool
        self._spool_beyond = min(spool_beyond, memory // 2)
        self._records: dict[int, TransitionRecord] = {}  # by sequence
        self._first = max(1, spool.first) if spool else 1  # the oldest record held
        self._next = max(1, spool.written + 1) if spool else 1  # sequence that the next record added must have
        self._spooled = self._next - 1  # the highest one given to the spool
        self._to_send = self._first  # the next one to hand out
        self._tidied = self._first - 1  # up to there memory holds no more than it should
        self._progress_at = 0.0
        self._learner = ""
        self.sent = self._first - 1  # the highest sequence handed out
        self.resent = 0
        self.lost = 0
        self.acknowledged = self._first - 1
        self.budget = 0
        if spool is not None:
            spool.forget(self.acknowledged)

    @property
    def next_sequence(self) -> int:
        return self._next

    @property
    def unacknowledged(self) -> int:
        return self._next - 1 - self.acknowledged

    @property
    def in_memory(self) -> int:
        return len(self._records)

    def add(self, record: TransitionRecord) -> None:
        """Take the next record, unless there is no room for it: then its sequence is left to the next one."""
        assert record.sequence == self._next
        safe = max(self.acknowledged, self._spool.written if self._spool else 0)
        if self._next - 1 - safe >= self._memory:
            self.lost += 1
            return
        self._records[self._next] = record
        self._next += 1
        self._bring_to_disk(self._spool_beyond)

    def is_foreign(self, ack: Acknowledgement) -> bool:
        """Tell whether a learner lacks records that are gone from here because an earlier learner had them.

        Receipts are not latched: an old one would look like such a learner to the next life of an actor.
        """
        return ack.learner_session != self._learner and ack.sequence + 1 < self._first

    def renumber(self, session: str) -> None:
        """Begin again as ``session`` with the records held: their sequence starts from 1. Raises OSError."""
        shift = self._first - 1
        if self._spool is not None:
            self._spool.renumber(session, shift)
        self._records = {sequence - shift: replace(record, session=session, sequence=sequence - shift)
                         for sequence, record in self._records.items()}
        self._next -= shift
        self._spooled = max(0, self._spooled - shift)
        self._tidied = max(0, self._tidied - shift)
        self._first = self._to_send = 1
        self.sent = self.acknowledged = self.budget = 0
        self._learner = ""

    def acknowledge(self, ack: Acknowledgement, now: float) -> None:
        """Take the learner's receipt: forget what is on its disk, start over for a learner that has less."""
        new_learner = ack.learner_session != self._learner
        self._learner = ack.learner_session
        self.budget = ack.budget
        self._window = max(1, min(ack.window, self._most))
        if new_learner or ack.sequence > self.acknowledged:
            self._progress_at = now
        # Never beyond what was produced: a receipt for another life of this session proves nothing about this one.
        self.acknowledged = min(ack.sequence if new_learner else max(ack.sequence, self.acknowledged), self._next - 1)
        self._to_send = self.acknowledged + 1 if new_learner else max(self._to_send, self.acknowledged + 1)
        if self._keep:
            return
        for sequence in range(self._first, self.acknowledged + 1):
            self._records.pop(sequence, None)
        self._first = max(self._first, self.acknowledged + 1)
        if self._spool is not None:
            self._spool.forget(self.acknowledged)

    def due(self, now: float) -> Iterable[TransitionRecord]:
        """Return what to send at ``now`` (s, monotonic), oldest first, and consider it sent."""
        if self._to_send <= self.acknowledged + 1:
            self._progress_at = now  # nothing is under way, so nothing can be late
        elif now - self._progress_at > self._resend_period:
            self._progress_at = now
            self._to_send = self.acknowledged + 1
        self._bring_to_memory()
        due = []
        end = min(self._next, self.acknowledged + 1 + self._window)
        while self._to_send < end and self._to_send in self._records:
            due.append(self._records[self._to_send])
            self.resent += self._to_send <= self.sent
            self._to_send += 1
        self.sent = max(self.sent, self._to_send - 1)
        return due

    # The disk

    @property
    def _soon(self) -> int:
        """Return up to where records are kept in memory although they are on disk: they are to be sent soon."""
        return self.acknowledged + 2 * self._most

    def _bring_to_disk(self, beyond: int) -> None:
        spool = self._spool
        if spool is None:
            return
        if self.unacknowledged > beyond:
            for sequence in range(max(self._spooled, self.acknowledged) + 1, self._next):
                spool.put(self._records[sequence])
            self._spooled = self._next - 1
        for sequence in range(max(self._tidied, self._soon) + 1, spool.written + 1):
            self._records.pop(sequence, None)
            self._tidied = sequence

    def _bring_to_memory(self) -> None:
        spool = self._spool
        if spool is None:
            return
        self._records |= {sequence: record for sequence, record in spool.take().items() if sequence >= self._first}
        missing = max(self._to_send, self._first)
        end = min(self._next, self._soon + 1)
        while missing < end and missing in self._records:
            missing += 1
        if missing < end:
            spool.fetch(range(missing, end))

    def close(self, timeout: float = 2.0) -> bool:
        """Bring everything to disk if there is one, within ``timeout`` s; return whether nothing is lost."""
        if self._spool is None:
            return not self.unacknowledged
        self._bring_to_disk(0)
        return self._spool.close(timeout)
