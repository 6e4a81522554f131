# SPDX-License-Identifier: Apache-2.0
"""The faults and the healthy runs: how each comes about, and what the doctor must name first."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from system import DEADLINE, System

from rlpd_ros.ros.bag_log import TransitionLog
from rlpd_ros.ros.bags import read_demonstrations
from rlpd_ros.status import ActorState, LearnerState

REAL_TIME = {"lockstep": False, "control_rate": 50.0}


@dataclass(frozen=True)
class Case:
    """``arrange`` returns at the moment at which the fault takes effect."""

    name: str
    expected: str | None  # the check that must be named first; None: a healthy run
    arrange: Callable[[System], None]
    parameters: dict
    arguments: tuple[str, ...] = ()


CASES: list[Case] = []


def case(expected: str | None, *arguments: str, **parameters: dict):
    """Add a case made from the function's name and body.

    A healthy run may go on without success: networks this small need not learn the task, however fast the machine.
    """
    if expected is None:
        arguments = (*arguments, "--patience", "1000000")

    def add(arrange: Callable[[System], None]) -> Callable[[System], None]:
        CASES.append(Case(arrange.__name__, expected, arrange, parameters, arguments))
        return arrange

    return add


def waits_for_policy(learner, actor) -> bool:
    return actor.state == ActorState.WAITING_FOR_POLICY


def acts(learner, actor) -> bool:
    return actor.state == ActorState.ACTING and actor.env_steps > 20


def stands_still(system: System) -> Callable:
    """Hold as soon as the actor has told of no new step for a while: it says so, or says nothing any more."""
    steps, since = 0, time.monotonic()

    def condition(learner, actor) -> bool:
        nonlocal steps, since
        if actor.env_steps != steps:
            steps, since = actor.env_steps, time.monotonic()
        return steps > 20 and time.monotonic() - since > 1.5

    return condition


def with_actor(system: System, *but: str) -> None:
    """Start all but the nodes named, and wait until the actor at least lives."""
    system.start_all(*but)
    system.wait_for_actor()


# Connection


@case("domain")
def learner_on_another_domain(system: System) -> None:
    other = 215 + int(os.environ["ROS_DOMAIN_ID"]) % 17  # no run chooses these by itself
    system.start("learner", env={"ROS_DOMAIN_ID": str(other)})
    with_actor(system, "learner")


@case("domain")
def learner_that_nobody_can_discover(system: System) -> None:
    system.start("learner", env={"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"})
    with_actor(system, "learner")


@case("domain")
def learner_in_another_namespace(system: System) -> None:
    system.start("learner", namespace="left")
    with_actor(system, "learner")


@case("qos", learner={"qos_overrides./policy_params.publisher.reliability": "best_effort"})
def incompatible_qos_override(system: System) -> None:
    system.start_all()
    system.wait(waits_for_policy)


@case("connections")
def policy_remapped(system: System) -> None:
    system.start_all("actor")
    system.start("actor", remaps={"policy_params": "policy_parameters"})
    system.wait(waits_for_policy)


@case("connections")
def transitions_remapped(system: System) -> None:
    system.start_all("actor")
    system.start("actor", remaps={"transitions": "transition"})
    system.wait(lambda learner, actor: actor.transitions_unacked > 10)


@case("restarts")
def actor_whose_callback_raises(system: System) -> None:
    system.start("monitor")
    system.start_all("actor")
    system.start("actor", fault="raises", respawn=True)
    system.wait_for_deaths("actor", 3)


@case("nodes")
def learner_killed(system: System) -> None:
    system.start_all()
    system.wait_for_training()
    system.kill("learner")


@case("nodes")
def actor_killed(system: System) -> None:
    system.start_all()
    system.wait_for_training()
    system.kill("actor")


@case("nodes")
def arm_driver_killed(system: System) -> None:
    system.start_all()
    system.wait_for_training()
    system.kill("arm_driver")


@case("blocked")
def actor_with_a_blocked_executor(system: System) -> None:
    system.start_all("actor")
    system.start("actor", fault="blocked")
    system.wait(stands_still(system))


@case("blocked")
def learner_with_a_blocked_executor(system: System) -> None:
    system.start_all("learner")
    system.start("learner", fault="blocked")
    system.wait(stands_still(system))


@case("blocked")
def actor_stopped_by_a_signal(system: System) -> None:
    system.start_all()
    system.wait_for_training()
    system.kill("actor", signal.SIGSTOP)


@case("arm")
def arm_that_hangs(system: System) -> None:
    system.start_all("arm_driver")
    system.start("arm_driver", fault="hangs")
    system.wait(lambda learner, actor: actor.state == ActorState.WAITING_FOR_ARM and actor.env_steps > 20)


# Policies


@case("checksum")
def corrupted_parameter_bytes(system: System) -> None:
    system.start_all("learner")
    system.start("learner", fault="corrupt")
    system.wait(lambda learner, actor: actor.refusal)


@case("probe")
def parameters_of_another_network(system: System) -> None:
    system.start_all("learner")
    system.start("learner", fault="other_parameters")
    system.wait(lambda learner, actor: actor.refusal)


@case("network", actor={"hidden_dims": [48, 48]})
def network_of_another_width(system: System) -> None:
    system.start_all()
    system.wait(lambda learner, actor: actor.refusal)


@case("network", actor={"normalize_observations": False})
def another_normalisation(system: System) -> None:
    system.start_all()
    system.wait(lambda learner, actor: actor.refusal)


@case("policy_lag")
def actor_that_takes_no_new_policy(system: System) -> None:
    system.start_all("actor")
    system.start("actor", fault="deaf")
    system.wait(lambda learner, actor: learner.version > 3)


@case("random_actions", actor={"random_steps": 1_000_000})
def random_steps_huge(system: System) -> None:
    system.start_all()
    system.wait_for_training(1)


@case("saturated")
def actions_always_at_their_bounds(system: System) -> None:
    system.start_all("actor")
    system.start("actor", fault="extreme")
    system.wait(lambda learner, actor: actor.policy_actions >= 500)


# Spaces and demonstrations


@case("spaces")
def swapped_observation_fields(system: System) -> None:
    system.start_all()
    system.wait_for_training()
    system.kill("arm_driver", signal.SIGINT)
    system.start("arm_driver", fault="swapped")
    system.wait(lambda learner, actor: learner.space_difference)


@case("spaces")
def another_control_rate(system: System) -> None:
    system.start_all()
    system.wait_for_training()
    system.kill("arm_driver", signal.SIGINT)
    system.start("arm_driver", control_rate=25.0)
    system.wait(lambda learner, actor: learner.space_difference)


def load(system: System, path: list[str] | None) -> None:
    """Let a loader with these bags meet a learner that waits for it."""
    system.start_all("demo_loader")
    system.wait(lambda learner, actor: learner.state == LearnerState.WAITING_FOR_DEMONSTRATIONS)
    system.start("demo_loader", demo_path=path or [""])
    system.wait(lambda learner, actor: learner.demo_error)


@case("demonstrations")
def empty_demo_folder(system: System) -> None:
    (system.folder / "empty").mkdir()
    load(system, [str(system.folder / "empty")])


@case("demonstrations")
def demo_path_that_does_not_exist(system: System) -> None:
    load(system, [str(system.folder / "nowhere")])


@case("demonstrations")
def truncated_demo_bag(system: System) -> None:
    shutil.copytree(system.demos, system.folder / "cut")
    bag = next((system.folder / "cut").rglob("*.mcap"))
    os.truncate(bag, bag.stat().st_size // 2)
    load(system, [str(system.folder / "cut")])


@case("demonstrations")
def bag_of_another_robot(system: System) -> None:
    def rename(spec):
        first, *others = spec.observation
        return replace(spec, observation=(replace(first, name=f"other_{first.name}"), *others))

    load(system, [rewritten(system, lambda record: record, rename)])


@case("demonstrations")
def demonstrations_lost_on_their_way(system: System) -> None:
    system.start_all("demo_loader")
    system.start("demo_loader", fault="loses")
    system.wait(lambda learner, actor: learner.demo_expected)


@case("demo_rewards")
def demonstrations_without_reward(system: System) -> None:
    system.start_all("demo_loader")
    system.start("demo_loader", demo_path=[rewritten(system, lambda record: replace(record, reward=0.0))])
    system.wait_for_training(1)


@case("demo_actions")
def demonstrations_all_clipped(system: System) -> None:
    def clip(record):
        return replace(record, action=np.where(record.action < 0, -1, 1).astype(np.float32), asked_action=None)

    system.start_all("demo_loader")
    system.start("demo_loader", demo_path=[rewritten(system, clip)])
    system.wait_for_training(1)


def at_50_hz(system: System) -> None:
    """Give the system demonstrations of its control rate."""
    system.demos = Path(rewritten(system, lambda record: record, lambda spec: replace(spec, control_rate=50.0)))


def rewritten(system: System, change: Callable, change_spec: Callable = lambda spec: spec) -> str:
    """Write a changed copy of the demonstrations."""
    demos = read_demonstrations([system.demos])
    spec = change_spec(demos.spec)
    log = TransitionLog(system.folder / "changed", spec)
    for record in demos.records:
        log.write(replace(change(record), space_fingerprint=spec.fingerprint))
    log.close()
    return str(system.folder / "changed")


# Training


@case("training_starts", learner={"training_starts": 1_000_000})
def training_starts_out_of_reach(system: System) -> None:
    system.start_all()
    system.wait(lambda learner, actor: learner.state == LearnerState.FILLING and acts(learner, actor))


@case("transitions")
def transitions_dropped(system: System) -> None:
    system.start_all("actor")
    system.start("actor", fault="drops")
    system.wait(stands_still(system))


@case("stale_data", arm_driver=REAL_TIME)
def actor_that_brings_nothing_new(system: System) -> None:
    at_50_hz(system)
    system.start_all("actor")
    system.start("actor", fault="idle")
    system.wait(lambda learner, actor: learner.data_age > 10.0)


@case("utd", arm_driver=REAL_TIME, learner={"utd_ratio": 20, "batch_size": 2048, "log_period": 2,
                                            "critic_hidden_dims": [256, 256]})
def learner_too_slow_for_the_arm(system: System) -> None:
    at_50_hz(system)
    system.start_all()
    system.wait(lambda learner, actor: 0 < learner.utd_measured < learner.utd_set / 4)


@case("frozen", learner={"actor_lr": 0.0})
def frozen_optimiser(system: System) -> None:
    system.start_all()
    system.wait_for_training()


@case("failed")
def nan_in_a_batch(system: System) -> None:
    system.start_all("learner")
    system.start("learner", fault="nan")
    system.wait(lambda learner, actor: learner.state == LearnerState.FAILED)


@case("began_anew")
def resumed_without_its_checkpoints(system: System) -> None:
    system.start_all()
    system.wait_for_training()
    system.kill("learner", signal.SIGINT)
    shutil.rmtree(system.run.checkpoints)
    system.run.checkpoints.mkdir()
    system.start("learner")
    system.wait(lambda learner, actor: learner.restored_env_steps)


@case("entropy", learner={"init_temperature": 100.0, "temperature_lr": 0.0})
def entropy_at_its_maximum(system: System) -> None:
    system.start_all()
    system.wait(lambda learner, actor: learner.gradient_step >= 520 and learner.entropy > 2.65)


@case("q_values")
def diverging_critics(system: System) -> None:
    system.start_all("learner")
    system.start("learner", fault="diverges")
    system.wait(lambda learner, actor: abs(learner.q_mean) > 100)


@case("reward", "--patience", "300")
def reward_always_zero(system: System) -> None:
    system.start_all("arm_driver")
    system.start("arm_driver", fault="unrewarded")
    system.wait(lambda learner, actor: learner.env_steps > 320)


@case("imitation", "--patience", "2000", learner={"actor_lr": 1e-7})
def demonstrations_ignored(system: System) -> None:
    system.start_all()
    system.wait(lambda learner, actor: learner.gradient_step > 1010)


# The machine


@case("disk")
def full_disk(system: System) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", system.run.path], check=True)
    system.undo.callback(subprocess.run, ["umount", "-l", system.run.path], check=False)
    for folder in (system.run.checkpoints, system.run.metrics, system.run.logs):
        folder.mkdir()
    system.start_all()
    system.wait_for_training(20)
    fill = system.run.path / "fill"
    with fill.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    system.wait(lambda learner, actor: learner.store_error)


@case("buffers")
def shared_memory_too_small(system: System) -> None:
    libc = ctypes.CDLL(None)
    assert libc.unshare(0x20000) == 0  # CLONE_NEWNS: what follows is seen by this process and its children only
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", "/dev/shm"], check=True)
    system.undo.callback(subprocess.run, ["umount", "-l", "/dev/shm"], check=False)
    system.start_all()
    deadline = time.monotonic() + DEADLINE
    while not any(told["name"] == "buffers" and told["level"] != "STALE" for told in system.doctor()["checks"]):
        assert time.monotonic() < deadline, system.tails()


@case("overruns", arm_driver=REAL_TIME)
def actor_too_slow_for_the_arm(system: System) -> None:
    at_50_hz(system)
    system.start_all("actor")
    system.start("actor", fault="slow")
    system.wait(lambda learner, actor: actor.overruns > 20)


@case("clock")
def clock_a_minute_ahead(system: System) -> None:
    system.start_all("actor")
    system.start("actor", fault="clock")
    system.wait_for_training(1)


# Healthy runs


@case(None)
def healthy_starting(system: System) -> None:
    system.start_all()


@case(None, learner={"training_starts": 50_000})
def healthy_filling(system: System) -> None:
    system.start_all()
    system.wait(acts)


@case(None)
def healthy_training(system: System) -> None:
    system.start("monitor")
    system.start_all()
    system.wait_for_training(300)


@case(None, actor={"eval_every": 3, "eval_episodes": 200, "eval_min_episodes": 200})
def healthy_evaluating(system: System) -> None:
    system.start_all()
    system.wait(lambda learner, actor: actor.state == ActorState.EVALUATING)


@case(None)
def healthy_resumed(system: System) -> None:
    system.start_all()
    system.wait_for_training()
    system.kill("learner", signal.SIGINT)
    system.start("learner")
    system.wait(lambda learner, actor: learner.restored_gradient_step)


@case(None)
def healthy_two_actors(system: System) -> None:
    system.start_all()
    second = {"observation": "observation2", "action": "action2", "reset": "reset2"}
    system.start("arm_driver", node="arm_driver2", remaps=second)
    system.start("actor", node="actor2", remaps=second)
    system.wait_for_training(200)


@case(None, arm_driver=REAL_TIME)
def healthy_real_time_50_hz(system: System) -> None:
    at_50_hz(system)
    system.start_all()
    system.wait_for_training(200)


@case(None, arm_driver={"lockstep": False, "control_rate": 10.0})
def healthy_real_time_10_hz(system: System) -> None:
    system.start_all()
    system.wait_for_training(50)


@case(None, arm_driver={"arm": "gymnasium", "gym_env_id": "Pendulum-v1"}, learner={"require_demonstrations": False})
def healthy_pendulum_without_demonstrations(system: System) -> None:
    system.start_all("demo_loader")
    system.wait_for_training(300)


@case(None, actor={"random_steps": 150}, learner={"training_starts": 150})
def healthy_random_at_first(system: System) -> None:
    system.start_all()
    system.wait(lambda learner, actor: actor.random_actions > 20)


@case(None, learner={"max_steps": 200})
def healthy_finished(system: System) -> None:
    system.start_all()
    system.wait(lambda learner, actor: learner.state == LearnerState.FINISHED)
