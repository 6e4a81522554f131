# SPDX-License-Identifier: Apache-2.0
"""Serialized messages out of the two kinds of files that rosbag2 writes: MCAP and SQLite.

Files are not trusted: every length is compared with what is there before memory is claimed, and what is damaged is a
DataError that names the file and the place. An MCAP file is read from its beginning, not by its index, so that one
whose writer was killed reads as far as it was written.
"""

from __future__ import annotations

import os
import re
import sqlite3
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from rlpd_ros.errors import DataError
from rlpd_ros.ros import definitions
from rlpd_ros.untrusted import printable

MAX_RECORD = 2**28  # bytes of a record or a chunk, uncompressed
ZSTD = b"\x28\xb5\x2f\xfd"  # what zstd begins with; CDR begins with 0
MOVE_AWAY = "move the file out of its folder to go on without what it holds"

Wanted = Callable[[str, str], bool]  # of topic and type


class RawMessage(NamedTuple):
    """One message as it stands in the file: ``stamp`` in ns, ``data`` in CDR."""

    topic: str
    type: str
    stamp: int
    data: bytes


class _Cut(Exception):
    """The file ends before it should."""


class _Damaged(Exception):
    """What is there cannot have been written like that."""


class McapFile:
    """An MCAP file with ROS 2 messages. See https://mcap.dev/spec.

    With ``partial`` a file without its end is read as far as it is complete; ``cut_at`` then tells where that was. If
    its last chunk is there but damaged, as a power cut leaves it, then that was before it, and ``torn`` says why.
    ``topics`` maps the topics met so far to their types.
    """

    MAGIC = b"\x89MCAP0\r\n"
    FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, STATISTICS = 2, 3, 4, 5, 6, 11

    def __init__(self, path: Path, partial: bool = False) -> None:
        self.path = path
        self.topics: dict[str, str] = {}
        self.cut_at: int | None = None
        self.torn = ""
        self._partial = partial
        self._schemas: dict[int, tuple[str, str]] = {}  # name, definition
        self._channels: dict[int, tuple[str, str] | None] = {}  # topic and type of those wanted
        self._messages = 0
        self._expected_messages: int | None = None

    def messages(self, wanted: Wanted) -> Iterator[RawMessage]:
        """Yield the messages that are ``wanted``, in the order of the file. Raises DataError."""
        with _opened(self.path) as stream:
            if not self._begins(stream):
                self.cut_at = 0
                return
            while True:
                place = stream.tell()
                try:
                    opcode, content = self._next_record(stream)
                    if opcode == self.FOOTER:
                        break
                except _Cut:
                    if not self._partial:
                        raise DataError(f"{self.path}: cut off after byte {place}: the recording was not closed, or "
                                        f"not all of the file was copied; {self._remedy}") from None
                    if self._has_end(stream):
                        raise self._damaged(place, "a record leaves the file") from None
                    self.cut_at = place
                    return
                except _Damaged as error:
                    raise self._damaged(place, error) from error
                try:
                    yield from self._read(opcode, content, wanted)
                except (struct.error, UnicodeDecodeError, RuntimeError, zstd.ZstdError, _Damaged) as error:
                    if not self._partial or self._has_end(stream) or not self._is_last(stream):
                        raise self._damaged(place, error) from error
                    self.cut_at, self.torn = place, printable(error)
                    return
        if self._expected_messages not in (None, self._messages):
            raise DataError(f"{self.path}: damaged: expected {self._expected_messages} messages, found "
                            f"{self._messages}; {self._remedy}")

    def lost(self) -> int:
        """Return how many bytes at the end ``messages`` leaves out. Raises DataError like it."""
        with _opened(self.path) as stream:
            size = os.fstat(stream.fileno()).st_size
            if not self._has_end(stream):
                for _ in self.messages(lambda topic, type_name: False):
                    pass
        return 0 if self.cut_at is None else size - self.cut_at

    @property
    def _remedy(self) -> str:
        return MOVE_AWAY if self._partial else "copy it again, or leave it out"

    def _damaged(self, place: int, error: Exception | str) -> DataError:
        return DataError(f"{self.path}: damaged at byte {place}: {printable(error)}; {self._remedy}")

    def _begins(self, stream: BinaryIO) -> bool:
        """Return False of a file that got no further than its beginning. Raises DataError unless it is MCAP."""
        beginning = stream.read(len(self.MAGIC))
        if beginning == self.MAGIC:
            return True
        if self._partial and self.MAGIC.startswith(beginning.rstrip(b"\0")) and _only_zeros(stream):
            return False
        raise DataError(f"{self.path}: expected an MCAP file, found another beginning; {self._remedy}")

    def _has_end(self, stream: BinaryIO) -> bool:
        """Return whether the file ends as one does whose writer lived to close it."""
        place, size = stream.tell(), os.fstat(stream.fileno()).st_size
        stream.seek(max(len(self.MAGIC), size - len(self.MAGIC)))
        end = stream.read()
        stream.seek(place)
        return end == self.MAGIC

    def _is_last(self, stream: BinaryIO) -> bool:
        """Return whether what has just been read is the last of the file that may hold messages."""
        try:
            while self._next_record(stream)[0] not in (self.CHUNK, self.MESSAGE, self.FOOTER):
                pass
        except _Cut:
            return True
        except _Damaged:
            pass
        return False

    def _next_record(self, stream: BinaryIO) -> tuple[int, bytes]:
        """Return the next record at the top level; those that hold no messages come without their content."""
        head = stream.read(9)
        if len(head) < 9:
            raise _Cut
        opcode, length = struct.unpack("<BQ", head)
        if opcode == 0 or stream.tell() + length > os.fstat(stream.fileno()).st_size:
            raise _Cut  # zeros are what a crashed file system leaves
        if opcode == self.FOOTER:
            stream.seek(length, 1)
            if stream.read(len(self.MAGIC)) != self.MAGIC:
                raise _Cut
        elif opcode in (self.SCHEMA, self.CHANNEL, self.MESSAGE, self.CHUNK, self.STATISTICS):
            if length > MAX_RECORD:
                raise _Damaged(f"expected records of at most {MAX_RECORD} bytes, found {length}")
            return opcode, stream.read(length)
        else:
            stream.seek(length, 1)
        return opcode, b""

    def _read(self, opcode: int, content: bytes, wanted: Wanted) -> Iterator[RawMessage]:
        if opcode == self.CHUNK:
            records = _unpack_chunk(content)
            place = 0
            while place < len(records):
                inner, length = struct.unpack_from("<BQ", records, place)
                place += 9 + length
                if place > len(records) or inner == self.CHUNK:
                    raise _Damaged("a record leaves its chunk")
                yield from self._read(inner, records[place - length:place], wanted)
        elif opcode == self.MESSAGE:
            identifier, _, stamp, _ = struct.unpack_from("<HIQQ", content)
            self._messages += 1
            if identifier not in self._channels:
                raise _Damaged(f"a message of channel {identifier}, which is not described")
            channel = self._channels[identifier]
            if channel is not None:
                yield RawMessage(*channel, stamp, content[22:])
        elif opcode == self.SCHEMA:
            name, rest = _string(content, 2)
            _, rest = _string(content, rest)
            text, _ = _string(content, rest)
            self._schemas[struct.unpack_from("<H", content)[0]] = name, text
        elif opcode == self.CHANNEL:
            self._add_channel(content, wanted)
        elif opcode == self.STATISTICS:
            self._expected_messages = struct.unpack_from("<Q", content)[0]

    def _add_channel(self, content: bytes, wanted: Wanted) -> None:
        identifier, schema = struct.unpack_from("<HH", content)
        topic, rest = _string(content, 4)
        encoding, _ = _string(content, rest)
        type_name, text = self._schemas.get(schema, ("", ""))
        if identifier in self._channels:  # repeated at the end of the file, where it may be torn
            return
        topic, type_name = printable(topic), printable(type_name)
        self.topics[topic] = type_name
        self._channels[identifier] = None
        if wanted(topic, type_name):
            _expect_cdr(self.path, topic, encoding)
            differs = definitions.difference(type_name, text)
            if differs:
                raise DataError(f"{self.path}: topic '{topic}': {type_name} is of another version: "
                                f"{printable(differs)}")
            self._channels[identifier] = topic, type_name


def _only_zeros(stream: BinaryIO) -> bool:
    """Return whether nothing else is left: zeros are what a crashed file system leaves."""
    while block := stream.read(2**20):
        if block.count(0) < len(block):
            return False
    return True


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _string(content: bytes, place: int) -> tuple[str, int]:
    """Return the text at ``place`` and the place after it."""
    (length,) = struct.unpack_from("<I", content, place)
    end = place + 4 + length
    if end > len(content):
        raise _Damaged("a text leaves its record")
    return content[place + 4:end].decode(), end


def _unpack_chunk(content: bytes) -> bytes:
    """Return the records in a chunk, checked by its checksum if it has one."""
    _, _, size, checksum = struct.unpack_from("<QQQI", content)
    compression, rest = _string(content, 28)
    (length,) = struct.unpack_from("<Q", content, rest)
    packed = content[rest + 8:rest + 8 + length]
    if size > MAX_RECORD or len(packed) != length:
        raise _Damaged(f"expected a chunk of at most {MAX_RECORD} bytes, found {size} in {len(packed)}")
    if not size and len(content) > rest + 8 + length:
        raise _Damaged(f"expected a chunk in {len(content)} bytes, found an empty one")  # zeros
    if compression == "zstd":
        records = zstd.ZstdDecompressor().decompress(packed, max_length=size + 1)
    elif compression == "lz4":
        records = lz4.frame.LZ4FrameDecompressor().decompress(packed, max_length=size + 1)
    elif compression == "":
        records = packed
    else:
        raise _Damaged(f"expected a chunk in zstd, lz4 or uncompressed, found {compression[:20]!r}")
    if len(records) != size:
        raise _Damaged(f"expected a chunk of {size} bytes, found {len(records)}")
    if checksum and zlib.crc32(records) != checksum:
        raise _Damaged("the checksum of a chunk is wrong")
    return records


def unpack_message(data: bytes) -> bytes:
    """Return a message as it was sent: a recorder may compress each by itself. Raises DataError."""
    if not data.startswith(ZSTD):
        return data
    unpacking = zstd.ZstdDecompressor()
    try:
        unpacked = unpacking.decompress(data, max_length=MAX_RECORD + 1)
    except zstd.ZstdError as error:
        raise DataError(f"damaged: {printable(error)}") from error
    if not unpacking.eof or len(unpacked) > MAX_RECORD:
        raise DataError(f"expected a whole compressed message of at most {MAX_RECORD} bytes, found another")
    return unpacked


class SqliteFile:
    """A SQLite file of rosbag2. ``topics`` maps the topics met so far to their types."""

    def __init__(self, path: Path, partial: bool = False) -> None:
        self.path = path
        self.topics: dict[str, str] = {}
        self.cut_at: int | None = None  # SQLite repairs itself what its writer left
        self.torn = ""
        del partial

    def lost(self) -> int:
        return 0

    def messages(self, wanted: Wanted) -> Iterator[RawMessage]:
        """Yield the messages that are ``wanted``, in the order of the file. Raises DataError."""
        with _opened(self.path) as stream:
            _expect_all_pages(self.path, stream)
        database = sqlite3.connect(f"file:{quote(str(self.path))}?mode=ro", uri=True)
        database.execute("PRAGMA trusted_schema = OFF")  # what it says about itself calls no functions
        if hasattr(database, "setlimit"):  # Python 3.11
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_RECORD)
        database.text_factory = lambda text: text.decode(errors="replace")
        try:
            yield from self._messages(database, wanted)
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from what SQLite quotes in its message
            raise DataError(f"{self.path}: damaged: {printable(error)}") from error
        finally:
            database.close()

    def _messages(self, database: sqlite3.Connection, wanted: Wanted) -> Iterator[RawMessage]:
        # Plain tables only: a view or a virtual table could be made never to end.
        tables = {name for name, sql in database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
                  if str(sql).upper().startswith("CREATE TABLE")}
        if not {"topics", "messages"} <= tables:
            raise DataError(f"{self.path}: expected a rosbag2 database with tables topics and messages, found "
                            f"{printable(', '.join(sorted(tables))) or 'none'}")
        channels = {}
        for identifier, name, kind, encoding in database.execute(
                "SELECT id, CAST(name AS TEXT), CAST(type AS TEXT), serialization_format FROM topics"):
            if not isinstance(name, str) or not isinstance(kind, str):
                raise DataError(f"{self.path}: damaged: a topic without name or type")
            topic, type_name = printable(name), printable(kind)
            self.topics[topic] = type_name
            if wanted(topic, type_name):
                _expect_cdr(self.path, topic, encoding)
                channels[identifier] = topic, type_name
        rows = database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id")
        for identifier, stamp, data in rows:
            if identifier in channels:
                if not isinstance(stamp, int) or not isinstance(data, bytes):
                    raise DataError(f"{self.path}: damaged: a message without time or data")
                yield RawMessage(*channels[identifier], stamp, data)


def _expect_all_pages(path: Path, stream: BinaryIO) -> None:
    """Refuse a database that was cut off: SQLite itself notices only when it comes to a missing page."""
    header = stream.read(100)
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise DataError(f"{path}: expected a SQLite database, found another beginning")
    (page_size,), (pages,) = struct.unpack_from(">H", header, 16), struct.unpack_from(">I", header, 28)
    if (65536 if page_size == 1 else page_size) * pages > os.fstat(stream.fileno()).st_size:
        raise DataError(f"{path}: cut off: not all of the file was copied")


def _expect_cdr(path: Path, topic: str, encoding: str) -> None:
    if encoding != "cdr":
        raise DataError(f"{path}: topic '{topic}': expected messages in cdr, found '{printable(encoding)}'")


FORMATS: dict[str, type[McapFile] | type[SqliteFile]] = {".mcap": McapFile, ".db3": SqliteFile}
"""File suffix -> reader."""


def segments_of(folder: Path) -> list[Path]:
    """Return the MCAP and SQLite files directly in ``folder``, in the order of recording."""
    files = [path for path in folder.iterdir() if path.suffix in FORMATS and not path.name.startswith(".")]
    return sorted(files, key=lambda path: (re.sub(r"_\d+$", "", path.stem), segment_number(path)))


def segment_number(path: Path) -> int:
    """Return the number that rosbag2 appends to the names of a bag's files; -1 if there is none."""
    match = re.search(r"_(\d+)$", path.stem)
    return int(match[1]) if match else -1
