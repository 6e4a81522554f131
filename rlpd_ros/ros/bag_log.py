# SPDX-License-Identifier: Apache-2.0
"""Writing transitions into a rosbag2 bag (MCAP) so that what is flushed survives the death of the writer."""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import yaml
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from rclpy.serialization import serialize_message

from rlpd_ros.errors import DataError
from rlpd_ros.ros import definitions, messages, qos
from rlpd_ros.ros.bag_files import McapFile, segment_number, segments_of
from rlpd_ros.ros.bag_reader import Bag, expect_space
from rlpd_ros.runs import write_atomically
from rlpd_ros.types import Source, SpaceSpec, TransitionRecord

SEGMENT_SIZE = 64 * 10**6  # bytes after which a new file begins
SEGMENT_CHUNKS = 10_000  # flushes after which a new file begins: each costs the writer some memory
UNFLUSHED = 2**22  # bytes that are written without being asked to
TOPICS = {"/transitions": qos.TRANSITIONS, "/space_spec": qos.SPACE_SPEC}


class _Sink:
    """What the MCAP writer writes into: bytes that are not in the file yet, at their position in the file."""

    def __init__(self) -> None:
        self._file: FileIO | None = None
        self._named = False  # the folder is known to have the file even after a power cut
        self._written = 0
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        self._bytes += data
        return len(data)

    def tell(self) -> int:
        return self._written + len(self._bytes)

    def flush(self) -> None:
        """Do nothing: only ``drain`` writes."""

    def drain(self, path: Path, sync: bool) -> None:
        """Bring all bytes into the file. If that fails, those that are not in it stay here for the next time."""
        if self._file is None:
            self._file = FileIO(path, "xb")
        written = 0
        try:
            with memoryview(self._bytes) as view:
                while written < len(view):
                    written += self._file.write(view[written:])
        finally:
            self._written += written
            del self._bytes[:written]
        if sync:
            os.fsync(self._file.fileno())
            if not self._named:
                _sync_folder(path.parent)
                self._named = True

    def close(self) -> None:
        assert self._file is not None
        self._file.close()


@dataclass
class Tally:
    """What the transitions in one file are, for whoever considers to delete it."""

    stored: Counter[str] = field(default_factory=Counter)  # by session
    last: dict[str, int] = field(default_factory=dict)  # sequence, by session
    complete: int = 0  # of them, as a buffer counts them
    interventions: int = 0
    waiting: set[str] = field(default_factory=set)  # sessions whose last one is an intervention, to be completed

    def add(self, record: TransitionRecord, complete: int) -> None:
        self.stored[record.session] += 1
        self.last[record.session] = record.sequence
        self.complete += complete
        intervened = record.source is Source.INTERVENTION
        self.interventions += intervened
        if intervened and not record.last:
            self.waiting.add(record.session)
        else:
            self.waiting.discard(record.session)


@dataclass
class _Contents:
    """What metadata.yaml says about one file: messages by topic; first and last stamp, ns."""

    counts: Counter[str] = field(default_factory=Counter)
    begin: int = 2**63 - 1
    end: int = 0
    tally: Tally = field(default_factory=Tally)


class _Segment:
    """One MCAP file of a bag. Nothing is on disk before ``drain``."""

    def __init__(self, spec: SpaceSpec, size: int = SEGMENT_SIZE) -> None:
        self.path: Path | None = None  # known when it is first drained
        self._size = size
        self.finished = False
        self.unflushed = 0
        self.contents = _Contents()
        self._chunks = 0
        self._sink = _Sink()
        # Images shrink (simulated ones to 6 %, for 0.1 ms a transition at most); numbers hardly do.
        compression = CompressionType.LZ4 if spec.image_fields else CompressionType.NONE
        # The chunk size is out of reach: chunks end where they are flushed.
        self._writer = Writer(self._sink, 2**40, compression)  # type: ignore[arg-type]
        self._writer.start(profile="ros2", library="rlpd_ros")
        self._channels = {topic: self._register(topic) for topic in TOPICS}

    def _register(self, topic: str) -> int:
        type_name = TOPICS[topic].type_name
        schema = self._writer.register_schema(type_name, "ros2msg", definitions.definition(type_name).encode())
        return self._writer.register_channel(topic, "cdr", schema, {"offered_qos_profiles": _qos(topic)})

    @property
    def full(self) -> bool:
        return self._sink.tell() + self.unflushed >= self._size or self._chunks >= SEGMENT_CHUNKS

    def add(self, topic: str, stamp: int, data: bytes) -> None:
        contents = self.contents
        self._writer.add_message(self._channels[topic], stamp, data, stamp, contents.counts[topic])
        contents.counts[topic] += 1
        contents.begin, contents.end = min(contents.begin, stamp), max(contents.end, stamp)
        self.unflushed += len(data)

    def finish(self) -> None:
        """Complete the file's content with its index."""
        self._writer.finish()
        self.finished = True

    def drain(self, sync: bool = False) -> None:
        """Bring everything added so far into the file, in whole checksummed chunks. Raises OSError."""
        assert self.path is not None
        if self.unflushed and not self.finished:
            self._writer.flush()
            self._chunks += 1
        self.unflushed = 0
        self._sink.drain(self.path, sync)
        if self.finished:
            self._sink.close()


class TransitionLog:
    """Append transitions of one space to the bag at ``path``, a folder: made, or continued, at the first flush.

    The bag is a rosbag2 bag of several files ("segments"), each complete in itself and with the space. One that a
    killed writer left open is completed before the bag is continued, so that every tool reads it. A file takes about
    ``size`` bytes; with ``durable`` a complete one survives the death of the machine.
    """

    def __init__(self, path: str | Path, spec: SpaceSpec, size: int | None = None, durable: bool = False) -> None:
        self.path = Path(path)
        self._size = size or SEGMENT_SIZE
        self._durable = durable
        self._spec = spec
        self._space = serialize_message(messages.from_space_spec(spec))
        self._finished: dict[str, _Contents] = {}  # by file name, in the order of recording
        self._looked = False  # at what is in the folder already
        self._metadata_due = False
        self._segments: list[_Segment] = []  # with something that is not on disk, or not finished

    @staticmethod
    def read(path: str | Path, spec: SpaceSpec) -> Iterator[TransitionRecord]:
        """Yield what was written at ``path``, if anything, whether or not the writer lived to close it.

        Raises DataError if a file is damaged, or was recorded in another space.
        """
        if Path(path).exists():
            yield from Bag(Path(path), partial=True).records(spec)

    @property
    def finished(self) -> dict[str, Tally]:
        """Return the complete files by their name, oldest first; of earlier lives nothing is known."""
        return {name: contents.tally for name, contents in self._finished.items()}

    def write(self, record: TransitionRecord) -> Tally:
        """Add a record; it is safe after the next ``flush``. Return the tally of its file."""
        stamp = record.stamp or time.time_ns()
        if self._segments and not self._segments[-1].finished and self._segments[-1].full:
            self._segments[-1].finish()
        if not self._segments or self._segments[-1].finished:
            self._segments.append(_Segment(self._spec, self._size))
            self._segments[-1].add("/space_spec", stamp, self._space)
        segment = self._segments[-1]
        segment.add("/transitions", stamp, serialize_message(messages.from_transition(record, self._spec)))
        if segment.unflushed > UNFLUSHED:
            with contextlib.suppress(DataError):  # the next flush says it
                self.flush()
        return segment.contents.tally

    def flush(self, sync: bool = False) -> None:
        """Return when all that was written survives the death of this process; with ``sync`` also that of the machine.

        Raises DataError if it cannot be written, e.g. because the disk is full: nothing is lost, and the next flush
        tries again.
        """
        try:
            while self._segments:
                segment = self._segments[0]
                if segment.path is None:
                    segment.path = self._next_path()
                segment.drain(sync or (self._durable and segment.finished))
                if not segment.finished:
                    break
                self._finished[segment.path.name] = segment.contents
                self._segments.pop(0)
                self._metadata_due = True
            if self._metadata_due:
                _write_metadata(self.path, self._finished)
                self._metadata_due = False
        except OSError as error:
            raise DataError(f"{self.path}: cannot write transitions: {error.strerror}") from error

    def _next_path(self) -> Path:
        """Return the path of the next file; look at what is there before the first."""
        if not self._looked:
            self.path.mkdir(parents=True, exist_ok=True)
            completed = {path.name: _complete(path, self._spec) for path in segments_of(self.path)}
            self._finished = {name: contents for name, contents in completed.items() if contents is not None}
            self._looked = True
        number = max((segment_number(Path(name)) for name in self._finished), default=-1) + 1
        return self.path / f"{self.path.name}_{number}.mcap"

    def delete(self, name: str) -> None:
        """Delete a complete file. Raises OSError."""
        rest = {file: contents for file, contents in self._finished.items() if file != name}
        if rest:
            _write_metadata(self.path, rest)  # first: a file too many does less harm than one that is missing
        else:
            (self.path / "metadata.yaml").unlink(missing_ok=True)
        (self.path / name).unlink(missing_ok=True)
        self._finished = rest

    def close(self) -> None:
        """Complete the bag. Raises DataError like ``flush``."""
        if self._segments and not self._segments[-1].finished:
            self._segments[-1].finish()
        self.flush()


def _complete(path: Path, spec: SpaceSpec) -> _Contents | None:
    """Return what a file holds; if it was cut off, write it anew up to there first.

    One that got no further than its beginning is deleted: None. Raises DataError.
    """
    if path.suffix != ".mcap":
        raise DataError(f"{path}: expected a log of this package, found another recording; choose another folder")
    contents = _indexed(path)
    if contents is not None:
        return contents
    source = McapFile(path, partial=True)
    copy = _Segment(spec)
    for message in source.messages(lambda topic, _: topic in TOPICS):
        if message.topic == "/space_spec":
            expect_space(path, spec, messages.to_space_spec(definitions.decode(message.type, message.data)))
        copy.add(message.topic, message.stamp, message.data)
    if source.cut_at is not None and not source.topics:
        path.unlink()
        return None
    if source.cut_at is not None:
        copy.path = path.with_name(f".{path.name}.part")
        copy.path.unlink(missing_ok=True)
        copy.finish()
        copy.drain(sync=True)
        copy.path.replace(path)
    return copy.contents


def _indexed(path: Path) -> _Contents | None:
    """Return what the index of a complete file says; None if there is none."""
    with path.open("rb") as stream:
        try:
            summary = make_reader(stream).get_summary()
        except (McapError, struct.error, UnicodeDecodeError, OSError):  # seeking before the beginning is an OSError
            return None
        if summary is None or summary.statistics is None:
            return None
        statistics = summary.statistics
        counts = Counter({summary.channels[channel].topic: count
                          for channel, count in statistics.channel_message_counts.items()})
        return _Contents(counts, statistics.message_start_time, statistics.message_end_time)


def _write_metadata(folder: Path, files: dict[str, _Contents]) -> None:
    """Write metadata.yaml as rosbag2 of Humble (version 5) does; later ones read it too."""
    total = sum((contents.counts for contents in files.values()), Counter())
    begin, end = min(c.begin for c in files.values()), max(c.end for c in files.values())
    topics = [{"topic_metadata": {"name": topic, "type": TOPICS[topic].type_name, "serialization_format": "cdr",
                                  "offered_qos_profiles": _qos(topic)}, "message_count": total[topic]}
              for topic in TOPICS]
    information = {
        "version": 5, "storage_identifier": "mcap", **_span(begin, end), "message_count": total.total(),
        "topics_with_message_count": topics, "compression_format": "", "compression_mode": "",
        "relative_file_paths": list(files),
        "files": [{"path": name, **_span(c.begin, c.end), "message_count": c.counts.total()}
                  for name, c in files.items()]}
    write_atomically(folder / "metadata.yaml",
                     yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False))


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _span(begin: int, end: int) -> dict[str, dict[str, int]]:
    begin = min(begin, end)  # a file without messages
    return {"duration": {"nanoseconds": end - begin}, "starting_time": {"nanoseconds_since_epoch": begin}}


def _qos(topic: str) -> str:
    """Return the profile with which `ros2 bag play` offers the topic, as rosbag2 writes it."""
    profile = TOPICS[topic].qos
    policies = {
        "history": profile.history.value, "depth": profile.depth, "reliability": profile.reliability.value,
        "durability": profile.durability.value, "liveliness": 1, "avoid_ros_namespace_conventions": False}
    durations = {name: {"sec": 9223372036, "nsec": 854775807}  # for ever
                 for name in ("deadline", "lifespan", "liveliness_lease_duration")}
    return yaml.safe_dump([policies | durations], sort_keys=False)
