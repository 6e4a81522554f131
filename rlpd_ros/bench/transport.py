# SPDX-License-Identifier: Apache-2.0
"""What crosses processes: policies to an actor, transitions to the learner, observations and actions."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import psutil

from rlpd_ros.bench.graph import Bench
from rlpd_ros.bench.machine import socket_rates, speed_of_light
from rlpd_ros.bench.processes import begin, result
from rlpd_ros.bench.timing import Effort, high, low, percentiles
from rlpd_ros.bench.workload import ACTIONS, observation, records, space
from rlpd_ros.data.outbox import Outbox
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.policy import Policy, make_snapshot
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.policy_publisher import PolicyPublisher
from rlpd_ros.runs import RunDirectory
from rlpd_ros.tables import Row
from rlpd_ros.types import Source, SpaceSpec, TimeStep

WARM_UP = 200  # transitions of each actor
WIDTHS = {0.3: 256, 3: 850, 30: 2720}  # MB -> units of each of two hidden layers


def policy(effort: Effort) -> Iterator[Row]:
    """Yield the time from a policy's publication to its use in an actor process, and how long it blocks the learner."""
    for (megabytes, width), target in zip(WIDTHS.items(), (1.5, 4.0, 30.0), strict=True):
        applied, blocked, nbytes = _publish_policies(width, max(10, effort.samples // 20))
        limit = 1e3 * nbytes / speed_of_light("socket")
        yield low(f"policy of {megabytes:g} MB: publish to applied, p50", [float(np.median(applied))], "ms", target,
                  limit)
        yield low(f"policy of {megabytes:g} MB: learner blocked, p50", [float(np.median(blocked))], "ms",
                  1.0 if megabytes == 3 else None, 1e3 * nbytes / speed_of_light("copy"))


def _publish_policies(width: int, count: int) -> tuple[list[float], list[float], int]:
    """Return ms from publication to application, ms that each publication took the publisher, and bytes."""
    spec, config, rng = space(lockstep=False), PolicyConfig(hidden_dims=(width, width)), np.random.default_rng(0)
    network = Policy(spec, config)
    params, probe = network.init(0), observation(spec, rng)
    heard: dict[int, float] = {}  # version -> s
    blocked = []
    with Bench() as bench:
        def on_status(message) -> None:
            heard.setdefault(message.applied_version, message.policy_age)

        qos.subscription(bench.node, qos.ACTOR_STATUS, on_status)
        publisher = PolicyPublisher(bench.node)
        bench.announce(spec)
        bench.start("nodes.actor", hidden_dims=list(config.hidden_dims))
        bench.until(lambda: 0 in heard, "the actor")
        previous: bytes | memoryview = b""
        for version in range(1, count + 4):  # the first three warm up
            began, stamp = time.perf_counter(), time.time_ns()
            publication = publisher.publish(partial(
                make_snapshot, network, network.serialize(params), spec, probe, session="learner-bench",
                version=version, gradient_step=version, previous=previous, stamp=stamp))
            blocked.append(1e3 * (time.perf_counter() - began))
            bench.until(lambda version=version: version in heard, f"version {version}")  # type: ignore[misc]
            previous = publication.result().data
        publisher.close()
    return [1e3 * heard[version] for version in range(4, count + 4)], blocked[3:], network.data_size


def transitions(effort: Effort) -> Iterator[Row]:
    """Yield transitions per second into a learner process, one message each, until its receipt for the last."""
    for name, images, count, target in (("state only", 0, 15 * effort.samples, 5_000),
                                        ("two 128 x 128 images", 2, 3 * effort.samples, 1_500)):
        measured = [_send_transitions(1, images, count)[0] for _ in range(min(3, effort.repetitions))]
        nbytes = 200 + images * 128 * 128 * 3
        limit = 1e9 / nbytes * max(socket_rates(Effort(3, 0.1, 0), nbytes))  # each answered before the next
        yield high(f"transitions to the learner's disk, {name}", measured, "1/s", target, limit)


def actors(effort: Effort) -> Iterator[Row]:
    """Yield transitions per second from several actors at once, and what each transition costs the learner."""
    for number in (1, 2, 4, 8, 16):
        rate, cost = _send_transitions(number, 0, max(500, 10 * effort.samples // number))
        yield high(f"transitions to the learner's disk, {number} actors, all together", [rate], "1/s")
        yield low(f"the learner's processor time per transition, {number} actors", [1e6 * cost], "us")


def _send_transitions(senders: int, images: int, count: int) -> tuple[float, float]:
    """Return transitions per second, and the processor time of their receiver for each, in s."""
    spec = space(images, lockstep=False)
    with tempfile.TemporaryDirectory() as folder, Bench() as bench:
        run = RunDirectory.create(folder, "bench")
        bench.announce(spec)
        if images:
            learner = bench.start("bench.storing", run=str(run.path), images=images)
        else:
            learner = bench.start("nodes.learner", run=str(run.path), require_demonstrations=False,
                                  training_starts=10**9, hidden_dims=[8], critic_hidden_dims=[8])
        bench.until(lambda: bench.node.count_publishers(qos.TRANSITIONS_ACK.name), "the learner")
        before = _processor_time(learner)
        processes = [begin(send, f"actor-{i}", images, count, WARM_UP) for i in range(senders)]
        times = [result(process) for process in processes]
        cost = (_processor_time(learner) - before) / (senders * (WARM_UP + count))
    return senders * count / (max(end for _, end in times) - min(begin for begin, _ in times)), cost


def _processor_time(process: int) -> float:
    times = psutil.Process(process).cpu_times()
    return times.user + times.system


def send(session: str, images: int, count: int, warm_up: int) -> tuple[float, float]:
    """Send transitions as an actor does, each as soon as the outbox lets it; return when it began and ended, s."""
    spec = space(images, lockstep=False)
    outbox = Outbox()
    made = records(spec, session, warm_up + count)
    with Bench(session.replace("-", "_")) as bench:
        publisher = qos.publisher(bench.node, qos.TRANSITIONS)

        def on_ack(message) -> None:
            if message.session == session:
                outbox.acknowledge(messages.to_acknowledgement(message), time.monotonic())

        def pass_on(until: int) -> None:
            def done() -> bool:
                for record in outbox.due(time.monotonic()):
                    publisher.publish(messages.from_transition(record, spec))
                return outbox.acknowledged >= until

            bench.until(done, f"receipts for {until} transitions")

        qos.subscription(bench.node, qos.TRANSITIONS_ACK, on_ack)
        bench.until(publisher.get_subscription_count, "the learner")
        for record in made[:warm_up]:
            outbox.add(record)
        pass_on(warm_up)
        for record in made[warm_up:]:
            outbox.add(record)
        began = time.monotonic()
        pass_on(warm_up + count)
        return began, time.monotonic()


def loop(effort: Effort) -> Iterator[Row]:
    """Yield the time from an observation to the actor's action, both as messages between processes."""
    spec, config, rng = space(lockstep=False), PolicyConfig(), np.random.default_rng(0)
    network = Policy(spec, config)
    with Bench("arm") as bench:
        answered: dict[int, float] = {}
        qos.subscription(bench.node, qos.ACTION, lambda m: answered.__setitem__(
            messages.to_action(m).step, time.perf_counter()))
        ready: set[int] = set()  # versions that the actor acts on
        qos.subscription(bench.node, qos.ACTOR_STATUS, lambda m: ready.add(m.applied_version))
        observations, policies = (qos.publisher(bench.node, topic) for topic in (qos.OBSERVATION, qos.POLICY_PARAMS))
        bench.announce(spec)
        policies.publish(messages.from_policy_snapshot(make_snapshot(
            network, network.serialize(network.init(0)), spec, observation(spec, rng), session="learner-bench",
            version=1, gradient_step=0, stamp=time.time_ns())))
        bench.start("nodes.actor", resend_period=1000.0)
        bench.until(lambda: 1 in ready and observations.get_subscription_count(), "the actor to have its policy")
        sent = np.empty(effort.samples + effort.samples // 10)
        for step in range(len(sent)):
            message = messages.from_time_step(_time_step(spec, step, rng), spec)
            sent[step] = time.perf_counter()
            observations.publish(message)
            bench.until(lambda step=step: step in answered, f"the action of step {step}")  # type: ignore[misc]
    times = np.array([answered[step] for step in range(len(sent))]) - sent
    yield from percentiles("observation -> action -> next observation", times[effort.samples // 10:], (0.8, 2.0))


def _time_step(spec: SpaceSpec, step: int, rng: np.random.Generator) -> TimeStep:
    executed = np.zeros(ACTIONS, np.float32) if step else None
    return TimeStep("arm-bench", 1, step, observation(spec, rng), executed_action=executed, source=Source.POLICY,
                    stamp=time.time_ns())
