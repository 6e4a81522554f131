# SPDX-License-Identifier: Apache-2.0
"""The learner's own work: updates with their sampling, compilation, the replay buffer; and how it scales."""

from __future__ import annotations

import gc
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import jax
import numpy as np

from rlpd_ros.bench.machine import copy_rates, speed_of_light
from rlpd_ros.bench.processes import begin, result
from rlpd_ros.bench.timing import Effort, durations, high, low, percentiles, rates
from rlpd_ros.bench.workload import ACTIONS, BATCH, STATES, filled_buffer, observation, space, transition
from rlpd_ros.data.replay_buffer import symmetric_batches
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.compilation import compute_in_place, keep_compiled
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.policy import Policy
from rlpd_ros.rl.shares import find_devices
from rlpd_ros.tables import Row

HIL_SERL: dict[str, Any] = {"num_qs": 2, "num_min_qs": 2, "utd_ratio": 2}
RLPD: dict[str, Any] = {"num_qs": 10, "num_min_qs": 2, "utd_ratio": 20}
SIZE = 5_000  # transitions in each buffer: what matters is that they do not fit a core's cache


def critic_step_flops(config: AgentConfig, policy: PolicyConfig, batch: int = BATCH, inputs: int = STATES) -> float:
    """Return the floating-point operations of the matrix products of one critic step, from ``inputs`` numbers seen.

    With its share of the policy's step: forward, and twice that backward, without the gradient of the first input
    where nobody needs it.
    """
    def layers(inputs: int, hidden: tuple[int, ...], outputs: int) -> list[int]:
        sizes = (inputs, *hidden, outputs)
        return [2 * batch * a * b for a, b in itertools.pairwise(sizes)]

    critic, actor = (layers(inputs + ACTIONS, config.critic_hidden_dims, 1),
                     layers(inputs, policy.hidden_dims, 2 * ACTIONS))
    critic_step = config.num_min_qs * sum(critic) + config.num_qs * (3 * sum(critic) - critic[0]) + sum(actor)
    policy_step = 3 * sum(actor) - actor[0] + 2 * config.num_qs * sum(critic)
    return critic_step + policy_step / config.utd_ratio


def update_rates(effort: Effort, batch_size: int = BATCH, width: int = 256, buffer_size: int = SIZE,
                 devices: Sequence[jax.Device] = (), **settings: Any) -> tuple[list[float], float]:
    """Measure critic steps per second, sampling included; and how many the matrix products alone would allow."""
    spec, rng = space(), np.random.default_rng(0)
    policy = PolicyConfig(hidden_dims=(width, width))
    config = AgentConfig(critic_hidden_dims=(width, width), **settings)
    online, demos = filled_buffer(spec, buffer_size, buffer_size), filled_buffer(spec, SIZE, SIZE, seed=1)
    agent = Agent.create(spec, policy, config, 0, devices=devices)
    info: dict[str, jax.Array] = {}
    before: dict[str, jax.Array] = {}

    def step() -> None:  # as the learner does
        nonlocal agent, info, before
        batch = symmetric_batches(online, demos, config.utd_ratio, batch_size, rng)
        for value in before.values():
            value.block_until_ready()
        before = info
        agent, info = agent.update(batch, batch_size // 2)

    measured = [config.utd_ratio * rate for rate in rates(step, effort)]
    return measured, speed_of_light("matmul") / critic_step_flops(config, policy, batch_size)


def shared_rates(devices: int, effort: dict[str, Any], settings: dict[str, Any]) -> tuple[list[float], float]:
    """Do ``update_rates`` in a new process, where JAX can still be given devices."""
    keep_compiled()
    return update_rates(Effort(**effort), devices=find_devices(devices, num_qs=settings["num_qs"], batch_size=BATCH),
                        **settings)


def learner(effort: Effort) -> Iterator[Row]:
    """Yield critic steps per second with HIL-SERL's and with RLPD's ensemble, on one device and on two."""
    for name, settings, target in (("2 critics, UTD 2", HIL_SERL, 380), ("10 critics, UTD 20", RLPD, 110)):
        for devices in (1, 2):
            measured, limit = result(begin(shared_rates, devices, asdict(effort), settings))
            yield high(f"learner, {name}, devices {devices}: critic steps", measured, "1/s", target, limit)


def scaling(effort: Effort) -> Iterator[Row]:
    """Yield critic steps per second against ensemble size, batch, width and size of the buffer."""
    for num_qs in (1, 2, 5, 10, 20):
        measured, limit = update_rates(effort, num_qs=num_qs, num_min_qs=min(2, num_qs), utd_ratio=2)
        yield high(f"learner, {num_qs} critics, UTD 2: critic steps", measured, "1/s", limit=limit)
    for name, values in {"batch_size": (64, 1024), "width": (128, 512), "buffer_size": (100_000,)}.items():
        for value in values:
            measured, limit = update_rates(effort, **HIL_SERL | {name: value})
            yield high(f"learner, 2 critics, UTD 2, {name} {value:,}: critic steps", measured, "1/s", limit=limit)


def first_update(settings: dict[str, Any]) -> float:
    """Return how long the first update takes longer than the second, in s: tracing and compiling."""
    keep_compiled()
    spec, rng = space(), np.random.default_rng(0)
    buffer = filled_buffer(spec, BATCH, BATCH)
    agent = Agent.create(spec, PolicyConfig(), AgentConfig(**settings), 0)
    times = []
    for _ in range(2):
        batch = symmetric_batches(buffer, buffer, agent.config.utd_ratio, BATCH, rng)
        agent.critic.params["mlp"]["q"]["bias"].block_until_ready()
        began = time.perf_counter()
        agent, info = agent.update(batch, BATCH // 2)
        info["critic_loss"].block_until_ready()
        times.append(time.perf_counter() - began)
    return times[0] - times[1]


def compilation(effort: Effort) -> Iterator[Row]:
    """Yield the time to compile RLPD's update, with an empty and with a warm persistent cache."""
    times: dict[str, list[float]] = {"cold": [], "from the persistent cache": []}
    for _ in range(min(3, effort.repetitions)):
        with tempfile.TemporaryDirectory() as cache:
            for measured in times.values():
                measured.append(result(begin(first_update, RLPD, JAX_COMPILATION_CACHE_DIR=cache)))
    for (how, measured), target in zip(times.items(), (4.0, 1.0), strict=True):
        yield low(f"compile the UTD-20 update, {how}", measured, "s", target)


def replay(effort: Effort) -> Iterator[Row]:
    """Yield the time to draw 256 transitions and insert one, and of 20 batches at once."""
    spec, rng = space(), np.random.default_rng(0)
    online, demos = filled_buffer(spec, 100_000, 100_000), filled_buffer(spec, SIZE, SIZE)
    new = transition(spec, rng)
    nbytes = 4 * BATCH * (2 * STATES + ACTIONS + 3)

    def sample_and_insert() -> None:
        symmetric_batches(online, demos, 1, BATCH, rng)
        online.insert(new)

    per_batch = [1e6 / rate for rate in rates(sample_and_insert, effort)]
    yield low("replay: sample 256 and insert 1", per_batch, "us", 60, 1e6 * nbytes / speed_of_light("copy"))
    per_batch = [1e6 / 20 / rate for rate in rates(lambda: symmetric_batches(online, demos, 20, BATCH, rng), effort)]
    yield low("replay: sample 256, 20 batches at once, per batch", per_batch, "us",
              limit=1e6 * nbytes / speed_of_light("copy"))


def acting(effort: Effort) -> Iterator[Row]:
    """Yield the time to choose an action, drawn and greedy, in a process that computes as an actor does."""
    limit = 1e-6 * Policy(space(), PolicyConfig()).data_size
    limit /= max(copy_rates(Effort(3, 0.05, 0), int(1e6 * limit)))  # every weight is read once
    for how, seconds in zip(("drawn", "greedy"), result(begin(action_times, 5 * effort.samples)), strict=True):
        yield from percentiles(f"act, {how}", np.array(seconds), (0.06, 0.15), limit)


def action_times(samples: int, cameras: int = 0) -> list[list[float]]:
    """Return how long each of ``samples`` actions took, in s: drawn, then greedy ones."""
    compute_in_place()
    spec, effort = space(cameras), Effort(1, 0, samples)
    policy, seen, key = Policy(spec, PolicyConfig()), observation(spec, np.random.default_rng(0)), jax.random.PRNGKey(0)
    params = policy.init(0)
    gc.freeze()

    def sample() -> None:
        nonlocal key
        _, key = policy.sample(params, seen, key)

    return [durations(sample, effort).tolist(), durations(lambda: policy.mode(params, seen), effort).tolist()]
