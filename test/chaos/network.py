# SPDX-License-Identifier: Apache-2.0
"""Arm and actor on one host, the learner on another, and a network between them that loses, delays and breaks.

See cable.py for what it needs.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from cable import Cable, lay_cable
from cluster import Cluster, Recording, compare

from rlpd_ros.ros.middleware import FILES
from rlpd_ros.tables import Row, at_least, at_most, informative

OVER_UDP = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4",
            **dict.fromkeys(FILES, "")}  # two hosts share no memory
RATE = 20.0  # Hz of the arm, in real time


class _Watch:
    """What both ends say of how it goes."""

    def __init__(self, cluster: Cluster, near: Recording, far: Recording) -> None:
        self._cluster = cluster
        self.near = near  # beside the actor
        self.far = far  # beside the learner

    def spend(self, seconds: float) -> tuple[float, float, int]:
        """Let time pass; return the longest waits for a stored transition and for a control step, s; how many acks."""
        stored, steps = len(self.far.heard["learner_status"]), len(self.near.heard["actor_status"])
        self._cluster.spend(seconds, self.near, self.far)
        learner, actor = self.far.heard["learner_status"][stored:], self.near.heard["actor_status"][steps:]
        gained = learner[-1]["env_steps"] - learner[0]["env_steps"] if learner else 0
        return longest_wait(learner, "env_steps"), longest_wait(actor, "env_steps"), gained

    def until(self, condition, seconds: float = 180.0) -> float:
        return self._cluster.until(condition, self.near, self.far, seconds=seconds)

    @property
    def stored(self) -> int:
        return self.far.last("learner_status")["env_steps"]

    @property
    def actor(self) -> dict:
        return self.near.last("actor_status")


def longest_wait(statuses: list[dict], name: str) -> float:
    """Return the longest time, s, in which a count did not rise."""
    rises = [b["t"] for a, b in pairwise(statuses) if b[name] > a[name]]
    ends = [statuses[0]["t"], *rises, statuses[-1]["t"]] if statuses else [0.0]
    return max((b - a for a, b in pairwise(ends)), default=0.0)


def measure(folder: Path, short: bool) -> list[Row]:
    """Train over a bad network; see that nothing is lost and how long it takes to recover."""
    try:
        with lay_cable() as cable:
            return _measure(folder, cable, short)
    except OSError as error:
        print(f"network: skipped: {error}", flush=True)
        return [informative("skipped: it needs root and network namespaces", None)]


def _measure(folder: Path, cable: Cable, short: bool) -> list[Row]:
    hosts = {"learner": cable.enter(1), "actor": cable.enter(0), "arm_driver": cable.enter(0)}
    parameters = {"arm_driver": {"lockstep": False, "control_rate": RATE}}
    with Cluster(folder, None, parameters, hosts, OVER_UDP, cable.enter(0)) as cluster:
        watch = _Watch(cluster, cluster.recording, cluster.listen(cable.enter(1)))
        rows = _conditions(cluster, cable, watch, 3.0 if short else 20.0)
        for seconds in (4.0,) if short else (10.0, 40.0):
            rows += _partition(cable, watch, seconds)
        cluster.stop()
        return [*rows, *compare(cluster.run, cluster.recording),
                at_most("deaths that nobody brought about", len(cluster.spontaneous), 0)]


def _conditions(cluster: Cluster, cable: Cable, watch: _Watch, seconds: float) -> list[Row]:
    cluster.start("arm_driver", "learner", "actor")
    watch.until(lambda: watch.actor["applied_version"] and watch.stored > 40)
    rows = []
    for name, rules in (("no fault", ()), ("10 % loss", (0.1,)), ("200 ms delay", (0.0, 0.2, 0.02)),
                        ("200 ms delay and 5 % loss", (0.05, 0.2, 0.02))):
        cable.shape(*rules)
        stored, control, gained = watch.spend(seconds)
        cable.shape()
        again = watch.until(lambda: watch.actor["transitions_unacked"] < RATE)
        rows += [at_most(f"{name}: longest time without a control step", control, 1.0, "s"),
                 informative(f"{name}: longest time without a stored transition", stored, "s"),
                 informative(f"{name}: transitions stored", gained / seconds, "1/s"),
                 at_most(f"{name}: then, until all are acknowledged", again, 30.0, "s")]
    return rows


def _partition(cable: Cable, watch: _Watch, seconds: float) -> list[Row]:
    name = f"partition of {seconds:.0f} s"
    cable.shape(loss=1.0)
    _, control, _ = watch.spend(seconds)
    kept, version, stored = watch.actor["transitions_unacked"], watch.actor["applied_version"], watch.stored
    cable.shape()
    first = watch.until(lambda: watch.stored > stored)
    policy = first + watch.until(lambda: watch.actor["applied_version"] > version)
    everything = policy + watch.until(lambda: watch.actor["transitions_unacked"] < RATE)
    return [
        at_most(f"{name}: longest time without a control step", control, 1.0, "s"),
        at_least(f"{name}: transitions kept meanwhile", kept, 0.3 * RATE * seconds),
        at_most(f"{name}: from healing to the first stored transition", first, 30.0, "s"),
        at_most(f"{name}: from healing to a newer policy in use", policy, 30.0, "s"),
        at_most(f"{name}: from healing until all are acknowledged", everything, 30.0, "s"),
        at_most(f"{name}: transitions lost by the actor", watch.actor["transitions_lost"], 0)]
