# SPDX-License-Identifier: Apache-2.0
"""The command line: bad input makes one line, status 2 and nothing else; processes are started, kept and stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.factory import make_arm
from rlpd_ros.cli import main, runner
from rlpd_ros.cli.runner import Runner, ros_domain
from rlpd_ros.errors import ConfigError
from rlpd_ros.exported_policy import save_policy
from rlpd_ros.graph import Process, train_graph
from rlpd_ros.preparation import NO_DEMONSTRATIONS, prepare_run, resolve
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.policy import Policy, make_snapshot
from rlpd_ros.ros.bags import read_demonstrations
from rlpd_ros.runs import RunDirectory
from rlpd_ros.types import Observation

DEADLINE = 60.0  # s


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
    snapshot = make_snapshot(policy, policy.init(0), spec, probe, session="learner-1", version=4, gradient_step=150)
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
    (["--nodes", "leaner"], "nodes: expected some of arm_driver, demo_loader, learner, actor"),
    (["--namespace", "a b"], "--namespace a b: expected a ROS namespace"),
    (["--resume", "nowhere"], "nowhere: expected the folder of a run, found nothing"),
    (["--resume", "broken.yaml"], "expected the folder of a run, found a file"),
    (["--resume", "folder"], "folder: not a run"),
    (["--resume", "runs/taken", "--config", "high.yaml"], "--resume goes on with the run's own name and parameters"),
    (["--resume", "runs/taken", "--run", "y"], "--resume goes on with the run's own name and parameters"),
    (["--resume", "runs/taken", "--set", "tau=7.0"], "expected a value from 0.0 to 1.0"),
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
    (["runs/x", "--seed", "-1"], "parameter 'seed': expected a value from 0"),
    (["runs/young"], "policy.params: cannot read the policy: No such file"),
    (["runs/damaged"], "policy.params: not a policy file of this package, or damaged"),
    (["runs/corrupt"], "checksum: learner"),
    (["runs/wider"], "hidden_dims: learner [8], actor [16]"),
    (["runs/faster"], "space fingerprint: learner"),
])
def test_eval_refuses(tmp_path, refused, arguments, says):
    make_run(tmp_path)
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


@pytest.mark.parametrize("arguments", [
    [], ["dance"], ["train", "--sed", "x"], ["eval"], ["record", "x", "--episodes", "y"]])
def test_what_is_no_command_shows_how_to_use_it(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: rlpd" in capsys.readouterr().err


# Good input


def test_record_makes_a_bag_of_successes(tmp_path, capsys):
    assert main(["record", str(tmp_path / "bag"), "--episodes", "3", "--seed", "5"]) == 0
    manifest = read_demonstrations([tmp_path / "bag"]).manifest
    assert (manifest.episodes, manifest.successes) == ([3], [3])
    assert capsys.readouterr().out == f"3 demonstrations, {manifest.total} transitions: {tmp_path / 'bag'}\n"


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


def test_report_prints_where_it_is(tmp_path, capsys):
    run = make_run(tmp_path)
    assert main(["report", str(run.path)]) == 0
    assert capsys.readouterr().out == f"{run.report}\n"
    assert run.report.read_text().startswith("<!")


# Domains


@pytest.fixture
def free_choice(monkeypatch):
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"):
        monkeypatch.delenv(name, raising=False)


def test_two_runs_at_once_have_two_domains(free_choice, monkeypatch):
    held = set()
    with ros_domain() as first:
        assert os.environ["ROS_DOMAIN_ID"] == str(first)
        for _ in range(20):
            monkeypatch.delenv("ROS_DOMAIN_ID")
            with ros_domain() as other:
                held.add(other)
            monkeypatch.setenv("ROS_DOMAIN_ID", str(first))
    assert first not in held
    assert "ROS_DOMAIN_ID" not in os.environ


def test_a_domain_that_is_set_is_kept(free_choice, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    with ros_domain() as domain:
        assert domain == 42
    assert os.environ["ROS_DOMAIN_ID"] == "42"


def test_locks_of_other_users_are_passed_over(free_choice, tmp_path, monkeypatch):
    monkeypatch.setattr(runner.tempfile, "gettempdir", lambda: str(tmp_path))
    for number in range(1, 102):
        if number != 57:
            (tmp_path / f"rlpd_ros_domain_{number}.lock").mkdir()  # cannot be opened either
    with ros_domain() as domain:
        assert domain == 57
        monkeypatch.delenv("ROS_DOMAIN_ID")
        with pytest.raises(ConfigError, match="ROS_DOMAIN_ID: all of 1 to 101 are in use"), ros_domain():
            pass
        monkeypatch.setenv("ROS_DOMAIN_ID", "57")


def test_discovery_stays_on_this_machine_unless_told_otherwise(free_choice, monkeypatch):
    with ros_domain():
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE")
    with ros_domain(local=False):
        assert "ROS_AUTOMATIC_DISCOVERY_RANGE" not in os.environ
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    with ros_domain():
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SUBNET"


# Processes


class Run:
    """A runner of small programs that stand for nodes."""

    def __init__(self, folder: Path, monkeypatch, programs: dict[str, str], **kinds) -> None:
        monkeypatch.setattr(runner, "RESPAWN_DELAY", 0.05)
        monkeypatch.setattr(runner, "command", lambda process: [sys.executable, "-c", programs[process.name]])
        self.lines: list[tuple[str, str]] = []
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.runner = Runner([Process(name, name, **kinds.get(name, {})) for name in programs], self.logs,
                             lambda name, line: self.lines.append((name, line)))

    def until(self, condition: Callable[[], object]) -> object:
        deadline = time.monotonic() + DEADLINE
        while not (holds := condition()):
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.01)  # between two looks
        return holds

    def status(self) -> int:
        found: list[int | None] = [None]

        def ended() -> bool:
            found[0] = self.runner.poll()
            return found[0] is not None

        self.until(ended)
        assert found[0] is not None
        return found[0]

    def said(self, name: str, text: str) -> bool:
        self.runner.poll()
        return any(name == who and text in line for who, line in self.lines)


@pytest.fixture
def run(tmp_path, monkeypatch):
    made: list[Run] = []

    def make(programs: dict[str, str], **kinds) -> Run:
        made.append(Run(tmp_path, monkeypatch, programs, **kinds))
        return made[-1]

    yield make
    for each in made:
        each.runner.stop()


LIVE = "import time; print('up', flush=True); time.sleep(600)"
FOREVER = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); " + LIVE  # whatever was inherited
STUBBORN = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " + LIVE
HURT = "import os; print('up', flush=True); os.kill(os.getpid(), 9)"


def test_output_is_prefixed_and_kept(run):
    running = run({"node": "print('one'); print('two'); " + FOREVER})
    running.until(lambda: running.said("node", "up"))
    assert running.lines == [("node", "one"), ("node", "two"), ("node", "up")]
    assert (running.logs / "node.log").read_text() == "one\ntwo\nup\n"


def test_what_is_killed_is_started_again(run):
    running = run({"node": FOREVER, "other": FOREVER})
    running.until(lambda: running.said("node", "up") and running.said("other", "up"))
    victim, bystander = (child.handle for child in running.runner._children)
    victim.kill()
    running.until(lambda: running.said("rlpd", "node was killed by SIGKILL: starting it again"))
    running.until(lambda: running.runner.poll() is None and running.lines.count(("node", "up")) == 2)
    assert running.lines.count(("other", "up")) == 1
    assert bystander.poll() is None


def test_what_dies_again_and_again_is_given_up(run):
    running = run({"node": HURT, "other": FOREVER})
    assert running.status() == 1
    assert running.said("rlpd", f"for the 6th time within 60 s: giving up; its output is in {running.logs}/node.log")
    assert running.lines.count(("node", "up")) == 6


def test_wrong_input_ends_everything_without_another_try(run):
    running = run({"node": "import sys; print('bag: damaged'); sys.exit(2)", "other": FOREVER})
    assert running.status() == 2
    assert ("node", "bag: damaged") in running.lines
    assert not running.said("rlpd", "starting it again")


def test_the_end_of_the_learner_is_the_end_and_that_of_another_is_not(run):
    running = run({"learner": "import sys; sys.stdin.read(); print('done')", "other": "print('gone')"},
                  learner={"required": True}, other={"respawn": True})
    assert running.status() == 0
    assert ("learner", "done") in running.lines


def test_what_shall_not_be_started_again_ends_everything(run):
    running = run({"node": "raise SystemExit(3)", "other": FOREVER}, node={"respawn": False})
    assert running.status() == 3


def test_stopping_takes_three_seconds_at_most_even_if_somebody_will_not(run):
    running = run({"stubborn": STUBBORN, "node": FOREVER})
    running.until(lambda: running.said("stubborn", "up") and running.said("node", "up"))
    began = time.monotonic()
    running.runner.stop()
    assert 2.5 < time.monotonic() - began < 4.5
    assert [child.handle.returncode for child in running.runner._children] == [-signal.SIGKILL, -signal.SIGINT]
    assert running.said("rlpd", "stubborn did not stop within 3 s: killed")


def test_who_has_something_to_save_has_more_time(run, monkeypatch):
    monkeypatch.setattr(runner, "STOP_TIMEOUT", 0.2)
    slow = ("import signal, time\nasked = []\nsignal.signal(signal.SIGINT, lambda *_: asked.append(1))\n"
            "print('up', flush=True)\nwhile not asked: time.sleep(0.01)\ntime.sleep(1)\nprint('saved')")
    running = run({"learner": slow, "stubborn": STUBBORN})
    running.until(lambda: running.said("stubborn", "up") and running.said("learner", "up"))
    running.runner.stop(saving={"learner"})
    assert [child.handle.returncode for child in running.runner._children] == [0, -signal.SIGKILL]
    assert ("learner", "saved") in running.lines


def test_a_disk_without_space_for_logs_blocks_nobody(tmp_path, monkeypatch):
    program = "for i in range(20_000): print('a line that is long enough to fill the pipe')\nprint('up')"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "node.log").symlink_to("/dev/full")
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    running = Run(tmp_path, monkeypatch, {"node": program}, node={"respawn": False})
    running.until(lambda: ("node", "up") in running.lines)
    assert len([line for who, line in running.lines if who == "node"]) == 20_001
    running.runner.stop()


def test_a_reader_that_goes_away_does_not_end_the_run(tmp_path):
    program = """
import sys
from rlpd_ros.cli.progress import ProgressDisplay
display = ProgressDisplay()
display.echo("node", "one")
sys.stdin.read()
for _ in range(1000):
    display.echo("node", 100 * "more ")
open(sys.argv[1], "w").write("went on")
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "file")], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "       node | one\n"
    process.stdout.close()
    process.stdin.close()
    assert process.wait(DEADLINE) == 0
    assert (tmp_path / "file").read_text() == "went on"


def test_nodes_end_with_the_command_line_however_that_ends(tmp_path):
    node = ("import os, time; from rlpd_ros.ros.main import _follow_parent; _follow_parent(); "
            "print(os.getpid(), flush=True); time.sleep(600)")
    program = f"""
import os, subprocess, sys
from rlpd_ros.ros.main import PARENT
subprocess.Popen([sys.executable, "-c", {node!r}], env=os.environ | {{PARENT: str(os.getpid())}}).wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + DEADLINE
    while Path(f"/proc/{child}").exists() and "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_nodes_command_says_everything_it_needs():
    learner = next(p for p in train_graph("/runs/x", ("/runs/x/parameters.yaml",), ("none",), (), "left")
                   if p.name == "learner")
    command = runner.command(learner)
    assert command[0] == sys.executable
    assert Path(command[1]).is_file()
    assert command[2:] == [
        "--ros-args", "-r", "__node:=learner", "-r", "__ns:=/left", "--params-file", "/runs/x/parameters.yaml",
        "-p", "run:=/runs/x", "-p", "require_demonstrations:=false"]
