# SPDX-License-Identifier: Apache-2.0
"""What an actor counts: the steps of an episode, the episodes of an evaluation, its last actions."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Any

import numpy as np

from rlpd_ros.settings import ActorConfig
from rlpd_ros.status import ActorReport
from rlpd_ros.types import Source

RECENT = 1000  # actions over which shares and medians are reported
SATURATED = 0.999  # beyond which an element of an action is at its bound


class EpisodeTally:
    """The steps of one episode, which began at ``began``, s."""

    def __init__(self, began: float) -> None:
        self.steps = 0
        self.total_reward = 0.0
        self._began = began
        self._lags = 0  # versions that the policy's actions were behind, in all
        self._sources: Counter[Source] = Counter()
        self.helped = False  # somebody else than the policy moved the arm: a person, another actor

    def add(self, reward: float, source: Source, lag: int, helped: bool) -> None:
        """Count a step by ``source``, whose policy was ``lag`` versions behind, or which a person made."""
        self.steps += 1
        self.total_reward += reward
        self._lags += lag if source is Source.POLICY else 0
        self._sources[source] += 1
        self.helped |= helped

    def summary(self, now: float) -> dict[str, Any]:
        """Return its fields of an EpisodeSummary at ``now``, s."""
        return {"steps": self.steps, "episode_return": self.total_reward, "duration": now - self._began,
                "policy_lag": self._lags / max(1, self._sources[Source.POLICY]),
                "policy_actions": self._sources[Source.POLICY], "random_actions": self._sources[Source.RANDOM],
                "intervention_actions": self._sources[Source.INTERVENTION]}


class Evaluation:
    """Greedy episodes until the share of successes is known to reach ``success_target``, or known not to."""

    def __init__(self, number: int, config: ActorConfig) -> None:
        self.number = number
        self.episodes = 0
        self.successes = 0
        self._config = config
        self._allowed_failures = config.eval_episodes - math.ceil(config.success_target * config.eval_episodes - 1e-9)

    def record(self, success: bool) -> None:
        self.episodes += 1
        self.successes += success

    @property
    def done(self) -> bool:
        hopeless = self.episodes - self.successes > self._allowed_failures
        return self.episodes >= self._config.eval_episodes or (
            hopeless and self.episodes >= self._config.eval_min_episodes)

    def summary(self) -> dict[str, Any]:
        """Return its fields of an EpisodeSummary."""
        return {"evaluation": True, "evaluation_id": self.number, "evaluation_done": self.done,
                "evaluation_episodes": self.episodes, "evaluation_successes": self.successes}


NO_EVALUATION = {"evaluation": False, "evaluation_id": 0, "evaluation_done": False, "evaluation_episodes": 0,
                 "evaluation_successes": 0}


class RecentActions:
    """Shares and medians of the last actions."""

    def __init__(self) -> None:
        self._sources: deque[Source] = deque(maxlen=RECENT)  # of steps of training
        self._saturation: deque[float] = deque(maxlen=RECENT)
        self._inference: deque[float] = deque(maxlen=RECENT)

    def add_step(self, source: Source) -> None:
        self._sources.append(source)

    def add_policys(self, action: np.ndarray, seconds: float) -> None:
        """Count an action of the policy, normalised, that took ``seconds`` to compute."""
        self._inference.append(seconds)
        self._saturation.append(float(np.mean(np.abs(action) > SATURATED)))

    def fill(self, report: ActorReport) -> None:
        """Write into ``report`` what is known of them."""
        report.random_share = self._sources.count(Source.RANDOM) / max(1, len(self._sources))
        report.saturated_share = float(np.mean(self._saturation)) if self._saturation else 0.0
        report.inference_ms = 1e3 * float(np.median(self._inference)) if self._inference else 0.0
