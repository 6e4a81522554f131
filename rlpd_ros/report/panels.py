# SPDX-License-Identifier: Apache-2.0
"""The panels of the report: what is drawn from which columns, and what to say where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from rlpd_ros.report.data import RunData, Table, moving_average, percent
from rlpd_ros.report.plots import INK, SERIES, curve, draw, finish

WINDOW = 20  # episodes of the moving averages
ENV_STEPS = "environment steps"


@dataclass(frozen=True)
class Panel:
    """A titled drawing (``svg``), or the reason why there is none (``missing``), with a line on how to read it."""

    title: str
    note: str
    svg: str = ""
    missing: str = ""
    wide: bool = False


@dataclass(frozen=True)
class _Strip:
    """Axes of a panel: which columns (with a legend text each) in which unit."""

    label: str
    columns: tuple[tuple[str, str], ...]
    log: bool = False
    zero: bool = False  # show the zero line


@dataclass(frozen=True)
class _Recipe:
    title: str
    note: str
    strips: tuple[_Strip, ...]


@dataclass(frozen=True)
class _Plot:
    """Axes with their curves: legend text, x, y."""

    x_label: str
    y_label: str
    curves: Sequence[tuple[str, np.ndarray, np.ndarray]]
    log: bool = False
    zero: bool = False


LEARNING = (
    _Recipe("Q values",
            "Should rise and settle near the discounted return of a success. Growth without bound means divergence.",
            (_Strip("Q of the batch", (("q_mean", "mean"), ("q_max", "maximum"))),)),
    _Recipe("Losses", "The critics' loss stays bounded; the actor's follows the negated Q values.",
            (_Strip("critic loss", (("critic_loss", ""),), log=True), _Strip("actor loss", (("actor_loss", ""),)))),
    _Recipe("Entropy and temperature", "The temperature is tuned so that the entropy stays at its target.",
            (_Strip("entropy (nats)", (("entropy", ""),)), _Strip("temperature", (("temperature", ""),), log=True))),
    _Recipe("Distance to the demonstrations",
            "Mean absolute difference between the policy's actions and the demonstrated ones, in normalised units "
            "(range 2), and how much the policy changed from one publication to the next.",
            (_Strip("action distance", (("demo_action_distance", ""),), zero=True),
             _Strip("parameter change (L2)", (("parameter_change", ""),), zero=True))),
)
LOOP = (
    _Recipe("Learner rate and update-to-data ratio",
            "One update is a step of actor and temperature and as many critic steps as the ratio asks for.",
            (_Strip("updates per second", (("updates_per_second", ""),), zero=True),
             _Strip("critic steps per\nenvironment step", (("utd_measured", ""),), zero=True))),
    _Recipe("Replay buffers", "The demonstrations must all be there before the first gradient step.",
            (_Strip("transitions", (("online_buffer_size", "online"), ("demo_buffer_size", "demonstrations")),
                   zero=True),)),
)


def learning_panels(data: RunData) -> list[Panel]:
    """Return what the learner learns, over its gradient steps."""
    return [_from_recipe(recipe, data.learner) for recipe in LEARNING]


def loop_panels(data: RunData) -> list[Panel]:
    """Return whether policies reach the actors and data the learner in time."""
    return [_lag_panel(data), _age_panel(data), _actors_panel(data),
            *(_from_recipe(recipe, data.learner) for recipe in LOOP)]


def _from_recipe(recipe: _Recipe, table: Table) -> Panel:
    missing = "metrics/learner.csv holds no numbers for this." if table.rows else "The learner has logged nothing yet."
    plots = [_Plot("gradient steps", strip.label,
                   [(label, table["gradient_step"], table[column]) for column, label in strip.columns],
                   strip.log, strip.zero)
             for strip in recipe.strips]
    return _panel(recipe.title, recipe.note, missing, plots)


def _panel(title: str, note: str, missing: str, plots: Sequence[_Plot]) -> Panel:
    """Draw above each other the plots that have a point, or say that there is none."""
    plots = [p for p in plots if any(np.any(np.isfinite(x) & np.isfinite(y)) for _, x, y in p.curves)]
    if not plots:
        return Panel(title, note, missing=missing)

    def paint(axes: Sequence[Axes]) -> None:
        for ax, plot in zip(axes, plots, strict=True):
            for series, (label, x, y) in enumerate(plot.curves):
                curve(ax, x, y, label, series)
            if plot.log and ax.dataLim.y1 > 10 * ax.dataLim.y0 > 0:
                ax.set_yscale("log")
            if plot.zero and ax.dataLim.y0 >= 0:
                ax.set_ylim(bottom=0)
            finish(ax, plot.x_label, plot.y_label)

    return Panel(title, note, draw(paint, title, rows=len(plots)))


def success_panel(data: RunData) -> Panel:
    """Return the success rate of evaluations, with their intervals, and of training against environment steps."""
    title = "Success rate"
    note = (f"Points: greedy evaluations with 95 % confidence (Wilson). Line: training, mean of the last {WINDOW} "
            f"episodes, with exploration. Dashed: {percent(data.target)} success.")
    evaluations, training = data.evaluations, data.training
    trained = np.isfinite(training["env_steps"] + training["success"]).any()
    if not evaluations and not trained:
        return Panel(title, note, missing="No evaluation yet, and no training episode has ended.", wide=True)

    def paint(axes: Sequence[Axes]) -> None:
        ax = axes[0]
        ax.axhline(data.target, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        if trained:
            curve(ax, training["env_steps"], moving_average(training["success"], WINDOW), "training", 1)
        if evaluations:
            rate = np.array([e.rate for e in evaluations])
            reach = np.abs(np.array([e.interval for e in evaluations]).T - rate)
            ax.errorbar([e.env_steps for e in evaluations], rate, reach, color=SERIES[0], marker="o", markersize=4.5,
                        linewidth=1.6, elinewidth=1.1, capsize=2, label="evaluation")
        finish(ax, ENV_STEPS, "success rate", percent=True)

    panel = Panel(title, note, draw(paint, title, wide=True), wide=True)
    if not evaluations:
        return Panel(title, f"No evaluation yet. {note}", panel.svg, wide=True)
    return panel


def return_panel(data: RunData) -> Panel:
    """Return undiscounted returns and lengths of training episodes against environment steps."""
    training = data.training
    plots = [_Plot(ENV_STEPS, label, [("", training["env_steps"], moving_average(training[column], WINDOW))])
             for column, label in (("episode_return", "return"), ("steps", "length (steps)"))]
    return _panel("Returns and lengths", f"Training episodes, mean of the last {WINDOW}.",
                  "No training episode has ended yet.", plots)


def _lag_panel(data: RunData) -> Panel:
    training = data.training
    return _panel("Policy lag", "How many versions the acting policy was behind the newest, mean over an episode.",
                  "No training episode has ended yet.",
                  [_Plot(ENV_STEPS, "versions behind", [("", training["env_steps"], training["policy_lag"])],
                         zero=True)])


def _age_panel(data: RunData) -> Panel:
    applied = data.applied.where(np.argsort(data.applied["version"], kind="stable"))
    actors = applied.text("actor")
    curves = [("", applied["version"], applied["age_ms"])]
    if 1 < len(set(actors)) <= len(SERIES):
        curves = [(actor, applied["version"][actors == actor], applied["age_ms"][actors == actor])
                  for actor in sorted(set(actors))]
    return _panel("Policy age", "Time from the publication of a policy to its application by an actor.",
                  "No actor has reported a policy as applied yet.",
                  [_Plot("policy version", "age (ms)", curves, zero=True)])


def _actors_panel(data: RunData) -> Panel:
    training = data.training
    names = np.array([session.rpartition("-")[0] for session in training.text("session")])
    curves = []
    for name in sorted(set(names))[:len(SERIES)]:
        own = training.where(names == name)
        curves.append((name, own["env_steps"], np.cumsum(own["steps"])))
    return _panel("Actors", "Training steps that each actor has contributed, its restarts included.",
                  "No training episode has ended yet.", [_Plot(ENV_STEPS, "steps of the actor", curves, zero=True)])


def source_panel(data: RunData) -> Panel:
    """Return who chose the executed actions of training, as shares over environment steps."""
    title = "Actions by source"
    note = "Share of training actions chosen by the policy, at random (as <code>random_steps</code> asks for), by a " \
           "person, or by none in time (the arm held still)."
    training = data.training
    training = training.where(np.isfinite(training["env_steps"]) & (training["steps"] > 0))
    if not training.rows:
        return Panel(title, note, missing="No training episode has ended yet.")
    edges, shares = source_shares(training)

    def paint(axes: Sequence[Axes]) -> None:
        base = np.zeros(len(edges) - 1)
        for (name, share), series in zip(shares.items(), (0, 1, 2, 5), strict=True):
            if share.any():
                axes[0].stairs(base + share, edges, baseline=base, fill=True, color=SERIES[series], alpha=0.75,
                               linewidth=0, label=name)
            base = base + share
        axes[0].set_xlim(edges[0], edges[-1])
        finish(axes[0], ENV_STEPS, "share of actions", percent=True)

    return Panel(title, note, draw(paint, title))


def source_shares(training: Table, bins: int = 80) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return (n + 1,) edges in environment steps and, by source, (n,) shares of the actions between them."""
    start = np.linspace(0, training.rows, min(bins, training.rows), endpoint=False).astype(int)
    end = training["env_steps"][np.append(start[1:], training.rows) - 1]
    total = np.add.reduceat(training["steps"], start)
    shares = {}
    for name in ("policy", "random", "intervention"):
        shares[name] = np.add.reduceat(np.nan_to_num(training[f"{name}_actions"]), start) / total
    shares["held"] = np.clip(1 - sum(shares.values()), 0, 1)
    return np.insert(end, 0, 0.0), shares
