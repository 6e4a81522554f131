# SPDX-License-Identifier: Apache-2.0
"""The command line: bad input makes one line, status 2 and nothing else."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.factory import make_arm
from rlpd_ros.arm.opengl import find_backend
from rlpd_ros.cli import _parser, main, train
from rlpd_ros.exported_policy import save_policy
from rlpd_ros.preparation import NO_DEMONSTRATIONS, prepare_run, resolve
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.policy import Policy, make_snapshot
from rlpd_ros.ros.bags import read_demonstrations
from rlpd_ros.runs import RunDirectory
from rlpd_ros.types import Observation


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """Run ``rlpd`` in a folder; expect one line on stderr, status 2 and nothing changed; return the line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)

    def run(*arguments: str) -> str:
        before = contents(tmp_path)
        capsys.readouterr()
        assert main(arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"rlpd {arguments[0]}: ")
        assert printed.err.count("\n") == 1
        assert contents(tmp_path) == before
        return printed.err

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
            for path in sorted(folder.rglob("*"))}


def make_run(folder: Path, name: str = "x", **snapshot_changes) -> RunDirectory:
    """Make a run that has an (untrained) policy."""
    configurations = resolve([], overrides=["hidden_dims=[8]"])
    run, _ = prepare_run(folder / "runs", name, configurations, NO_DEMONSTRATIONS)
    spec = make_arm(ArmConfig()).spec
    policy = Policy(spec, configurations.get("actor", PolicyConfig))
    probe = Observation(np.zeros(spec.state_size, np.float32))
    snapshot = make_snapshot(policy, policy.serialize(policy.init(0)), spec, probe, session="learner-1", version=4,
                             gradient_step=150)
    save_policy(run.policy, replace(snapshot, **snapshot_changes))
    return run


# Bad input


@pytest.mark.parametrize(("arguments", "says"), [
    (["--set", "learner.max_stepps=3"], "--set: unknown parameter 'max_stepps'; did you mean 'max_steps'?"),
    (["--set", "discount=1.5"], "parameter 'discount': expected a value from 0.0 to 1.0, found 1.5"),
    (["--set", "hidden_dims=[8, x]"], "expected a whole number, found 'x'"),
    (["--set", "discount=[1"], "the value is not YAML"),
    (["--set", "discount"], "expected [NODE.]NAME=VALUE"),
    (["--seed", "-1"], "parameter 'seed': expected a value from 0"),
    (["--preset", "rlpf"], "preset: expected one of hil_serl, rlpd, found 'rlpf'"),
    (["--config", "missing.yaml"], "missing.yaml: cannot read the parameter file: No such file or directory"),
    (["--config", "."], "cannot read the parameter file: Is a directory"),
    (["--config", "broken.yaml"], "broken.yaml: expected YAML"),
    (["--config", "binary.yaml"], "binary.yaml: expected YAML"),
    (["--config", "stranger.yaml"], "section 'stranger' fits no node"),
    (["--config", "high.yaml"], "high.yaml: learner: parameter 'tau': expected a value from 0.0 to 1.0, found 3.0"),
    (["--demos", "nowhere"], "nowhere: expected a rosbag2 bag or a folder of bags, found nothing there"),
    (["--demos", "folder"], "folder: expected a rosbag2 bag"),
    (["--demos", "broken.yaml"], "broken.yaml: expected a rosbag2 bag"),
    (["--demos", "cut"], "cut off after byte"),
    (["--run", "a/b"], "run name: expected a plain folder name, found 'a/b'"),
    (["--run", "taken", "--demos", "none"], "exists already and is not overwritten"),
    (["--runs", "broken.yaml", "--demos", "none"], "cannot make"),
    (["--nodes", "leaner"], "nodes: expected some of demo_loader, learner, monitor, arm_driver, actor, found leaner"),
    (["--nodes", "demo_loader", "--demos", "none"], "nodes: expected one besides demo_loader"),
    (["--namespace", "a b"], "namespace a b: expected a ROS namespace"),
    (["--arms", "left", "right-arm"], "arms right-arm: expected a ROS namespace"),
    (["--arms", "left", "left"], "arms: expected different names, found left left"),
    (["--arms", "left", "/left"], "arms: expected different names, found left /left"),
    (["--arms", "left", ""], "arms: expected names, found an empty one in ['left', '']"),
    (["--resume", "nowhere"], "nowhere: expected the folder of a run, found nothing"),
    (["--resume", "broken.yaml"], "expected the folder of a run, found a file"),
    (["--resume", "folder"], "folder: not a run"),
    (["--resume", "runs/taken", "--config", "high.yaml"], "--resume goes on with the run's own name and parameters"),
    (["--resume", "runs/taken", "--run", "y"], "--resume goes on with the run's own name and parameters"),
    (["--resume", "runs/taken", "--set", "tau=7.0"], "expected a value from 0.0 to 1.0"),
    (["--resume", "runs/taken", "--set", "tau=0.1", "--nodes", "leaner"], "nodes: expected some of demo_loader"),
    (["--resume", "runs/taken", "--set", "tau=0.1", "--arms", "a", "a"], "arms: expected different names, found a a"),
    (["--set", "arm=gymnasium"], "gym_env_id"),
    (["--set", "arm=gymnasium", "--set", "gym_env_id=NoSuchArm-v0"], "NoSuchArm"),
    (["--set", "workspace_low=[0.9, 0.9, 0.9]"], "workspace"),
])
def test_train_refuses(tmp_path, refused, demonstrations, arguments, says):
    (tmp_path / "broken.yaml").write_text("learner: [")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "stranger.yaml").write_text("stranger: {ros__parameters: {seed: 1}}")
    (tmp_path / "high.yaml").write_text("learner: {ros__parameters: {tau: 3.0}}")
    (tmp_path / "folder").mkdir()
    prepare_run(tmp_path / "runs", "taken", resolve([]), NO_DEMONSTRATIONS)
    shutil.copytree(demonstrations, tmp_path / "cut")
    bag = next((tmp_path / "cut").glob("*.mcap"))
    bag.write_bytes(bag.read_bytes()[:-100])
    assert says in refused("train", *arguments)


def test_train_puts_back_parameters_that_do_not_work_in_the_home_folder_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run, _ = prepare_run("~/runs", "x", resolve([]), NO_DEMONSTRATIONS)
    assert run.path == tmp_path / "runs" / "x"
    assert train._parameters_of("~/runs/x") == run.parameters.read_text()


@pytest.mark.parametrize("domain", ["abc", "-1", "233"])
def test_train_refuses_a_domain_that_does_not_exist(refused, monkeypatch, domain):
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    assert f"ROS_DOMAIN_ID: expected a number from 0 to 232, found '{domain}'" in refused("train")


@pytest.mark.parametrize(("arguments", "says"), [
    (["taken"], "taken exists already and is not overwritten"),
    (["new", "--episodes", "0"], "episodes: expected at least 1, found 0"),
    (["new", "--set", "control_rate=0.0"], "parameter 'control_rate': expected a value from 0.1"),
    (["new", "--set", "arm=gymnasium", "--set", "gym_env_id=Pendulum-v1"], "has no scripted expert"),
    (["file/new"], "file/new: cannot write transitions: Not a directory"),
])
def test_record_refuses(tmp_path, refused, arguments, says):
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("in the way")
    assert says in refused("record", *arguments)


@pytest.mark.parametrize(("arguments", "says"), [
    (["nowhere"], "nowhere: expected the folder of a run, found nothing"),
    (["runs/x", "--episodes", "0"], "episodes: expected at least 1, found 0"),
    (["runs/x", "--namespace", "a b"], "--namespace a b: expected a ROS namespace"),
    (["runs/x", "--seed", "-1"], "parameter 'seed': expected a value from 0"),
    (["runs/young"], "policy.params: cannot read the policy: No such file"),
    (["runs/damaged"], "policy.params: not a policy file of this package, or damaged"),
    (["runs/corrupt"], "checksum: learner"),
    (["runs/wider"], "hidden_dims: learner [8], actor [16]"),
    (["runs/faster"], "space fingerprint: learner"),
    (["runs/x", "--video", "film.mp4"], "video: expected a name that ends in .gif, found film.mp4"),
    (["runs/x", "--video", "kept.gif"], "video: kept.gif exists and is not overwritten: choose another name"),
    (["runs/x", "--video", "no/film.gif"], "video: no is no folder: make it first"),
])
def test_eval_refuses(tmp_path, refused, arguments, says):
    make_run(tmp_path)
    (tmp_path / "kept.gif").write_bytes(b"a film")
    make_run(tmp_path, "young").policy.unlink()
    make_run(tmp_path, "damaged").policy.write_bytes(b"{")
    make_run(tmp_path, "corrupt", checksum="0" * 16)
    for name, before, after in (("wider", "hidden_dims:\n    - 8", "hidden_dims:\n    - 16"),
                                ("faster", "control_rate: 10.0", "control_rate: 20.0")):
        file = make_run(tmp_path, name).parameters
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, after))
    assert says in refused("eval", *arguments)


def test_report_refuses(refused):
    assert "nowhere: expected the folder of a run, found nothing" in refused("report", "nowhere")


def test_a_file_that_cannot_be_written_is_named(tmp_path, refused):
    run = make_run(tmp_path)
    run.report.mkdir()
    assert refused("report", "runs/x") == (f"rlpd report: {run.report}: Is a directory; look what is there, and name "
                                           "another place if it must stay\n")


@pytest.mark.parametrize(("number", "remedy"), [
    (errno.EROFS, "permit it, or use a copy in a folder of yours"), (errno.ENOSPC, "make room on that disk")])
def test_a_disk_that_takes_nothing_is_told(tmp_path, refused, monkeypatch, number, remedy):
    run = make_run(tmp_path)

    def fail(**_) -> None:
        raise OSError(number, os.strerror(number), "a temporary file")

    monkeypatch.setattr("rlpd_ros.runs.tempfile.mkstemp", fail)
    said = f": {os.strerror(number)}; {remedy}\n"
    assert refused("report", "runs/x") == f"rlpd report: {run.report}{said}"
    assert refused("train", "--resume", "runs/x") == f"rlpd train: {run.parameters}{said}"


def test_an_error_that_names_no_file_is_a_bug(tmp_path, monkeypatch):
    run = make_run(tmp_path)

    def fail(run: RunDirectory) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr("rlpd_ros.report.write_report", fail)
    with pytest.raises(OSError, match="Bad file descriptor"):
        main(["report", str(run.path)])


@pytest.mark.parametrize("arguments", [
    [], ["dance"], ["train", "--sed", "x"], ["eval"], ["record", "x", "--episodes", "y"]])
def test_what_is_no_command_shows_how_to_use_it(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: rlpd" in capsys.readouterr().err


def test_a_run_in_which_a_learner_is_at_work_is_not_gone_on_with(tmp_path, refused):
    """An arm driver that was started beside the first would move the same arm."""
    run = make_run(tmp_path)
    held = run.lock()
    assert "another learner is at work in " in refused("train", "--resume", str(run.path), "--set", "max_steps=3")
    os.close(held)


def test_a_file_that_is_no_policy_of_ones_own_is_not_overwritten(tmp_path, refused):
    (tmp_path / "mine.yaml").write_text("learner: {}")
    assert "mine.yaml exists, is no policy, and is not overwritten" in refused("security", "mine.yaml")
    for namespace in ("a", "b"):
        assert main(["security", "policy.xml", "--namespace", namespace]) == 0
    assert "/b/" in (tmp_path / "policy.xml").read_text()


def test_a_place_for_figures_that_cannot_be_is_refused_before_they_are_measured(tmp_path, refused):
    (tmp_path / "file").write_text("in the way")
    assert "file: File exists" in refused("bench", "--out", "file")


# Good input


@pytest.mark.parametrize("given", [
    "", "--arms left right", "--namespace lab",
    "--nodes actor arm_driver --namespace lab/one --arms left --across-hosts"])
def test_train_tells_how_to_go_on_with_the_same_nodes(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    run = RunDirectory.create(tmp_path / "runs", "a b")
    begun = _parser().parse_args(["train", "--run", "a b", "--seed", "3", *given.split()])
    command = train._resuming(run, begun)
    assert command == f"rlpd train --resume 'runs/a b' {given}".strip()
    resumed = _parser().parse_args(shlex.split(command)[1:])
    for name in ("nodes", "namespace", "arms", "across_hosts"):
        assert getattr(resumed, name) == getattr(begun, name)


def test_record_makes_a_bag_of_successes(tmp_path, capsys):
    assert main(["record", str(tmp_path / "bag"), "--episodes", "3", "--seed", "5"]) == 0
    manifest = read_demonstrations([tmp_path / "bag"]).manifest
    assert (manifest.episodes, manifest.successes) == ([3], [3])
    assert capsys.readouterr().out == f"3 demonstrations, {manifest.total} transitions: {tmp_path / 'bag'}\n"


def test_demonstrations_begin_elsewhere_than_training_with_the_same_seed(tmp_path):
    assert main(["record", str(tmp_path / "bag"), "--episodes", "3", "--seed", "5"]) == 0
    shown = [record.observation.state for record in read_demonstrations([tmp_path / "bag"]).records if record.step == 0]
    arm = make_arm(ArmConfig(seed=5))
    met = [arm.reset().state for _ in range(20)]
    assert len(shown) == 3
    assert all(np.abs(a - b).max() > 1e-4 for a in shown for b in met)


def test_eval_prints_one_json_object_and_the_same_for_the_same_seed(tmp_path, capsys):
    run = make_run(tmp_path)
    for seed in ("7", "7", "8"):
        assert main(["eval", str(run.path), "--episodes", "3", "--json", "--seed", seed]) == 0
    first, second, third = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == second != third
    assert (first["episodes"], first["policy_version"], first["gradient_step"], first["seed"]) == (3, 4, 150, 7)
    assert first["success_rate"] == first["successes"] / 3
    assert 0 <= first["low"] <= first["success_rate"] <= first["high"] <= 1


def test_eval_prints_a_line_for_people(tmp_path, capsys):
    run = make_run(tmp_path)
    assert main(["eval", str(run.path), "--episodes", "2"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("success rate ")
    assert "of 2 greedy episodes; 95 % confidence: " in line


@pytest.mark.skipif(not find_backend(), reason="nothing to draw with: neither EGL nor libosmesa6")
def test_eval_films_the_first_episodes_and_finds_what_it_finds_without(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path)
    text = run.parameters.read_text()
    assert "max_episode_steps: 0" in text
    run.parameters.write_text(text.replace("max_episode_steps: 0", "max_episode_steps: 4"))
    monkeypatch.setattr("rlpd_ros.cli.evaluate.EPISODES", 2)
    for more in ([], ["--video", str(tmp_path / "x.gif")]):
        assert main(["eval", str(run.path), "--episodes", "3", "--json", *more]) == 0
    alone, filmed = capsys.readouterr().out.splitlines()
    assert filmed == alone
    with Image.open(tmp_path / "x.gif") as film:
        film.load()
        durations = [film.seek(i) or film.info["duration"] for i in range(film.n_frames)]
        assert film.size == (400, 300)
    assert durations == 2 * [100, 100, 100, 100, 1000]


def test_report_prints_where_it_is(tmp_path, capsys):
    run = make_run(tmp_path)
    assert main(["report", str(run.path)]) == 0
    assert capsys.readouterr().out == f"{run.report}\n"
    assert run.report.read_text().startswith("<!")
