# SPDX-License-Identifier: Apache-2.0
"""How things are timed: warm-up, repetitions, median and spread; and rows that show all of it."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlpd_ros.tables import Row, at_least, at_most, informative


@dataclass(frozen=True)
class Effort:
    """How much time to spend: ``repetitions`` of ``seconds`` each, and ``samples`` of what is timed one by one."""

    repetitions: int
    seconds: float
    samples: int


FULL = Effort(5, 1.0, 1000)
QUICK = Effort(2, 0.2, 100)


def rates(step: Callable[[], object], effort: Effort) -> list[float]:
    """Return how often per second ``step`` can be called, once for each repetition, after a warm-up.

    What there is before is spared the search for garbage, as in nodes.
    """
    step()
    step()
    measured = []
    for _ in range(effort.repetitions):
        gc.collect()
        gc.freeze()
        began, steps = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - began) < effort.seconds:
            step()
            steps += 1
        measured.append(steps / elapsed)
        gc.unfreeze()
    return measured


def durations(call: Callable[[], object], effort: Effort) -> np.ndarray:
    """Return how long each of ``effort.samples`` calls took, in s, after a warm-up."""
    for _ in range(max(2, effort.samples // 10)):
        call()
    measured = np.empty(effort.samples)
    for i in range(effort.samples):
        began = time.perf_counter()
        call()
        measured[i] = time.perf_counter() - began
    return measured


def paced(period: float) -> Iterator[None]:
    """Return once every ``period`` s; what comes late is not made up for."""
    due = time.perf_counter()
    while True:
        yield
        wait = due + period - time.perf_counter()
        due += period - min(0.0, wait)
        time.sleep(max(0.0, wait))


def high(name: str, values: Sequence[float], unit: str, target: float | None = None, limit: float | None = None) -> Row:
    """Make the row of a figure that should be high: median, lowest and highest repetition, speed of light."""
    return _row(name, values, unit, target, limit, at_least)


def low(name: str, values: Sequence[float], unit: str, target: float | None = None, limit: float | None = None) -> Row:
    """Make the row of a figure that should be low."""
    return _row(name, values, unit, target, limit, at_most)


def percentiles(name: str, seconds: np.ndarray, targets: tuple[float | None, float | None] = (None, None),
                limit: float | None = None, unit: str = "ms", scale: float = 1e3) -> list[Row]:
    """Make the rows of median and 99th percentile of durations; ``targets`` and ``limit`` in ``unit``."""
    return [low(f"{name}, p{which}", [float(np.percentile(seconds, which)) * scale], unit, target, limit)
            for which, target in zip((50, 99), targets, strict=True)]


def _row(name: str, values: Sequence[float], unit: str, target: float | None, limit: float | None, judge) -> Row:
    value = statistics.median(values) if values else None
    row = informative(name, value, unit) if target is None else judge(name, value, target, unit)
    return replace(row, limit=limit, spread=(min(values), max(values)) if len(values) > 1 else None)
