# SPDX-License-Identifier: Apache-2.0
"""Transitions out of rosbag2 bags, checked against the space that they were made in."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rlpd_ros.data.episodes import validate
from rlpd_ros.errors import DataError
from rlpd_ros.ros import definitions, messages, qos
from rlpd_ros.ros.bag_files import FORMATS, McapFile, RawMessage, SqliteFile, segments_of, unpack_message
from rlpd_ros.types import SpaceSpec, TransitionRecord
from rlpd_ros.untrusted import parse_yaml, printable, read_text

METADATA = "metadata.yaml"
MAX_METADATA = 1_000_000  # bytes


class Bag:
    """The transitions in one bag: a folder, or a single .mcap or .db3 file.

    Topics are known by their type and the last part of their name, so that a bag recorded in a namespace reads like any
    other. With ``partial`` a file that was cut off counts as far as it goes; otherwise it is an error.
    """

    def __init__(self, path: Path, partial: bool = False) -> None:
        self.path = path
        self._partial = partial
        self._topics: dict[str, str] = {}

    def spec(self) -> SpaceSpec | None:
        """Return the first space that was recorded, None if there is none. Raises DataError."""
        for file in self._files():
            for raw in file.messages(_is_space):
                return _to_space(file, raw)
        return None

    def records(self, spec: SpaceSpec) -> Iterator[TransitionRecord]:
        """Yield the transitions, all of them made in ``spec``, each once, in the order of recording.

        A sender repeats what is not acknowledged, and a recorder may have heard only the repetition of some: sequences
        need not rise.

        Raises DataError naming the file, the topic and the field for whatever is missing, damaged or does not fit.
        """
        seen: set[tuple[str, int, int, int]] = set()
        counts: Counter[str] = Counter()
        for file in self._files():
            for raw in file.messages(_is_wanted):
                if _is_space(raw.topic, raw.type):
                    expect_space(file.path, spec, _to_space(file, raw))
                    continue
                counts[raw.topic] += 1
                record = self._decode(file, raw, counts[raw.topic], spec)
                identity = record.session, record.sequence, record.episode, record.step
                if identity not in seen:
                    seen.add(identity)
                    yield record
            self._topics |= file.topics
        if not self._partial:
            self._expect_counts(counts)

    def _decode(self, file: McapFile | SqliteFile, raw: RawMessage, number: int, spec: SpaceSpec) -> TransitionRecord:
        try:
            record = messages.to_transition(definitions.decode(raw.type, unpack_message(raw.data)), spec)
            validate(record, spec)
        except DataError as error:
            raise DataError(f"{file.path}: topic '{raw.topic}', message {number}: {error}") from error
        return record

    def _files(self) -> list[McapFile | SqliteFile]:
        paths = [self.path] if self.path.is_file() else segments_of(self.path)
        if not self._partial:
            missing = self._metadata().files - {path.name for path in paths}
            if missing:
                raise DataError(f"{self.path / METADATA}: expected the files that it lists, found no "
                                f"{printable(', '.join(sorted(missing)))}")
        return [FORMATS[path.suffix](path, self._partial) for path in paths]

    def _metadata(self) -> _Metadata:
        path = self.path / METADATA
        return _read_metadata(path) if path.exists() else _Metadata(frozenset(), {})

    def _expect_counts(self, counts: Counter[str]) -> None:
        """Check that there are transitions, and as many as metadata.yaml says."""
        if not counts:
            for topic, kind in sorted(self._topics.items(), key=lambda item: not _is_ours(*item)):
                if _is_ours(topic, kind):
                    raise DataError(f"{self.path}: topic '{topic}': expected transitions, found none")
                if _is_called_ours(topic):
                    raise DataError(f"{self.path}: topic '{topic}': expected type {qos.TRANSITIONS.type_name}, found "
                                    f"{kind}")
            found = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(self._topics.items())) or "none"
            raise DataError(f"{self.path}: expected a topic '{qos.TRANSITIONS.name}', found {printable(found, 2000)}")
        expected = self._metadata().counts
        for topic, count in counts.items():
            if expected.get(topic, count) != count:
                raise DataError(f"{self.path}: topic '{topic}': expected {expected[topic]} messages by {METADATA}, "
                                f"found {count}")


class _Metadata(NamedTuple):
    """What metadata.yaml says: names of files, messages by topic."""

    files: frozenset[str]
    counts: dict[str, int]


def _read_metadata(path: Path) -> _Metadata:
    try:
        information = parse_yaml(read_text(path, MAX_METADATA))["rosbag2_bagfile_information"]
        compression = str(information.get("compression_mode") or "").lower()
        form = information.get("compression_format")
        files = frozenset(Path(name).name for name in information["relative_file_paths"])
        counts = {str(item["topic_metadata"]["name"]): int(item["message_count"])
                  for item in information["topics_with_message_count"]}
    except (DataError, ValueError, OverflowError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: expected the metadata of a rosbag2 bag, found something else: "
                        f"{type(error).__name__} {printable(error)}") from error
    if compression not in ("", "none", "message"):
        raise DataError(f"{path}: expected files that are not compressed as a whole, found mode "
                        f"'{printable(compression)}'; convert the bag with `ros2 bag convert`")
    if compression == "message" and form != "zstd":
        raise DataError(f"{path}: expected messages compressed by zstd, found '{printable(form)}'; convert the bag "
                        "with `ros2 bag convert`")
    return _Metadata(files, counts)


def find_bags(paths: Iterable[str | Path]) -> list[Path]:
    """Return the bags at ``paths``: files, folders that are bags, or folders of bags. Raises DataError.

    They come in order, and each once, whatever it is called: by a relative path, through a link.
    """
    found: dict[Path, Path] = {}  # the first name of each
    for given in paths:
        path = Path(os.path.expanduser(given))
        if not path.exists():
            raise DataError(f"{path}: expected a rosbag2 bag or a folder of bags, found nothing there")
        bags = [path] if path.is_file() else _bags_below(path)
        if not bags or (path.is_file() and path.suffix not in FORMATS):
            raise DataError(f"{path}: expected a rosbag2 bag ({' or '.join(FORMATS)}) or a folder of bags, found none")
        for bag in bags:
            found.setdefault(bag.resolve(), bag)
    return list(found.values())


def _bags_below(folder: Path) -> list[Path]:
    try:
        bags = [folder] if segments_of(folder) or (folder / METADATA).exists() else []
        return bags + [bag for below in sorted(folder.iterdir()) if below.is_dir() for bag in _bags_below(below)]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _is_wanted(topic: str, type_name: str) -> bool:
    return _is_ours(topic, type_name) or _is_space(topic, type_name)


def _is_ours(topic: str, type_name: str) -> bool:
    return _is_called_ours(topic) and type_name == qos.TRANSITIONS.type_name


def _is_called_ours(topic: str) -> bool:
    return topic.rsplit("/", 1)[-1] == qos.TRANSITIONS.name


def _is_space(topic: str, type_name: str) -> bool:
    return topic.rsplit("/", 1)[-1] == qos.SPACE_SPEC.name and type_name == qos.SPACE_SPEC.type_name


def _to_space(file: McapFile | SqliteFile, raw: RawMessage) -> SpaceSpec:
    try:
        return messages.to_space_spec(definitions.decode(raw.type, unpack_message(raw.data)))
    except DataError as error:
        raise DataError(f"{file.path}: topic '{raw.topic}': {error}") from error


def expect_space(path: Path, expected: SpaceSpec, found: SpaceSpec) -> None:
    """Raise DataError with every difference unless the space found at ``path`` is the one expected."""
    if found.fingerprint != expected.fingerprint:
        raise DataError(f"{path}: topic '{qos.SPACE_SPEC.name}': recorded in another space: "
                        f"{'; '.join(expected.difference(found, 'expected', 'found'))}")
