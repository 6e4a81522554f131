# SPDX-License-Identifier: Apache-2.0
"""Faults of the connection: who is there, who hears whom, who answers."""

from __future__ import annotations

import os
import signal

from system import System

from cases.case import case, stands_still, start_two_arms, waits_for_policy, with_actor
from rlpd_ros.runs import RunDirectory
from rlpd_ros.status import ActorState


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


def sessions(system: System, kind: str, count: int) -> None:
    """Wait until so many sessions of one kind of node have been heard."""
    heard: set[str] = set()

    def several(learner, actor) -> bool:
        heard.add({"learner": learner, "actor": actor}[kind].session)
        return len(heard) >= count

    system.wait(several)


@case("duplicates")
def second_learner(system: System) -> None:
    system.start_all()
    system.wait_for_training()
    system.start("learner", node="learner2", run=str(RunDirectory.create(system.folder, "second").path))
    sessions(system, "learner", 2)


@case("duplicates")
def second_actor_on_the_same_arm(system: System) -> None:
    system.start_all()
    system.wait_for_training()
    system.start("actor", node="actor2")
    sessions(system, "actor", 2)


@case("duplicates")
def second_driver_of_the_same_arm(system: System) -> None:
    system.start_all()
    system.wait_for_training()
    system.start("arm_driver", node="arm_driver2")
    system.wait_for_log("arm_driver2", "driving")


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
def actor_of_one_of_two_arms_killed(system: System) -> None:
    start_two_arms(system)
    system.kill("right_actor")


@case("blocked")
def actor_of_one_of_two_arms_stopped_by_a_signal(system: System) -> None:
    start_two_arms(system)
    system.nodes["right_actor"].send_signal(signal.SIGSTOP)


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
