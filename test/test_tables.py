# SPDX-License-Identifier: Apache-2.0
"""Judged rows: the verdict, the table on screen, the JSON."""

import io
import json

import numpy as np
import pytest

from rlpd_ros.tables import Row, all_ok, at_least, at_most, informative, print_table, write_report_json


@pytest.mark.parametrize(("value", "least", "most"), [
    (1499.9, False, True), (1500, True, True), (1500.1, True, False), (float("nan"), False, False),
    (None, False, False), (np.float32(2000), True, False),
])
def test_bounds_are_inclusive_and_what_was_not_measured_fails(value, least, most):
    assert at_least("rate", value, 1500).ok is least
    assert at_most("rate", value, 1500).ok is most


def test_the_target_is_readable():
    assert at_least("rate", 1, 1500, "steps/s") == Row("rate", 1, "steps/s", ">= 1,500", False)
    assert at_most("latency", 0.2, 0.06, "ms").target == "<= 0.06"
    assert informative("machine", "two cores") == Row("machine", "two cores", "", "", None)


def test_only_a_missed_target_counts_as_failure():
    assert all_ok([])
    assert all_ok([informative("a", 1), at_least("b", 2, 1)])
    assert not all_ok([at_least("b", 2, 1), at_least("c", 1, 2)])


def test_a_file_gets_plain_lines_of_any_length():
    text = io.StringIO()
    name = "learner, 10 critics, UTD 20, sampling included [bold]" + "x" * 80
    print_table("Bench", [at_least(name, 112.345, 110, "critic steps/s"), at_most("p50", 0.07, 0.06, "ms"),
                          informative("gone", float("nan"))], text)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert lines[0] == "Bench"
    assert lines[1].split() == ["name", "value", "unit", "target"]
    assert lines[2].startswith(name)
    assert lines[2].removeprefix(name).split() == ["112.3", "critic", "steps/s", ">=", "110", "ok"]
    assert lines[3].split() == ["p50", "0.07", "ms", "<=", "0.06", "MISSED"]
    assert len(lines) == 5
    assert "\x1b" not in text.getvalue()


def test_a_terminal_gets_colour():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    text = Terminal()
    print_table("Bench", [at_least("rate", 2, 1)], text)
    assert "rate" in text.getvalue()
    assert "\x1b[32m" in text.getvalue()


def test_the_report_is_a_list_of_rows_as_plain_json(tmp_path):
    rows = [at_least("rate", np.float64(2.5), 1, "1/s"), at_most("gone", float("nan"), 1), informative("machine", "x")]
    path = write_report_json("bench", rows, tmp_path / "reports")
    assert path == tmp_path / "reports" / "bench.json"
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == [
        {"name": "rate", "value": 2.5, "unit": "1/s", "target": ">= 1", "ok": True},
        {"name": "gone", "value": None, "unit": "", "target": "<= 1", "ok": False},
        {"name": "machine", "value": "x", "unit": "", "target": "", "ok": None},
    ]
