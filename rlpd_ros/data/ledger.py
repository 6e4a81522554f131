# SPDX-License-Identifier: Apache-2.0
"""What a receiver knows of each sender: how far its transitions are stored without a gap, and what became of others."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlpd_ros.errors import DataError
from rlpd_ros.untrusted import expect_name

MAX_SESSIONS = 10_000  # bounds the memory that a stranger can claim


@dataclass
class Account:
    """One session. Nothing up to and including ``sequence`` is missing: it was stored, or refused for good."""

    sequence: int = 0
    stored: int = 0
    duplicates: int = 0
    rejected: int = 0
    text: str = ""  # the last refusal
    stored_at: float = -math.inf  # s, the clock of who keeps the ledger
    place: tuple[int, int] = (0, 0)  # episode and step of the last one

    def move_to(self, episode: int, step: int) -> None:
        """Note where the session is now. Raises DataError if that is not after where it was: one such step is lost."""
        before, self.place = self.place, (episode, step)
        if self.place <= before:
            raise DataError(f"step: expected one after step {before[1]} of episode {before[0]}, found step {step} of "
                            f"episode {episode}")


class Ledger:
    """The accounts of all sessions. Only the next transition in order is ever taken.

    A sender that hears no receipt sends again from the last one acknowledged, in order, so taking nothing out of order
    loses nothing, and episodes reach the buffers whole.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def __getitem__(self, session: str) -> Account:
        """Return the account of a session, an empty one if nothing came from it yet."""
        return self._accounts.get(session) or Account()

    def open(self, session: str) -> Account:
        """Return the account of a session, to be changed. Raises DataError if it cannot have one."""
        if session not in self._accounts:
            expect_name("session", session)
            if len(self._accounts) >= MAX_SESSIONS:
                self._make_room(session)
            self._accounts[session] = Account()
        return self._accounts[session]

    def _make_room(self, session: str) -> None:
        """Forget a session of which nothing was ever taken: strangers must not keep others out."""
        empty = next((name for name, account in self._accounts.items() if account.sequence == 0), None)
        if empty is None:
            raise DataError(f"session {session}: more than {MAX_SESSIONS} sessions in one run; start a new run")
        del self._accounts[empty]

    def restore(self, session: str, sequence: int, stored: int = 1, place: tuple[int, int] = (0, 0)) -> None:
        """Note transitions up to ``sequence`` that an earlier life stored; what it lacks below it had refused."""
        account = self.open(session)
        account.sequence = max(account.sequence, sequence)
        account.stored += stored
        account.place = max(account.place, place)
