# SPDX-License-Identifier: Apache-2.0
"""The report of runs in every state: what it shows, what it says is missing, that it needs nothing else."""

import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest

from rlpd_ros.errors import DataError
from rlpd_ros.metrics import MetricsWriter, table_path
from rlpd_ros.report import write_curve_picture, write_report
from rlpd_ros.report.curve import median_curve
from rlpd_ros.report.data import load, moving_average, thin
from rlpd_ros.report.findings import findings
from rlpd_ros.report.panels import source_shares
from rlpd_ros.runs import RunDirectory

PARAMETERS = {
    "preset": "rlpd",
    "learner": {"seed": 3, "batch_size": 256, "utd_ratio": 20, "num_qs": 10, "discount": 0.99, "hidden": [256, 256]},
    "actor": {"random_steps": 300, "evaluation_period": 25},
    "arm": {"control_rate": 10.0, "max_episode_steps": 100},
}


def write_episode(writer, env_steps, session="actor-1", **changes):
    steps = changes.get("steps", 40)
    values = {
        "session": session, "episode": 1, "steps": steps, "episode_return": 1.0, "success": True, "terminated": True,
        "truncated": False, "evaluation": False, "evaluation_id": 0, "evaluation_done": False,
        "evaluation_episodes": 0, "evaluation_successes": 0, "policy_version": 4, "gradient_step": env_steps,
        "env_steps": env_steps, "policy_lag": 0.5, "policy_actions": steps, "random_actions": 0,
        "intervention_actions": 0, "duration": steps / 10,
    }
    writer.write("episodes", env_steps, values | changes)


def write_evaluation(writer, env_steps, number, successes, episodes, *, session="actor-1", done=True):
    for i in range(1, episodes + 1):
        success = i <= successes
        write_episode(writer, env_steps, session, evaluation=True, evaluation_id=number, success=success,
                      episode_return=float(success), steps=20 if success else 100, evaluation_episodes=i,
                      evaluation_successes=min(i, successes), evaluation_done=done and i == episodes)


def write_learner_row(writer, gradient_step, **changes):
    progress = 1 / (1 + np.exp(-(gradient_step - 3000) / 800))
    noise = 1 + 0.1 * np.sin(gradient_step)
    values = {
        "time_s": gradient_step / 45, "gradient_step": gradient_step, "env_steps": gradient_step + 100,
        "version": 1 + gradient_step // 50, "updates_per_second": 45 * noise,
        "critic_loss": 0.05 * noise * np.exp(-gradient_step / 4000) + 0.002, "actor_loss": -progress * noise,
        "q_mean": progress * noise * 0.8, "q_max": 0.2 + progress * noise, "entropy": 1 - 3 * progress * noise,
        "temperature": np.exp(-gradient_step / 2500), "demo_action_distance": 0.15 + 0.6 * (1 - progress) * noise,
        "online_buffer_size": gradient_step + 100, "demo_buffer_size": 412, "utd_measured": 20 * noise,
        "parameter_change": 0.3 * noise,
    }
    writer.write("learner", gradient_step, values | changes)


def write_policy(writer, version, **values):
    writer.write("policies", version, {"version": version, "gradient_step": 50 * version} | values)


def write_plausible_run(run, env_steps=9000, seed=3, actors=("actor-1",)):
    """Fill the tables of a run that learns within about 6,000 steps."""
    rng = np.random.default_rng(seed)
    with MetricsWriter(run, tensorboard=False) as writer:
        done, episode = 0, 0
        while done < env_steps:
            skill = 1 / (1 + np.exp(-(done - 3500 - 200 * seed) / 700))
            success = bool(rng.random() < skill)
            steps = int(rng.integers(18, 45)) if success else 100
            random = max(0, min(steps, 300 - done))
            intervention = int(rng.integers(0, 20)) if 1000 < done < 2500 else 0
            done, episode = done + steps, episode + 1
            write_episode(writer, done, actors[episode % len(actors)], episode=episode, steps=steps, success=success,
                          episode_return=float(success), random_actions=random,
                          policy_actions=max(0, steps - random - intervention), intervention_actions=intervention,
                          policy_lag=float(rng.random() < 0.3))
            if episode % 15 == 0:
                write_evaluation(writer, done, episode // 15, int(rng.binomial(20, skill)), 20)
        for step in range(100, env_steps, 100):
            write_learner_row(writer, step)
            version = 1 + step // 50
            write_policy(writer, version, checksum="c0ffee1234567890", change=0.3, bytes=312_000)
            for actor in actors:
                write_policy(writer, version, actor=actor, age_ms=rng.gamma(3, 4))
    run.write_parameters(PARAMETERS)


def finish_run(run, rate=0.98, seed=3):
    run.write_summary({"success_rate": rate, "eval_episodes": 50, "env_steps": 9023, "gradient_steps": 8900,
                       "wall_s": 201.4, "seed": seed, "preset": "rlpd", "outcome": "the target of 95 % was reached"})


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path, "run")


@pytest.fixture
def writer(run):
    with MetricsWriter(run, tensorboard=False) as writer:
        yield writer


class Page(HTMLParser):
    """A report as a reader meets it: its visible text, its drawings, and everything that it would have to fetch."""

    VOID = ("meta", "br")

    def __init__(self, path):
        super().__init__()
        self.html = path.read_text()
        self.open, self.words, self.tags, self.fetched, self.ids = [], [], [], [], []
        self.feed(self.html)
        self.text = " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action") and not value.startswith("#"):
                self.fetched.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def page(run):
    path = write_report(run)
    assert path == run.report
    page = Page(path)
    assert not page.open, "every element is closed"
    for drawing in re.findall(r"<svg.*?</svg>", page.html, re.S):
        assert "var(--series-" in drawing, "no plot is empty"
    return page


def test_a_finished_run_shows_its_outcome_and_every_panel(run):
    write_plausible_run(run)
    finish_run(run)
    report = page(run)
    assert "succeeds in 49 of 50 episodes (98 %) after 9,023 environment steps and 3 min 21 s." in report.text
    assert "Outcome: the target of 95 % was reached." in report.text
    assert "95 % interval: 90 to 100 %" in report.text
    assert "Preset rlpd seed 3" in report.text
    assert report.tags.count("svg") == report.tags.count("figure") == 12
    assert "To notice" not in report.text
    for label in ("environment steps", "gradient steps", "age (ms)", "entropy (nats)", "updates per second"):
        assert label in report.text
    assert "utd_ratio: 20" in report.text
    assert len(report.html) < 1_500_000


def test_the_page_needs_nothing_else_and_takes_its_colours_from_its_style_sheet(run):
    write_plausible_run(run, env_steps=1500)
    report = page(run)
    assert report.fetched == []
    assert not {"script", "link", "img", "iframe", "base"} & set(report.tags)
    assert not re.search(r"https?:|@import|url\((?!#)", report.html)
    assert len(report.ids) == len(set(report.ids)) > 0
    drawings = "".join(re.findall(r"<svg.*?</svg>", report.html, re.S))
    assert not re.search(r"#[0-9a-f]{6}\b|fill: (black|white)|font-family", drawings), "dark mode would not reach it"
    used = set(re.findall(r"var\(--([\w-]+)\)", report.html))
    for scheme in report.html.split("@media (prefers-color-scheme: dark)")[:2]:
        assert used <= set(re.findall(r"--([\w-]+):", scheme))


def test_an_empty_run_says_so(run):
    report = page(run)
    assert "Nothing has been recorded yet." in report.text
    assert "No evaluation yet" in report.text
    assert "The learner has logged nothing" in report.text
    assert "parameters.yaml is missing" in report.text
    assert "svg" not in report.tags
    assert report.tags.count("figure") == 12


def test_a_run_in_progress_tells_what_there_is(run, writer):
    write_learner_row(writer, 100)
    assert "The learner has started; no episode has ended yet." in page(run).text
    write_episode(writer, 40)
    assert "1 training episodes so far, and no evaluation yet." in page(run).text
    write_evaluation(writer, 40, 1, successes=3, episodes=4, done=False)
    text = page(run).text
    assert "The last evaluation succeeded in 3 of 4 episodes (75 %), after 40 environment steps." in text
    assert "3 of 4 (unfinished) 75 % 30 % to 95 %" in text


def test_a_run_that_ended_without_evaluation_says_so(run):
    run.write_summary({"success_rate": None, "eval_episodes": 0, "env_steps": 10, "gradient_steps": 0, "wall_s": 3700.0,
                       "seed": 0, "preset": "rlpd", "outcome": "interrupted"})
    text = page(run).text
    assert "The run has ended without an evaluation. Outcome: interrupted." in text
    assert "1 h 1 min" in text


@pytest.mark.parametrize(("rate", "target", "mark"), [(0.94, 0.95, "poor"), (0.96, 0.95, "good"), (0.96, 0.98, "poor")])
def test_the_outcome_is_judged_by_the_target_of_the_run(run, rate, target, mark):
    run.write_parameters({"learner": {"success_target": target}})
    finish_run(run, rate)
    report = page(run)
    assert f'class="outcome {mark}"' in report.html
    assert f"Dashed: {round(100 * target)} % success" in report.text


def test_episodes_without_a_success_column_make_no_success_plot(run, writer):
    writer.write("episodes", 40, {"env_steps": 40, "evaluation": False})
    assert "No evaluation yet, and no training episode has ended." in page(run).text


def test_damaged_files_are_named_and_the_rest_is_shown(run):
    write_plausible_run(run, env_steps=800)
    for path in (run.summary, run.parameters, table_path(run.metrics, "learner")):
        with path.open("a") as file:
            file.write("{]\n")
    text = page(run).text
    for name in ("summary.json", "parameters.yaml", "learner.csv, line 9"):
        assert re.search(rf"Not readable, and left out here: \S+{name}", text)
    assert "The learner has logged nothing yet." in text
    assert "Actions by source" in text


@pytest.mark.parametrize("offset", range(4))
def test_no_column_is_required(run, offset):
    write_plausible_run(run, env_steps=1500)
    for path in run.metrics.iterdir():
        lines = [line.split(",") for line in path.read_text().splitlines()]
        path.write_text("".join(",".join(cell for i, cell in enumerate(cells) if i % 4 != offset) + "\n"
                                for cells in lines))
    page(run)


def test_names_and_parameters_cannot_break_the_page(tmp_path):
    run = RunDirectory.create(tmp_path, "<b>run & $x^$")
    run.write_parameters({"note": "</pre><script>alert(1)</script>"})
    run.write_summary({"success_rate": None, "eval_episodes": 0, "env_steps": 0, "gradient_steps": 0, "wall_s": 0.0,
                       "seed": 0, "preset": "<b>", "outcome": "<b>stopped</b>"})
    with MetricsWriter(run, tensorboard=False) as writer:
        for actor in ("$\\frac$", "<i>&"):
            write_policy(writer, 1, actor=actor, age_ms=3.0)
    report = page(run)
    assert not {"script", "b", "i"} & set(report.tags)
    assert "<b>run & $x^$" in report.text
    assert "$\\frac$" in report.text


def test_a_long_run_is_drawn_quickly_and_small(run):
    for table, row in (("learner", "{i},{i},{i},0.5,0.25,1.5"), ("episodes", "{i},{i},{n},40,1,{e}")):
        header = '"step","gradient_step","env_steps","critic_loss","q_mean","entropy"' if table == "learner" else \
            '"step","gradient_step","env_steps","steps","success","evaluation"'
        rows = (row.format(i=i, n=40 * i, e=int(i % 50 == 0)) for i in range(100_000))
        table_path(run.metrics, table).write_text(header + "\n" + "\n".join(rows) + "\n")
    start = time.process_time()
    report = page(run)
    assert time.process_time() - start < 10
    assert len(report.html) < 1_500_000
    assert "svg" in report.tags


def test_findings_name_what_goes_wrong_without_an_error(run, writer):
    assert any("logged nothing" in sentence for sentence in findings(load(run)))
    write_learner_row(writer, 100)
    write_policy(writer, 1, checksum="a")
    assert [s for s in findings(load(run)) if "published 1 policies and no actor" in s]
    write_episode(writer, 40, policy_version=0)
    assert [s for s in findings(load(run)) if "published 1 policies and no actor" in s]
    write_episode(writer, 80)  # acted by version 4
    assert findings(load(run)) == []


def test_a_reported_application_is_enough_to_know_that_policies_arrive(run, writer):
    write_learner_row(writer, 100)
    write_policy(writer, 1, checksum="a")
    write_policy(writer, 1, actor="actor-1", age_ms=1.0)
    assert findings(load(run)) == []


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"random_actions": 30, "policy_actions": 10}, "75 % of the actions were random"),
    ({"policy_actions": 0, "random_actions": 10}, "no action came from a policy"),
])
def test_findings_judge_who_acted(run, writer, changes, sentence):
    write_learner_row(writer, 100)
    write_episode(writer, 40, **changes)
    (found,) = findings(load(run))
    assert sentence in found.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"critic_loss": float("nan")}, "critic_loss is not a finite number at gradient step 200 and 1 times"),
    ({"q_mean": float("inf")}, "q_mean is not a finite number"),
    ({"demo_buffer_size": 0}, "demo buffer is empty"),
    ({"parameter_change": 0.0}, "same as the one before"),
])
def test_findings_judge_what_was_learned(run, writer, changes, sentence):
    write_learner_row(writer, 100)
    write_learner_row(writer, 200, **changes)
    (found,) = findings(load(run))
    assert sentence in found


def test_rows_before_the_first_gradient_step_are_no_divergence(run, writer):
    writer.write("learner", 0, {"gradient_step": 0, "demo_buffer_size": 412})
    write_learner_row(writer, 100)
    writer.write("learner", 100, {"gradient_step": 100, "demo_buffer_size": 412})  # after a restart
    assert findings(load(run)) == []


def test_evaluations_are_told_apart_by_actor_and_ordered(run, writer):
    write_evaluation(writer, 500, 1, successes=4, episodes=4, session="second")
    write_evaluation(writer, 100, 1, successes=1, episodes=4, session="first")
    write_evaluation(writer, 900, 2, successes=2, episodes=3, session="second", done=False)
    write_episode(writer, 950)
    assert load(run).training["env_steps"].tolist() == [950]
    found = load(run).evaluations
    assert [(e.env_steps, e.successes, e.episodes, e.done) for e in found] == \
        [(100, 1, 4, True), (500, 4, 4, True), (900, 2, 3, False)]
    assert found[0].mean_return == pytest.approx(0.25)
    assert found[0].mean_steps == pytest.approx(80)
    assert found[0].rate == 0.25


def test_an_evaluation_counts_episodes_whose_row_was_lost(run, writer):
    write_episode(writer, 100, evaluation=True, evaluation_id=1, evaluation_done=True, evaluation_episodes=20,
                  evaluation_successes=17)
    (found,) = load(run).evaluations
    assert (found.successes, found.episodes) == (17, 20)


def test_moving_average_by_hand():
    assert moving_average(np.array([1.0, 3, 5, np.nan, 9]), 2).tolist() == [1, 2, 4, 5, 9]
    assert np.isnan(moving_average(np.array([np.nan, 2]), 2)).tolist() == [True, False]


def test_thin_keeps_short_curves_and_the_extremes_of_long_ones():
    x, y = np.arange(5.0), np.array([1, np.nan, 3, np.inf, 5])
    assert [a.tolist() for a in thin(x, y)] == [[0, 2, 4], [1, 3, 5], [1, 3, 5], [1, 3, 5]]
    y = np.zeros(10_000)
    y[1234], y[9999] = 7, -7
    thin_x, mean, low, high = thin(np.arange(10_000.0), y, limit=100)
    assert len(thin_x) == 100
    assert (high.max(), low.min()) == (7, -7)
    assert mean.sum() == pytest.approx(0)
    assert np.all(np.diff(thin_x) > 0)


def test_thin_breaks_the_curve_where_a_resumed_run_goes_back():
    x, y, *_ = thin(np.array([1.0, 2, 3, 2, 3]), np.array([1.0, 2, 3, 4, 5]))
    np.testing.assert_array_equal(x, [1, 2, 3, np.nan, 2, 3])
    np.testing.assert_array_equal(y, [1, 2, 3, np.nan, 4, 5])


def test_source_shares_by_hand(run, writer):
    write_episode(writer, 10, steps=10, random_actions=10, policy_actions=0)
    write_episode(writer, 30, steps=20, random_actions=5, policy_actions=5, intervention_actions=5)
    edges, shares = source_shares(load(run).training, bins=2)
    assert edges.tolist() == [0, 10, 30]
    assert {name: share.tolist() for name, share in shares.items()} == \
        {"policy": [0, 0.25], "random": [1, 0.25], "intervention": [0, 0.25], "held": [0, 0.25]}


def test_the_curve_picture_is_a_picture(tmp_path):
    runs = []
    for seed in range(3):
        runs.append(RunDirectory.create(tmp_path, f"seed{seed}"))
        write_plausible_run(runs[-1], env_steps=2000 + 500 * seed, seed=seed)
    path = write_curve_picture(runs, tmp_path / "curve.png", "cube")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert 10_000 < path.stat().st_size < 300_000


def test_the_median_of_curves_by_hand():
    steps, median = median_curve([(np.array([0.0, 10]), np.array([0.0, 1])), (np.array([5.0]), np.array([0.25])),
                                  (np.array([0.0, 20]), np.array([0.0, 0]))])
    assert steps.tolist() == [0, 5, 10, 20]
    assert median.tolist() == [0, 0.25, 0.25, 0.25]


def test_the_curve_picture_names_a_run_without_evaluation(tmp_path, run, writer):
    write_evaluation(writer, 10, 1, successes=1, episodes=2, done=False)
    with pytest.raises(DataError, match=r"run: expected at least one finished evaluation"):
        write_curve_picture([run], tmp_path / "curve.png")
    with pytest.raises(DataError, match="at least one run"):
        write_curve_picture([], tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()
