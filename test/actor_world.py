# SPDX-License-Identifier: Apache-2.0
"""An actor with a real policy, and an arm and a learner around it that tests play by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rlpd_ros.actor import Actor
from rlpd_ros.data.sender import Sender
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.policy import Policy, make_snapshot
from rlpd_ros.settings import ActorConfig
from rlpd_ros.status import ActorState
from rlpd_ros.types import (
    Acknowledgement,
    ActionRecord,
    EpisodeSummary,
    Observation,
    PolicySnapshot,
    SpaceField,
    SpaceSpec,
    TimeStep,
    TransitionRecord,
)

SPEC = SpaceSpec("point", (SpaceField.box("x", [-1, -1], [1, 1], "m"),),
                 (SpaceField.box("dx", [-0.1] * 3, [0.1] * 3, "m"),), 10.0, "world", 100)
POLICY = Policy(SPEC, PolicyConfig(hidden_dims=(8,)))
PARAMS = [POLICY.init(seed) for seed in range(9)]
EXECUTED = np.array([0.5, -0.5, 0.25], np.float32)  # what the arm does, whatever it is asked to


def snapshot(number: int = 1, **changes) -> PolicySnapshot:
    """Return the policy with the parameters of that number."""
    probe = Observation(np.array([0.3, -0.2], np.float32))
    made = make_snapshot(POLICY, POLICY.serialize(PARAMS[number]), SPEC, probe, session="learner-1", version=number,
                         gradient_step=50 * number, stamp=1_000_000)
    return replace(made, **changes)


class World:
    """An arm that the test moves and a learner that it plays; both clocks stand still unless moved."""

    def __init__(self, spec: SpaceSpec = SPEC, budget: int = 10**6, **config) -> None:
        self.now = 100.0
        self.actions: list[ActionRecord] = []
        self.sent: list[TransitionRecord] = []
        self.episodes: list[EpisodeSummary] = []
        self.resets = 0
        self.resetting = False
        self.said: list[str] = []
        self.warnings: list[str] = []
        settings = ActorConfig(**config)
        sender = Sender("actor-1", settings.resend_period, settings.outbox_memory, self.warn)
        self.actor = Actor(settings, POLICY, spec, self, sender, lambda: self.now, lambda: 3_000_000)
        self.arm, self.episode, self.step, self.stamp = "arm-1", 0, 0, 0
        self.learner = "learner-1"
        self.acknowledge(0, budget)

    # What the actor does

    def act(self, action: ActionRecord) -> None:
        self.actions.append(action)

    def send(self, record: TransitionRecord) -> None:
        self.sent.append(record)

    def finish_episode(self, summary: EpisodeSummary) -> None:
        self.episodes.append(summary)

    def reset_arm(self) -> None:
        self.resets += 1

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    # What the world does

    def acknowledge(self, sequence: int, budget: int, env_steps: int = 0) -> None:
        self.actor.acknowledge(Acknowledgement(self.actor.session, self.learner, sequence, budget, env_steps))

    def observe(self, step: int, **fields) -> TimeStep:
        """Show the arm's state after ``step`` steps; it follows from episode and step."""
        self.step = step
        self.stamp += 1
        now = TimeStep(self.arm, self.episode, step, state(self.episode, step), stamp=self.stamp,
                       executed_action=EXECUTED if step else None)
        now = replace(now, **fields)
        self.actor.observe(now)
        return now

    def begin(self) -> TimeStep:
        self.episode += 1
        return self.observe(0)

    def advance(self, **fields) -> TimeStep:
        return self.observe(self.step + 1, **fields)

    def run_episode(self, steps: int, success: bool = False, reward: float = 0.0) -> None:
        self.begin()
        for i in range(1, steps + 1):
            self.advance(reward=reward, truncated=i == steps, success=success and i == steps)


def state(episode: int, step: int) -> Observation:
    return Observation(np.array([episode / 100, step / 100], np.float32))


def waits_for(world: World) -> tuple[ActorState, str]:
    report = world.actor.status()
    return ActorState(report.state), report.text
