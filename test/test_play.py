# SPDX-License-Identifier: Apache-2.0
"""The policy of a finished run, played by real processes and evaluated."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest
from training_world import DEADLINE

pytestmark = pytest.mark.slow


def test_the_trained_policy_is_evaluated_in_a_process_of_its_own(finished):
    run, _ = finished
    command = ["rlpd", "eval", str(run.path), "--episodes", "5", "--json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE).stdout
    figures = json.loads(printed)
    assert (figures["episodes"], figures["policy_version"], figures["gradient_step"]) == (5, 7, 60)


def test_the_trained_policy_is_played_by_the_nodes(copy, tmp_path):
    spooled, logged = (len(list(folder.rglob("*"))) for folder in (copy.spool, copy.transitions))
    played = subprocess.run(["rlpd", "play", "runs/x", "--episodes", "2"], cwd=tmp_path, capture_output=True, text=True,
                            check=False, timeout=DEADLINE)
    assert played.returncode == 0, played.stdout + played.stderr
    assert re.search(r"actor \| .*version 7, learner step 60", played.stdout)
    episodes = re.findall(r"actor \| .*episode (\d+): (?:no )?success after \d+ steps", played.stdout)
    assert episodes == ["1", "2"]
    assert "random" not in played.stdout.lower()
    assert (len(list(copy.spool.rglob("*"))), len(list(copy.transitions.rglob("*")))) == (spooled, logged)


def test_policy_and_parameters_are_all_that_another_machine_needs(copy, tmp_path):
    deployed = tmp_path / "deployed"
    deployed.mkdir()
    for file in (copy.parameters, copy.policy):
        shutil.copy(file, deployed)
    (tmp_path / "slow.yaml").write_text("arm_driver: {ros__parameters: {max_action_change: 0.25}}\n")
    played = subprocess.run(
        ["rlpd", "play", "deployed", "--episodes", "1", "--namespace", "left", "--config", "slow.yaml"], cwd=tmp_path,
        capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert played.returncode == 0, played.stdout + played.stderr
    assert "episode 1: " in played.stdout
    assert "max_action_change: 0.25" in (deployed / "play.yaml").read_text()
    evaluated = subprocess.run(["rlpd", "eval", "deployed", "--episodes", "1", "--json"], cwd=tmp_path,
                               capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert json.loads(evaluated.stdout)["policy_version"] == 7


def test_a_run_in_which_nothing_can_be_written_is_played(copy, tmp_path):
    copy.play_parameters.mkdir()  # root may write a read-only folder, but not replace this one
    shutil.rmtree(copy.logs)
    copy.logs.write_text("in the way")
    (tmp_path / "temporary").mkdir()
    played = subprocess.run(["rlpd", "play", "runs/x", "--episodes", "1"], cwd=tmp_path, capture_output=True, text=True,
                            check=False, timeout=DEADLINE, env=os.environ | {"TMPDIR": str(tmp_path / "temporary")})
    assert played.returncode == 0, played.stdout + played.stderr
    assert "episode 1: " in played.stdout
    assert not list((tmp_path / "temporary").glob("rlpd_ros_play_*"))


@pytest.mark.parametrize(("arguments", "says"), [
    (["--config", "typo.yaml"], "section 'arm_drvier' fits no node"),
    (["--config", "nowhere.yaml"], "nowhere.yaml: cannot read the parameter file"),
    (["--nodes", "learner"], "nodes: expected some of arm_driver, actor, found learner"),
    (["--namespace", "a b"], "expected a ROS namespace"),
    (["--episodes", "-3"], "episodes: expected 0 or more, found -3"),
])
def test_what_cannot_be_played_is_one_line_and_moves_nothing(copy, tmp_path, arguments, says):
    (tmp_path / "typo.yaml").write_text("arm_drvier: {ros__parameters: {max_action_change: 0.25}}\n")
    played = subprocess.run(["rlpd", "play", "runs/x", *arguments], cwd=tmp_path, capture_output=True, text=True,
                            check=False, timeout=DEADLINE)
    assert played.returncode == 2
    assert says in played.stderr
    assert played.stderr.count("\n") == 1


def test_a_policy_of_another_network_is_not_played(copy, tmp_path):
    (tmp_path / "other.yaml").write_text("/**: {ros__parameters: {hidden_dims: [17]}}\n")
    played = subprocess.run(["rlpd", "play", "runs/x", "--config", "other.yaml"], cwd=tmp_path, capture_output=True,
                            text=True, check=False, timeout=DEADLINE)
    assert played.returncode == 2, played.stdout + played.stderr
    assert "parameter 'policy': policy version 7 refused: network fingerprint" in played.stdout
    assert "Traceback" not in played.stdout + played.stderr
