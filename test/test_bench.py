# SPDX-License-Identifier: Apache-2.0
"""The benchmarks: each gives its rows, the yardsticks measure what they say, and nothing became twice as slow."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from rlpd_ros.bench import guard, learning, suite, transport
from rlpd_ros.bench.timing import Effort, durations, high, low, percentiles, rates
from rlpd_ros.cli import main
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.tables import at_least

SHORT = Effort(2, 0.01, 5)


def test_rates_and_durations_are_those_of_what_is_called():
    def step() -> None:
        until = time.perf_counter() + 0.002
        while time.perf_counter() < until:
            pass

    assert all(10 < rate < 501 for rate in rates(step, SHORT))
    times = durations(step, SHORT)
    assert len(times) == SHORT.samples
    assert (times >= 0.002).all()


def test_rows_have_median_spread_and_share_of_the_limit():
    row = high("rate", [3.0, 1.0, 2.0], "1/s", target=2.0, limit=8.0)
    assert (row.value, row.spread, row.ok, row.share_of_limit) == (2.0, (1.0, 3.0), True, 0.25)
    row = low("time", [4.0], "ms", target=3.0, limit=1.0)
    assert (row.value, row.spread, row.ok, row.share_of_limit) == (4.0, None, False, 0.25)
    assert high("rate", [9.0], "1/s", target=2.0, limit=6.0).share_of_limit == 1.5  # not capped
    p50, p99 = percentiles("act", np.arange(101) / 1000, (51, 98))
    assert (p50.name, p50.value, p50.ok) == ("act, p50", 50.0, True)
    assert (p99.name, p99.value, p99.ok) == ("act, p99", 99.0, False)
    assert high("rate", [], "1/s", target=2.0).ok is False


def test_operations_of_a_critic_step_by_hand():
    """One critic and one policy of one hidden layer, batch 2: 25 inputs of the critic, 21 of the policy, 8 outputs."""
    config = AgentConfig(num_qs=1, num_min_qs=1, utd_ratio=1, critic_hidden_dims=(10,))
    critic, actor = 2 * 2 * (25 * 10 + 10), 2 * 2 * (21 * 10 + 10 * 8)
    target, online, next_action = critic, 3 * critic - 2 * 2 * 25 * 10, actor
    policy_step = 3 * actor - 2 * 2 * 21 * 10 + 2 * critic
    assert learning.critic_step_flops(config, PolicyConfig(hidden_dims=(10,)), 2) == (
        target + online + next_action + policy_step)


def test_an_unknown_benchmark_is_refused_before_anything_is_measured():
    with pytest.raises(ConfigError, match=r"benchmark 'lerner': expected some of machine, learner"):
        suite.run(["machine", "lerner"], SHORT, pytest.fail)


def test_a_benchmark_that_breaks_fails_with_its_reason_and_the_others_go_on(monkeypatch):
    def broken(effort):
        yield at_least("first", 2, 1)
        raise DataError("waited in vain")

    monkeypatch.setattr(suite, "BENCHMARKS", {
        "machine": lambda effort: iter(()), "broken": broken, "good": lambda effort: iter([at_least("good", 2, 1)])})
    rows = suite.run([], SHORT, lambda name: None)
    assert [(row.name, row.ok) for row in rows] == [("first", True), ("broken: waited in vain", False), ("good", True)]


@pytest.mark.parametrize("name", ["act", "replay"])
def test_the_command_prints_one_table_and_writes_one_file(name, tmp_path, capsys):
    assert main(["bench", "--quick", name, "--out", str(tmp_path)]) in (0, 1)
    printed = capsys.readouterr().out
    rows = json.loads(Path(tmp_path, "bench.json").read_text())
    assert {"processor", "cores", "memory, copy of 67 MB"} < {row["name"] for row in rows}
    judged = [row for row in rows if row["target"]]
    assert judged
    assert all(row["name"] in printed and row["value"] > 0 and row["limit"] > 0 for row in judged)


def test_observations_go_to_a_real_actor_and_actions_come_back(domain):
    rows = list(transport.loop(SHORT))
    assert [row.name[-3:] for row in rows] == ["p50", "p99"]
    assert all(row.value > 0 for row in rows)  # type: ignore[operator]


@pytest.mark.parametrize("path", guard.PATHS)
def test_no_path_is_twice_as_slow_as_it_was(path):
    guard.check(path)


def test_the_guard_notices_a_path_that_is_much_slower(monkeypatch):
    def slowed():
        step = quick()
        return lambda: [step() for _ in range(5)]

    quick = guard.PATHS["replay"]
    monkeypatch.setitem(guard.PATHS, "replay", slowed)
    with pytest.raises(DataError, match=r"replay: expected at most .* times the calibration"):
        guard.check("replay")
