# SPDX-License-Identifier: Apache-2.0
"""Real nodes that may be killed at any time, an independent recording, and the comparison of it with the run's log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from listener import state_digest, step_digest, transition_digest

from rlpd_ros.cli.runner import command
from rlpd_ros.graph import Process
from rlpd_ros.ros import messages
from rlpd_ros.ros.bags import Bag, TransitionLog
from rlpd_ros.ros.main import PARENT
from rlpd_ros.runs import RunDirectory
from rlpd_ros.tables import Row, at_least, at_most, informative

DEADLINE = 180.0  # s for what takes some seconds on a machine that has nothing else to do
SMALL: dict[str, dict[str, Any]] = {
    "**": {"hidden_dims": [8]},
    "learner": {"critic_hidden_dims": [8], "utd_ratio": 1, "batch_size": 8, "training_starts": 20,
                "steps_per_update": 5, "log_period": 50, "checkpoint_period": 20, "max_steps": 10**7,
                "status_period": 0.1},
    "actor": {"eval_every": 0, "status_period": 0.1, "resend_period": 0.5}}
"""Parameters with which everything starts, trains and saves in no time."""


class Recording:
    """What a listener has written so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.heard: dict[str, list[dict]] = defaultdict(list)

    def update(self) -> None:
        """Take in what was written since the last time."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    message = json.loads(line)
                    self.heard[message["topic"]].append(message)

    def last(self, topic: str) -> dict:
        return self.heard[topic][-1] if self.heard[topic] else defaultdict(int)


class Cluster:
    """Nodes of one run. Use it in a ``with``; ROS_DOMAIN_ID must be set. ``hosts``: node -> command to start it by."""

    def __init__(self, folder: Path, demos: Path | None, parameters: dict[str, dict[str, Any]] | None = None,
                 hosts: dict[str, tuple[str, ...]] | None = None, env: dict[str, str] | None = None,
                 listen_at: tuple[str, ...] = ()) -> None:
        self.run = RunDirectory.create(folder, "run")
        self.spontaneous: list[str] = []  # deaths that nobody brought about
        self._folder = folder
        self._demos = demos
        self._hosts = hosts or {}
        self._env = env or {}
        self._file = folder / "parameters.yaml"
        merged = {name: values | (parameters or {}).get(name, {})
                  for name, values in ({"arm_driver": {}} | SMALL).items()}
        self._file.write_text(yaml.safe_dump({f"/**/{name}".replace("/**/**", "/**"): {"ros__parameters": values}
                                              for name, values in merged.items()}))
        self._nodes: dict[str, subprocess.Popen] = {}
        self._listeners: list[subprocess.Popen] = []
        self.recording = self.listen(listen_at)

    def listen(self, prefix: tuple[str, ...] = ()) -> Recording:
        """Start another independent recording, elsewhere."""
        path = self._folder / f"heard_{len(self._listeners)}.jsonl"
        self._listeners.append(self._popen([*prefix, sys.executable, str(Path(__file__).with_name("listener.py")),
                                            str(path)], "listener"))
        recording = Recording(path)
        self.until(lambda: recording.heard["ready"], recording)
        return recording

    def _popen(self, line: list[str], name: str) -> subprocess.Popen:
        with (self.run.logs / f"{name}.log").open("a") as log:
            return subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                                    env=os.environ | {PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"} | self._env)

    def start(self, *names: str) -> None:
        for name in names:
            parameters: dict[str, Any] = {"run": str(self.run.path)} if name in ("learner", "actor") else {}
            if name == "demo_loader":
                parameters = {"demo_path": [str(self._demos)]}
            if name == "learner" and self._demos is None:
                parameters["require_demonstrations"] = False
            line = command(Process(name, name, "", parameters, (str(self._file),)))
            self._nodes[name] = self._popen([*self._hosts.get(name, ()), *line], name)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        self._nodes[name].send_signal(number)
        self._nodes.pop(name).wait(30)

    def revive(self) -> None:
        """Start again what has died by itself, and remember that."""
        for name, node in list(self._nodes.items()):
            if node.poll() is not None:
                self.spontaneous.append(f"{name} ended with status {node.returncode}: "
                                        f"{(self.run.logs / f'{name}.log').read_text()[-500:]}")
                self.start(name)

    def until(self, condition: Callable[[], Any], *recordings: Recording, seconds: float = DEADLINE) -> float:
        """Wait until ``condition`` holds; return how long that took, in s."""
        began = time.monotonic()
        while True:
            for recording in recordings or (self.recording,):
                recording.update()
            if condition():
                return time.monotonic() - began
            assert time.monotonic() - began < seconds, f"not within {seconds:.0f} s; {self._last_words()}"
            self.revive()
            time.sleep(0.02)  # between two looks

    def spend(self, seconds: float, *recordings: Recording) -> None:
        """Let ``seconds`` pass."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, *recordings, seconds=seconds + DEADLINE)

    def _last_words(self) -> str:
        told = [f"{topic}: {dict(self.recording.last(topic))}" for topic in ("learner_status", "actor_status")]
        return "; ".join(told + [f"{log.stem}: {log.read_text()[-400:]}" for log in self.run.logs.glob("*.log")])

    def stop(self) -> None:
        """End all nodes in good order, the learner last."""
        for name in sorted(self._nodes, key=lambda name: name == "learner"):
            self.kill(name, signal.SIGINT)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for child in [*self._nodes.values(), *self._listeners]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def compare(run: RunDirectory, *recordings: Recording) -> list[Row]:
    """Compare what was heard with what is in the run's log, by content."""
    spec = Bag(run.transitions, partial=True).spec()
    assert spec is not None
    heard: dict[str, list[dict]] = defaultdict(list)
    for recording in recordings:
        recording.update()
        for topic, found in recording.heard.items():
            heard[topic] += found
    stored: Counter[tuple[str, int]] = Counter()
    digests: dict[tuple[str, int], str] = {}
    sent = {(m["session"], m["sequence"]): m["digest"] for m in heard["transitions"]}
    first: dict[str, int] = {}  # of each session, the first number that was heard
    for session, sequence in sent:
        first[session] = min(sequence, first.get(session, sequence))
    seen = {m["stamp"]: m for m in heard["observation"]}
    did = {tuple(m["place"]): m["did"] for m in heard["observation"]}
    wrong = traced = untrue = 0
    for record in TransitionLog.read(run.transitions, spec):
        key = record.session, record.sequence
        stored[key] += 1
        digests[key] = transition_digest(messages.from_transition(record, spec))
        wrong += key in sent and sent[key] != digests[key]
        before = seen.get(record.stamp)
        if before is not None:
            session, episode, step = before["place"]
            done = did.get((session, episode, step + 1))
            traced += done is not None
            untrue += before["state"] != state_digest(record.observation.state) or done not in (
                None, step_digest(record.action, record.reward, record.terminated, record.truncated))
    acknowledged: dict[str, int] = {}
    for m in heard["transitions_ack"]:
        if not m["session"].startswith("demos-"):
            acknowledged[m["session"]] = max(m["sequence"], acknowledged.get(m["session"], 0))
    # What an actor sent before it had found the listener, no listener hears; a session never heard counts in full.
    audible = [key for key in stored if key[1] >= first.get(key[0], 1)]
    owed = [(session, i) for session, last in acknowledged.items() for i in range(1, last + 1)]
    return [
        informative("acknowledged transitions", len(owed)),
        at_most("acknowledged, not in the log", sum(key not in stored for key in owed), 0),
        at_most("in the log more than once", sum(count > 1 for count in stored.values()), 0),
        informative("in the log, sent before the listener was found", len(stored) - len(audible)),
        at_least("in the log and heard when they were sent", 100 * sum(key in sent for key in audible) / len(audible),
                 95, "%"),
        at_most("of these, not what was sent", wrong, 0),
        # The driver keeps one observation for whoever is slow: on a busy machine the listener misses some.
        at_least("in the log and seen when the arm did it", 100 * traced / len(stored), 50, "%"),
        at_most("of these, not what the arm did", untrue, 0),
        informative("heard, never acknowledged, not in the log", len(sent.keys() - stored.keys()))]
