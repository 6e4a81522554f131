# SPDX-License-Identifier: Apache-2.0
"""A learner with a real agent and a world around it that tests play by hand: actors, demonstrations, a disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np

from rlpd_ros.errors import DataError
from rlpd_ros.learner import Learner
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.policy import Policy
from rlpd_ros.settings import LearnerConfig
from rlpd_ros.status import ActorReport, ActorState, LearnerReport
from rlpd_ros.types import (
    Acknowledgement,
    EpisodeSummary,
    Observation,
    PolicySnapshot,
    Source,
    SpaceField,
    SpaceSpec,
    TransitionRecord,
)

SPEC = SpaceSpec("point", (SpaceField.box("x", [-9, -9], [9, 9], "m"),),
                 (SpaceField.box("dx", [-0.1] * 2, [0.1] * 2, "m"),), 10.0, "world", 100)
REAL_TIME = replace(SPEC, lockstep=False)
NETWORK = PolicyConfig(hidden_dims=(8,))
AGENT = AgentConfig(num_qs=2, num_min_qs=1, critic_hidden_dims=(8,), utd_ratio=2)
POLICY = Policy(SPEC, NETWORK)
SETTINGS: dict[str, Any] = {
    "batch_size": 8, "training_starts": 10, "steps_per_update": 5, "log_period": 10, "checkpoint_period": 10**6,
    "replay_buffer_capacity": 1000, "demo_buffer_capacity": 1000, "require_demonstrations": False, "seed": 3}
LENGTH = 5  # steps per episode


class World:
    """A learner with its disk. Its clock stands still unless moved."""

    def __init__(self, spec: SpaceSpec = SPEC, session: str = "learner-1", **settings: Any) -> None:
        self.now = 100.0
        self.calls: list[str] = []  # in order
        self.log: list[TransitionRecord] = []
        self.durable = 0  # how many of them
        self.disk_full = False
        self.acks: dict[str, Acknowledgement] = {}
        self.policies: list[PolicySnapshot] = []
        self.slow = False  # policies arrive only when they are delivered
        self.under_way: list[tuple[Callable[[], PolicySnapshot], Future[PolicySnapshot]]] = []
        self.saved: list[dict[str, Any]] = []
        self.rows: list[tuple[str, int, Mapping[str, Any]]] = []
        self.statuses: list[LearnerReport] = []  # that could not wait
        self.said: list[str] = []
        self.warnings: list[str] = []
        agent = Agent.create(spec, NETWORK, AGENT, 0)
        self.learner = Learner(LearnerConfig(**{**SETTINGS, **settings}), agent, POLICY, spec, self, session,
                               "/runs/x", lambda: self.now, lambda: 5_000_000)
        self.intake = self.learner.intake

    # What the learner does

    def publish_policy(self, make: Callable[[], PolicySnapshot]) -> Future[PolicySnapshot]:
        publication: Future[PolicySnapshot] = Future()
        self.under_way.append((make, publication))
        if not self.slow:
            self.deliver()
        return publication

    def deliver(self) -> None:
        """Let the policies that are on their way arrive."""
        for make, publication in self.under_way:
            try:
                self.policies.append(make())
            except DataError as error:
                publication.set_exception(error)
            else:
                publication.set_result(self.policies[-1])
        self.under_way.clear()

    def acknowledge(self, ack: Acknowledgement) -> None:
        self.calls.append(f"acknowledge {ack.sequence}")
        self.acks[ack.session] = ack

    def store(self, record: TransitionRecord) -> None:
        self.calls.append(f"store {record.sequence}")
        self.log.append(record)

    def flush(self) -> None:
        self.calls.append("flush")
        if self.disk_full:
            raise DataError("/runs/x/transitions: cannot write transitions: No space left on device")
        self.durable = len(self.log)

    def save(self, agent: Agent, metadata: dict[str, Any]) -> None:
        if self.disk_full:
            raise DataError("/runs/x/checkpoints: cannot write checkpoint: No space left on device")
        self.saved.append(metadata)

    def publish_status(self) -> None:
        self.statuses.append(replace(self.learner.status()))

    def measure(self, table: str, step: int, values: Mapping[str, Any]) -> None:
        self.rows.append((table, step, values))

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    # What the world does

    def feed(self, first: int, last: int, session: str = "actor-1", **changes: Any) -> None:
        for sequence in range(first, last + 1):
            self.intake.receive(replace(make_record(sequence, session), **changes))

    def demonstrate(self, count: int, session: str = "demos-1") -> None:
        self.intake.expect_demonstrations(session, count)
        for sequence in range(1, count + 1):
            self.intake.receive_demonstration(make_record(sequence, session, 100.0))

    def hear(self, session: str = "actor-1", version: int = 0, state: ActorState = ActorState.ACTING) -> None:
        self.learner.hear(ActorReport(session, state=state, applied_version=version,
                                      applied_gradient_step=version))

    def train(self, limit: int = 1000) -> int:
        """Train until there is no reason to; return the number of steps."""
        for steps in range(limit):
            if not self.learner.train():
                return steps
        return limit

    def answer(self, session: str = "actor-1") -> Acknowledgement:
        self.learner.service()
        return self.acks[session]


def make_record(sequence: int, session: str = "actor-1", offset: float = 0.0, spec: SpaceSpec = SPEC,
                source: Source = Source.POLICY) -> TransitionRecord:
    """Make a record in which everything follows from its number; every fifth ends an episode."""
    episode, step = divmod(sequence - 1, LENGTH)
    last = step == LENGTH - 1

    def observe(number: int) -> Observation:
        return Observation(np.array([number / 100, offset], np.float32))

    rng = np.random.default_rng(sequence)
    return TransitionRecord(
        session, sequence, episode + 1, step, observe(sequence), rng.uniform(-1, 1, 2).astype(np.float32),
        float(last), last, False, last, source, 1, observe(sequence + 1) if last else None, spec.fingerprint,
        1000 + sequence)


def evaluation(successes: int, episodes: int, version: int, done: bool = True) -> EpisodeSummary:
    return EpisodeSummary("actor-1", 9, 5, 1.0, True, True, False, True, 1, done, episodes, successes, version, 0, 0,
                          0.0, 5, 0, 0, 0.5)
