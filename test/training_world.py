# SPDX-License-Identifier: Apache-2.0
"""`rlpd train` as a user starts it, for tests: small networks and few steps."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections import defaultdict
from pathlib import Path

from rlpd_ros.ros import messages
from rlpd_ros.ros.bags import TransitionLog
from rlpd_ros.runs import RunDirectory

DEADLINE = 120.0  # s for what takes ten on a machine that has nothing else to do
SMALL = {
    "hidden_dims": "[16]", "critic_hidden_dims": "[16]", "batch_size": "16", "training_starts": "30",
    "steps_per_update": "10", "log_period": "10", "checkpoint_period": "20", "eval_every": "1", "eval_episodes": "2",
    "eval_min_episodes": "2", "success_target": "1.0", "learner.max_steps": "60", "max_episode_steps": "25"}


class Training:
    """A running ``rlpd train`` and what it prints."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None, **settings: str) -> None:
        sets = [part for name, value in (SMALL | settings).items() for part in ("--set", f"{name}={value}")]
        if "--resume" in arguments:
            sets = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ROS_DOMAIN", "ROS_AUTO"))}
        self.process = subprocess.Popen(
            ["rlpd", "train", *arguments, *sets], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, env=clean | (env or {}))
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line

    def expect(self, pattern: str, also=lambda: None) -> re.Match:
        """Wait until a line matches, calling ``also`` meanwhile."""
        deadline = time.monotonic() + DEADLINE
        while True:
            ended = not self._reader.is_alive()
            if found := re.search(pattern, self.text):
                return found
            assert not ended, f"no {pattern!r} in:\n{self.text}"
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.text}"
            also()
            time.sleep(0.01)  # between two looks

    def wait(self) -> int:
        status = self.process.wait(DEADLINE)
        self._reader.join(10)
        return status

    @property
    def domain(self) -> int:
        return int(self.expect(r"ROS_DOMAIN_ID=(\d+)")[1])

    def node(self, name: str, part: str = "") -> int:
        """Return the process id of a node, of several the one with ``part`` in its command line."""
        deadline = time.monotonic() + DEADLINE
        while True:
            for child, command in children(self.process.pid).items():
                if f"/lib/rlpd_ros/{name}" in command and part in command:
                    return child
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.wait()


def children(parent: int) -> dict[int, str]:
    """Return the command lines of the children of a process by their id."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except (OSError, ValueError):
            continue
    return found


def wait_until_gone(processes) -> None:
    deadline = time.monotonic() + DEADLINE
    for process in processes:
        while Path(f"/proc/{process}").exists():
            assert time.monotonic() < deadline, Path(f"/proc/{process}/cmdline").read_text()
            time.sleep(0.01)


def expect_nothing_lost(graph, run: RunDirectory, spec) -> None:
    """Compare the log with what was heard: everything acknowledged is there, once, and is what was sent."""
    graph.drain()
    stored = defaultdict(dict)
    for record in TransitionLog.read(run.transitions, spec):
        assert record.sequence not in stored[record.session]
        stored[record.session][record.sequence] = record
    acknowledged = {}
    for message in graph.heard["transitions_ack"]:
        if not message.session.startswith("demos-"):
            acknowledged[message.session] = max(message.sequence, acknowledged.get(message.session, 0))
    assert len(acknowledged) >= 2
    for session, sequence in acknowledged.items():
        assert set(stored[session]) >= set(range(1, sequence + 1))
    compared = 0
    for message in graph.heard["transitions"]:
        record = stored[message.session].get(message.sequence)
        if record is not None:
            sent = messages.to_transition(message, spec)
            assert (record.episode, record.step, record.reward, record.stamp) == (
                sent.episode, sent.step, sent.reward, sent.stamp)
            assert record.observation.state.tobytes() == sent.observation.state.tobytes()
            assert record.action.tobytes() == sent.action.tobytes()
            compared += 1
    assert compared >= 50  # not all: what was sent before this ear was found, nobody heard
