# SPDX-License-Identifier: Apache-2.0
"""What a learner answers to those that send it transitions: what it has on disk, and how far they may go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rlpd_ros.data.intake import Intake
from rlpd_ros.data.ledger import Account
from rlpd_ros.errors import DataError
from rlpd_ros.status import LearnerReport
from rlpd_ros.types import WINDOW, Acknowledgement

UNLIMITED = 2**63 - 1
LATELY = 2.0  # s
STORE_WARNING = 10.0  # s between two warnings that nothing can be stored


class ReceiptOutputs(Protocol):
    """What receipts do to the world."""

    def acknowledge(self, ack: Acknowledgement) -> None: ...
    def flush(self) -> None: ...  # returns when all that was stored survives the death of this process, or DataError
    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...


class Receipts:
    """Answer whom ``intake`` owes a receipt, through ``out``, once what came is durable.

    In ``lockstep`` a receipt releases training steps: ``starts`` until training begins, then one for each gradient
    step, and ``ahead`` beforehand. All who send share ``WINDOW``: of more, some would be lost in full queues, the rest
    sent again for waiting there too long, until little else is sent. ``report`` says how far training is. ``clock``
    returns seconds, monotonic.
    """

    def __init__(self, intake: Intake, report: LearnerReport, out: ReceiptOutputs, session: str, lockstep: bool,
                 starts: int, ahead: int, clock: Callable[[], float]) -> None:
        self._intake = intake
        self._report = report
        self._out = out
        self._session = session
        self._lockstep = lockstep
        self._starts = starts
        self._ahead = ahead
        self._clock = clock
        self._warned_at = -STORE_WARNING
        self._owed_at: dict[str, float] = {}  # session -> when it was owed a receipt last

    def send(self, actors: int) -> None:
        """Make what came in durable, then acknowledge it; what is released is shared by so many living actors."""
        owed = self._intake.to_acknowledge
        if not owed or not self._flush():
            return
        window = max(1, WINDOW // max(actors, self._senders()))
        for session in owed:
            account = self._intake.ledger[session]
            self._out.acknowledge(Acknowledgement(
                session=session, learner_session=self._session, sequence=account.sequence,
                budget=account.sequence + self._budget(account, actors), env_steps=self._report.env_steps,
                stored=account.stored, duplicates=account.duplicates, rejected=account.rejected, text=account.text,
                window=window))
        owed.clear()

    def _senders(self) -> int:
        """Return how many are or were owed a receipt lately."""
        now = self._clock()
        self._owed_at |= dict.fromkeys(self._intake.to_acknowledge, now)
        self._owed_at = {session: at for session, at in self._owed_at.items() if now - at < LATELY}
        return len(self._owed_at)

    def _flush(self) -> bool:
        report = self._report
        try:
            self._out.flush()
        except DataError as error:
            report.store_error = str(error)
            if self._clock() - self._warned_at >= STORE_WARNING:
                self._warned_at = self._clock()
                self._out.warn(f"{error}. Nothing is acknowledged until it can be: actors keep their transitions")
            return False
        if report.store_error:
            report.store_error = ""
            self._out.say("transitions can be stored again: nothing was lost")
        return True

    def _budget(self, account: Account, actors: int) -> int:
        """Return how many training steps a session may take from here, so that training keeps up."""
        if not self._lockstep:
            return UNLIMITED - account.sequence
        report, stored = self._report, self._intake.stored
        starts_at = self._starts
        if stored < starts_at:  # steps that became no transition, such as one before a gap, are made up for
            starts_at += max(0, report.env_steps - stored)
        report.env_step_budget = starts_at + report.gradient_step + self._ahead
        remaining = max(0, report.env_step_budget - report.env_steps)
        return -(-remaining // max(1, actors))  # rounded up: nobody waits for ever for a share of less than one
