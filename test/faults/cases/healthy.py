# SPDX-License-Identifier: Apache-2.0
"""Healthy runs of all kinds: nothing may be named."""

from __future__ import annotations

import signal

from system import System

from cases.case import REAL_TIME, acts, at_50_hz, case, start_two_arms
from rlpd_ros.status import ActorState, LearnerState


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


@case(None, actor={"eval_every": 1, "eval_episodes": 200, "eval_min_episodes": 200})
def healthy_arm_that_resets_slowly(system: System) -> None:
    system.start_all("arm_driver")
    system.start("arm_driver", fault="unhurried")
    system.wait(lambda learner, actor: actor.state == ActorState.EVALUATING and actor.resetting)


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


@case(None)
def healthy_two_arms(system: System) -> None:
    start_two_arms(system)


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
