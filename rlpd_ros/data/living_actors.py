# SPDX-License-Identifier: Apache-2.0
"""The actors that live, as a learner knows them by their statuses."""

from __future__ import annotations

import math

from rlpd_ros.data.ledger import Ledger
from rlpd_ros.errors import DataError
from rlpd_ros.status import ActorReport, ActorState, LearnerReport
from rlpd_ros.untrusted import expect_name

ALIVE = 3.0  # s after which an actor that says nothing is not counted any more
AWAITED = 600.0  # s after which the outcome of an evaluation is not waited for: an actor may lose its network
MAX_ACTORS = 256  # that may live at a time: bounds what strangers can claim
HIGHEST = 2**32 - 1  # version of an actor that the status can tell, whatever an actor claims


class LivingActors:
    """The last report of each actor, for as long as it goes on reporting. All times are in s, monotonic."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[ActorReport, float]] = {}  # and when it came

    def hear(self, actor: ActorReport, now: float) -> ActorReport | None:
        """Take an actor's status; return the one before, if this is not its first.

        Raises DataError if it has no proper name, or if there are too many actors.
        """
        before = self._heard.get(actor.session)
        if before is None:
            expect_name("session", actor.session)
            self._forget(now, AWAITED)
            if len(self._heard) >= MAX_ACTORS:
                self._forget(now, ALIVE)
            if len(self._heard) >= MAX_ACTORS:
                raise DataError(f"session {actor.session}: more than {MAX_ACTORS} actors at a time")
        self._heard[actor.session] = (actor, now)
        return before and before[0]

    def at(self, now: float) -> dict[str, ActorReport]:
        """Return the reports of those that live, by session."""
        return {session: report for session, (report, at) in self._heard.items() if now - at < ALIVE}

    def versions_in_use(self, now: float) -> set[int]:
        """Return the versions that those who live act on, and those of evaluations whose end may yet be told."""
        return {report.applied_version for report, at in self._heard.values()
                if now - at < (AWAITED if report.state == ActorState.EVALUATING else ALIVE)}

    def _forget(self, now: float, silence: float) -> None:
        self._heard = {session: heard for session, heard in self._heard.items() if now - heard[1] < silence}

    def count(self, report: LearnerReport, ledger: Ledger, now: float) -> None:
        """Write into ``report`` what the learner has of each that lives, and what each acts on."""
        actors = self.at(now)
        report.actors = sorted(actors)
        accounts = [ledger[session] for session in report.actors]
        report.actors_stored = [account.stored for account in accounts]
        report.actors_duplicate = [account.duplicates for account in accounts]
        report.actors_rejected = [account.rejected for account in accounts]
        report.actors_version = [min(actors[session].applied_version, HIGHEST) for session in report.actors]
        report.actors_data_age = [now - account.stored_at if math.isfinite(account.stored_at) else -1.0
                                  for account in accounts]
