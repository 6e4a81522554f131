# SPDX-License-Identifier: Apache-2.0
"""What a case is, and what several cases wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from system import System

from rlpd_ros.graph import SHARED
from rlpd_ros.ros.bag_log import TransitionLog
from rlpd_ros.ros.bags import read_demonstrations
from rlpd_ros.status import ActorState

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


def start_two_arms(system: System) -> None:
    """Start all, with an arm in /left and one in /right, and wait until both bring transitions."""
    for name in ("demo_loader", "learner"):
        system.start(name, remaps={"space_spec": "/left/space_spec"})
    for arm in ("left", "right"):
        system.start("arm_driver", node=f"{arm}_arm_driver", namespace=arm)
        system.start("actor", node=f"{arm}_actor", namespace=arm, remaps={topic: f"/{topic}" for topic in SHARED})
    system.wait_for_training()
    for arm in ("left", "right"):
        system.wait(lambda learner, actor, arm=arm: actor.session.startswith(arm) and actor.transitions_acked > 10)


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
