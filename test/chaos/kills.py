# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at random times to the learner, the actor, the demo loader and the arm driver of a run that goes on."""

from __future__ import annotations

import random
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from cluster import DEADLINE, Cluster, compare

from rlpd_ros.tables import Row, at_least, at_most, informative

NODES = ("learner", "actor", "demo_loader", "arm_driver")
BETWEEN = 0.2, 3.5  # s between two kills: some hit a node that has not even started
WINDOW = 8  # kills after which training must be seen to have gone on


def measure(folder: Path, demos: Path, kills: int, seed: int = 1) -> list[Row]:
    """Kill ``kills`` times; compare the run's log with an independent recording."""
    rng, victims, recoveries = random.Random(seed), Counter(), []
    began = time.monotonic()
    with Cluster(folder, demos) as cluster:
        recording = cluster.recording

        def until_it_trains() -> None:
            """Wait for steps that no learner before had reached, and for transitions that were not there before."""
            step = max((m["gradient_step"] for m in recording.heard["learner_status"]), default=0)
            steps = recording.last("learner_status")["env_steps"]
            recoveries.append(cluster.until(lambda: recording.last("learner_status")["gradient_step"] > step
                                            and recording.last("learner_status")["env_steps"] > steps))

        cluster.start(*NODES)
        until_it_trains()
        recoveries.clear()
        demonstrations = recording.last("learner_status")["demo_buffer_size"]  # those that limits changed count twice
        order = [NODES[i % len(NODES)] for i in range(kills)]
        rng.shuffle(order)
        for i, name in enumerate(order, start=1):
            cluster.spend(rng.uniform(*BETWEEN))
            cluster.kill(name)
            cluster.start(name)
            victims[name] += 1
            if i % WINDOW == 0 or i == kills:
                until_it_trains()
                print(f"{i} of {kills} kills: step {recording.last('learner_status')['gradient_step']}, longest "
                      f"recovery {max(recoveries):.1f} s", flush=True)
        cluster.until(lambda: recording.last("actor_status")["transitions_spooled"] < 20)
        cluster.stop()
        rows = compare(cluster.run, recording)
        learners = recording.heard["learner_status"]
        published = [m["version"] for m in recording.heard["policy_params"]]
        return [
            *(informative(f"kills of {name}", victims[name]) for name in NODES),
            informative("wall time", time.monotonic() - began, "s"),
            *rows,
            at_most("versions that fell", sum(b < a for a, b in pairwise(published)), 0),
            informative("versions published", max(published)),
            informative("lives of the learner that were heard", len({m["session"] for m in learners})),
            at_least("gradient steps at the end", learners[-1]["gradient_step"], 20),
            at_least("demonstrations at first", demonstrations, learners[-1]["demo_expected"]),
            at_most("demonstrations missing at the end", demonstrations - learners[-1]["demo_buffer_size"], 0),
            at_most("longest time until training went on", max(recoveries), DEADLINE, "s"),
            at_most("transitions refused", max(m["transitions_rejected"] for m in learners), 0),
            at_most("deaths that nobody brought about", len(cluster.spontaneous), 0)]
