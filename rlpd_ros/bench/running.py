# SPDX-License-Identifier: Apache-2.0
"""The whole system: control at a fixed rate while the learner trains, and how long it takes to start."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.bench.graph import Bench
from rlpd_ros.bench.processes import process_group
from rlpd_ros.bench.timing import Effort, high, low
from rlpd_ros.errors import DataError
from rlpd_ros.record import record_demonstrations
from rlpd_ros.ros import messages, qos
from rlpd_ros.runs import RunDirectory
from rlpd_ros.tables import Row

RLPD = "import sys; from rlpd_ros.cli import main; sys.exit(main())"
RATES = {10: 0.1, 50: 0.5, 100: 1.0}  # Hz -> % of control periods without an answer in time


def control(effort: Effort) -> Iterator[Row]:
    """Yield overruns, jitter and the learner's rate with the simulated arm in real time, all on this machine."""
    for rate, allowed in RATES.items():
        stamps, holds, updates = _drive(rate, 10 * effort.repetitions * effort.seconds)
        jitter = 1e3 * np.abs(np.diff(stamps) * 1e-9 - 1.0 / rate)
        yield low(f"control at {rate} Hz while training: overruns", [100.0 * holds / len(stamps)], "%", allowed)
        yield low(f"control at {rate} Hz while training: jitter, p99", [float(np.percentile(jitter, 99))], "ms", 2.0)
        yield high(f"control at {rate} Hz while training: critic steps", [2 * updates], "1/s")


def _drive(rate: int, seconds: float) -> tuple[np.ndarray, int, float]:
    """Return the stamps of the observations, ns, how many came without an action, and updates per second."""
    observations: list[tuple[int, int, int]] = []  # stamp, episode, step
    updates: list[tuple[float, int]] = []  # when, gradient steps
    with tempfile.TemporaryDirectory() as folder, Bench() as bench:
        every_one = replace(qos.OBSERVATION, depth=100)  # this process has to wait for its turn
        qos.subscription(bench.node, every_one, lambda m: observations.append((_stamp(m), m.episode, m.step)))
        qos.subscription(bench.node, qos.LEARNER_STATUS, lambda m: updates.append((time.monotonic(), m.gradient_step)))
        bench.start("nodes.learner", run=_run(folder), require_demonstrations=False, training_starts=20,
                    max_steps=10**9, utd_ratio=2)
        bench.start("nodes.actor", eval_every=0)
        bench.start("nodes.arm_driver", lockstep=False, control_rate=float(rate), max_episode_steps=10**6)
        bench.until(lambda: updates and updates[-1][1] > 100, "training")
        for heard in (observations, updates):
            heard.clear()
        until = time.monotonic() + seconds
        bench.until(lambda: time.monotonic() > until and len(updates) > 1, "the end")
    (began, first), (ended, last) = updates[0], updates[-1]
    stamps = np.array([stamp for stamp, _, _ in observations])
    holds = sum(a[1:] == b[1:] for a, b in itertools.pairwise(observations))
    return stamps, holds, (last - first) / (ended - began)


def _run(folder: str) -> str:
    return str(RunDirectory.create(folder, "bench").path)


def _stamp(message) -> int:
    return message.header.stamp.sec * messages.SECOND + message.header.stamp.nanosec


def start(effort: Effort) -> Iterator[Row]:
    """Yield the time from `rlpd train` to the first action, with demonstrations there and a warm compilation cache."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder, "demos")
        record_demonstrations(ArmConfig(), bag)
        for i in range(1 + min(3, effort.repetitions)):  # the first one warms the cache
            times.append(_first_action(["--demos", str(bag), "--runs", folder, "--run", str(i)]))
    yield low("start: command to first action", times[1:], "s", 8.0)


def _first_action(options: list[str]) -> float:
    acted: list[float] = []
    with Bench() as bench:
        qos.subscription(bench.node, qos.ACTION, lambda _: acted.append(time.monotonic()))
        began = time.monotonic()
        with process_group([sys.executable, "-c", RLPD, "train", *options]) as process:
            bench.until(lambda: acted or process.poll() is not None, "the first action")
    if not acted:
        raise DataError(f"benchmark: rlpd train {' '.join(options)} ended without an action")
    return acted[0] - began
