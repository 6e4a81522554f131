# SPDX-License-Identifier: Apache-2.0
"""Metrics tables: what is written comes back, through kills, resumes, new columns and full disks."""

import contextlib
import errno
import math
import os
import resource
import signal
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

from rlpd_ros.diagnosis.from_run import evidence_of_run
from rlpd_ros.errors import DataError
from rlpd_ros.metrics import MetricsWriter, read_table, table_path, wilson_interval
from rlpd_ros.runs import RunDirectory


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path, "run")


@pytest.fixture
def path(run):
    return table_path(run.metrics, "learner")


def write(run, *rows):
    with MetricsWriter(run, tensorboard=False) as writer:
        for step, row in enumerate(rows):
            writer.write("learner", step, row)


def columns(path):
    return {name: column.tolist() for name, column in read_table(path).items()}


def test_numbers_and_texts_come_back(run, path):
    write(run, {"q": 0.1, "n": 2**40, "ok": True, "name": 'a, "b"\nc'},
          {"q": np.float32(0.1), "n": np.uint64(7), "ok": np.False_, "name": "1e5"},
          {"q": np.array(math.inf), "n": 0, "ok": 1, "name": ""})
    assert columns(path) == {"step": [0, 1, 2], "q": [0.1, 0.1, math.inf], "n": [2**40, 7, 0], "ok": [1, 0, 1],
                             "name": ['a, "b" c', "1e5", ""]}
    assert read_table(path)["n"].dtype == np.float64
    assert path.read_text().splitlines()[0] == '"step","q","n","ok","name"'


@pytest.mark.parametrize("value", [None, [1.0], np.zeros(1), object(), 1j, b"x"])
def test_what_is_neither_number_nor_text_is_refused_by_name(run, path, value):
    with pytest.raises(ValueError, match="metric 'loss'"):
        write(run, {"loss": value})
    assert not path.exists()


def test_a_row_is_on_disk_when_write_returns(run, path):
    with MetricsWriter(run, tensorboard=False) as writer:
        for i in range(3):
            writer.write("learner", i, {"q": i})
            assert columns(path)["q"] == list(range(i + 1))


def test_a_kill_loses_no_row_that_write_has_returned_from(run, path):
    program = ("import itertools, sys; from pathlib import Path; from rlpd_ros.metrics import MetricsWriter\n"
               "from rlpd_ros.runs import RunDirectory\n"
               "writer = MetricsWriter(RunDirectory.open(sys.argv[1]), tensorboard=False)\n"
               "for i in itertools.count():\n"
               "    writer.write('learner', i, {'twice': 2 * i, 'text': 'x' * 100})\n"
               "    print(i, flush=True)\n")
    with subprocess.Popen([sys.executable, "-c", program, str(run.path)], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) >= 200:
                break
        process.send_signal(signal.SIGKILL)
        returned = max([200, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
    table = read_table(path)
    assert len(table["step"]) > returned
    assert table["step"].tolist() == list(range(len(table["step"])))
    assert np.array_equal(table["twice"], 2 * table["step"])


@pytest.mark.parametrize("torn", [b"1", b'1,0.25,"te', b"1,0.25"])
def test_a_torn_last_line_is_not_read_and_is_repaired_on_resume(run, path, torn):
    write(run, {"q": 0.5, "text": "a"})
    with path.open("ab") as file:
        file.write(torn)
    assert columns(path) == {"step": [0], "q": [0.5], "text": ["a"]}
    write(run, {"q": 0.75, "text": "b"})
    assert columns(path) == {"step": [0, 0], "q": [0.5, 0.75], "text": ["a", "b"]}


def test_a_torn_header_is_an_empty_table(run, path):
    path.write_bytes(b'"step","q')
    assert columns(path) == {}
    write(run, {"q": 1})
    assert columns(path) == {"step": [0], "q": [1]}


def test_a_resumed_run_appends_under_one_header(run, path):
    write(run, {"a": 1, "b": 2})
    write(run, {"b": 4, "a": 3})
    assert columns(path) == {"step": [0, 0], "a": [1, 3], "b": [2, 4]}
    assert path.read_text().count('"step"') == 1


def test_columns_may_come_and_go(run, path):
    write(run, {"a": 1}, {"a": 2, "text": "x"}, {"b": 3})
    write(run, {"c": 4})
    nan = pytest.approx(math.nan, nan_ok=True)
    assert columns(path) == {"step": [0, 1, 2, 0], "a": [1, 2, nan, nan], "text": ["", "x", "", ""],
                             "b": [nan, nan, 3, nan], "c": [nan, nan, nan, 4]}
    assert list(path.parent.glob("*.tmp")) == []


def test_a_header_without_rows_has_empty_columns(path):
    path.write_text('"step","a"\n')
    assert columns(path) == {"step": [], "a": []}


@pytest.mark.parametrize("line", ["2,oops", "2,3,4,5", "2,\x00"])
def test_a_damaged_line_is_named(run, path, line):
    write(run, {"a": 1}, {"a": 2})
    with path.open("a") as file:
        file.write(line + "\n1,2\n")
    with pytest.raises(DataError, match=r"learner\.csv, line 4"):
        read_table(path)


def test_a_missing_table_is_named(path):
    with pytest.raises(DataError, match=r"learner\.csv"):
        read_table(path)


def test_numbers_reach_tensorboard_under_table_and_column(run):
    with MetricsWriter(run) as writer:
        writer.write("learner", 100, {"q_mean": 0.5, "checksum": "c0ffee", "broken": math.nan})
        writer.write("episodes", 7, {"success": True})
    assert tensorboard_scalars(run) == [("learner/q_mean", 100, 0.5), ("episodes/success", 7, 1.0)]


def test_tensorboard_can_be_left_out(run, path):
    write(run, {"a": 1})
    assert list(run.metrics.iterdir()) == [path]


def tensorboard_scalars(run):
    """Read the event files of a run: records of an 8-byte length, its checksum, the event and its checksum."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    (file,) = (run.metrics / "tensorboard").iterdir()
    data, scalars = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
        assert int.from_bytes(data[12 + length : 16 + length], "little") == masked_crc32c(data[12 : 12 + length])
        assert (event.file_version != "") == (len(data) == file.stat().st_size)
        scalars += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    return scalars


# A full disk


@pytest.fixture
def disk(monkeypatch):
    """Return what makes a disk that has room for so many bytes more, which it takes; None: for all."""
    room, write_all = [None], os.write

    def write_some(file, data):
        if room[0] is None or not stat.S_ISREG(os.fstat(file).st_mode):
            return write_all(file, data)
        if data and not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write_all(file, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write_some)
    return lambda size: room.__setitem__(0, size)


def full():
    return pytest.raises(OSError, match="No space left on device")


@pytest.mark.parametrize("room", range(0, 12, 2))
def test_a_row_for_which_there_is_no_room_leaves_the_table_as_it_was(run, path, disk, room):
    with MetricsWriter(run, tensorboard=False) as writer:
        writer.write("learner", 0, {"loss": 0.125, "text": "a"})
        disk(room)
        for _ in range(2):
            with full():
                writer.write("learner", 1, {"loss": 0.25, "text": "b"})
            assert columns(path) == {"step": [0], "loss": [0.125], "text": ["a"]}
            assert path.read_bytes().endswith(b"\n")
        disk(None)
        writer.write("learner", 2, {"loss": 0.5, "text": "c"})
    assert columns(path) == {"step": [0, 2], "loss": [0.125, 0.5], "text": ["a", "c"]}


def test_a_row_that_the_disk_takes_in_two_parts_is_whole(run, path, monkeypatch):
    write_all = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write_all(file, data[:3]))
    write(run, {"loss": 0.125}, {"loss": 0.25})
    assert columns(path) == {"step": [0, 1], "loss": [0.125, 0.25]}


@pytest.mark.parametrize("room", [0, 3, 30])
def test_a_column_for_which_there_is_no_room_comes_with_a_later_row(run, path, disk, room):
    with MetricsWriter(run, tensorboard=False) as writer:
        writer.write("learner", 0, {"a": 1})
        writer.write("learner", 1, {"a": 2})
        disk(room)
        with full():
            writer.write("learner", 2, {"a": 3, "late": 1})
        assert [file.name for file in run.metrics.iterdir()] == ["learner.csv"]
        disk(None)
        writer.write("learner", 3, {"a": 4})
        writer.write("learner", 4, {"a": 5, "late": 2})
    nan = pytest.approx(math.nan, nan_ok=True)
    assert columns(path) == {"step": [0, 1, 3, 4], "a": [1, 2, 4, 5], "late": [nan, nan, nan, 2]}


@pytest.mark.parametrize("room", [0, 3])
def test_a_table_that_begins_on_a_full_disk_has_its_header_later(run, path, disk, room):
    with MetricsWriter(run, tensorboard=False) as writer:
        disk(room)
        with full():
            writer.write("learner", 0, {"a": 1})
        disk(None)
        writer.write("learner", 1, {"a": 2})
    assert columns(path) == {"step": [1], "a": [2]}


def test_the_limit_of_a_files_size_is_survived_as_well(run, path):
    """Of a real file: the system writes what has room and refuses the rest."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with MetricsWriter(run, tensorboard=False) as writer:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
            with pytest.raises(OSError, match="File too large"):  # noqa: PT012
                for step in range(100):
                    writer.write("learner", step, {"loss": step / 8, "text": "x" * 50})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert 0 < 1000 - path.stat().st_size < 60  # so that a part of the row had room
        writer.write("learner", step, {"loss": 0.5, "text": "y"})
    assert columns(path)["step"] == list(range(step + 1))


@pytest.mark.parametrize("room", [0, 200, 300])
def test_events_for_which_there_is_no_room_do_not_hold_up_who_writes(run, path, disk, room):
    threads = threading.active_count()
    with MetricsWriter(run) as writer:
        writer.write("learner", 0, {"loss": 0.125})
        disk(room)
        for step in range(1, 100):
            with contextlib.suppress(OSError):
                writer.write("learner", step, {"loss": step / 8})
        assert threading.active_count() == threads
        disk(None)
        writer.write("learner", 100, {"loss": 0.5})
    scalars = tensorboard_scalars(run)
    assert (scalars[0], scalars[-1]) == (("learner/loss", 0, 0.125), ("learner/loss", 100, 0.5))
    assert columns(path)["step"][-1] == 100


def test_events_that_begin_on_a_full_disk_are_readable_later(run, disk):
    with MetricsWriter(run) as writer:
        disk(80)  # room for the table's first row
        for step in range(3):
            with full():
                writer.write("learner", step, {"loss": 1})
        disk(None)
        writer.write("learner", 3, {"loss": 2})
    assert tensorboard_scalars(run) == [("learner/loss", 3, 2)]


@pytest.mark.parametrize("table", ["learner", "episodes", "policies"])
@pytest.mark.parametrize("text", ["7,0.5,1\n8,0.25,1\n", '"step","other"\n7,0.5\n',
                                  '"step","version","steps","demo_action_distance"\n7,"a","b","c"\n'])
def test_a_table_without_the_columns_that_are_needed_is_left_out_of_a_diagnosis(run, table, text):
    write(run, {"gradient_step": 5, "env_steps": 7})
    table_path(run.metrics, table).write_text(text)
    evidence = evidence_of_run(run.path, 5000)
    assert [track.last.gradient_step for track in evidence.learners.values()] == ([5] if table != "learner" else [0])
    assert not evidence.episodes


@pytest.mark.parametrize(("successes", "trials", "low", "high"), [
    (0, 10, 0.0, 0.2775), (10, 20, 0.2993, 0.7007), (20, 20, 0.8389, 1.0), (48, 50, 0.8654, 0.9890), (0, 0, 0.0, 1.0),
])
def test_wilson_interval_agrees_with_published_values(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_wilson_interval_widens_with_confidence():
    assert wilson_interval(15, 20, 0.8)[0] > wilson_interval(15, 20, 0.95)[0] > wilson_interval(15, 20, 0.99)[0]


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3)])
def test_wilson_interval_refuses_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, trials)
