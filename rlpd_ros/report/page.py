# SPDX-License-Identifier: Apache-2.0
"""The page: a run's outcome in a sentence, its key figures, what to notice, the panels, tables and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from rlpd_ros.metrics import wilson_interval
from rlpd_ros.report import panels
from rlpd_ros.report.data import CURVE_POINTS, Evaluation, RunData, load, percent
from rlpd_ros.report.findings import findings
from rlpd_ros.report.style import CSS
from rlpd_ros.runs import RunDirectory, write_atomically

_EVALUATIONS_SHOWN = 100


def write_report(run: RunDirectory) -> Path:
    """Write ``report.html`` of a run in any state, finished, going or dead, and return its path.

    One file that needs no network and no scripts. Nothing that the run lacks is an error: the page says so in words.
    """
    write_atomically(run.report, _page(load(run)))
    return run.report


def _page(data: RunData) -> str:
    name = escape(data.run.name)
    body = "\n".join((
        _head(data),
        _findings(findings(data)),
        _section("Does it succeed?", [panels.success_panel(data), panels.return_panel(data),
                                      panels.source_panel(data)]),
        _section("Does it learn?", panels.learning_panels(data)),
        _section("Does the loop keep up?", panels.loop_panels(data)),
        _evaluations(data.evaluations),
        _parameters(data),
        f"<footer>A curve of more than {CURVE_POINTS} points is drawn as means, with a band for their range. "
        f"Written by rlpd_ros at {datetime.now():%Y-%m-%d %H:%M:%S} from {escape(str(data.run.path))}</footer>",
    ))
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta name="color-scheme" content="light dark">\n<title>{name}: RLPD run</title>\n'
            f"<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n")


def _head(data: RunData) -> str:
    mark, sentence = _outcome(data)
    tiles = "".join(f'<div class="tile"><dt>{label}</dt><dd>{escape(value)}</dd>'
                    f'<dd class="sub">{escape(remark)}</dd></div>' for label, value, remark in _key_figures(data))
    return (f'<header><p class="eyebrow">RLPD run</p><h1>{escape(data.run.name)}</h1>'
            f'<p class="outcome {mark}">{escape(sentence)}</p><dl class="tiles">{tiles}</dl></header>')


def _outcome(data: RunData) -> tuple[str, str]:
    """Return how the run stands: a CSS class (good, poor, open) and a sentence."""
    summary = data.summary
    if summary:
        rate = summary.success_rate
        if rate is None:
            sentence = "The run has ended without an evaluation."
        else:
            sentence = (f"Greedy evaluation succeeds in {round(rate * summary.eval_episodes)} of "
                        f"{summary.eval_episodes} episodes ({percent(rate)}) after {summary.env_steps:,} environment "
                        f"steps and {_duration(summary.wall_s)}.")
        text = summary.outcome.strip()
        mark = "good" if rate is not None and rate >= data.target else "poor"
        return mark, f"{sentence} Outcome: {text.rstrip('.')}." if text else sentence
    if data.evaluations:
        e = data.evaluations[-1]
        so_far = (f"The last evaluation succeeded in {e.successes} of {e.episodes} episodes ({percent(e.rate)}), after "
                  f"{e.env_steps:,} environment steps.")
    elif data.training.rows:
        so_far = f"{data.training.rows:,} training episodes so far, and no evaluation yet."
    elif data.learner.rows or data.policies.rows:
        so_far = "The learner has started; no episode has ended yet."
    else:
        so_far = "Nothing has been recorded yet."
    return "open", f"{so_far} The run is still going, or was ended before it could write its summary.json."


def _key_figures(data: RunData) -> list[tuple[str, str, str]]:
    """Return label, value and a remark of each tile."""
    summary = data.summary
    env_steps: float | None
    gradient_steps: float | None
    if summary:
        rate, episodes = summary.success_rate, summary.eval_episodes
        env_steps, gradient_steps = summary.env_steps, summary.gradient_steps
    else:
        last = data.evaluations[-1] if data.evaluations else None
        rate, episodes = (last.rate, last.episodes) if last else (None, 0)
        env_steps = data.episodes.highest("env_steps") or data.learner.highest("env_steps")
        gradient_steps = data.learner.highest("gradient_step")
    interval = ""
    if rate is not None:
        low, high = wilson_interval(round(rate * episodes), episodes)
        interval = f"95\N{NO-BREAK SPACE}% interval: {100 * low:.0f} to {percent(high)}"
    preset = summary.preset if summary else data.parameter("preset")
    seed = summary.seed if summary else data.parameter("seed")
    version = data.policies.highest("version")
    return [
        ("Success rate", "\N{EN DASH}" if rate is None else percent(rate), interval or "no evaluation yet"),
        ("Environment steps", _whole(env_steps), f"{data.training.rows:,} training episodes"),
        ("Gradient steps", _whole(gradient_steps),
         f"policy version {version:,.0f}" if version else "no policy published"),
        ("Wall time", "\N{EN DASH}" if data.wall_s is None else _duration(data.wall_s), "" if summary else "so far"),
        ("Preset", str(preset or "\N{EN DASH}"), "\N{EN DASH}" if seed is None else f"seed {seed}"),
    ]


def _whole(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:,.0f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}\N{NO-BREAK SPACE}h {minutes % 60}\N{NO-BREAK SPACE}min"
    return f"{minutes}\N{NO-BREAK SPACE}min {rest}\N{NO-BREAK SPACE}s" if minutes else f"{rest}\N{NO-BREAK SPACE}s"


def _findings(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<section class="findings"><h2>To notice</h2><ul>{items}</ul></section>'


def _section(title: str, content: Sequence[panels.Panel]) -> str:
    figures = "".join(_figure(panel) for panel in content)
    return f'<section><h2>{title}</h2><div class="panels">{figures}</div></section>'


def _figure(panel: panels.Panel) -> str:
    drawing = panel.svg or f'<p class="missing">{escape(panel.missing)}</p>'
    return (f'<figure{" class=wide" if panel.wide else ""}><figcaption><h3>{panel.title}</h3><p>{panel.note}</p>'
            f"</figcaption>{drawing}</figure>")


def _evaluations(evaluations: Sequence[Evaluation]) -> str:
    if not evaluations:
        return '<section><h2>Evaluations</h2><p class="missing">No evaluation yet.</p></section>'
    headers = ("environment steps", "gradient step", "policy version", "successes", "success rate", "95 % interval",
               "mean return", "mean length")
    rows = "".join(_evaluation_row(e) for e in reversed(evaluations[-_EVALUATIONS_SHOWN:]))
    earlier = len(evaluations) - _EVALUATIONS_SHOWN
    note = f"<p>{earlier:,} earlier ones are in metrics/episodes.csv.</p>" if earlier > 0 else ""
    head = "".join(f"<th scope=col>{header}</th>" for header in headers)
    return (f'<section><h2>Evaluations</h2><p>Greedy episodes, not stored; the newest first.</p><div class="scroll">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{note}</section>")


def _evaluation_row(e: Evaluation) -> str:
    low, high = e.interval
    cells = (f"{e.env_steps:,}", f"{e.gradient_step:,}", f"{e.policy_version:,}",
             f"{e.successes} of {e.episodes}{'' if e.done else ' (unfinished)'}", f"{percent(e.rate)}",
             f"{percent(low)} to {percent(high)}", f"{e.mean_return:.2f}", f"{e.mean_steps:.1f}")
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _parameters(data: RunData) -> str:
    path = data.run.parameters
    if not path.exists():
        return '<section><h2>Parameters</h2><p class="missing">parameters.yaml is missing.</p></section>'
    text = escape(path.read_text(encoding="utf-8", errors="replace"))
    return ("<section><h2>Parameters</h2><details><summary>parameters.yaml</summary>"
            f"<pre>{text}</pre></details></section>")
