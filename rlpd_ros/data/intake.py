# SPDX-License-Identifier: Apache-2.0
"""How transitions get in: each once, in order, checked, into the log and the buffers; and what is still missing."""

from __future__ import annotations

from collections.abc import Callable

from rlpd_ros.data.episodes import TransitionAssembler, validate
from rlpd_ros.data.ledger import Account, Ledger
from rlpd_ros.data.replay_buffer import ReplayBuffer
from rlpd_ros.errors import DataError
from rlpd_ros.status import LearnerReport
from rlpd_ros.types import Source, SpaceSpec, Transition, TransitionRecord
from rlpd_ros.untrusted import printable

MAX_MANIFESTS = 16  # sets of demonstrations that a run waits for


class Intake:
    """Take what actors and demonstrations bring into the buffers ``online`` and ``demos``.

    ``report`` is kept up to date. ``store`` is called with each transition of an actor, ``warn`` with what is wrong.
    ``to_acknowledge`` collects the sessions that are owed a receipt; ``ledger`` holds what the receipt says.
    """

    def __init__(self, spec: SpaceSpec, online: ReplayBuffer, demos: ReplayBuffer, report: LearnerReport,
                 store: Callable[[TransitionRecord], None], warn: Callable[[str], None],
                 clock: Callable[[], float]) -> None:
        self.ledger = Ledger()
        self.to_acknowledge: set[str] = set()
        self.received_at: float | None = None  # the last new transition of an actor
        self._spec = spec
        self._online = online
        self._demos = demos
        self._report = report
        self._store = store
        self._warn = warn
        self._clock = clock
        self._assembler = TransitionAssembler()
        self._expected: dict[str, int] = {}  # demonstration transitions by session
        self._demo_error = ""
        self._demonstrated = 0  # transitions that demonstrations made
        self._had_room = True  # for all of those, when the last of them came
        self._warned_of_room = False
        self._strangers = 0  # transitions of sessions that can have no account

    # Transitions

    @property
    def stored(self) -> int:
        """Return how many transitions the online buffer has, those included whose features are still to come."""
        return self._online.stored

    def receive(self, record: TransitionRecord) -> None:
        """Take one transition of an actor: check it, store it, or count why not."""
        if self._admit(record):
            self._store(record)
            self._take(record)
            self.received_at = self.ledger.open(record.session).stored_at = self._clock()

    def receive_demonstration(self, record: TransitionRecord) -> None:
        """Take one transition of a demonstration. Demonstrations are not logged: they are in their bag."""
        if self._admit(record):
            for transition in self._assembler.add(record):
                self._insert_demonstration(transition)
                self._demonstrated += 1
            self._had_room = self._demos.stored >= self._demonstrated  # interventions may push them out later

    def restore(self, record: TransitionRecord) -> None:
        """Take one transition out of the log of an earlier life of this run."""
        self.ledger.restore(record.session, record.sequence, place=(record.episode, record.step))
        self._take(record)

    def restore_deleted(self, session: str, account: Account) -> None:
        """Note what a session had in files of the log that have been deleted since."""
        self.ledger.restore(session, account.sequence, account.stored)
        self._report.env_steps += account.stored

    def refuse(self, session: str, sequence: int, space_fingerprint: str, error: DataError) -> None:
        """Take a message that cannot even be read as a transition."""
        account = self._next_of(session, sequence)
        if account is not None:
            self._reject(account, session, sequence, space_fingerprint, error)

    def _take(self, record: TransitionRecord) -> None:
        self._report.env_steps += 1
        self._report.reward_seen = max(self._report.reward_seen, record.reward)
        self._report.reward_lowest = min(self._report.reward_lowest, record.reward)
        for transition in self._assembler.add(record):
            self._online.insert(transition)
            if transition.source is Source.INTERVENTION:  # is a demonstration as well (HIL-SERL, section III)
                self._insert_demonstration(transition)

    def _insert_demonstration(self, transition: Transition) -> None:
        before = self._demos.stored
        self._demos.insert(transition)
        if self._demos.stored <= before and not self._warned_of_room:
            self._warned_of_room = True
            self._warn(f"demo_buffer_capacity {self._demos.capacity}: the buffer is full: from now on the oldest "
                       "demonstrations make room for new ones and for interventions; raise it to keep them")

    def _admit(self, record: TransitionRecord) -> bool:
        account = self._next_of(record.session, record.sequence)
        if account is None:
            return False
        try:
            validate(record, self._spec)
            account.move_to(record.episode, record.step)
        except DataError as error:
            self._reject(account, record.session, record.sequence, record.space_fingerprint, error)
            return False
        account.sequence += 1
        account.stored += 1
        self._report.transitions_stored += 1
        return True

    def _next_of(self, session: str, sequence: int) -> Account | None:
        """Return the account of a session if ``sequence`` is its next one; count it as what it is otherwise."""
        report = self._report
        report.transitions_received += 1
        try:
            account = self.ledger.open(session)
        except DataError as error:
            report.transitions_rejected += 1
            self._strangers += 1
            self._warn_of_refusal(self._strangers, str(error))
            return None
        self.to_acknowledge.add(session)
        if sequence <= account.sequence:
            report.transitions_duplicate += 1
            account.duplicates += 1
            return None
        if sequence > account.sequence + 1:
            report.gaps += 1  # the sender repeats from the last receipt on
            return None
        return account

    def _reject(self, account: Account, session: str, sequence: int, space_fingerprint: str, error: DataError) -> None:
        self._report.transitions_rejected += 1
        account.rejected += 1
        account.text = printable(f"transition {sequence}: {error}")
        self._warn_of_refusal(account.rejected, f"{session}: {account.text}")
        if space_fingerprint == self._spec.fingerprint:
            # It will not get better by being sent again, and must not hold up what follows. One of another space
            # stays with its sender: the fault may be on this side.
            account.sequence += 1

    def _warn_of_refusal(self, count: int, text: str) -> None:
        if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
            self._warn(f"refused (refusal {count}): {text}")

    # Demonstrations

    def expect_demonstrations(self, session: str, total: int, error: str = "") -> None:
        """Take the demo loader's count of what it will send under ``session``, or why it cannot send any.

        Raises DataError if there have been too many.
        """
        if len(self._expected) >= MAX_MANIFESTS and not error and session not in self._expected:
            raise DataError(f"session {session}: more than {MAX_MANIFESTS} sets of demonstrations in one run")
        self._demo_error = self._report.demo_error = error
        if not error:
            self._expected[session] = total
            self.to_acknowledge.add(session)

    @property
    def announced(self) -> bool:
        """Tell whether a demo loader has said what it will send, or why it cannot."""
        return bool(self._expected or self._demo_error)

    def incomplete_loaders(self) -> list[str]:
        """Return the sessions of demo loaders from which something is still to come."""
        return [session for session, total in self._expected.items() if self.ledger[session].stored < total]

    @property
    def demonstrations_expected(self) -> int:
        return sum(self._expected.values())

    def lacking_demonstrations(self) -> str:
        """Return which demonstrations are still to come, and why; "" if all are here."""
        accounts = [self.ledger[session] for session in self._expected]
        stored, expected = sum(account.stored for account in accounts), self.demonstrations_expected
        if accounts and stored == expected:
            incomplete = sum(self._assembler.incomplete(session) for session in self._expected)
            if incomplete:
                return (f"{incomplete} of the {expected} demonstration transitions cannot be completed: expected the "
                        "next one of the same episode after each, or its end; use the demo loader of this version")
            if not self._had_room:
                return (f"demo_buffer_capacity {self._demos.capacity}: expected room for the {self._demonstrated} "
                        "transitions that the demonstrations make, and the first of them are gone: raise it")
            return "" if len(self._demos) or self._demos.waiting else "the demonstrations hold no complete transition"
        if self._demo_error:
            return f"the demo loader found a fault: {self._demo_error}"
        if not accounts:
            return "no manifest from a demo loader yet: start it with demo_path, or set require_demonstrations false"
        refusals = "".join(f"; refused {account.text}" for account in accounts if account.text)
        return f"received {stored} of {expected} demonstration transitions{refusals}"
