# SPDX-License-Identifier: Apache-2.0
"""Arm and actor on one host, the learner on another, and a network between them that loses, delays and breaks.

The hosts are network namespaces, joined by a virtual cable (``ip``, ``tc netem``); it takes root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cluster import Cluster, Recording, compare

from rlpd_ros.tables import Row, at_least, at_most, informative

OVER_UDP = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}
RATE = 20.0  # Hz of the arm, in real time


class Cable:
    """Two hosts and the cable between them; ``enter(i)`` begins a command on one of them."""

    def __init__(self) -> None:
        self.hosts = tuple(f"rlpd{os.getpid()}{side}" for side in "ab")
        self._ends = tuple(f"v{os.getpid()}{side}" for side in "ab")

    def enter(self, host: int) -> tuple[str, ...]:
        return "ip", "netns", "exec", self.hosts[host]

    def lay(self) -> None:
        """Make it. Raises CalledProcessError where this is not allowed."""
        for host in self.hosts:
            _run("ip", "netns", "add", host)
        _run("ip", "link", "add", self._ends[0], "type", "veth", "peer", "name", self._ends[1])
        for i, (host, end) in enumerate(zip(self.hosts, self._ends, strict=True)):
            _run("ip", "link", "set", end, "netns", host)
            _run(*self.enter(i), "ip", "address", "add", f"10.77.0.{i + 1}/24", "dev", end)
            for device in ("lo", end):
                _run(*self.enter(i), "ip", "link", "set", device, "up")
            _run(*self.enter(i), "ip", "route", "add", "224.0.0.0/4", "dev", end)

    def shape(self, *rules: str) -> None:
        """Have both directions treat packets so, as ``tc netem`` says it."""
        for i, end in enumerate(self._ends):
            _run(*self.enter(i), "tc", "qdisc", "replace", "dev", end, "root", "netem", "limit", "100000", *rules)

    def remove(self) -> None:
        for host in self.hosts:
            subprocess.run(["ip", "netns", "delete", host], check=False, capture_output=True)


def _run(*line: str) -> None:
    subprocess.run(line, check=True, capture_output=True)


@contextlib.contextmanager
def cable() -> Iterator[Cable | None]:
    """Lay a cable for a while; None, with a line that says why, where that is not possible."""
    laid = Cable()
    try:
        if not shutil.which("ip") or not shutil.which("tc"):
            print("network: skipped: it needs ip and tc (sudo apt install iproute2)", flush=True)
            yield None
            return
        try:
            laid.lay()
            laid.shape("delay", "0ms")
        except subprocess.CalledProcessError as error:
            print(f"network: skipped: it needs root and network namespaces: {' '.join(error.cmd)}: "
                  f"{error.stderr.decode().strip()}", flush=True)
            yield None
            return
        yield laid
    finally:
        laid.remove()


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
    rises = [b["t"] for a, b in zip(statuses, statuses[1:], strict=False) if b[name] > a[name]]
    ends = [statuses[0]["t"], *rises, statuses[-1]["t"]] if statuses else [0.0]
    return max((b - a for a, b in zip(ends, ends[1:], strict=False)), default=0.0)


def measure(folder: Path, short: bool) -> list[Row]:
    """Train over a bad network; see that nothing is lost and how long it takes to recover."""
    with cable() as line:
        if line is None:
            return [informative("skipped: needs root, ip and tc", None)]
        hosts = {"learner": line.enter(1), "actor": line.enter(0), "arm_driver": line.enter(0)}
        parameters = {"arm_driver": {"lockstep": False, "control_rate": RATE}}
        with Cluster(folder, None, parameters, hosts, OVER_UDP, line.enter(0)) as cluster:
            watch = _Watch(cluster, cluster.recording, cluster.listen(line.enter(1)))
            rows = _conditions(cluster, line, watch, 3.0 if short else 20.0)
            for seconds in (4.0,) if short else (10.0, 40.0):
                rows += _partition(line, watch, seconds)
            cluster.stop()
            return [*rows, *compare(cluster.run, cluster.recording),
                    at_most("deaths that nobody brought about", len(cluster.spontaneous), 0)]


def _conditions(cluster: Cluster, line: Cable, watch: _Watch, seconds: float) -> list[Row]:
    cluster.start("arm_driver", "learner", "actor")
    watch.until(lambda: watch.actor["applied_version"] and watch.stored > 40)
    rows = []
    for name, rules in (("no fault", ()), ("10 % loss", ("loss", "10%")), ("200 ms delay", ("delay", "200ms", "20ms")),
                        ("200 ms delay and 5 % loss", ("delay", "200ms", "20ms", "loss", "5%"))):
        line.shape(*(rules or ("delay", "0ms")))
        stored, control, gained = watch.spend(seconds)
        line.shape("delay", "0ms")
        again = watch.until(lambda: watch.actor["transitions_unacked"] < RATE)
        rows += [at_most(f"{name}: longest time without a control step", control, 1.0, "s"),
                 informative(f"{name}: longest time without a stored transition", stored, "s"),
                 informative(f"{name}: transitions stored", gained / seconds, "1/s"),
                 at_most(f"{name}: then, until all are acknowledged", again, 30.0, "s")]
    return rows


def _partition(line: Cable, watch: _Watch, seconds: float) -> list[Row]:
    name = f"partition of {seconds:.0f} s"
    line.shape("loss", "100%")
    _, control, _ = watch.spend(seconds)
    kept, version, stored = watch.actor["transitions_unacked"], watch.actor["applied_version"], watch.stored
    line.shape("delay", "0ms")
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
