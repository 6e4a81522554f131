# SPDX-License-Identifier: Apache-2.0
"""What an arm's scripted expert shows, as records of transitions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from rlpd_ros.arm.driver import ArmDriver, Expert
from rlpd_ros.types import Observation, Source, TransitionRecord, asked_if_changed

EPISODES = 20
EXPERT_NOISE = 0.2  # standard deviation, normalised units: demonstrations that differ teach more
PATIENCE = 5  # attempts per successful demonstration before the expert is given up


def demonstrate(arm: ArmDriver, expert: Expert, session: str, episodes: int,
                stop_if_asked: Callable[[], None] = lambda: None) -> Iterator[list[TransitionRecord]]:
    """Yield the records of up to ``episodes`` successful episodes of one session, numbered from 1.

    There are fewer if the expert keeps failing. ``stop_if_asked`` is called before each motion of the arm.
    """
    sequence, done = 0, 0
    for _ in range(PATIENCE * episodes):
        records = _episode(arm, expert, session, sequence, done + 1, stop_if_asked)
        if records[-1].success:
            sequence, done = records[-1].sequence, done + 1
            yield records
        if done == episodes:
            return


def _episode(arm: ArmDriver, expert: Expert, session: str, sequence: int, episode: int,
             stop_if_asked: Callable[[], None]) -> list[TransitionRecord]:
    stop_if_asked()
    observation: Observation = arm.reset()
    records: list[TransitionRecord] = []
    while not records or not records[-1].last:
        stamp = time.time_ns()
        action = expert(observation)
        stop_if_asked()
        result = arm.step(action)
        sequence += 1
        records.append(TransitionRecord(
            session=session, sequence=sequence, episode=episode, step=len(records), observation=observation,
            action=result.executed_action, reward=result.reward, terminated=result.terminated,
            truncated=result.truncated, success=result.success, source=Source.DEMONSTRATION,
            final_observation=result.observation if result.terminated or result.truncated else None,
            space_fingerprint=arm.spec.fingerprint, stamp=stamp,
            asked_action=asked_if_changed(action, result.executed_action)))
        observation = result.observation
    return records
