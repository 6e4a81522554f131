# SPDX-License-Identifier: Apache-2.0
"""Faults of spaces and demonstrations."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace

import numpy as np
from system import System

from cases.case import case, rewritten
from rlpd_ros.status import LearnerState


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
