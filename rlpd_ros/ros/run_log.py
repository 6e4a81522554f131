# SPDX-License-Identifier: Apache-2.0
"""The log of a run: what is to be remembered of it, for how long, and what it survives."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rlpd_ros.data.episodes import MAX_SESSIONS
from rlpd_ros.data.ledger import Account
from rlpd_ros.errors import DataError
from rlpd_ros.ros.bag_files import FORMATS, MOVE_AWAY, segments_of
from rlpd_ros.ros.bag_log import Tally, TransitionLog
from rlpd_ros.ros.bag_reader import Bag
from rlpd_ros.runs import write_atomically
from rlpd_ros.settings import LogConfig
from rlpd_ros.types import SpaceSpec, TransitionRecord
from rlpd_ros.untrusted import parse_json, printable, read_text

DELETED = "deleted.json"  # what deleted files held, by session


class RunLog:
    """A ``TransitionLog`` that is restored from, synchronised as ``config`` says, and kept from growing for ever.

    A file is deleted when the files after it hold more than ``capacity`` complete transitions, so that they fill the
    online buffer without it. One with interventions stays, and one that completes them: they are demonstrations. What
    deleted files held is still known by its numbers: ``accounts``. What the death of an earlier life, or of its
    machine, left unreadable is told in ``lost``, for people.
    """

    def __init__(self, path: Path, spec: SpaceSpec, config: LogConfig, capacity: int,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.accounts: dict[str, Account] = {}
        self.lost: list[str] = []
        self._spec = spec
        self._config = config
        self._capacity = capacity
        self._clock = clock
        self._log = TransitionLog(path, spec, int(1e6 * config.log_file_size), durable=config.log_sync != "never")
        self._restored: dict[str, Tally] = {}  # of earlier lives, by file name
        self._open = Tally()  # of the file that is being written
        self._places: dict[str, tuple[int, int]] = {}  # session -> episode and step of its last transition
        self._looked_at = 0  # complete files, when deletion was last considered
        self._synchronised_at = clock()

    def restore(self) -> Iterator[TransitionRecord]:
        """Yield what earlier lives left, in order, and fill ``accounts`` and ``lost``. Raises DataError."""
        if not self.path.exists():
            return
        self._read_accounts()
        files = segments_of(self.path)
        for file in files:
            self._judge_end(file, newest=file == files[-1])
            tally = Tally()
            for record in Bag(file, partial=True).records(self._spec):
                tally.add(record, self._completed_by(record))
                yield record
            if tally.stored:  # an empty one is deleted, and its name given again
                self._restored[file.name] = tally

    def _judge_end(self, file: Path, newest: bool) -> None:
        """Note in ``lost`` what a file lacks at its end. Raises DataError if that cannot be left out in silence."""
        source = FORMATS[file.suffix](file, partial=True)
        lost, size = source.lost(), file.stat().st_size
        if source.torn and not newest:  # what follows it was written later, so it was whole once
            raise DataError(f"{file}: damaged at byte {source.cut_at}: {source.torn}; {MOVE_AWAY}")
        if source.cut_at == 0:
            self.lost.append(f"{file}: nothing of it reached the disk: going on without it")
        elif lost:
            self.lost.append(f"{file}: going on without the last {lost} of its {size} bytes, which were not written as "
                             f"a whole{source.torn and ': '}{source.torn}")

    def write(self, record: TransitionRecord) -> None:
        """Add a record; it is safe after the next ``flush``."""
        completed = self._completed_by(record)
        self._open = self._log.write(record)
        self._open.add(record, completed)

    def flush(self) -> None:
        """Return when all that was written is as safe as it shall be. Raises DataError if it cannot be written."""
        config, now = self._config, self._clock()
        due = config.log_sync == "period" and now - self._synchronised_at >= config.log_sync_period
        self._log.flush(sync=due or config.log_sync == "always")
        if due:
            self._synchronised_at = now
        finished = self._log.finished
        if len(finished) > self._looked_at and not config.log_everything:
            with contextlib.suppress(OSError):  # then at the end of the next file
                self._delete_what_is_not_needed(finished)
        self._looked_at = len(self._log.finished)

    def close(self) -> None:
        """Complete the log. Raises DataError like ``flush``."""
        self._log.close()

    def _completed_by(self, record: TransitionRecord) -> int:
        """Return how many transitions a buffer gets by this record, at least (see ``TransitionAssembler``)."""
        before = self._places.pop(record.session, None)
        if not record.last:
            self._places[record.session] = record.episode, record.step
        return (before == (record.episode, record.step - 1)) + record.last

    def _delete_what_is_not_needed(self, finished: dict[str, Tally]) -> None:
        needed = self._capacity + MAX_SESSIONS  # so many may have been waiting for what a deleted file completes
        later = 0 if any(tally is self._open for tally in finished.values()) else self._open.complete
        tallies = {name: self._restored.get(name, tally) for name, tally in finished.items()}
        completing = _completing(tallies)
        unneeded = []
        for name, tally in reversed(tallies.items()):
            if later >= needed and not tally.interventions and name not in completing:
                unneeded.append((name, tally))
            later += tally.complete
        for name, tally in reversed(unneeded):
            accounts = dict(self.accounts)
            for session, stored in tally.stored.items():
                before = accounts.get(session, Account())
                accounts[session] = Account(max(before.sequence, tally.last[session]), before.stored + stored)
            self._write_accounts(accounts, name)
            self._log.delete(name)
            self.accounts = accounts

    def _write_accounts(self, accounts: dict[str, Account], deleting: str) -> None:
        sessions = {name: [account.sequence, account.stored] for name, account in accounts.items()}
        write_atomically(self.path / DELETED, json.dumps({"deleting": deleting, "sessions": sessions}))

    def _read_accounts(self) -> None:
        path = self.path / DELETED
        if not path.exists():
            return
        try:
            content = parse_json(read_text(path))
            self.accounts = {str(name): Account(int(sequence), int(stored))
                             for name, (sequence, stored) in content["sessions"].items()}
            deleting = self.path / Path(content["deleting"]).name
            if deleting.suffix == ".mcap":
                deleting.unlink(missing_ok=True)  # the process died before it could
        except (DataError, OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: expected what deleted files of the log held, found something else: "
                            f"{printable(error)}") from error


def _completing(tallies: dict[str, Tally]) -> set[str]:
    """Return the files, of those given from the oldest to the newest, that complete an intervention of one before."""
    waiting: set[str] = set()
    found = set()
    for name, tally in tallies.items():
        completed = waiting & tally.stored.keys()
        found |= {name} if completed else set()
        waiting = (waiting - completed) | tally.waiting
    return found
