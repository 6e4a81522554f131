# SPDX-License-Identifier: Apache-2.0
"""A signal that ends `rlpd record`, `rlpd eval`, `rlpd train` while it records, or a driver breaks off no motion."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.factory import make_arm
from rlpd_ros.arm.interruption import stopping_between_motions
from rlpd_ros.cli import runner
from rlpd_ros.errors import USER_ERROR, ConfigError
from rlpd_ros.exported_policy import save_policy
from rlpd_ros.graph import Process
from rlpd_ros.preparation import NO_DEMONSTRATIONS, prepare_run, resolve
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.policy import Policy, make_snapshot
from rlpd_ros.ros.bags import read_demonstrations
from rlpd_ros.types import Observation, SpaceField, SpaceSpec, StepResult

DEADLINE = 120.0  # s for what takes ten on a machine that has nothing else to do
EPISODE = 3  # steps


class SlowArm:
    """Takes ``duration`` s for each motion, and writes to a file when one begins and ends. Implements ``ArmDriver``."""

    def __init__(self, config: ArmConfig, *, log: str, duration: float = 0.5) -> None:
        self._log, self._duration, self._steps = Path(log), duration, 0
        self.spec = SpaceSpec(
            robot="slow", frame_id="base", control_rate=config.control_rate, max_episode_steps=EPISODE,
            observation=(SpaceField.box("position", [-1.0], [1.0]),), action=(SpaceField.box("motion", [-1.0], [1.0]),))

    def _write(self, line: str) -> None:
        with self._log.open("a") as log:
            log.write(line + "\n")

    def _move(self, name: str) -> Observation:
        self._write(f"{name} begins")
        time.sleep(self._duration)
        self._write(f"{name} ends")
        return Observation(np.zeros(1, np.float32))

    def reset(self, seed: int | None = None) -> Observation:
        self._steps = 0
        return self._move("reset")

    def step(self, action: np.ndarray) -> StepResult:
        self._steps += 1
        done = self._steps == EPISODE
        return StepResult(self._move("step"), float(done), done, False, done, np.zeros(1, np.float32))

    def telemetry(self) -> None:
        return None

    def expert(self, noise: float = 0.0, seed: int = 0):
        return lambda observation: np.zeros(1, np.float32)

    def close(self) -> None:
        self._write("closed")


class BrokenArm(SlowArm):
    """Cannot reset."""

    def reset(self, seed: int | None = None) -> Observation:
        super().reset(seed)
        raise ConfigError("the arm is broken")


class LateArm(SlowArm):
    """Says what it is only when its process was asked to stop."""

    @property
    def spec(self) -> SpaceSpec:
        os.kill(os.getpid(), signal.SIGINT)
        return self._spec

    @spec.setter
    def spec(self, spec: SpaceSpec) -> None:
        self._spec = spec


class Started:
    """A command of ``rlpd``, or the node ``arm_driver``, that moves a SlowArm: as a process of its own."""

    def __init__(self, folder: Path, command: str, duration: float = 0.5, arm: type[SlowArm] = SlowArm) -> None:
        self.folder, self._log = folder, folder / "log"
        parameters = {"arm": f"test_interruption:{arm.__name__}",
                      "arm_kwargs": json.dumps({"log": str(self._log), "duration": duration})}
        (folder / "slow.yaml").write_text(yaml.safe_dump({"arm_driver": {"ros__parameters": parameters}}))
        if command == "eval":
            make_run(folder, parameters)
        command_line = {
            "record": ["rlpd", "record", "bag", "--config", "slow.yaml"],
            "train": ["rlpd", "train", "--run", "x", "--config", "slow.yaml"], "eval": ["rlpd", "eval", "runs/x"],
            "arm_driver": runner.command(Process("arm_driver", "arm_driver", parameter_files=("slow.yaml",)))}[command]
        python_path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        alone = {"ROS_DOMAIN_ID"} if command == "train" else set()  # it finds a domain of its own
        self.process = subprocess.Popen(
            command_line, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name not in alone} | {"PYTHONPATH": python_path})

    @property
    def log(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def until(self, last: str) -> None:
        """Wait until this is the last line of the arm's file."""
        deadline = time.monotonic() + DEADLINE
        while self.log[-1:] != [last]:
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)

    def wait(self) -> int:
        self.printed = self.process.communicate(timeout=DEADLINE)[0]
        return self.process.returncode


def make_run(folder: Path, arm: dict[str, str]) -> None:
    """Make a run that has an (untrained) policy for the arm."""
    configurations = resolve([], overrides=[
        "hidden_dims=[8]", *(f"arm_driver.{name}={json.dumps(value)}" for name, value in arm.items())])
    run, _ = prepare_run(folder / "runs", "x", configurations, NO_DEMONSTRATIONS)
    spec = make_arm(configurations.get("arm_driver", ArmConfig)).spec
    policy = Policy(spec, configurations.get("actor", PolicyConfig))
    save_policy(run.policy, make_snapshot(policy, policy.serialize(policy.init(0)), spec, Observation(np.zeros(1)),
                                          session="learner-1", version=1, gradient_step=1))


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*arguments) -> Started:
        started.append(Started(tmp_path, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("command", "number", "motion"), [
    ("record", signal.SIGINT, "step"), ("record", signal.SIGTERM, "reset"), ("eval", signal.SIGINT, "step"),
    ("eval", signal.SIGTERM, "step"), ("eval", signal.SIGHUP, "step"), ("train", signal.SIGINT, "step"),
    ("train", signal.SIGTERM, "step")])
def test_a_motion_is_ended_before_the_process_is(start, command, number, motion):
    started = start(command)
    started.until(f"{motion} begins")
    begun = started.log.count(f"{motion} begins")
    started.process.send_signal(number)
    time.sleep(0.05)  # not both as one
    started.process.send_signal(number)  # as some parents do
    assert started.wait() == 130, started.printed
    assert "Traceback" not in started.printed
    *motions, last = started.log
    assert last == "closed"
    names = [line.split()[0] for line in motions[::2]]
    assert motions == [line for name in names for line in (f"{name} begins", f"{name} ends")]
    assert names[-1] == motion
    assert names.count(motion) <= begun + 1  # had it ended just before the signal
    assert not (started.folder / "runs" / "x").exists() or command == "eval"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_reset_of_a_driver_is_ended_before_the_process_is(start, domain, number):
    started = start("arm_driver", 2.0)
    started.until("reset begins")
    started.process.send_signal(number)
    time.sleep(1.2)  # whoever asks again later is not obeyed sooner
    started.process.send_signal(number)
    assert started.wait() == 0, started.printed
    assert "Traceback" not in started.printed
    assert started.log == ["reset begins", "reset ends", "closed"]


def test_a_driver_that_is_asked_to_stop_before_its_first_reset_does_not_move(start, domain):
    started = start("arm_driver", 0.0, LateArm)
    assert started.wait() == 0, started.printed
    assert started.log == ["closed"]


def test_an_arm_that_cannot_be_reset_is_closed(start, domain):
    started = start("arm_driver", 0.0, BrokenArm)
    assert started.wait() == USER_ERROR
    assert started.printed.splitlines()[-1] == "arm_driver: the arm is broken"
    assert "Traceback" not in started.printed
    assert started.log == ["reset begins", "reset ends", "closed"]


@pytest.mark.slow
def test_what_was_recorded_until_then_is_kept(start):
    started = start("record", 0.1)
    while started.log.count("reset begins") < 3:
        started.until("step begins")
        time.sleep(0.05)
    started.process.send_signal(signal.SIGINT)
    assert started.wait() == 130, started.printed
    kept = started.log.count("reset begins") - 1
    assert re.search(rf"^stopped; {kept} demonstrations are in bag$", started.printed, re.MULTILINE), started.printed
    assert sum(read_demonstrations([str(started.folder / "bag")]).manifest.episodes) == kept


@pytest.mark.slow
def test_who_asks_twice_does_not_wait_for_the_motion(start):
    started = start("record", 2 * DEADLINE)
    started.until("reset begins")
    started.process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        started.process.wait(1.5)
    started.process.send_signal(signal.SIGTERM)
    assert started.wait() == 130, started.printed
    assert started.log == ["reset begins", "closed"]


def test_a_signal_after_the_last_motion_counts_too():
    numbers, done = (signal.SIGINT, signal.SIGTERM), []
    before = [signal.getsignal(number) for number in numbers]

    def work() -> None:
        with stopping_between_motions() as stop_if_asked:
            stop_if_asked()
            os.kill(os.getpid(), signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    assert [signal.getsignal(number) for number in numbers] == before


def test_another_thread_goes_on_without():
    done = []

    def work() -> None:
        with stopping_between_motions() as stop_if_asked:
            stop_if_asked()
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
