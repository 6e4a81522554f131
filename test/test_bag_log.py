# SPDX-License-Identifier: Apache-2.0
"""Writing bags: what is flushed survives, and other tools read it."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from recordings import (
    PIXELS,
    SPACE,
    STATE,
    TRANSITION,
    expect_same,
    expect_same_steps,
    make_record,
    make_records,
    serialize,
    write_log,
)
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from rlpd_ros.errors import DataError
from rlpd_ros.ros import bag_log
from rlpd_ros.ros.bags import TransitionLog, read_demonstrations


@pytest.mark.parametrize("spec", [STATE, PIXELS])
def test_what_is_written_is_read(tmp_path, spec):
    records = make_records(spec, 50)
    path = write_log(tmp_path / "log", spec, records)
    expect_same(TransitionLog.read(path, spec), records)
    demonstrations = read_demonstrations([path])
    assert demonstrations.spec == spec
    expect_same_steps(demonstrations, records)


def test_nothing_written_is_nothing_read(tmp_path):
    log = TransitionLog(tmp_path / "log", STATE)
    log.flush()
    log.close()
    assert not (tmp_path / "log").exists()
    assert list(TransitionLog.read(tmp_path / "log", STATE)) == []


def test_segments_are_complete_bags_in_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(bag_log, "SEGMENT_SIZE", 30_000)
    records = make_records(PIXELS, 150)
    path = write_log(tmp_path / "log", PIXELS, records)
    files = sorted(path.glob("*.mcap"))
    assert len(files) > 3
    assert max(file.stat().st_size for file in files) < 40_000
    expect_same(TransitionLog.read(path, PIXELS), records)
    single = read_demonstrations([path / "log_1.mcap"])
    assert 0 < single.manifest.total < 150


def test_many_flushes_begin_a_new_segment(tmp_path, monkeypatch):
    monkeypatch.setattr(bag_log, "SEGMENT_CHUNKS", 10)
    path = write_log(tmp_path / "log", STATE, make_records(STATE, 35), flush_every=1)
    assert len(list(path.glob("*.mcap"))) == 4


def test_much_is_written_without_being_asked_to(tmp_path, monkeypatch):
    monkeypatch.setattr(bag_log, "UNFLUSHED", 5_000)
    log, records = TransitionLog(tmp_path / "log", PIXELS), make_records(PIXELS, 50)
    for record in records:
        log.write(record)
    assert 40 < len(list(TransitionLog.read(tmp_path / "log", PIXELS))) < 50


def test_it_can_wait_for_the_disk(tmp_path, monkeypatch):
    synchronised = []
    monkeypatch.setattr(os, "fsync", lambda file: synchronised.append(os.fstat(file).st_size))
    log = TransitionLog(tmp_path / "log", STATE)
    for record in make_records(STATE, 3):
        log.write(record)
        log.flush(sync=record.sequence > 1)
    assert len(synchronised) == 3  # one of them is the folder
    assert synchronised[-1] == (tmp_path / "log" / "log_0.mcap").stat().st_size


def test_a_log_is_continued(tmp_path):
    records = make_records(STATE, 40)
    path = write_log(tmp_path / "log", STATE, records[:25])
    write_log(path, STATE, records[25:])
    assert sorted(file.name for file in path.iterdir()) == ["log_0.mcap", "log_1.mcap", "metadata.yaml"]
    expect_same(TransitionLog.read(path, STATE), records)
    assert read_demonstrations([path]).manifest.total == 40


def test_ten_and_more_segments_stay_in_order(tmp_path):
    records = make_records(STATE, 60)
    for i in range(12):
        write_log(tmp_path / "log", STATE, records[5 * i:5 * i + 5])
    expect_same(TransitionLog.read(tmp_path / "log", STATE), records)


def test_other_tools_read_it(tmp_path, monkeypatch):
    monkeypatch.setattr(bag_log, "SEGMENT_SIZE", 4_000)
    records = make_records(STATE, 60)
    path = write_log(tmp_path / "log", STATE, records)
    segments = len(list(path.glob("*.mcap")))
    with Reader(path) as reader:
        assert {name: (topic.msgtype, topic.msgcount) for name, topic in reader.topics.items()} == {
            "/transitions": (TRANSITION, 60), "/space_spec": (SPACE, segments)}
        assert reader.message_count == 60 + segments
        assert (reader.start_time, reader.end_time - 1) == (records[0].stamp, records[-1].stamp)
        qos = {c.topic: c.ext.offered_qos_profiles[0] for c in reader.connections}
        assert qos["/space_spec"].durability.name == "TRANSIENT_LOCAL"
        assert (qos["/transitions"].durability.name, qos["/transitions"].depth) == ("VOLATILE", 1000)
        found = [stamp for c, stamp, _ in reader.messages() if c.topic == "/transitions"]
    assert found == [record.stamp for record in records]
    with AnyReader([path]) as reader:  # by the definitions in the bag alone
        states = [reader.deserialize(data, c.msgtype).state for c, _, data in reader.messages()
                  if c.topic == "/transitions"]
    np.testing.assert_array_equal(states, [record.observation.state for record in records])
    with (path / "log_0.mcap").open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        found = [len(message.data) for _, _, message in reader.iter_messages("/transitions")]
        assert found == [len(serialize(record, STATE)) for record in records[:len(found)]]
        assert len(found) == reader.get_summary().statistics.message_count - 1


# The death of the writer

WRITER = """
import sys
from recordings import PIXELS, make_record
from rlpd_ros.ros.bags import TransitionLog
log = TransitionLog(sys.argv[1], PIXELS)
sequence = int(sys.argv[2])
while True:
    for _ in range(int(sys.argv[3])):
        sequence += 1
        log.write(make_record(PIXELS, sequence))
    log.flush()
    print(sequence, flush=True)
"""


def test_what_is_flushed_survives_sigkill(tmp_path):
    path = tmp_path / "log"
    total = 0
    for round_, per_flush in enumerate((1, 7, 50, 3)):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(total), str(per_flush)],
                                 stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
        lines = [child.stdout.readline() for _ in range(5 + 7 * round_)]
        child.kill()
        flushed = int([line for line in [*lines, *child.stdout] if line.endswith("\n")][-1])
        assert child.wait() == -signal.SIGKILL
        records = list(TransitionLog.read(path, PIXELS))
        assert len(records) >= flushed > total
        expect_same(records, make_records(PIXELS, len(records)))
        with pytest.raises(DataError, match="cut off after byte"):
            read_demonstrations([path])
        total = len(records)
    log = TransitionLog(path, PIXELS)  # who continues the log makes it whole
    log.write(make_record(PIXELS, total + 1))
    log.close()
    assert read_demonstrations([path]).manifest.total == total + make_record(PIXELS, total + 1).last
    with Reader(path) as reader:
        assert reader.topics["/transitions"].msgcount == total + 1
        assert len(list(reader.messages())) == reader.message_count
    assert not list(path.glob(".*"))


def test_a_log_with_nothing_in_it_yet_is_continued(tmp_path):
    path = write_log(tmp_path / "log", STATE, make_records(STATE, 5))
    whole = (path / "log_0.mcap").read_bytes()
    for length in (0, 3, 8, 60, 1000):
        shutil.rmtree(path)
        path.mkdir()
        (path / "log_0.mcap").write_bytes(whole[:length] + bytes(3000 if length % 3 else 0))
        write_log(path, STATE, make_records(STATE, 5))
        assert {file.name for file in path.iterdir()} == {"log_0.mcap", "metadata.yaml"}
        expect_same(TransitionLog.read(path, STATE), make_records(STATE, 5))
        with Reader(path) as reader:
            assert len(list(reader.messages())) == 6


@pytest.mark.parametrize("file", [b"\x89MCAP1\r\n", b"hello", bytes(100) + b"x"])
def test_what_is_no_log_is_neither_continued_nor_deleted(tmp_path, file):
    (tmp_path / "log_0.mcap").write_bytes(file)
    with pytest.raises(DataError, match="expected an MCAP file, found another beginning; move the file out of"):
        write_log(tmp_path, STATE, make_records(STATE, 5))
    assert (tmp_path / "log_0.mcap").read_bytes() == file


def test_a_log_that_began_on_a_full_disk_is_continued(tmp_path):
    """A limit on the size of files stands for a disk without space."""
    path, records = tmp_path / "log", make_records(STATE, 20)
    write_log(path, STATE, records[:10])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        log = TransitionLog(path, STATE)
        log.write(records[10])
        with pytest.raises(DataError, match="cannot write transitions: File too large"):
            log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (path / "log_1.mcap").stat().st_size == 0  # and here its writer is killed
    expect_same(TransitionLog.read(path, STATE), records[:10])
    write_log(path, STATE, records[10:])
    assert sorted(file.name for file in path.iterdir()) == ["log_0.mcap", "log_1.mcap", "metadata.yaml"]
    assert read_demonstrations([path]).manifest.total == 20


@pytest.mark.parametrize("spec", [STATE, PIXELS])
@pytest.mark.parametrize("lost", [100, 200, 2000])
def test_a_log_whose_end_a_power_cut_made_zero_is_cut_and_continued(tmp_path, spec, lost):
    path, records = tmp_path / "log", make_records(spec, 40)
    log = TransitionLog(path, spec)
    for record in records:
        log.write(record)
        log.flush()
    file = path / "log_0.mcap"
    whole = file.read_bytes()
    file.write_bytes(whole[:-lost] + bytes(lost))
    left = len(list(TransitionLog.read(path, spec)))
    assert 30 < left < 40
    write_log(path, spec, records[left:])
    expect_same(TransitionLog.read(path, spec), records)
    assert read_demonstrations([path]).manifest.total == 40
    with Reader(path) as reader:
        assert reader.topics["/transitions"].msgcount == 40
        assert len(list(reader.messages())) == reader.message_count
    assert not list(path.glob(".*"))


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    """A limit on the size of files stands for a disk without space."""
    monkeypatch.setattr(bag_log, "UNFLUSHED", 100)  # every record is written at once, if it can be
    records = make_records(PIXELS, 60)
    log = TransitionLog(tmp_path / "log", PIXELS)
    flushed = 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        for i, record in enumerate(records[:50]):
            log.write(record)
            if flushed == i:
                try:
                    log.flush()
                    flushed = i + 1
                except DataError:
                    continue
            else:
                with pytest.raises(DataError, match="cannot write transitions: File too large"):
                    log.flush()
        assert 0 < flushed < 49
        found = list(TransitionLog.read(tmp_path / "log", PIXELS))
        assert flushed <= len(found) <= flushed + 1  # there may have been room for all but the index of one
        expect_same(found, records[:len(found)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.flush()
    expect_same(TransitionLog.read(tmp_path / "log", PIXELS), records[:50])
    for record in records[50:]:
        log.write(record)
    log.close()
    assert read_demonstrations([tmp_path / "log"]).manifest.total == 60


def test_two_writers_do_not_share_a_file(tmp_path):
    first, second = TransitionLog(tmp_path / "log", STATE), TransitionLog(tmp_path / "log", STATE)
    first.write(make_record(STATE, 1))
    second.write(make_record(STATE, 2))
    first.flush()
    second._looked = True  # it looked at the folder before the first one wrote
    with pytest.raises(DataError, match="cannot write transitions: File exists"):
        second.flush()
    first.close()
    expect_same(TransitionLog.read(tmp_path / "log", STATE), [make_record(STATE, 1)])


def test_a_log_is_not_continued_in_another_space(tmp_path):
    path = write_log(tmp_path / "log", STATE, make_records(STATE, 5))
    whole = (path / "log_0.mcap").read_bytes()
    (path / "log_0.mcap").write_bytes(whole[:-40])
    other = replace(STATE, frame_id="world")
    with pytest.raises(DataError, match="recorded in another space: frame_id: expected 'world', found 'base'"):
        write_log(path, other, make_records(other, 1))
    assert (path / "log_0.mcap").read_bytes() == whole[:-40]
