# SPDX-License-Identifier: Apache-2.0
"""Record demonstrations with an arm's scripted expert into a rosbag2 bag. No running ROS graph is needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.demonstration import EPISODES, EXPERT_NOISE, PATIENCE, demonstrate
from rlpd_ros.arm.factory import make_arm_alone
from rlpd_ros.arm.interruption import stopping_between_motions
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.ros.bags import TransitionLog
from rlpd_ros.types import new_session

STARTS = 2**31  # added to the seed of start positions: training with the same seed shall begin elsewhere


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
    starts = replace(configuration, seed=(configuration.seed + STARTS) % 2**32)
    with stopping_between_motions() as stop_if_asked, closing(make_arm_alone(starts)) as arm:
        expert = arm.expert(EXPERT_NOISE, configuration.seed)
        if expert is None:
            raise ConfigError(f"{arm.spec.robot} has no scripted expert: record demonstrations with a person "
                              "(docs/demonstrations.md), or train without by --demos none")
        transitions, done = 0, 0
        tell(done)
        with closing(TransitionLog(bag, arm.spec)) as log:
            for records in demonstrate(arm, expert, new_session("expert"), episodes, stop_if_asked):
                for record in records:
                    log.write(record)
                log.flush()  # what is shown survives whatever ends this process
                transitions, done = transitions + len(records), done + 1
                tell(done)
        if done < episodes:
            raise DataError(f"the scripted expert succeeded in only {done} of {PATIENCE * episodes} episodes; expected "
                            f"{episodes}; the bag {bag} is incomplete")
        return transitions
