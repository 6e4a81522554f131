# SPDX-License-Identifier: Apache-2.0
"""Run the system for long at 50 Hz with two cameras, and look at the memory of each process: ``make soak``."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from rlpd_ros.cli.runner import command, ros_domain
from rlpd_ros.graph import Process
from rlpd_ros.ros.main import PARENT
from rlpd_ros.ros.middleware import use_profile
from rlpd_ros.ros.watcher import StatusWatcher
from rlpd_ros.runs import RunDirectory
from rlpd_ros.status import ActorReport, LearnerReport
from rlpd_ros.tables import Row, all_ok, at_least, at_most, informative, print_table, write_report_json

HERE = Path(__file__).parent
RATE = 50.0  # Hz
CAPACITY = 1_000  # transitions in the buffer: full after 20 s
SAMPLE = 2.0  # s between two looks at the memory
SETTLE = 30.0  # s after the buffer is full until all that is compiled once and kept is there
SHARE = 0.2  # of the samples, at the beginning and at the end, that are compared
PATIENCE = 240.0  # s until the buffer is full
GROWTH = 2.0  # %
OVERRUNS = 0.1  # % of the steps
NODES = ("arm_driver", "learner", "actor", "monitor")
NICENESS = {"arm_driver": -10, "actor": -10, "monitor": 0, "learner": 10}
"""Control first, as on a robot, so that late answers are the transport's; the learner takes whatever time there is."""
NETWORK = {"hidden_dims": [32, 32]}
PARAMETERS: dict[str, dict[str, object]] = {
    "arm_driver": {"arm": "synthetic:SyntheticArm", "control_rate": RATE, "lockstep": False},
    "learner": {**NETWORK, "critic_hidden_dims": [32, 32], "batch_size": 8, "utd_ratio": 1, "training_starts": 200,
                "replay_buffer_capacity": CAPACITY, "demo_buffer_capacity": 10, "require_demonstrations": False,
                "max_steps": 2**31, "checkpoint_period": 20_000, "steps_per_update": 500, "log_period": 1_000},
    "actor": {**NETWORK, "eval_every": 0},
    "monitor": {}}


class Soak:
    """The processes of one run, what they say, and how much memory each of them has."""

    def __init__(self, folder: Path) -> None:
        self.run = RunDirectory.create(folder, "run")
        self.watcher = StatusWatcher()
        self.samples: dict[str, list[int]] = {name: [] for name in NODES}
        self._logs = {name: (folder / f"{name}.log").open("w") for name in NODES}
        self._processes = {name: self._start(name) for name in NODES}

    def _start(self, name: str) -> subprocess.Popen:
        parameters = PARAMETERS[name] | ({"run": str(self.run.path)} if name == "learner" else {})
        line = command(Process(name, name, parameters=parameters))
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen([sys.executable, str(HERE / "synthetic.py"), name, *line[2:]],
                                   stdout=self._logs[name], stderr=subprocess.STDOUT,
                                   env=os.environ | {PARENT: str(os.getpid()), "PYTHONPATH": path})
        with contextlib.suppress(psutil.AccessDenied):  # who may not raise priorities goes without
            psutil.Process(process.pid).nice(NICENESS[name])
        return process

    def spin(self, seconds: float) -> None:
        """Listen; see that all live."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.watcher.spin(0.1)
        for name, process in self._processes.items():
            assert process.poll() is None, f"{name} ended: {Path(self._logs[name].name).read_text()[-2000:]}"

    def sample(self) -> None:
        for name, process in self._processes.items():
            self.samples[name].append(psutil.Process(process.pid).memory_info().rss)

    @property
    def actor(self) -> ActorReport:
        return self.watcher.actor or ActorReport("")

    @property
    def learner(self) -> LearnerReport:
        return self.watcher.learner or LearnerReport("")

    def close(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for name, process in self._processes.items():
            process.wait()
            self._logs[name].close()
        self.watcher.__exit__()


def growth(samples: list[int]) -> float:
    """Return by how many % the lowest of the last samples is above that of the first.

    What is needed for a moment, such as for a checkpoint, makes the memory go up and down; a leak raises the lowest.
    """
    few = max(1, int(SHARE * len(samples)))
    return 100.0 * (min(samples[-few:]) / min(samples[:few]) - 1.0)


def soak(minutes: float) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, ros_domain():
        use_profile()
        system = Soak(Path(folder))
        try:
            patience = time.monotonic() + PATIENCE
            while system.learner.online_buffer_size < CAPACITY * 0.99:
                system.spin(1.0)
                assert time.monotonic() < patience, f"the buffer does not fill: {system.learner}, {system.actor}"
            system.spin(SETTLE)
            before, learner, began = ActorReport(**vars(system.actor)), system.learner, time.monotonic()
            while time.monotonic() - began < 60.0 * minutes:
                system.spin(SAMPLE)
                system.sample()
            return figures(system, before, learner, time.monotonic() - began)
        finally:
            system.close()


def figures(system: Soak, before: ActorReport, earlier: LearnerReport, seconds: float) -> list[Row]:
    actor, learner = system.actor, system.learner
    steps, late = actor.env_steps - before.env_steps, actor.overruns - before.overruns
    log = sum(path.stat().st_size for path in system.run.transitions.glob("*.mcap"))
    load = os.getloadavg()[1]
    return [
        informative("time with full buffers", seconds / 60.0, "min"), informative("steps of the arm", steps),
        at_least("steps per second", steps / seconds, 0.98 * RATE, "Hz"),
        informative("overruns", late), at_most("overruns", 100.0 * late / max(1, steps), OVERRUNS, "%"),
        informative("gradient steps", learner.gradient_step - earlier.gradient_step),
        informative("log of transitions", log / 2**20, "MiB"),
        at_most("transitions that wait for a receipt at the end", actor.transitions_unacked, RATE),
        at_most("transitions refused", learner.transitions_rejected, 0),
        *(row for name, samples in system.samples.items() for row in (
            informative(f"{name}: memory at the end", median(samples[-3:]) / 2**20, "MiB"),
            at_most(f"{name}: growth of its memory", growth(samples), GROWTH, "%"))),
        informative("load of the machine, mean of 5 min", load)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="with full buffers (default: %(default)s)")
    parser.add_argument("--report", default="soak")
    options = parser.parse_args()
    rows = soak(options.minutes)
    print_table("Soak: 50 Hz, two images of 128 x 128", rows)
    write_report_json(options.report, rows)
    return 0 if all_ok(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
