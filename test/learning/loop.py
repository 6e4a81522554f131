# SPDX-License-Identifier: Apache-2.0
"""Arm driver, actor and learner in one process, without ROS: what is learned, apart from how it travels.

It is the package's own logic, in lockstep as ``rlpd train`` has it in processes. Nothing is written to a disk, so many
such loops can run side by side, on a GPU too.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from rlpd_ros.actor import Actor
from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.demonstration import EPISODES, EXPERT_NOISE, demonstrate
from rlpd_ros.arm.factory import make_arm
from rlpd_ros.data.sender import Sender
from rlpd_ros.driver import Driver
from rlpd_ros.kept import Kept
from rlpd_ros.learner import Learner
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.policy import Policy
from rlpd_ros.settings import ActorConfig, LearnerConfig
from rlpd_ros.types import Acknowledgement, PolicySnapshot, TimeStep, TransitionRecord

EVALUATION_SEED = 10_000  # of the start positions of greedy episodes: the same for all


@dataclass(frozen=True)
class Settings:
    """All that there is to set."""

    arm: ArmConfig
    policy: PolicyConfig
    agent: AgentConfig
    learner: LearnerConfig
    actor: ActorConfig


@dataclass(frozen=True)
class Evaluation:
    """What greedy episodes say after so many environment steps, and seconds, those of evaluations not counted."""

    env_steps: int
    seconds: float
    success: float
    metrics: dict[str, float]  # the learner's newest


class Loop:
    """One run, from demonstrations by the arm's expert on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._arm = make_arm(settings.arm)
        spec = self._arm.spec
        self._policy = Policy(spec, settings.policy)
        kept = Kept.of(self._policy, spec, settings.learner)
        agent = Agent.create(spec, settings.policy, settings.agent, settings.learner.seed, kept.backbone)
        self._learner = Learner(settings.learner, agent, self._policy, spec, self, "learner-1", "", time.monotonic,
                                time.time_ns, kept)
        sender = Sender("actor-1", settings.actor.resend_period, settings.actor.outbox_memory, self.warn)
        self._actor = Actor(settings.actor, self._policy, spec, self, sender, time.monotonic, time.time_ns)
        self._driver = Driver(self._arm, self, "arm-1", 1e9, time.monotonic, time.time_ns)
        self._events: deque[Callable[[], None]] = deque()
        self._metrics: dict[str, float] = {}

    # What the three do

    def publish_observation(self, now: TimeStep) -> None:
        self._events.append(lambda: self._actor.observe(now))

    def act(self, action: Any) -> None:
        self._events.append(lambda: self._driver.act(action))

    resetting = False  # it takes no time

    def reset_arm(self) -> None:
        self._events.append(self._driver.reset)

    def send(self, record: TransitionRecord) -> None:
        self._events.append(lambda: self._learner.intake.receive(record))

    def acknowledge(self, ack: Acknowledgement) -> None:
        self._events.append(lambda: self._actor.acknowledge(ack))

    def publish_policy(self, make: Callable[[], PolicySnapshot]) -> Future[PolicySnapshot]:
        publication: Future[PolicySnapshot] = Future()
        publication.set_result(make())
        self._events.append(lambda: self._actor.offer(publication.result()))
        return publication

    def measure(self, table: str, step: int, values: Any) -> None:
        if table == "learner":
            self._metrics = {name: float(value) for name, value in values.items()}

    def warn(self, text: str) -> None:
        raise RuntimeError(text)  # nobody warns of a loop that is well

    def ignore(self, *_: object) -> None:
        """There is neither a disk nor anybody who reads."""

    store = flush = save = publish_status = say = finish_episode = ignore

    # The loop

    def run(self, env_steps: int, period: int, episodes: int) -> Iterator[Evaluation]:
        """Train for ``env_steps``; yield how ``episodes`` greedy ones end every ``period`` steps."""
        self._show_demonstrations()
        self._learner.publish()
        self._driver.reset()
        seconds, report, done = 0.0, self._learner.report, 0
        while report.env_steps < env_steps:
            began = time.monotonic()
            self._learner.hear(self._actor.status())
            while self._events:
                self._events.popleft()()
            while self._learner.train():
                pass
            self._learner.service()
            seconds += time.monotonic() - began
            if report.env_steps // period > done:
                done = report.env_steps // period
                yield Evaluation(report.env_steps, seconds, self._succeed(episodes), self._metrics)

    def _show_demonstrations(self) -> None:
        expert = self._arm.expert(EXPERT_NOISE, self._settings.arm.seed)
        assert expert is not None
        records = [record for shown in demonstrate(self._arm, expert, "expert-1", EPISODES) for record in shown]
        intake = self._learner.intake
        intake.expect_demonstrations("expert-1", len(records))
        for record in records:
            intake.receive_demonstration(record)

    def _succeed(self, episodes: int) -> float:
        """Return the share of greedy episodes that succeed, each time from the same start positions."""
        arm = make_arm(replace(self._settings.arm, seed=EVALUATION_SEED))
        params, successes = self._learner.agent.policy_params, 0
        for _ in range(episodes):
            observation, over = arm.reset(), False
            while not over:
                result = arm.step(self._policy.mode(params, observation))
                observation, over = result.observation, result.terminated or result.truncated
            successes += result.success
        arm.close()
        return successes / episodes
