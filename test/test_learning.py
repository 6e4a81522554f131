# SPDX-License-Identifier: Apache-2.0
"""The parts of ``make learning``: its settings are those of ``rlpd train``, and its loop trains."""

from __future__ import annotations

import sys
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


def test_the_picture_has_every_variant(parts, tmp_path):
    from picture import draw

    drawn = draw({"one": [[(100, 0.5), (200, 1.0)], [(100, 0.0), (200, 0.5)]], "two": [[(100, 0.0)]]},
                 tmp_path / "picture.png")
    assert drawn.stat().st_size > 10_000
