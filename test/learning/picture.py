# SPDX-License-Identifier: Apache-2.0
"""One picture of several variants: success rate against environment steps, the median of the seeds and their range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#b8bec6",
         "text.color": "#30363d", "axes.labelcolor": "#30363d", "xtick.color": "#30363d", "ytick.color": "#30363d",
         "legend.frameon": False}
TARGET = 0.95


def draw(variants: Mapping[str, Sequence[Sequence[tuple[int, float]]]], path: Path) -> Path:
    """Draw the evaluations (environment steps, success) of every run of every variant as a PNG at ``path``."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        ax = figure.subplots()
        ax.axhline(TARGET, color="#30363d", linewidth=0.9, linestyle=(0, (4, 3)))
        for (name, runs), colour in zip(variants.items(), COLOURS, strict=False):
            steps = np.array([at for at, _ in min(runs, key=len)])  # those that all of them have
            rates = np.array([[success for _, success in run[:len(steps)]] for run in runs])
            steps, rates = np.append(0, steps), np.column_stack([np.zeros(len(runs)), rates])
            ax.fill_between(steps, rates.min(0), rates.max(0), color=colour, alpha=0.15, linewidth=0)
            ax.plot(steps, np.median(rates, 0), color=colour, linewidth=2.2, label=f"{name} ({len(runs)} seeds)")
        ax.set(xlabel="environment steps", ylabel="success rate, greedy episodes", ylim=(-0.03, 1.03))
        ax.set_xlim(left=0)
        ax.grid(axis="y", color="#e6e8eb")
        ax.set_axisbelow(True)
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        ax.legend(loc="center right")
        figure.savefig(path, dpi=150, facecolor="white")
    return path
