# SPDX-License-Identifier: Apache-2.0
"""A baseline that notices when a path has become twice as slow, on any machine and however busy that is.

Paths are timed in processor time, as a multiple of a yardstick that is timed in turns with them: matrix products for
what computes, plain Python for what Python bounds. The least of many short repetitions counts, since other load can
only add to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import numpy as np
from rclpy.serialization import deserialize_message, serialize_message

from rlpd_ros.bench.learning import HIL_SERL
from rlpd_ros.bench.workload import BATCH, filled_buffer, observation, records, space, transition
from rlpd_ros.data.replay_buffer import symmetric_batches
from rlpd_ros.errors import DataError
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.policy import Policy, make_snapshot, verify
from rlpd_ros.ros import messages, qos

Step = Callable[[], object]
REPETITIONS = 15
ATTEMPTS = 4
TOLERANCE = 2.0  # times the baseline


def _products() -> Step:
    a = np.ones((256, 256), np.float32)
    product = jax.jit(lambda x: jax.lax.fori_loop(0, 10, lambda _, y: x @ y, x))
    return lambda: product(a).block_until_ready()


def _python() -> Step:
    def step() -> int:
        total, table = 0, dict.fromkeys(range(100), 1)
        for i in range(10_000):
            total += table[i % 100]
        return total

    return step


def _update() -> Step:
    spec, rng = space(), np.random.default_rng(0)
    agent = Agent.create(spec, PolicyConfig(), AgentConfig(**HIL_SERL), 0)
    batch = symmetric_batches(filled_buffer(spec, 500, 500), filled_buffer(spec, 500, 500), 2, BATCH, rng)

    def step() -> None:
        nonlocal agent
        agent, info = agent.update(batch, BATCH // 2)
        info["critic_loss"].block_until_ready()

    return step


def _act() -> Step:
    spec = space()
    policy, seen, key = Policy(spec, PolicyConfig()), observation(spec, np.random.default_rng(0)), jax.random.PRNGKey(0)
    params = policy.init(0)
    return lambda: [policy.sample(params, seen, key) for _ in range(10)]


def _replay() -> Step:
    spec, rng = space(), np.random.default_rng(0)
    online, demos, new = filled_buffer(spec, 5000, 5000), filled_buffer(spec, 5000, 5000), transition(spec, rng)

    def step() -> None:
        for _ in range(20):
            symmetric_batches(online, demos, 1, BATCH, rng)
            online.insert(new)

    return step


def _messages() -> Step:
    spec = space()
    record = records(spec, "actor-guard", 1)[0]

    def step() -> None:
        for _ in range(20):
            data = serialize_message(messages.from_transition(record, spec))
            messages.to_transition(deserialize_message(data, qos.TRANSITIONS.type), spec)

    return step


def _policy() -> Step:
    spec = space()
    policy, probe = Policy(spec, PolicyConfig()), observation(spec, np.random.default_rng(0))
    params = policy.init(0)

    def step() -> None:
        snapshot = make_snapshot(policy, policy.serialize(params), spec, probe, session="learner-guard", version=1,
                                 gradient_step=1)
        message = messages.from_policy_snapshot(snapshot)
        verify(messages.to_policy_snapshot(message, spec), policy, spec)

    return step


PATHS: dict[str, Callable[[], Step]] = {
    "update": _update, "act": _act, "replay": _replay, "messages": _messages, "policy": _policy}
BASELINE: dict[str, tuple[Callable[[], Step], float]] = {
    "update": (_products, 5.3), "act": (_python, 1.38), "replay": (_python, 1.28), "messages": (_python, 1.93),
    "policy": (_python, 2.4)}
"""Path -> its yardstick, and how many times as long it takes. Set anew, by `ratio`, when a path becomes faster."""


def ratio(path: str) -> float:
    """Return how many times as long as its yardstick a path takes."""
    steps = (PATHS[path](), BASELINE[path][0]())
    for step in (*steps, *steps):
        step()
    least = [float("inf"), float("inf")]
    for _ in range(REPETITIONS):
        for i, step in enumerate(steps):
            began = time.process_time()
            step()
            least[i] = min(least[i], time.process_time() - began)
    return least[0] / least[1]


def check(path: str) -> None:
    """Raise DataError if a path takes more than TOLERANCE times as long as it did, at each of several attempts."""
    allowed = TOLERANCE * BASELINE[path][1]
    found = min(_until_below(path, allowed))
    if found > allowed:
        raise DataError(f"{path}: expected at most {allowed:.3g} times the calibration, found {found:.3g}: "
                        "it has become slower (or faster machines have another ratio: see rlpd_ros/bench/guard.py)")


def _until_below(path: str, allowed: float):
    for _ in range(ATTEMPTS):
        yield (found := ratio(path))
        if found <= allowed:
            return
