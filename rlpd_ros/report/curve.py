# SPDX-License-Identifier: Apache-2.0
"""One picture of several runs: success rate against environment steps, each run and their median."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from rlpd_ros.errors import DataError
from rlpd_ros.report.data import TARGET, load
from rlpd_ros.runs import RunDirectory

_BLUE, _GREY, _INK = "#0072b2", "#b8bec6", "#30363d"
_STYLE: dict[Any, Any] = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
                          "axes.edgecolor": _GREY, "text.color": _INK, "axes.labelcolor": _INK, "xtick.color": _INK,
                          "ytick.color": _INK, "legend.frameon": False}


def write_curve_picture(runs: Sequence[RunDirectory], path: str | Path, title: str = "") -> Path:
    """Draw greedy success rate against environment steps of every run, and their median, as a PNG at ``path``.

    A run that ended counts with its last rate from there on. Raises DataError without runs, and naming a run without
    an evaluation.
    """
    if not runs:
        raise DataError("success rate picture: expected at least one run, found none")
    curves = [_curve(run) for run in runs]
    steps, median = median_curve(curves)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        ax = figure.subplots()
        ax.axhline(TARGET, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)))
        for i, (x, y) in enumerate(curves):
            ax.plot(x, y, color=_GREY, linewidth=1.2, marker="o", markersize=3,
                    label=f"one run ({len(curves)} seeds)" if i == 0 and len(curves) > 1 else None)
        ax.plot(steps, median, color=_BLUE, linewidth=2.4, label="median" if len(curves) > 1 else None)
        ax.set(xlabel="environment steps", ylabel="success rate, greedy evaluation", ylim=(-0.03, 1.03), title=title)
        ax.set_xlim(left=0)
        ax.grid(axis="y", color="#e6e8eb")
        ax.set_axisbelow(True)
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        ax.annotate(f"{TARGET * 100:.0f} %", (0, TARGET), xytext=(4, -3), textcoords="offset points", va="top")
        if len(curves) > 1:
            ax.legend(loc="lower right")
        figure.savefig(path, dpi=150, facecolor="white")
    return Path(path)


def median_curve(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the median of curves at every step at which one of them has a point.

    Between its points a curve is a straight line, before the first and after the last it is level.
    """
    steps = np.unique(np.concatenate([x for x, _ in curves]))
    return steps, np.median([np.interp(steps, x, y) for x, y in curves], axis=0)


def _curve(run: RunDirectory) -> tuple[np.ndarray, np.ndarray]:
    evaluations = [e for e in load(run).evaluations if e.done]
    if not evaluations:
        raise DataError(f"{run.path}: expected at least one finished evaluation in metrics/episodes.csv, found none")
    return np.array([e.env_steps for e in evaluations], float), np.array([e.rate for e in evaluations])
