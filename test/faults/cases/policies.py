# SPDX-License-Identifier: Apache-2.0
"""Faults of policies: damaged, of another network, not taken, not acting."""

from __future__ import annotations

from system import System

from cases.case import case


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
