# SPDX-License-Identifier: Apache-2.0
"""Actors that come late, or come back: how long until they have the newest policy?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rclpy
from cluster import SMALL, Cluster
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from rlpd_ros.nodes.actor import ActorNode
from rlpd_ros.rl.policy import Policy
from rlpd_ros.tables import Row, at_least, at_most, informative

LIMIT = 1.0  # s
PATIENCE = 30.0  # s
REMAPS = ("space_spec", "policy_params", "learner_status")


class Join(NamedTuple):
    """Times in s, from the start of the node: to the policy of that time or a newer one in use; of it, compiling."""

    took: float
    compiling: float


def join(newest: int) -> Join:
    """Make an actor; wait until it uses a policy of at least version ``newest``."""
    context, compiling, compile_policy = Context(), [0.0], Policy.compile

    def timed(policy: Policy) -> None:
        start = time.monotonic()
        compile_policy(policy)
        compiling.append(time.monotonic() - start)

    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    arguments = ["--ros-args", "--log-level", "warn", "-p", f"hidden_dims:={SMALL['**']['hidden_dims']}"]
    for topic in REMAPS:
        arguments += ["-r", f"{topic}:=/{topic}"]
    Policy.compile = timed  # type: ignore[method-assign]
    began = time.monotonic()
    node = ActorNode(context=context, cli_args=arguments, use_global_arguments=False, namespace="late")
    executor.add_node(node)
    try:
        while (passed := time.monotonic() - began) < PATIENCE:
            if node._actor is not None and node._actor.report.applied_version >= newest:
                return Join(passed, max(compiling))
            executor.spin_once(timeout_sec=0.02)
        return Join(float("nan"), max(compiling))
    finally:
        Policy.compile = compile_policy  # type: ignore[method-assign]
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
        join(1)  # compiles for the first time
        first, joins = recording.last("policy_params")["version"], []
        for _ in range(times):
            recording.update()
            joins.append(join(recording.last("policy_params")["version"]))
            cluster.revive()
        recording.update()
        last = recording.last("policy_params")["version"]
    took, compiling = (1e3 * np.array([getattr(j, name) for j in joins]) for name in Join._fields)
    rows = [informative("joins", times), at_least("versions published meanwhile", last - first, 1)]
    for what, values in (("from the node's start to the newest policy in use", took),
                         ("the same without compiling the network", took - compiling)):
        rows += [informative(f"{what}: median", float(np.nanmedian(values)), "ms"),
                 informative(f"{what}: 99 %", float(np.nanpercentile(values, 99)), "ms"),
                 informative(f"{what}: longest", float(np.nanmax(values)), "ms")]
    return [*rows,
            at_most("joins without the newest policy", int(np.sum(np.isnan(took))), 0),
            at_most("joins that took 1 s or more", int(np.sum(~(took < 1e3 * LIMIT))), 0),
            at_most("joins that took 1 s or more without compiling",
                    int(np.sum(~(took - compiling < 1e3 * LIMIT))), 0),
            at_most("deaths that nobody brought about", len(cluster.spontaneous), 0)]
