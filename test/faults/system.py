# SPDX-License-Identifier: Apache-2.0
"""A real system of real processes in a folder and a domain of its own, and what the doctor says about it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from rlpd_ros.cli.runner import command
from rlpd_ros.graph import Process
from rlpd_ros.ros.main import PARENT
from rlpd_ros.ros.watcher import StatusWatcher
from rlpd_ros.runs import RunDirectory
from rlpd_ros.status import ActorState, LearnerState

BROKEN = Path(__file__).with_name("rlpd_ros_broken.py")
SMALL = {
    "/**": {"hidden_dims": [32, 32], "cube_range": 0.05},
    "/**/learner": {"critic_hidden_dims": [32, 32], "batch_size": 32, "utd_ratio": 1, "training_starts": 50},
    "/**/actor": {"eval_every": 0}}
RLPD = shutil.which("rlpd") or "rlpd"
DEADLINE = 120.0  # s for a condition: a machine may be busy


class System:
    """Start nodes, wait for what they say, ask the doctor. Use it in a ``with``; ROS_DOMAIN_ID must be set."""

    def __init__(self, folder: Path, demos: Path, **parameters: dict[str, Any]) -> None:
        self.folder = folder
        self.demos = demos
        self.run = RunDirectory.create(folder, "run")
        self.nodes: dict[str, subprocess.Popen] = {}
        self.undo = contextlib.ExitStack()
        self.deaths: dict[str, int] = {}
        self._respawn: dict[str, tuple] = {}
        self._logs = folder / "logs"
        self._logs.mkdir()
        self._file = folder / "parameters.yaml"
        merged = {name: dict(values) for name, values in SMALL.items()}
        for node, values in parameters.items():
            merged.setdefault(f"/**/{node}", {}).update(values)
        self._file.write_text(yaml.safe_dump({name: {"ros__parameters": v} for name, v in merged.items()}))
        self.watcher = StatusWatcher()

    def start(self, name: str, fault: str = "", env: dict[str, str] | None = None, namespace: str = "",
              node: str = "", remaps: dict[str, str] | None = None, respawn: bool = False, prefix: tuple = (),
              **parameters: Any) -> None:
        """Start a node, perhaps a broken one; ``node`` is its name if it is not that of its kind."""
        if name == "learner":
            parameters = {"run": str(self.run.path)} | parameters
        if name == "demo_loader":
            parameters = {"demo_path": [str(self.demos)]} | parameters
        process = Process(node or name, name, namespace, parameters, (str(self._file),), remaps or {})
        line = command(process)
        if fault:
            line = [sys.executable, str(BROKEN), name, fault, *line[2:]]
        with (self._logs / f"{node or name}.log").open("a") as log:
            self.nodes[node or name] = subprocess.Popen(
                [*prefix, *line], stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ | {PARENT: str(os.getpid())} | (env or {}))
        if respawn:
            self._respawn[node or name] = (name, fault, env, namespace, node, remaps, True, prefix)

    def start_all(self, *but: str) -> None:
        for name in ("arm_driver", "demo_loader", "learner", "actor"):
            if name not in but:
                self.start(name)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        self.nodes[name].send_signal(number)
        if number in (signal.SIGKILL, signal.SIGINT):
            self.nodes[name].wait(20)

    def wait(self, condition: Callable[[Any, Any], Any], seconds: float = DEADLINE) -> None:
        """Wait until ``condition`` holds for the last statuses of learner and actor."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.watcher.spin(0.05)
            self.respawn()
            learner, actor = self.watcher.learner, self.watcher.actor
            if learner and actor and condition(learner, actor):
                return
        raise AssertionError(f"not within {seconds} s; learner {self.watcher.learner}, actor {self.watcher.actor}; "
                             f"{self.tails()}")

    def wait_for_training(self, steps: int = 100) -> None:
        """Wait until the learner has done so many steps."""
        self.wait(lambda learner, actor: learner.gradient_step >= steps and learner.state >= LearnerState.TRAINING)

    def wait_for_actor(self) -> None:
        """Wait until an actor has told of itself, with or without a learner."""
        deadline = time.monotonic() + DEADLINE
        while self.watcher.actor is None or self.watcher.actor.state == ActorState.WAITING_FOR_SPACE:
            self.watcher.spin(0.05)
            assert time.monotonic() < deadline, self.tails()

    def wait_for_log(self, name: str, words: str) -> None:
        """Wait until a node has said these words."""
        deadline = time.monotonic() + DEADLINE
        while words not in (self._logs / f"{name}.log").read_text():
            self.watcher.spin(0.05)
            assert time.monotonic() < deadline, self.tails()

    def wait_for_deaths(self, name: str, count: int) -> None:
        """Wait until a node that is started again each time has died so often."""
        while self.deaths.get(name, 0) < count:
            self.watcher.spin(0.05)
            self.respawn()

    def respawn(self) -> None:
        for name, arguments in self._respawn.items():
            if self.nodes[name].poll() is not None:
                self.deaths[name] = self.deaths.get(name, 0) + 1
                self.start(*arguments)

    def doctor(self, *arguments: str) -> dict:
        """Ask ``rlpd doctor --json``."""
        asked = subprocess.Popen([RLPD, "doctor", "--json", *arguments],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while asked.poll() is None:
            self.watcher.spin(0.05)
            self.respawn()
        out, errors = asked.communicate()
        assert out, errors
        return json.loads(out)

    def tails(self) -> str:
        return "; ".join(f"{log.stem}: {log.read_text()[-300:]}" for log in self._logs.glob("*.log"))

    def __enter__(self) -> System:
        return self

    def __exit__(self, *_: object) -> None:
        self.watcher.__exit__()
        for child in self.nodes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        self.undo.close()
