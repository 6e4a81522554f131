# SPDX-License-Identifier: Apache-2.0
"""Record demonstrations with an arm's scripted expert into a rosbag2 bag. No running ROS graph is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.driver import ArmDriver, Expert
from rlpd_ros.arm.factory import make_arm_alone
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.ros.bags import TransitionLog
from rlpd_ros.ros.main import wall_ns
from rlpd_ros.types import Source, TransitionRecord, asked_if_changed, new_session

EPISODES = 20
EXPERT_NOISE = 0.2  # standard deviation, normalised units: demonstrations that differ teach more
PATIENCE = 5  # attempts per successful demonstration before the expert is given up


def record_demonstrations(configuration: ArmConfig, bag: Path, episodes: int = EPISODES,
                          tell: Callable[[int], None] = lambda done: None) -> int:
    """Record ``episodes`` successful demonstrations; return the number of transitions.

    ``tell`` is called with the number done so far, the first time with 0. Raises ConfigError if the bag exists, the arm
    has no expert or the number of episodes makes no sense, DataError if the expert keeps failing.
    """
    if episodes < 1:
        raise ConfigError(f"episodes: expected at least 1, found {episodes}")
    if bag.exists():
        raise ConfigError(f"{bag} exists already and is not overwritten; choose another name")
    arm = make_arm_alone(configuration)
    try:
        expert = arm.expert(EXPERT_NOISE, configuration.seed)
        if expert is None:
            raise ConfigError(f"{arm.spec.robot} has no scripted expert: record demonstrations with a person "
                              "(docs/demonstrations.md), or train without by --demos none")
        session, sequence, done = new_session("expert"), 0, 0
        tell(done)
        log = TransitionLog(bag, arm.spec)
        for _ in range(PATIENCE * episodes):
            records = _episode(arm, expert, session, sequence, done + 1)
            if not records[-1].success:
                continue
            for record in records:
                log.write(record)
            sequence, done = records[-1].sequence, done + 1
            tell(done)
            if done == episodes:
                break
        log.close()
        if done < episodes:
            raise DataError(f"the scripted expert succeeded in only {done} of {PATIENCE * episodes} episodes; expected "
                            f"{episodes}; the bag {bag} is incomplete")
        return sequence
    finally:
        arm.close()


def _episode(arm: ArmDriver, expert: Expert, session: str, sequence: int, episode: int) -> list[TransitionRecord]:
    observation = arm.reset()
    records: list[TransitionRecord] = []
    while not records or not records[-1].last:
        stamp = wall_ns()
        action = expert(observation)
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
