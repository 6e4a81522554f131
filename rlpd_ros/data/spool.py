# SPDX-License-Identifier: Apache-2.0
"""The disk behind an outbox, with a thread of its own: nobody who controls an arm ever waits for a disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from rlpd_ros.data.spool_files import SpoolFiles
from rlpd_ros.errors import DataError
from rlpd_ros.types import TransitionRecord

RETRY = 0.5  # s after which what could not be written is tried again
NOTHING = range(0)


class Spool:
    """Write the records of one session to ``files`` and read them back, in the background.

    ``encode`` and ``decode`` turn a record into bytes and back; the latter raises DataError for what is none.
    ``first`` is the lowest sequence that was found on disk, ``written`` the highest one there by now, ``error`` what is
    wrong with the disk ("" nothing), ``damage`` why a record on it cannot be read.
    """

    def __init__(self, files: SpoolFiles, encode: Callable[[TransitionRecord], bytes],
                 decode: Callable[[bytes], TransitionRecord]) -> None:
        self.first = files.first
        self.written = files.end - 1
        self.error = ""
        self.damage = ""
        self._files = files
        self._encode = encode
        self._decode = decode
        self._waiting: deque[TransitionRecord] = deque()  # to be written, in order
        self._forgotten = self.first - 1  # the highest sequence that is not wanted any more
        self._wanted = NOTHING
        self._fetched: dict[int, TransitionRecord] = {}
        self._done = threading.Condition()  # held for one access to the disk at a time
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def stored(self) -> int:
        """Return how many records on disk are still wanted."""
        return max(0, self.written - self._forgotten)

    def put(self, record: TransitionRecord) -> None:
        """Have a record written."""
        self._waiting.append(record)
        self._work()

    def forget(self, sequence: int) -> None:
        """Let everything up to ``sequence`` go."""
        if sequence > self._forgotten:
            idle = self.written <= self._forgotten and not self._waiting
            self._forgotten = sequence
            if not idle:
                self._work()

    def fetch(self, wanted: range) -> None:
        """Have records read; ``take`` hands out what has come of them."""
        if wanted != self._wanted and not self.damage:
            self._wanted = wanted
            self._work()

    def take(self) -> dict[int, TransitionRecord]:
        """Return the records that were read since the last time, by sequence."""
        if not self._fetched:
            return {}
        taken, self._fetched = self._fetched, {}
        return taken

    def renumber(self, session: str, shift: int) -> None:
        """Go on as ``session``, with sequences that are ``shift`` lower. Raises OSError; waits for the disk, once."""
        with self._done:
            self._files.renumber(session, shift)
            self._waiting = deque(_numbered(record, session, record.sequence - shift) for record in self._waiting)
            self._forgotten -= shift
            self.written -= shift
            self._wanted, self._fetched = NOTHING, {}

    def flush(self, timeout: float) -> bool:
        """Wait, at most ``timeout`` s, until everything is written and forgotten; return whether it is."""
        with self._done:
            return self._done.wait_for(self._is_idle, timeout)

    def _is_idle(self) -> bool:
        return not self._waiting and not self._files.forgettable(self._forgotten)

    def retire(self) -> None:
        """End once everything is written and forgotten that can be, without waiting for it."""
        self._closing = True
        self._work()

    def close(self, timeout: float) -> bool:
        """End, and wait at most ``timeout`` s for it; return whether everything was written."""
        complete = self.flush(timeout)
        self.retire()
        assert self._thread is not None
        self._thread.join(timeout)
        return complete

    def _work(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
            self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        last_round = False
        while not last_round:
            self._wake.wait(RETRY if self.error else None)
            self._wake.clear()
            last_round = self._closing
            try:
                while self._step():
                    self.error = ""
            except OSError as error:
                self.error = f"{self._files.folder}: cannot keep transitions on disk: {error.strerror}"
        self._files.close()

    def _step(self) -> bool:
        """Do the next thing that there is to do; return whether there was any."""
        with self._done:
            try:
                if self._files.forgettable(self._forgotten):
                    self._files.forget(self._forgotten)
                elif self._wanted:
                    self._read()
                elif self._waiting:
                    self._write()
                else:
                    return False
                return True
            finally:
                self._done.notify_all()

    def _write(self) -> None:
        record = self._waiting[0]
        if record.sequence > self._forgotten:
            self._files.append(record.sequence, self._encode(record))
            self.written = record.sequence
        self._waiting.popleft()

    def _read(self) -> None:
        wanted = self._wanted
        sequence, rest = wanted[0], wanted[1:]
        if sequence > self.written:
            rest = NOTHING
        elif sequence > self._forgotten:
            try:
                record = self._decode(self._files.read(sequence))
            except DataError as error:
                self.damage, rest = f"{self._files.folder}: {error}", NOTHING
            else:
                self._fetched[sequence] = _numbered(record, self._files.session, sequence)
        if self._wanted is wanted:
            self._wanted = rest


def _numbered(record: TransitionRecord, session: str, sequence: int) -> TransitionRecord:
    return replace(record, session=session, sequence=sequence)
