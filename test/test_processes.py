# SPDX-License-Identifier: Apache-2.0
"""`rlpd train` as processes: domains of their own; started, kept alive and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlpd_ros.cli import runner
from rlpd_ros.cli.runner import Runner, ros_domain
from rlpd_ros.errors import ConfigError
from rlpd_ros.graph import Process, train_graph

DEADLINE = 60.0  # s


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
    assert (running.logs / "node.log").read_text().splitlines()[1] == "node: was killed by SIGKILL"  # for the doctor
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


INTERRUPTS = """
import gc, os, signal, sys


def interrupt(*_):
    if "jax" in sys.modules:
        gc.callbacks.remove(interrupt)
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(100))  # whatever a signal raises is raised here, and ignored by who calls this


gc.callbacks.append(interrupt)
"""


def test_an_interrupt_is_not_lost_while_libraries_are_imported(tmp_path, domain):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTS)
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    done = subprocess.run(runner.command(Process("actor", "actor")), env=os.environ | {"PYTHONPATH": path}, check=False,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "waiting for space_spec" not in done.stdout + done.stderr
