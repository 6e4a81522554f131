# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile files: refused in one line, without wrong data, without claiming memory."""

import re
import sqlite3
import struct
import tracemalloc
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
from recordings import (
    PIXELS,
    STATE,
    TRANSITION,
    content,
    expect_refusal,
    expect_same_steps,
    make_record,
    make_records,
    other_writer,
    serialize,
    write_log,
)
from rosbags.rosbag2 import StoragePlugin

from rlpd_ros.errors import DataError
from rlpd_ros.ros import definitions
from rlpd_ros.ros.bag_files import McapFile, zstd
from rlpd_ros.ros.bags import TransitionLog, read_demonstrations


@pytest.mark.parametrize("spec", [STATE, PIXELS])
def test_cut_anywhere_a_log_reads_as_far_as_it_goes_and_a_demonstration_not_at_all(tmp_path, spec):
    records = make_records(spec, 40)
    expected = content(records)
    whole = (write_log(tmp_path / "log", spec, records, 4) / "log_0.mcap").read_bytes()
    cut = tmp_path / "cut.mcap"
    longest = 0
    cut.write_bytes(whole[:-500] + bytes(5000))  # what a file system may leave of a file that was not synchronised
    found = content(TransitionLog.read(cut, spec))
    assert found == expected[:len(found)] != []
    file = McapFile(cut, partial=True)
    assert list(file.messages(lambda topic, type_name: False)) == []
    assert file.cut_at < len(whole)
    for length in [*np.random.default_rng(0).integers(8, len(whole), 120).tolist(), len(whole) - 1, len(whole) - 8]:
        cut.write_bytes(whole[:length])
        found = content(TransitionLog.read(cut, spec))
        assert found == expected[:len(found)]
        longest = max(longest, len(found))
        with pytest.raises(DataError, match=re.escape(str(cut))):
            read_demonstrations([cut])
    assert longest == 40
    cut.write_bytes(whole)
    assert read_demonstrations([cut]).manifest.total == 40


def open_log(path: Path, spec, records) -> bytes:
    """Write a log whose writer is killed, a chunk for each record; return its only file."""
    log = TransitionLog(path, spec)
    for record in records:
        log.write(record)
        log.flush()
    return (path / "log_0.mcap").read_bytes()


def chunks_of(data: bytes) -> list[tuple[int, int]]:
    """Return where the chunks of an MCAP file begin and end."""
    place, chunks = len(McapFile.MAGIC), []
    while place < len(data) - len(McapFile.MAGIC):
        opcode, length = struct.unpack_from("<BQ", data, place)
        chunks += [(place, place + 9 + length)] if opcode == McapFile.CHUNK else []
        place += 9 + length
    return chunks


@pytest.mark.parametrize("spec", [STATE, PIXELS])
def test_of_a_log_with_a_torn_end_all_but_the_end_is_read(tmp_path, spec):
    expected = content(make_records(spec, 30))
    whole = open_log(tmp_path / "log", spec, make_records(spec, 30))
    chunks = chunks_of(whole)
    assert len(chunks) == 30
    torn = tmp_path / "torn.mcap"
    places = np.random.default_rng(0).integers(chunks[20][0], len(whole), 100).tolist()
    for place in [*places, *(begin + i for begin, _ in chunks[-3:] for i in range(1, 60, 3))]:
        torn.write_bytes(whole[:place] + bytes(len(whole) - place))
        found = content(TransitionLog.read(torn, spec))
        assert found == expected[:len(found)]
        assert len(found) >= sum(end <= place for _, end in chunks)
        lost = McapFile(torn, partial=True).lost()
        with pytest.raises(DataError, match=re.escape(str(torn))):
            read_demonstrations([torn])
        torn.write_bytes(whole[:len(whole) - lost])
        assert content(TransitionLog.read(torn, spec)) == found


def test_of_a_log_damage_is_forgiven_in_the_last_chunk_only(tmp_path):
    whole = open_log(tmp_path / "log", STATE, make_records(STATE, 9))
    chunks = chunks_of(whole)
    path = tmp_path / "damaged.mcap"
    for number, (begin, end) in enumerate(chunks, 1):
        damaged = bytearray(whole)
        damaged[(begin + end) // 2] ^= 1
        path.write_bytes(damaged)
        if number == 9:
            assert len(list(TransitionLog.read(path, STATE))) == 8
        else:
            with pytest.raises(DataError, match=rf"damaged at byte {begin}: the checksum of a chunk is wrong; "
                                                "move the file out of its folder to go on without what it holds"):
                list(TransitionLog.read(path, STATE))
        expect_refusal([path], f"damaged at byte {begin}: the checksum of a chunk is wrong; copy it again")


@pytest.mark.parametrize(("place", "error"), [
    (100, "the checksum of a chunk is wrong"), (5, "a record leaves the file")])
def test_of_a_log_that_was_closed_nothing_is_forgiven(tmp_path, place, error):
    path = write_log(tmp_path / "log", STATE, make_records(STATE, 9)) / "log_0.mcap"
    damaged = bytearray(path.read_bytes())
    begin, _ = chunks_of(damaged)[-1]
    damaged[begin + place] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=f"damaged at byte {begin}: {error}; move the file out of its folder"):
        list(TransitionLog.read(path, STATE))


def test_what_the_end_of_a_log_repeats_may_be_torn(tmp_path):
    """The channels, that is: what is torn of one must not look like another kind of recording."""
    whole = (write_log(tmp_path / "log", STATE, make_records(STATE, 9)) / "log_0.mcap").read_bytes()
    path = tmp_path / "torn.mcap"
    begin = whole.rindex(b"/transitions") - 50
    for place in range(begin, begin + 100):
        path.write_bytes(whole[:place] + bytes(len(whole) - place))
        assert len(list(TransitionLog.read(path, STATE))) == 9


def test_one_damaged_byte_never_becomes_wrong_data(tmp_path):
    records = make_records(STATE, 20)
    expected = content(records)
    whole = (write_log(tmp_path / "log", STATE, records, 4) / "log_0.mcap").read_bytes()
    path = tmp_path / "damaged.mcap"
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.choice(len(whole), 250, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            demonstrations = read_demonstrations([path])
        except DataError:
            refused += 1
        else:
            expect_same_steps(demonstrations, records)
        try:
            found = content(TransitionLog.read(path, STATE))
        except DataError:
            continue
        assert found == expected[:len(found)]
    assert refused > 100


def test_random_bytes_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    magic = {"a.mcap": b"", "b.mcap": b"\x89MCAP0\r\n", "a.db3": b"", "b.db3": b"SQLite format 3\0"}
    for name, beginning in magic.items():
        for size in (0, 10, 100, 5000):
            (tmp_path / name).write_bytes(beginning + rng.bytes(size))
            expect_refusal([tmp_path / name], name)


def test_a_lost_chunk_is_noticed(tmp_path):
    path = write_log(tmp_path / "log", STATE, make_records(STATE, 9)) / "log_0.mcap"
    whole = bytearray(path.read_bytes())
    chunks = chunks_of(whole)
    assert len(chunks) == 3
    whole[chunks[1][0]] = 7  # an index, which nobody reads
    path.write_bytes(whole)
    expect_refusal([path], "log_0.mcap: damaged: expected 10 messages, found 7")


def mcap_with(path: Path, *records: tuple[int, bytes]) -> Path:
    """Write an MCAP file of these records (opcode, content) and an end."""
    all_records = [(1, b"\0" * 8), *records, (McapFile.FOOTER, b"\0" * 20)]
    parts = [struct.pack("<BQ", opcode, len(data)) + data for opcode, data in all_records]
    path.write_bytes(b"".join([McapFile.MAGIC, *parts, McapFile.MAGIC]))
    return path


def chunk(records: bytes, size: int, compression: bytes = b"zstd") -> tuple[int, bytes]:
    return McapFile.CHUNK, b"".join([struct.pack("<QQQII", 0, 0, size, 0, len(compression)), compression,
                                     struct.pack("<Q", len(records)), records])


@pytest.mark.parametrize(("pack", "compression"), [(zstd.compress, b"zstd"), (lz4.frame.compress, b"lz4")])
def test_bombs_do_not_go_off(tmp_path, pack, compression):
    bomb = pack(b"\0" * 2**27)
    assert len(bomb) < 2**20
    tracemalloc.start()
    for size, error in ((10, "expected a chunk of 10 bytes, found 11"), (2**40, "expected a chunk of at most")):
        expect_refusal([mcap_with(tmp_path / "bomb.mcap", chunk(bomb, size, compression))], "bomb.mcap: damaged", error)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_strange_records_are_refused(tmp_path):
    message = struct.pack("<HIQQ", 1, 0, 0, 0)
    inner = struct.pack("<BQ", McapFile.MESSAGE, len(message)) + message
    cases = {
        "a message of channel 1, which is not described": [(McapFile.MESSAGE, message)],
        "unpack_from requires": [(McapFile.MESSAGE, b"short")],
        "leaves its chunk": [chunk(inner[:-1], len(inner) - 1, b"")],
        "a record leaves its chunk": [chunk(struct.pack("<BQ", 6, 0) * 1000, 9000, b"")],
        "a text leaves its record": [(McapFile.CHANNEL, struct.pack("<HHI", 1, 1, 2**31))],
        "expected a chunk in zstd, lz4 or uncompressed, found 'xz'": [chunk(b"", 0, b"xz")],
        "'utf-8' codec": [(McapFile.CHANNEL, struct.pack("<HHI", 1, 1, 2) + b"\xff\xff")],
    }
    for error, records in cases.items():
        expect_refusal([mcap_with(tmp_path / "a.mcap", *records)], "a.mcap: damaged at byte 25: ", error)


def test_huge_lengths_claim_no_memory(tmp_path):
    (tmp_path / "bomb.mcap").write_bytes(McapFile.MAGIC + struct.pack("<BQ", McapFile.CHUNK, 2**62) + b"x")
    expect_refusal([tmp_path / "bomb.mcap"], "bomb.mcap: cut off after byte 8")


def test_huge_arrays_claim_no_memory():
    message = bytearray(serialize(make_record(STATE, 1), STATE))
    index = message.index(make_record(STATE, 1).observation.state.tobytes())
    message[index - 4:index] = struct.pack("<I", 2**32 - 1)
    with pytest.raises(DataError, match="expected a rlpd_ros/msg/Transition, found"):
        definitions.decode(TRANSITION, bytes(message))


TABLE = "messages(id, topic_id, timestamp, data)"
NO_TABLES = "expected a rosbag2 database with tables topics and messages, found "
NO_DATA = "damaged: a message without time or data"


@pytest.mark.parametrize(("trick", "error"), [
    ("CREATE VIEW messages AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n FROM c) "
     "SELECT n AS id, 1 AS topic_id, 1 AS timestamp, x'00' AS data FROM c", NO_TABLES + "topics"),
    ("CREATE VIRTUAL TABLE messages USING rtree(id, topic_id, timestamp)", NO_TABLES + "messages_node"),
    ("CREATE TABLE messages(id, topic_id)", "damaged: no such column: timestamp"),
    (f"CREATE TABLE {TABLE}; INSERT INTO messages VALUES (1, 1, 'soon', x'00')", NO_DATA),
    (f"CREATE TABLE {TABLE}; INSERT INTO messages VALUES (1, 1, 2, 'text')", NO_DATA),
    ("", NO_TABLES + "topics"),
    (f"CREATE TABLE {TABLE}; INSERT INTO topics VALUES (2, NULL, 'a', 'cdr')", "damaged: a topic without name or type"),
    (f"CREATE TABLE {TABLE}; INSERT INTO topics VALUES (2, x'ff', x'fe', 'cdr'); UPDATE topics SET name = 'x'",
     "expected a topic 'transitions', found x"),
    ("CREATE TABLE messages(id, topic_id, timestamp, data); UPDATE topics SET serialization_format = 'cbor'",
     "topic '/transitions': expected messages in cdr, found 'cbor'"),
])
def test_strange_databases_are_refused(tmp_path, trick, error):
    path = tmp_path / "a.db3"
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE topics(id INTEGER, name TEXT, type TEXT, serialization_format TEXT);"
        f"INSERT INTO topics VALUES (1, '/transitions', '{TRANSITION}', 'cdr'); {trick}")
    database.close()
    expect_refusal([path], f"a.db3: {error}", spec=STATE)


def test_what_sqlite_quotes_keeps_to_a_line(tmp_path):
    path = other_writer(tmp_path / "a", make_records(STATE, 3), STATE, StoragePlugin.SQLITE3) / "a.db3"
    path.write_bytes(path.read_bytes().replace(b"offered_qos_profiles TEXT", b"`ffered_qos_profiles TEXT"))
    expect_refusal([path], "a.db3: damaged: malformed database schema", "\\n")


@pytest.mark.skipif(not hasattr(sqlite3.Connection, "setlimit"), reason="Python 3.11 has SQLite's limits")
def test_a_database_cannot_make_up_huge_values(tmp_path):
    path = tmp_path / "a.db3"
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE topics(id INTEGER, name TEXT, type TEXT, serialization_format TEXT);"
        f"INSERT INTO topics VALUES (1, '/transitions', '{TRANSITION}', 'cdr');"
        "CREATE TABLE messages(id, topic_id, timestamp, data GENERATED ALWAYS AS (zeroblob(900000000)));"
        "INSERT INTO messages VALUES (1, 1, 2)")
    database.close()
    expect_refusal([path], "a.db3: damaged: string or blob too big", spec=STATE)


def test_a_cut_database_is_refused(tmp_path):
    path = other_writer(tmp_path / "a", make_records(PIXELS, 60), PIXELS, StoragePlugin.SQLITE3) / "a.db3"
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, len(whole) // 40):
        path.write_bytes(whole[:length])
        expect_refusal([path], "a.db3: ")
