# SPDX-License-Identifier: Apache-2.0
"""Faults of training: its start, its data, its numbers."""

from __future__ import annotations

import shutil
import signal

from system import System

from cases.case import REAL_TIME, acts, at_50_hz, case, stands_still
from rlpd_ros.status import LearnerState


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
