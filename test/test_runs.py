# SPDX-License-Identifier: Apache-2.0
"""The run directory: nothing is overwritten, nothing half-written is read, errors name the thing."""

import errno
import json
import os
from datetime import datetime

import numpy as np
import pytest

from rlpd_ros import runs
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.runs import RunDirectory, Summary, write_atomically

SUMMARY = {"success_rate": 0.96, "eval_episodes": 50, "env_steps": 8000, "gradient_steps": 7900, "wall_s": 240.5,
           "seed": 1, "preset": "rlpd", "outcome": "reached 95 %"}


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "runs", "first")


def test_a_new_run_has_its_folders_and_opens_again(tmp_path, run):
    assert run.path == tmp_path / "runs" / "first"
    assert run.checkpoints.is_dir()
    assert run.metrics.is_dir()
    assert run.logs.is_dir()
    assert RunDirectory.open(run.path) == run


def test_one_learner_at_a_time_is_in_a_run(run):
    held = run.lock()
    with pytest.raises(ConfigError, match=r"another learner is at work in .*first: stop it"):
        run.lock()
    os.close(held)
    os.close(run.lock())


def test_an_existing_run_is_not_overwritten(tmp_path, run):
    (run.metrics / "kept").write_text("x")
    with pytest.raises(ConfigError, match=r"'first'.*exists already.*another name.*--resume"):
        RunDirectory.create(tmp_path / "runs", "first")
    assert (run.metrics / "kept").read_text() == "x"
    (tmp_path / "runs" / "empty").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        RunDirectory.create(tmp_path / "runs", "empty")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a"])
def test_a_run_name_is_a_plain_folder_name(tmp_path, name):
    with pytest.raises(ConfigError, match="run name"):
        RunDirectory.create(tmp_path, name)


def test_a_root_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        RunDirectory.create(tmp_path / "file", "run")


def test_opening_what_is_not_a_run_says_what_is_there(tmp_path):
    with pytest.raises(DataError, match=r"absent.*found nothing"):
        RunDirectory.open(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="found a file"):
        RunDirectory.open(tmp_path / "file")
    with pytest.raises(DataError, match=r"no checkpoints/ and no metrics/"):
        RunDirectory.open(tmp_path)


def test_fresh_names_are_the_time_with_a_suffix_when_taken(tmp_path):
    now = datetime(2026, 11, 22, 7, 41, 3)
    names = []
    for _ in range(3):
        names.append(RunDirectory.fresh_name(tmp_path, now))
        RunDirectory.create(tmp_path, names[-1])
    assert names == ["2026-11-22_07-41-03", "2026-11-22_07-41-03_2", "2026-11-22_07-41-03_3"]


def test_parameters_come_back_as_written(run):
    run.write_parameters({"learner": {"seed": 1, "hidden": (256, 256), "lr": 1e-5, "name": "yes"}, "empty": {}})
    assert run.read_parameters() == {"learner": {"seed": 1, "hidden": [256, 256], "lr": 1e-5, "name": "yes"},
                                     "empty": {}}


@pytest.mark.parametrize("text", ["a: [1", "- a", ""])
def test_damaged_parameters_name_the_file(run, text):
    run.parameters.write_text(text)
    with pytest.raises(DataError, match=r"parameters\.yaml"):
        run.read_parameters()


def test_a_summary_comes_back_as_written(run):
    with pytest.raises(DataError, match=r"summary\.json: no such file"):
        run.read_summary()
    run.write_summary(SUMMARY)
    assert json.loads(run.summary.read_text()) == SUMMARY
    assert run.read_summary() == Summary(**SUMMARY)
    run.write_summary(SUMMARY | {"success_rate": np.float32(0.5), "env_steps": np.int64(7)})
    assert (run.read_summary().success_rate, run.read_summary().env_steps) == (0.5, 7)


def test_a_run_without_an_evaluation_has_no_success_rate(run):
    run.write_summary(SUMMARY | {"success_rate": None, "eval_episodes": 0})
    assert run.read_summary().success_rate is None


@pytest.mark.parametrize(("field", "value"), [
    ("success_rate", 1.01), ("success_rate", -1.0), ("success_rate", float("nan")), ("success_rate", None),
    ("eval_episodes", -1), ("eval_episodes", 0), ("env_steps", 1.5), ("env_steps", -1), ("gradient_steps", True),
    ("wall_s", -0.1), ("wall_s", float("inf")), ("seed", "1"), ("preset", None), ("outcome", 3),
])
def test_a_wrong_summary_is_refused_and_nothing_is_written(run, field, value):
    with pytest.raises(DataError, match="success_rate" if field == "eval_episodes" and value == 0 else field):
        run.write_summary(SUMMARY | {field: value})
    assert not run.summary.exists()


def test_missing_and_unknown_fields_of_a_summary_are_named(run):
    with pytest.raises(DataError, match=r"missing \['seed'\], unknown \['sede'\]"):
        run.write_summary({name: value for name, value in SUMMARY.items() if name != "seed"} | {"sede": 1})


@pytest.mark.parametrize("text", ["{", "[]", '{"success_rate": 2}', '{"success_rate": 0.5, "eval_episodes": "many", '
                                  '"env_steps": 1, "gradient_steps": 1, "wall_s": 1, "seed": 1, "preset": ""}'])
def test_a_damaged_summary_names_the_file(run, text):
    run.summary.write_text(text)
    with pytest.raises(DataError, match=r"summary\.json"):
        run.read_summary()


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(run, monkeypatch):
    write_atomically(run.summary, "old")

    def fail(_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(runs.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full") as caught:
        write_atomically(run.summary, "new")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(run.summary))
    assert run.summary.read_text() == "old"
    assert os.listdir(run.path).count("summary.json") == 1
    assert not [name for name in os.listdir(run.path) if name.startswith(".summary")]


def test_a_file_that_cannot_be_written_is_named_and_not_the_one_that_was_to_replace_it(run):
    for path in (run.path / "nowhere" / "summary.json", run.metrics):
        with pytest.raises(OSError, match=f"'{path}'$"):
            write_atomically(path, "new")
