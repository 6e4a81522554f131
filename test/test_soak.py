# SPDX-License-Identifier: Apache-2.0
"""The parts of ``make soak``: its arm, its networks that look at numbers only, and how growth is measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlpd_ros.arm.config import ArmConfig

SOAK = Path(__file__).parent / "soak"
WITHOUT_IMAGES = """
import sys
sys.path.insert(0, {soak!r})
from synthetic import SyntheticArm, look_away
from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.policy import Policy
arm = SyntheticArm(ArmConfig())
look_away()
policy = Policy(arm.spec, PolicyConfig(hidden_dims=(8,)))
print(policy.mode(policy.init(0), arm.reset()).shape)
"""


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.syspath_prepend(str(SOAK))
    import run
    import synthetic

    yield run, synthetic
    del sys.modules["run"], sys.modules["synthetic"]


def test_growth_is_told_from_noise(parts):
    run, _ = parts
    assert run.growth([100] * 50) == 0.0
    assert run.growth([100, 101] * 25) < 1.0
    assert run.growth([100 * 2**20 + i * 2**17 for i in range(100)]) == pytest.approx(10.0, abs=0.3)
    assert run.growth([100] * 49 + [200]) == 0.0  # a moment is no growth


def test_the_synthetic_arm_shows_two_images_and_ends_its_episodes(parts):
    _, synthetic = parts
    arm = synthetic.SyntheticArm(ArmConfig(control_rate=50.0, lockstep=False))
    assert {name: image.shape for name, image in arm.reset().images.items()} == {
        "front": (128, 128, 3), "wrist": (128, 128, 3)}
    results = [arm.step([0.5, 0.0, 0.0, 2.0]) for _ in range(synthetic.LENGTH)]
    assert [r.truncated for r in results] == [False] * (synthetic.LENGTH - 1) + [True]
    assert results[0].executed_action.tolist() == [0.5, 0.0, 0.0, 1.0]
    assert not (results[0].observation.images["front"] == results[1].observation.images["front"]).all()


def test_networks_that_look_away_are_built_for_a_space_with_images():
    done = subprocess.run([sys.executable, "-c", WITHOUT_IMAGES.format(soak=str(SOAK))], capture_output=True, text=True,
                          check=False)
    assert done.stdout == "(4,)\n", done.stderr
