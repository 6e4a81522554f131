# SPDX-License-Identifier: Apache-2.0
"""Arm, actor and learner over links that lose messages, each of which may die at any time."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
from learner_world import AGENT, LENGTH, NETWORK, POLICY, SPEC

from rlpd_ros.actor import Actor
from rlpd_ros.data.sender import Sender
from rlpd_ros.driver import Driver
from rlpd_ros.learner import Learner
from rlpd_ros.rl.agent import Agent
from rlpd_ros.settings import ActorConfig, LearnerConfig
from rlpd_ros.types import (
    Observation,
    StepResult,
    TransitionRecord,
)


class Point:
    """An arm whose state tells which observation of all it is, so that no wrong pair goes unnoticed."""

    spec = SPEC

    def __init__(self) -> None:
        self.count = 0.0
        self.true_steps: dict[float, tuple[list[float], float]] = {}  # state -> executed action, next state
        self._steps = 0

    def _observe(self) -> Observation:
        self.count += 1
        return Observation(np.array([self.count, 0], np.float32))

    def reset(self, seed: int | None = None) -> Observation:
        self._steps = 0
        return self._observe()

    def step(self, action: np.ndarray) -> StepResult:
        executed, before = np.round(action, 1), self.count
        self._steps += 1
        observation = self._observe()
        self.true_steps[before] = executed.tolist(), self.count
        return StepResult(observation, 0.0, False, self._steps == LENGTH, False, executed)


class LossyWorld:
    """Arm, actor and learner, joined by links that lose messages; each of them may die at any time."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.arm = Point()
        self.disk: list[TransitionRecord] = []
        self.acknowledged: dict[str, int] = {}
        self.lives = 0
        self.queue: deque[Callable[[], None]] = deque()
        self.start_driver()
        self.start_learner()
        self.start_actor()

    def start_driver(self) -> None:
        self.driver = Driver(self.arm, self, self.life("arm"), 0.2, lambda: self.now, lambda: int(1e9 * self.now))
        self.driver.reset()

    def start_actor(self) -> None:
        config = ActorConfig(random_steps=10**9, eval_every=0, resend_period=0.5)
        sender = Sender(self.life("actor"), config.resend_period, config.outbox_memory, self.warn)
        self.actor = Actor(config, POLICY, SPEC, self, sender, lambda: self.now, lambda: 0)

    def start_learner(self) -> None:
        self.unflushed: list[TransitionRecord] = []
        self.learner = Learner(LearnerConfig(training_starts=10**6, require_demonstrations=False), AGENT_OF_NO_USE,
                               POLICY, SPEC, self, self.life("learner"), "", lambda: self.now, lambda: 0)
        for record in self.disk:
            self.learner.intake.restore(record)

    def life(self, kind: str) -> str:
        self.lives += 1
        return f"{kind}-{self.lives}"

    def link(self, deliver: Callable[[], None]) -> None:
        if self.rng.random() < 0.9:
            self.queue.append(deliver)

    # What the three do: the parts that are alive when it arrives get it

    def publish_observation(self, now) -> None:
        self.link(lambda: self.actor.observe(now))

    def act(self, action) -> None:
        self.link(lambda: self.driver.act(action))

    resetting = False  # a call may be lost, and its answer too

    def reset_arm(self) -> None:
        self.link(self._reset)

    def _reset(self) -> None:
        self.driver.reset()

    def send(self, record) -> None:
        self.link(lambda: self.learner.intake.receive(record))

    def acknowledge(self, ack) -> None:
        self.acknowledged[ack.session] = max(ack.sequence, self.acknowledged.get(ack.session, 0))
        self.link(lambda: self.actor.acknowledge(ack))

    def store(self, record) -> None:
        self.unflushed.append(record)

    def flush(self) -> None:
        self.disk += self.unflushed
        self.unflushed.clear()

    def ignore(self, *_: object) -> None:
        """Take note of nothing: the rest does not matter here."""

    finish_episode = say = warn = measure = ignore

    def run(self, rounds: int, deaths: float) -> None:
        for _ in range(rounds):
            self.now += 0.05
            for kind in ("driver", "actor", "learner"):
                if self.rng.random() < deaths:
                    getattr(self, f"start_{kind}")()
            for _ in range(len(self.queue)):
                self.queue.popleft()()
            self.driver.tick()
            self.actor.tick()
            if self.rng.random() < 0.5:
                self.learner.hear(self.actor.status())
                self.learner.status()
                self.learner.service()


AGENT_OF_NO_USE = Agent.create(SPEC, NETWORK, AGENT, 0)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_acknowledged_is_lost_and_nothing_is_stored_wrongly(seed: int) -> None:
    world = LossyWorld(seed)
    world.run(3000, deaths=0.004)
    world.run(200, deaths=0.0)
    stored: dict[str, list[int]] = {}
    for record in world.disk:
        stored.setdefault(record.session, []).append(record.sequence)
        executed, following = world.arm.true_steps[record.observation.state[0]]
        np.testing.assert_allclose(record.action, executed)
        if record.final_observation is not None:
            assert record.final_observation.state[0] == following
    assert len(world.disk) > 500
    assert len(stored) > 5
    for session, sequences in stored.items():
        assert sequences == list(range(1, len(sequences) + 1)), session
        assert world.acknowledged[session] <= len(sequences)
    assert world.actor.status().transitions_unacked < 30  # what was lost on the way goes out again, not for ever
    online = world.learner.online
    batch = online.sample(5 * len(online), np.random.default_rng(0))
    for before, after in zip(batch.observations["state"][:, 0], batch.next_observations["state"][:, 0], strict=True):
        assert world.arm.true_steps[before][1] == after
