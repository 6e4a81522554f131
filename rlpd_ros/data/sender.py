# SPDX-License-Identifier: Apache-2.0
"""All that an actor owes the learner: the transitions of its own session, and what earlier lives left on its disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rlpd_ros.data.outbox import Outbox
from rlpd_ros.data.spool import Spool
from rlpd_ros.errors import DataError
from rlpd_ros.status import ActorReport
from rlpd_ros.types import Acknowledgement, TransitionRecord, new_session


class Sender:
    """The outbox of ``session``, and one at a time those of the sessions that are ``left`` on disk, oldest first.

    ``open_spool`` opens the spool of a session; without it everything is held in memory, at most ``memory``
    transitions. ``warn`` is told what is wrong. The others are those of ``Outbox``.
    """

    def __init__(self, session: str, resend_period: float, memory: int, warn: Callable[[str], None],
                 open_spool: Callable[[str], Spool] | None = None, left: Sequence[str] = (),
                 spool_beyond: int = 0) -> None:
        self.session = session
        self._resend_period = resend_period
        self._warn = warn
        self._open_spool = open_spool
        self._left = list(left)
        self._earlier: tuple[str, Outbox, Spool] | None = None  # the one that is being sent
        self._spool = open_spool(session) if open_spool else None
        self._outbox = Outbox(resend_period, memory=memory, spool=self._spool, spool_beyond=spool_beyond)
        self._resent = 0  # by outboxes that are gone
        self._warned = ""

    @property
    def next_sequence(self) -> int:
        return self._outbox.next_sequence

    @property
    def budget(self) -> int:
        return self._outbox.budget

    def add(self, record: TransitionRecord) -> None:
        """Take the next transition of this session."""
        self._outbox.add(record)

    def has(self, session: str) -> bool:
        """Tell whether transitions of ``session`` are sent from here now."""
        return session == self.session or (self._earlier is not None and session == self._earlier[0])

    def acknowledge(self, ack: Acknowledgement, now: float) -> bool:
        """Take the learner's receipt; return whether it is for this session.

        Raises DataError for a receipt of this session for what was never sent.
        """
        if ack.session == self.session:
            if ack.sequence >= self._outbox.next_sequence:
                raise DataError(f"sequence: expected at most {self._outbox.next_sequence - 1}, what there is of "
                                f"{self.session}, found {ack.sequence}")
            if self._outbox.is_foreign(ack):
                self.session = self._renumber(self._outbox, self.session, ack)
            else:
                self._outbox.acknowledge(ack, now)
            return True
        if self._earlier is not None and ack.session == self._earlier[0]:
            session, outbox, spool = self._earlier
            if outbox.is_foreign(ack):
                self._earlier = self._renumber(outbox, session, ack), outbox, spool
            else:
                outbox.acknowledge(ack, now)
        return False

    def _renumber(self, outbox: Outbox, session: str, ack: Acknowledgement) -> str:
        try:
            outbox.renumber(fresh := new_session(session.rpartition("-")[0]))
        except OSError as error:
            self._warn(f"cannot rename the spool of {session}: {error.strerror}")
            return session
        self._warn(f"another learner ({ack.learner_session}) lacks transitions that an earlier one had on disk: those "
                   f"stay in the earlier run; going on as {fresh}")
        return fresh

    def due(self, now: float) -> Iterator[TransitionRecord]:
        """Yield what to send at ``now``: of this session first."""
        yield from self._outbox.due(now)
        if self._earlier is None and self._left and self._open_spool is not None:
            session = self._left.pop(0)
            spool = self._open_spool(session)
            self._earlier = session, Outbox(self._resend_period, spool=spool), spool
        if self._earlier is not None:
            _, outbox, spool = self._earlier
            yield from outbox.due(now)
            if spool.damage:
                self._warn(f"an earlier session is left on disk: {spool.damage}")
            if spool.damage or not outbox.unacknowledged:
                spool.retire()
                self._resent += outbox.resent
                self._earlier = None

    def fill(self, report: ActorReport) -> None:
        """Bring the counts in a status up to date, and warn of a disk that is full or damaged."""
        outboxes = [self._outbox] + ([self._earlier[1]] if self._earlier else [])
        spools = [spool for spool in (self._spool, self._earlier and self._earlier[2]) if spool is not None]
        report.transitions_sent = self._outbox.sent
        report.transitions_acked = self._outbox.acknowledged
        report.transitions_unacked = sum(outbox.unacknowledged for outbox in outboxes)
        report.transitions_in_memory = sum(outbox.in_memory for outbox in outboxes)
        report.transitions_spooled = sum(spool.stored for spool in spools)
        report.transitions_resent = self._resent + sum(outbox.resent for outbox in outboxes)
        report.transitions_lost = self._outbox.lost
        report.spool_error = next((text for spool in spools for text in (spool.error, spool.damage) if text), "")
        if report.spool_error and report.spool_error != self._warned:
            self._warn(f"{report.spool_error}. Control goes on; transitions stay in memory as far as there is room")
        self._warned = report.spool_error

    def close(self) -> bool:
        """Bring everything to disk if there is one; return whether nothing is lost."""
        if self._earlier is not None:
            self._earlier[2].retire()
        return self._outbox.close()
