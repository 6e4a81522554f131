# SPDX-License-Identifier: Apache-2.0
"""Metrics tables: what is written comes back, through kills, resumes and new columns."""

import math
import signal
import subprocess
import sys

import numpy as np
import pytest

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

    (file,) = (run.metrics / "tensorboard").iterdir()
    data, scalars = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        scalars += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    return scalars


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
