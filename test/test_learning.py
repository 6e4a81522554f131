# SPDX-License-Identifier: Apache-2.0
"""The parts of ``make learning``: its settings are those of ``rlpd train``, and its loop trains."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rlpd_ros.preparation import resolve
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.settings import ActorConfig, ArmConfig

LEARNING = Path(__file__).parent / "learning"
SMALL = {"hidden_dims": [8], "critic_hidden_dims": [8], "batch_size": 16, "utd_ratio": 1}


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.syspath_prepend(str(LEARNING))
    import loop
    import suite

    yield loop, suite
    for name in ("loop", "picture", "suite"):
        del sys.modules[name]


@pytest.mark.parametrize("preset", ["hil_serl", "rlpd"])
def test_settings_are_what_rlpd_train_resolves(parts, preset):
    _, suite = parts
    ours = suite.settings_of(suite.STUDIES["presets"].variants[preset], seed=3)
    theirs = resolve([], preset, seed=3)
    assert ours["agent"] == theirs.get("learner", AgentConfig)
    assert ours["policy"] == theirs.get("learner", PolicyConfig) == theirs.get("actor", PolicyConfig)
    assert ours["arm"] == theirs.get("arm_driver", ArmConfig)
    assert ours["actor"].random_steps == theirs.get("actor", ActorConfig).random_steps


def test_the_loop_trains_in_lockstep(parts):
    loop, suite = parts
    settings = loop.Settings(**suite.settings_of(suite.Variant(values=SMALL), seed=0))
    first, second = loop.Loop(settings).run(env_steps=240, period=120, episodes=1)
    assert 120 <= first.env_steps < second.env_steps
    assert first.seconds < second.seconds
    assert second.metrics["gradient_step"] == 100  # each environment step after the first 100 pays for one
    assert 0.0 <= second.success <= 1.0


def test_runs_of_other_settings_and_unfinished_ones_are_left_out_and_named(parts, tmp_path):
    _, suite = parts
    plan = suite.Study({"a b": suite.Variant(), "a": suite.Variant()}, env_steps=500, period=250, episodes=1)
    other = replace(plan, variants={"a b": suite.Variant(values={"tau": 0.5})})

    def write(seed: int, made_with, evaluations: int = 2) -> None:
        lines = [suite.SETTINGS + suite.settings_fingerprint(made_with, "a b", seed),
                 "env_steps,seconds,success,metrics", *(f"{250 * (i + 1)},1.0,0.{seed}," for i in range(evaluations))]
        suite.csv_of(tmp_path, "a b", seed).write_text("\n".join(lines))

    write(0, plan, evaluations=3)
    write(1, other)
    write(2, replace(plan, episodes=2))
    write(3, plan, evaluations=1)
    suite.csv_of(tmp_path, "a b", 4).write_text("env_steps,seconds,success,metrics\n250,1.0,1.0,\n500,1.0,1.0,")
    write(5, plan)
    suite.csv_of(tmp_path, "a b", 6).write_bytes(suite.csv_of(tmp_path, "a b", 5).read_bytes())  # of another seed
    runs, left_out = suite.find_runs(plan, "a b", tmp_path)
    assert runs == [[(250, 1.0, 0.0), (500, 1.0, 0.0)], [(250, 1.0, 0.5), (500, 1.0, 0.5)]]
    assert [line.partition(": left out: ")[2].split(",")[0] for line in left_out] == [
        "other settings", "other settings", "1 of 2 evaluations", "other settings", "other settings"]
    assert left_out[0].startswith(f"{tmp_path}/a_b-1.csv: ")
    assert suite.find_runs(plan, "a", tmp_path) == ([], [])


def test_a_csv_says_of_which_settings_it_is(parts, tmp_path):
    _, suite = parts
    plan = suite.Study({"small": suite.Variant(values=SMALL)}, env_steps=120, period=120, episodes=1)
    path = suite.csv_of(tmp_path, "small", 0)
    suite.run(plan, "small", 0, path)
    (run,), left_out = suite.find_runs(plan, "small", tmp_path)
    assert (run, left_out) == (suite.read(path), [])


def test_the_picture_has_every_variant(parts, tmp_path):
    from picture import draw

    drawn = draw({"one": [[(100, 0.5), (200, 1.0)], [(100, 0.0), (200, 0.5)]], "two": [[(100, 0.0)]]},
                 tmp_path / "picture.png")
    assert drawn.stat().st_size > 10_000
