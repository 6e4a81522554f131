# SPDX-License-Identifier: Apache-2.0
"""What watching costs: the monitor's share of a core, and the learner's rate with and without it."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median, quantiles

import psutil
from cases.case import REAL_TIME, at_50_hz
from system import System

from rlpd_ros.cli.runner import ros_domain
from rlpd_ros.tables import Row, at_least, at_most

WINDOW = 4.0  # s
WINDOWS = 10  # with the monitor and without it by turns: a machine's rate drifts


def measure(folder: Path, demos: Path) -> list[Row]:
    """Measure at 50 Hz control."""
    folder.mkdir()
    with ros_domain(), System(folder, demos, arm_driver=REAL_TIME) as system:
        at_50_hz(system)
        system.start_all()
        system.start("monitor")
        system.wait_for_training(300)
        monitor = psutil.Process(system.nodes["monitor"].pid)
        shares = [window(system, monitor)[1] for _ in range(WINDOWS // 2)]  # before it has to make up for any stop
        rates: dict[bool, list[float]] = {True: [], False: []}
        for i in range(2 * WINDOWS):
            watched = i % 2 == 0
            (monitor.resume if watched else monitor.suspend)()
            rates[watched].append(window(system, monitor)[0])
        monitor.resume()
    ratios = [watched / unwatched for watched, unwatched in zip(rates[True], rates[False], strict=True)]
    low, middle, high = quantiles(ratios, n=4)
    return [at_most("monitor at 50 Hz control", 100 * median(shares), 3.0, "% of a core"),
            at_least("learner rate, watched / unwatched", middle, 0.95,
                     f"(half of {WINDOWS} pairs: {low:.3f} to {high:.3f})")]


def window(system: System, process: psutil.Process) -> tuple[float, float]:
    """Return the learner's steps per s and the share of a core that ``process`` took over a while."""
    before, cpu, began = steps(system), computed(process), time.monotonic()
    while time.monotonic() - began < WINDOW:
        system.watcher.spin(0.1)
    after, seconds = steps(system), time.monotonic() - began
    return (after - before) / seconds, (computed(process) - cpu) / seconds


def steps(system: System) -> int:
    """Return the learner's gradient step as of a status that has just come."""
    last = system.watcher.learner
    while system.watcher.learner is last:
        system.watcher.spin(0.02)
    assert system.watcher.learner is not None
    return system.watcher.learner.gradient_step


def computed(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
