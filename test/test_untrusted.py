# SPDX-License-Identifier: Apache-2.0
"""Texts, files and messages of strangers; and that nothing in the package builds objects out of bytes."""

from __future__ import annotations

import ast
import time
from array import array
from pathlib import Path

import pytest

from rlpd_ros.data.demonstrations import DemonstrationManifest
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.msg import ActorStatus, DemoManifest, LearnerStatus, TransitionsAck
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.bag_reader import Bag
from rlpd_ros.ros.parameters import load_parameter_file
from rlpd_ros.runs import RunDirectory
from rlpd_ros.status import ActorReport, LearnerReport
from rlpd_ros.untrusted import Refusals, expect_name, parse_json, parse_yaml, printable, read_text

PACKAGE = Path(__file__).parents[1] / "rlpd_ros"
BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join(f'*{a}' for _ in range(9))}]\n"
                                  for a, b in zip("abcdefghij", "bcdefghijk", strict=True))
"""Some gigabytes of YAML, once it is written out."""


def test_texts_are_shortened_and_made_printable():
    assert printable("plain, 中文 and °") == "plain, 中文 and °"
    assert printable("x" * 9, 4) == "xxxx… (9 characters)"
    assert printable("\x1b[2Jgone\n\u202e\x00") == "\\x1b[2Jgone\\n\\u202e\\x00"
    assert printable("\ud800") == "\\ud800"


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "\x1b[31m", "\u202eabc"])
def test_names_that_are_none(name):
    with pytest.raises(DataError, match=r"^session: expected"):
        expect_name("session", name)
    assert expect_name("session", "actor-1") == "actor-1"
    assert expect_name("unit", "", 0) == ""


@pytest.mark.parametrize("text", [
    BOMB, "&a [*a]", "&a {x: *a}", "[" * 1000, "[" * 40 + "]" * 40, "{a: " * 100,
    "!!python/object:os.system x", "!!timestamp 2001-99-99", "? [a]\n: b\n? {}", "\x00", "a: b: c", "0o99999: !!int x"])
def test_yaml_that_is_more_than_plain_values_is_refused_in_one_line_and_no_time(text):
    began = time.process_time()
    with pytest.raises(DataError) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert time.process_time() - began < 1.0


def test_a_key_that_is_there_twice_is_named_with_its_line():
    for text, says in (("a: 1\nb: 2\n'a': 3", "key 'a' is there twice, first in line 1 .*line 3,"),
                       ("x: {a: 1, a: 1}", "key 'a' is there twice, first in line 1 .*line 1,"),
                       ("<<: {a: 1, a: 2}", "key 'a' is there twice")):
        with pytest.raises(DataError, match=f"^{says}"):
            parse_yaml(text)
    assert parse_yaml("{<<: {a: 1, b: 1}, <<: {c: 1}, a: 2, '2': 1, 2: 1}") == {"b": 1, "c": 1, "a": 2, "2": 1, 2: 1}


@pytest.mark.parametrize("text", ["[" * 100_000, "{", b"\xff", "1" * 5000])
def test_json_that_is_none_is_refused(text):
    with pytest.raises(DataError):
        parse_json(text)


def test_files_are_read_as_far_as_they_may_be(tmp_path):
    path = tmp_path / "file"
    path.write_text("x" * 10)
    assert read_text(path, 10) == "x" * 10
    with pytest.raises(DataError, match=f"{path}: expected at most 9 bytes"):
        read_text(path, 9)
    path.write_bytes(b"\xff")
    with pytest.raises(DataError, match=f"{path}: not readable"):
        read_text(path)


def test_bombs_in_the_files_of_a_user_do_not_go_off(tmp_path):
    path = tmp_path / "metadata.yaml"
    path.write_text(BOMB)
    with pytest.raises(DataError, match=r"metadata.yaml: expected the metadata of a rosbag2 bag"):
        Bag(tmp_path)._metadata()
    with pytest.raises(ConfigError, match=r"metadata.yaml: expected YAML: .*aliases are not allowed"):
        load_parameter_file(path)
    run = RunDirectory.create(tmp_path, "run")
    run.parameters.write_text(BOMB)
    with pytest.raises(DataError, match=r"parameters.yaml: not readable as YAML: .*aliases"):
        run.read_parameters()
    run.summary.write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"summary.json: not readable as JSON"):
        run.read_summary()


def test_refusals_are_counted_quoted_and_told_ever_more_rarely():
    told: list[str] = []
    refusals = Refusals(told.append)
    receive = qos.checked("action", lambda message: (_ for _ in ()).throw(DataError(f"step: {message}")), refusals)
    for i in range(9):
        receive(f"\x07{i}")
    assert (refusals.count, refusals.text) == (9, "action: step: \\x078")
    assert told == [f"refused (refusal {i}): action: step: \\x07{i - 1}" for i in (1, 2, 4, 8)]
    with pytest.raises(KeyError):  # a fault of ours is no refusal
        qos.checked("action", lambda message: {}[message], refusals)(1)


@pytest.mark.parametrize(("record", "message", "error"), [
    (ActorReport, ActorStatus(policy_age=float("nan")), "policy_age: expected a finite number, found nan"),
    (ActorReport, ActorStatus(state=8), "state: expected 0 to 7, found 8"),
    (LearnerReport, LearnerStatus(q_mean=float("inf")), "q_mean: expected a finite number, found inf"),
    (LearnerReport, LearnerStatus(state=255), "state: expected 0 to 6, found 255"),
    (DemonstrationManifest, DemoManifest(episodes=array("Q", [0]) * 10_001), "episodes: expected at most 10000")])
def test_fields_that_make_no_sense_are_refused(record, message, error):
    with pytest.raises(DataError, match=f"^{error}"):
        messages.to_fields(record, message)


def test_texts_of_fields_are_fit_to_print():
    assert messages.to_acknowledgement(TransitionsAck(text="\x1b]0;x\x07")).text == "\\x1b]0;x\\x07"
    assert len(messages.to_acknowledgement(TransitionsAck(text="s" * 10_000)).text) < 5000
    for session in ("s" * 129, "a\nb"):
        with pytest.raises(DataError, match=r"^session: expected"):
            messages.to_acknowledgement(TransitionsAck(session=session))
    assert messages.to_fields(DemonstrationManifest, DemoManifest(path=["a\nb"])).path == ["a\\nb"]


@pytest.mark.parametrize(("seconds", "nanoseconds"), [(-1, 0), (2**31 - 1, 2**32 - 1), (0, 10**9)])
def test_times_that_there_are_not_are_refused(seconds, nanoseconds):
    message = qos.ACTION.type()
    message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
    with pytest.raises(DataError, match="stamp: expected a time since 1970"):
        messages.to_action(message)


FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {"unsafe_load", "full_load", "load_all", "fromfile", "read_pickle", "system", "popen"}
YAML_LOADERS = {"untrusted.py"}  # the only one that may say yaml.load, with a safe loader


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_builds_objects_or_runs_code_out_of_bytes(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            assert not FORBIDDEN_MODULES & {name.split(".")[0] for name in names}, ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS, ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called, owner = node.func.attr, ast.unparse(node.func.value)
            assert called not in FORBIDDEN_ATTRIBUTES, ast.unparse(node)
            assert (owner, called) != ("np", "load"), ast.unparse(node)
            assert (owner, called) not in (("yaml", "load"), ("yaml", "safe_load")) or path.name in YAML_LOADERS, (
                f"{ast.unparse(node)}: use untrusted.parse_yaml")
            assert (owner, called) != ("json", "loads") or path.name in YAML_LOADERS, (
                f"{ast.unparse(node)}: use untrusted.parse_json")
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "shell"):
            assert ast.unparse(node.value) == "False", ast.unparse(node)
