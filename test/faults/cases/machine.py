# SPDX-License-Identifier: Apache-2.0
"""Faults of the machine: disk, memory, speed, clock."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
from system import DEADLINE, System

from cases.case import REAL_TIME, at_50_hz, case, rewritten
from rlpd_ros.ros import middleware
from rlpd_ros.status import ActorState
from rlpd_ros.types import Observation, SpaceField


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
    system.undo.enter_context(mock.patch.dict(os.environ, dict.fromkeys(middleware.FILES, "")))
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


SMALL_EYES = {"encoder": "small", "spatial_embeddings": 2, "bottleneck_dim": 16, "proprio_dim": 16}


@case("cameras", arm_driver={"camera_topics": ["front=/nobody/image_raw"], "image_width": 32, "image_height": 32},
      learner=SMALL_EYES, actor=SMALL_EYES)
def camera_that_nobody_publishes(system: System) -> None:
    def shown(observation: Observation | None) -> Observation | None:
        return observation and replace(observation, images={"front": np.zeros((32, 32, 3), np.uint8)})

    system.demos = Path(rewritten(
        system, lambda record: replace(record, observation=shown(record.observation),
                                       final_observation=shown(record.final_observation)),
        lambda spec: replace(spec, observation=(*spec.observation, SpaceField.image("front", 32, 32)))))
    system.start_all()
    system.wait(lambda learner, actor: actor.state == ActorState.WAITING_FOR_ARM and learner.version)


@case("clock")
def clock_a_minute_ahead(system: System) -> None:
    system.start_all("actor")
    system.start("actor", fault="clock")
    system.wait_for_training(1)
