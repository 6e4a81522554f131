# SPDX-License-Identifier: Apache-2.0
"""Transitions on an actor's disk until the learner has them: files of records, each with its length and checksum.

A file is named ``SESSION_FIRST.spool`` after the session and the sequence of its first record; the others follow
without a gap. So a session is renumbered by renaming its files, and what is acknowledged goes away with whole files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import zlib
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rlpd_ros.errors import ConfigError, DataError

SUFFIX = ".spool"
HEADER = struct.Struct("<II")  # length and CRC-32 of what follows
FILE_SIZE = 2**23  # bytes after which a new file begins
MAX_RECORD = 2**28  # bytes


class _Name(NamedTuple):
    """What the name of a file says."""

    path: Path
    session: str
    first: int


class _File:
    """One file: where its records begin, by their place in it. Raises OSError."""

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.first = first
        self.offsets = array("Q", [0])  # the last one is where the next record will begin
        self._handle: int | None = None

    @classmethod
    def scan(cls, path: Path, first: int) -> _File:
        """Return a file that an earlier life wrote; what was cut off at its end does not count."""
        found = cls(path, first)
        size = path.stat().st_size
        while len(head := os.pread(found._open(), HEADER.size, found.size)) == HEADER.size:
            length, _ = HEADER.unpack(head)
            end = found.size + HEADER.size + length
            if not 0 < length <= MAX_RECORD or end > size:
                break
            found.offsets.append(end)
        return found

    @property
    def size(self) -> int:
        return self.offsets[-1]

    @property
    def end(self) -> int:
        """Return the sequence after the last one."""
        return self.first + len(self.offsets) - 1

    def append(self, data: bytes) -> None:
        """Write a record, wholly or not at all."""
        handle, written = self._open(), 0
        record = HEADER.pack(len(data), zlib.crc32(data)) + data
        try:
            while written < len(record):
                written += os.pwrite(handle, record[written:], self.size + written)
        except OSError:
            os.ftruncate(handle, self.size)
            raise
        self.offsets.append(self.size + len(record))

    def read(self, sequence: int) -> bytes:
        """Return a record. Raises DataError if it is not what was written."""
        begin, end = self.offsets[sequence - self.first:sequence - self.first + 2]
        record = os.pread(self._open(), end - begin, begin)
        data = record[HEADER.size:]
        if len(record) != end - begin or HEADER.unpack_from(record) != (len(data), zlib.crc32(data)):
            raise DataError(f"{self.path.name}: damaged at byte {begin}: the checksum is wrong")
        return data

    def rename(self, path: Path, first: int) -> None:
        self.path.rename(path)
        self.path, self.first = path, first

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)

    def _open(self) -> int:
        if self._handle is None:
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        return self._handle

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class SpoolFiles:
    """The records of one session on disk. ``reserve(size)`` is asked before each is written, and may raise OSError."""

    def __init__(self, folder: Path, session: str, reserve: Callable[[int], None] = lambda size: None) -> None:
        self.folder = folder
        self.session = session
        self._reserve = reserve
        self._files = sorted((_File.scan(name.path, name.first) for name, _ in _found(folder)
                              if name.session == session), key=lambda file: file.first)
        for file in [file for file in self._files if file.end == file.first]:  # not even one whole record
            file.remove()
            self._files.remove(file)

    @property
    def first(self) -> int:
        """Return the lowest sequence held, 1 if there is none."""
        return self._files[0].first if self._files else 1

    @property
    def end(self) -> int:
        """Return the sequence after the highest one held, 1 if there is none."""
        return self._files[-1].end if self._files else 1

    def append(self, sequence: int, data: bytes) -> None:
        """Write a record: the next one, or a later one if those between are not wanted any more. Raises OSError."""
        self._reserve(HEADER.size + len(data))
        if not self._files or sequence != self.end or self._files[-1].size >= FILE_SIZE:
            assert sequence >= self.end
            self.folder.mkdir(parents=True, exist_ok=True)
            self._files.append(_File(self._path(sequence), sequence))
        self._files[-1].append(data)

    def read(self, sequence: int) -> bytes:
        """Return a record. Raises DataError if it is damaged or missing, OSError if it cannot be read."""
        for file in self._files:
            if file.first <= sequence < file.end:
                return file.read(sequence)
        raise DataError(f"transition {sequence} of {self.session} is missing")

    def forgettable(self, sequence: int) -> bool:
        """Tell whether there is a file in which nothing lies beyond ``sequence``."""
        return bool(self._files) and self._files[0].end <= sequence + 1

    def forget(self, sequence: int) -> None:
        """Remove such files. Raises OSError."""
        while self.forgettable(sequence):
            self._files[0].remove()
            self._files.pop(0)

    def renumber(self, session: str, shift: int) -> None:
        """Make the records those of another session, ``shift`` lower. Raises OSError."""
        self.session = session
        for file in self._files:
            file.rename(self._path(file.first - shift), file.first - shift)

    def _path(self, first: int) -> Path:
        return self.folder / f"{self.session}_{first}{SUFFIX}"

    def close(self) -> None:
        for file in self._files:
            file.close()


class SpoolFolder:
    """A folder that one actor keeps its spool in, at most ``limit`` bytes of it.

    Raises ConfigError if it cannot be made, or another actor is using it.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self._limit = limit
        self._used = 0  # at most so much
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / "lock").open("w")
        except OSError as error:
            raise ConfigError(f"spool_folder: cannot write to {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"spool_folder: {path} is in use by another actor: give each one its own") from error
        self._used = self._measure()

    def begin(self, session: str) -> SpoolFiles:
        return SpoolFiles(self.path, session, self._reserve)

    def sessions(self) -> list[str]:
        """Return the sessions that left something here, oldest first."""
        found = sorted(_found(self.path), key=lambda entry: entry[1].st_mtime_ns)
        return list(dict.fromkeys(name.session for name, _ in found))

    def close(self) -> None:
        self._lock.close()

    def _reserve(self, size: int) -> None:
        if self._used + size > self._limit:
            self._used = self._measure()
            if self._used + size > self._limit:
                raise OSError(errno.ENOSPC, f"the spool is full (spool_limit {self._limit / 1e6:g} MB)")
        self._used += size

    def _measure(self) -> int:
        return sum(stat.st_size for _, stat in _found(self.path))


def _found(folder: Path) -> list[tuple[_Name, os.stat_result]]:
    """Return the files in a folder, with what is known of each."""
    found = []
    for path in folder.glob(f"*{SUFFIX}") if folder.is_dir() else ():
        session, _, first = path.stem.rpartition("_")
        if session and first.lstrip("-").isdecimal():
            with contextlib.suppress(FileNotFoundError):  # another thread has just removed it
                found.append((_Name(path, session, int(first)), path.stat()))
    return found
