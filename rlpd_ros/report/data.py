# SPDX-License-Identifier: Apache-2.0
"""What a run recorded, as far as it is there, and the few statistics that the report draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rlpd_ros.errors import DataError
from rlpd_ros.metrics import read_table, table_path, wilson_interval
from rlpd_ros.runs import RunDirectory, Summary

TARGET = 0.95  # success rate that counts as having learned the task, unless the run asks for another
CURVE_POINTS = 400  # of a drawn curve at most


class Table:
    """The rows of a metrics table; a column that was never written reads as empty."""

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self._columns = dict(columns)
        self.rows = len(next(iter(self._columns.values()), ()))

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column of numbers: float64 (rows,), NaN where empty."""
        column = self._columns.get(name)
        if column is None or column.dtype.kind != "f":
            return np.full(self.rows, np.nan)
        return column

    def text(self, name: str) -> np.ndarray:
        """Return a column of texts: str (rows,), "" where empty."""
        column = self._columns.get(name)
        return np.full(self.rows, "") if column is None or column.dtype.kind == "f" else column

    def where(self, chosen: np.ndarray | slice) -> Table:
        """Return the rows that a bool (rows,), row numbers or a slice choose."""
        return Table({name: column[chosen] for name, column in self._columns.items()})

    def last(self, name: str) -> float | None:
        """Return the last number of a column, None if there is none."""
        numbers = self[name][np.isfinite(self[name])]
        return float(numbers[-1]) if len(numbers) else None

    def highest(self, name: str) -> float | None:
        """Return the highest number of a column, None if there is none."""
        numbers = self[name][np.isfinite(self[name])]
        return float(numbers.max()) if len(numbers) else None


@dataclass(frozen=True)
class Evaluation:
    """One greedy evaluation: its place in the run and its results. ``done`` is False while episodes are missing."""

    env_steps: int
    gradient_step: int
    policy_version: int
    episodes: int
    successes: int
    mean_return: float
    mean_steps: float
    done: bool

    @property
    def rate(self) -> float:
        return self.successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.successes, self.episodes)


@dataclass(frozen=True)
class RunData:
    """Everything that the report is made from. ``damaged`` names, one line each, what could not be read."""

    run: RunDirectory
    summary: Summary | None
    parameters: dict[str, Any]
    learner: Table
    episodes: Table
    policies: Table
    damaged: tuple[str, ...]

    @cached_property
    def training(self) -> Table:
        """Return the training episodes in the order of their environment steps."""
        table = self.episodes.where(self.episodes["evaluation"] != 1)
        return table.where(np.argsort(table["env_steps"], kind="stable"))

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """Return the evaluations in the order of their environment steps."""
        table = self.episodes.where(self.episodes["evaluation"] == 1)
        groups: dict[tuple[str, float], list[int]] = {}  # numbers start again with each actor
        for i, key in enumerate(zip(table.text("session"), table["evaluation_id"], strict=True)):
            groups.setdefault(key, []).append(i)
        return sorted((_evaluation(table.where(np.array(rows))) for rows in groups.values()),
                      key=lambda evaluation: evaluation.env_steps)

    @cached_property
    def published(self) -> Table:
        return self.policies.where(self.policies.text("actor") == "")

    @cached_property
    def applied(self) -> Table:
        return self.policies.where(self.policies.text("actor") != "")

    @cached_property
    def wall_s(self) -> float | None:
        """Return how long the run took, or has taken so far, in s; None if that is not known."""
        if self.summary:
            return self.summary.wall_s
        return self.learner.highest("time_s")

    @cached_property
    def target(self) -> float:
        """Return the success rate at which the run counts as successful."""
        target = self.parameter("success_target")
        return target if isinstance(target, float) and 0 < target <= 1 else TARGET

    def parameter(self, name: str) -> Any:
        """Return the first parameter called ``name``, at any depth; None if there is none."""
        return _find(self.parameters, name)


def load(run: RunDirectory) -> RunData:
    """Read what there is of a run: nothing is required, and what is damaged is named instead of raised."""
    damaged: list[str] = []

    def attempt(path, read, otherwise):
        if not path.exists():
            return otherwise
        try:
            return read()
        except DataError as error:
            damaged.append(str(error))
            return otherwise

    def table(name: str) -> Table:
        path = table_path(run.metrics, name)
        return Table(attempt(path, lambda: read_table(path), {}))

    return RunData(
        run=run,
        summary=attempt(run.summary, run.read_summary, None),
        parameters=attempt(run.parameters, run.read_parameters, {}),
        learner=table("learner"),
        episodes=table("episodes"),
        policies=table("policies"),
        damaged=tuple(damaged),
    )


def percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean of each value and the up to ``window - 1`` before it, (n,) -> (n,); NaNs do not count."""
    known = np.isfinite(values)
    total = np.cumsum(np.insert(np.where(known, values, 0.0), 0, 0.0))
    count = np.cumsum(np.insert(known, 0, False))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    with np.errstate(invalid="ignore"):  # a window without a value: NaN
        return (total[end] - total[start]) / (count[end] - count[start])


def thin(x: np.ndarray, y: np.ndarray, limit: int = CURVE_POINTS) -> tuple[np.ndarray, ...]:
    """Reduce a curve to at most ``limit`` points: x, and mean, lowest and highest of y around each.

    Points that are not finite are left out. Where x goes back (a resumed run repeats steps), a NaN breaks the curve.
    """
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    low = high = y
    if len(y) > limit:
        start = np.linspace(0, len(y), limit, endpoint=False).astype(int)
        count = np.diff(np.append(start, len(y)))
        low, high = np.minimum.reduceat(y, start), np.maximum.reduceat(y, start)
        x, y = np.add.reduceat(x, start) / count, np.add.reduceat(y, start) / count
    back = np.flatnonzero(np.diff(x) < 0) + 1
    return tuple(np.insert(values, back, np.nan) for values in (x, y, low, high))


def _evaluation(rows: Table) -> Evaluation:
    # The running totals of the last episode also count episodes whose own row was lost in a restart.
    episodes = int(rows.highest("evaluation_episodes") or rows.rows)
    successes = int(rows.highest("evaluation_successes") or np.nansum(rows["success"]))
    return Evaluation(
        env_steps=int(rows.highest("env_steps") or 0),
        gradient_step=int(rows.last("gradient_step") or 0),
        policy_version=int(rows.last("policy_version") or 0),
        episodes=episodes,
        successes=min(successes, episodes),
        mean_return=_mean(rows["episode_return"]),
        mean_steps=_mean(rows["steps"]),
        done=bool(np.any(rows["evaluation_done"] == 1)),
    )


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _find(node: Any, name: str) -> Any:
    if not isinstance(node, Mapping):
        return None
    if name in node:
        return node[name]
    return next((found for child in node.values() if (found := _find(child, name)) is not None), None)
