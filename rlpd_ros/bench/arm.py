# SPDX-License-Identifier: Apache-2.0
"""The simulated arm: control steps per second, the expert's success, and how well the tool follows its commands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from rlpd_ros.arm.config import MujocoArmConfig
from rlpd_ros.arm.mujoco_arm import MujocoArm
from rlpd_ros.bench.timing import Effort, high
from rlpd_ros.errors import ConfigError
from rlpd_ros.tables import Row, at_least, at_most
from rlpd_ros.types import Observation

NOISE = 0.2  # of the expert, as when demonstrations are recorded

Choose = Callable[[Observation], np.ndarray]


def steps_per_second(arm: MujocoArm, choose: Choose, clock: Callable[[], float], steps: int) -> float:
    """Time ``steps`` control steps by ``clock``, resets included and ``choose`` excluded."""
    observation, choosing = arm.reset(seed=0), 0.0
    start = clock()
    for _ in range(steps):
        asked = clock()
        action = choose(observation)
        choosing += clock() - asked
        result = arm.step(action)
        observation = arm.reset() if result.terminated or result.truncated else result.observation
    return steps / (clock() - start - choosing)


def expert_episodes(arm: MujocoArm, choose: Choose, episodes: int) -> tuple[float, float]:
    """Return the share of successes, %, and the mean number of steps of an episode."""
    successes, steps = 0, 0
    for seed in range(episodes):
        observation, over = arm.reset(seed), False
        while not over:
            result = arm.step(choose(observation))
            observation, over, steps = result.observation, result.terminated or result.truncated, steps + 1
        successes += result.success
    return 100.0 * successes / episodes, steps / episodes


def tracking_errors(arm: MujocoArm) -> np.ndarray:
    """Return how far the tool is from where its executed motions should have taken it, mm, step by step."""
    rng, errors = np.random.default_rng(0), []
    scale, tool = np.asarray(arm.spec.action[0].high), slice(15, 18)
    upward = np.array((0.0, 0.0, 0.2))  # clear of the cube, mostly
    for seed in range(20):
        position, over = arm.reset(seed).state[tool].astype(np.float64), False
        while not over:
            result = arm.step(np.append(rng.uniform(-1, 1, 3) + upward, 1.0))
            position += scale * result.executed_action[:3]
            errors.append(1e3 * np.linalg.norm(result.observation.state[tool] - position))
            over = result.terminated or result.truncated
    return np.array(errors)


def cameras(effort: Effort) -> Row:
    """Return control steps per second with two cameras of 128 x 128, by wall time: they are drawn on several cores."""
    name = "simulated arm: control steps with two cameras, wall time"
    try:
        seeing = MujocoArm(MujocoArmConfig(cameras=("front", "wrist"), observe_cube=False))
    except ConfigError as error:
        return at_least(f"{name}: {error}", None, 40.0, "1/s")
    expert = seeing.expert(NOISE)
    measured = [steps_per_second(seeing, expert, time.perf_counter, effort.samples)
                for _ in range(1 + effort.repetitions)]
    seeing.close()
    return high(name, measured[1:], "1/s", 40.0)


def arm(effort: Effort) -> Iterator[Row]:
    """Yield control steps per second, the expert's success, and how well the tool follows its commands."""
    simulated, rng = MujocoArm(MujocoArmConfig()), np.random.default_rng(0)
    ways: dict[str, Choose] = {"expert": simulated.expert(NOISE), "random": lambda _: rng.uniform(-1, 1, 4)}
    # by processor time, which other processes on the machine take less from than from wall time
    clocks = {"processor": time.thread_time, "wall": time.perf_counter}
    rates: dict[tuple[str, str], list[float]] = {(way, clock): [] for clock in clocks for way in ways}
    for _ in range(1 + effort.repetitions):  # interleaved, so that other load meets all of them
        for (way, clock), measured in rates.items():
            measured.append(steps_per_second(simulated, ways[way], clocks[clock], effort.samples))
    for (way, clock), measured in rates.items():
        yield high(f"simulated arm: control steps, {way} actions, {clock} time", measured[1:], "1/s",
                   1_500 if clock == "processor" else None)
    for noise in (0.0, NOISE):
        success, steps = expert_episodes(simulated, simulated.expert(noise), effort.samples // 5)
        yield at_least(f"simulated arm: expert's success, noise {noise:g}", success, 100.0, "%")
        yield at_most(f"simulated arm: expert's steps, noise {noise:g}", steps, 30.0, "1")
    yield cameras(effort)
    errors = tracking_errors(simulated)
    yield at_most("simulated arm: tool's tracking error, median", float(np.median(errors)), 1.0, "mm")
    yield at_most("simulated arm: tool's tracking error, 99 %", float(np.percentile(errors, 99)), 5.0, "mm")
