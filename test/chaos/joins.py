# SPDX-License-Identifier: Apache-2.0
"""Actors that come late, or come back: how long until they have the newest policy?"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import rclpy
from cluster import SMALL, Cluster
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from rlpd_ros.nodes.actor import ActorNode
from rlpd_ros.tables import Row, at_least, at_most, informative

LIMIT = 1.0  # s
REMAPS = ("space_spec", "policy_params", "learner_status")


def join(newest: int) -> tuple[float, float]:
    """Make an actor; return after how many s it had the space, and a policy of at least version ``newest``."""
    context = Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    arguments = ["--ros-args", "-p", f"hidden_dims:={SMALL['**']['hidden_dims']}"]
    for topic in REMAPS:
        arguments += ["-r", f"{topic}:=/{topic}"]
    began = time.monotonic()
    node = ActorNode(context=context, cli_args=arguments, use_global_arguments=False, namespace="late")
    executor.add_node(node)
    knew = 0.0
    try:
        while time.monotonic() - began < 30.0:
            executor.spin_once(timeout_sec=0.02)
            if node._actor is not None:
                knew = knew or time.monotonic() - began
                if node._actor.report.applied_version >= newest:
                    return knew, time.monotonic() - began
        return knew, float("nan")
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


def measure(folder: Path, times: int) -> list[Row]:
    """Join a running system ``times`` times, one after another, while it trains and publishes."""
    # The machine that they join is busy with training; that they come second must not be what is measured.
    hosts = dict.fromkeys(("learner", "actor", "arm_driver"), ("nice", "-n", "19"))
    with Cluster(folder, None, hosts=hosts) as cluster:
        recording = cluster.recording
        cluster.start("learner", "actor", "arm_driver")
        cluster.until(lambda: recording.last("learner_status")["gradient_step"] > 20)
        join(1)  # compiles
        first, took, spaces = recording.last("policy_params")["version"], [], []
        for _ in range(times):
            recording.update()
            space, policy = join(recording.last("policy_params")["version"])
            spaces.append(space)
            took.append(policy)
            cluster.revive()
        recording.update()
        last = recording.last("policy_params")["version"]
    values = np.array(took)
    late = int(np.sum(~(values < LIMIT)))
    return [
        informative("joins", times),
        at_least("versions published meanwhile", last - first, 1),
        informative("from the start of the node to the space known and the network compiled, median",
                    1e3 * float(np.median(spaces)), "ms"),
        informative("from the start of the node to the newest policy in use, median", 1e3 * float(np.median(values)),
                    "ms"),
        informative("the same, 99 %", 1e3 * float(np.nanpercentile(values, 99)), "ms"),
        informative("the same, longest", 1e3 * float(np.nanmax(values)), "ms"),
        at_most("joins without the newest policy", int(np.sum(np.isnan(values))), 0),
        at_most("joins that took 1 s or more", late, 0),
        at_most("deaths that nobody brought about", len(cluster.spontaneous), 0)]
