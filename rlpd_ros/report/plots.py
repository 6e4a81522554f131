# SPDX-License-Identifier: Apache-2.0
"""Drawing: matplotlib figures as inline SVG that takes its colours and its font from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    Formatter,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from rlpd_ros.report.data import thin

# Colours that no drawing would use by itself; in the SVG each becomes the CSS variable of its name.
INK, FAINT = "#ab0001", "#ab0002"
SERIES = tuple(f"#ab001{i}" for i in range(6))
_VARIABLES = {INK: "ink-2", FAINT: "line"} | {colour: f"series-{i}" for i, colour in enumerate(SERIES)}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # texts stay texts, in the page's font
    "text.parse_math": False,  # names come as they are
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.xmargin": 0.02,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.4,
}
_NARROW, _WIDE = (5.2, 2.9), (10.7, 2.6)  # inches; a wide figure spans the two columns of the page


def draw(paint: Callable[[Sequence[Axes]], None], label: str, rows: int = 1, wide: bool = False) -> str:
    """Return the SVG of ``rows`` axes above each other that share x, filled by ``paint``; ``label`` describes it."""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": label}):  # ids that are unique in the page
        figure = Figure(figsize=_WIDE if wide else _NARROW, layout="constrained")
        axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0].tolist()
        paint(axes)
        for ax in axes[:-1]:
            ax.set_xlabel("")
        figure.align_ylabels(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True,
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(text.getvalue(), label)


def finish(ax: Axes, x_label: str, y_label: str, percent: bool = False) -> None:
    """Give axes their labels, readable tick numbers and, for several curves, a legend above the plot."""
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(_numbers(ax.get_xlim()[1]))
    if percent:
        ax.set_ylim(-0.03, 1.03)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol="\N{NO-BREAK SPACE}%"))
    else:
        low, high = ax.get_ylim()
        if ax.get_yscale() == "log":
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=6))
            ax.yaxis.set_minor_locator(NullLocator())
        else:
            ax.yaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 2.5, 5, 10)))
        ax.yaxis.set_major_formatter(_numbers(high))
    if len(ax.get_legend_handles_labels()[1]) > 1:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, borderaxespad=0.2, handlelength=1.4,
                  columnspacing=1.4)


def curve(ax: Axes, x: np.ndarray, y: np.ndarray, label: str = "", series: int = 0) -> None:
    """Draw y over x, thinned, with the range around each point as a band."""
    x, mean, low, high = thin(x, y)
    ax.plot(x, mean, color=SERIES[series], label=label or None, marker="o" if len(x) <= 25 else "", markersize=3)
    if np.any(high > low):
        ax.fill_between(x, low, high, color=SERIES[series], alpha=0.18, linewidth=0)


def _numbers(highest: float) -> Formatter:
    """Return a formatter for ticks up to ``highest``: 12k, 2,500 or 0.25."""
    return EngFormatter(sep="") if highest >= 10_000 else FuncFormatter(lambda x, _: f"{x:,.6g}".replace("-", "\u2212"))


def _inline(svg: str, label: str) -> str:
    """Make a stand-alone SVG part of a page: no header, no name spaces, no style of its own, scaled by the page."""
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version|width|height)="[^"]*"', "", svg, count=5)
    svg = svg.replace("xlink:href", "href")
    used = set(re.findall(r"#(\w+)[\")]", svg))
    svg = re.sub(r' id="([\w.]+)"', lambda match: match[0] if match[1] in used else "", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    for colour, name in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
