# SPDX-License-Identifier: Apache-2.0
"""What a control step pays for keeping its transition: in memory, on disk, and on a disk that hangs."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from rlpd_ros.bench.timing import Effort, paced
from rlpd_ros.bench.workload import SPACES, records
from rlpd_ros.data.outbox import Outbox
from rlpd_ros.data.spool_files import SpoolFolder
from rlpd_ros.ros.spools import open_spool
from rlpd_ros.tables import Row, at_most
from rlpd_ros.types import Acknowledgement, SpaceSpec

PERIOD = 0.02  # s: 50 Hz
SESSION = "actor-bench"


def control(spec: SpaceSpec, box: Outbox, acknowledged: bool, steps: int) -> tuple[np.ndarray, float]:
    """Return what each of ``steps`` steps at 50 Hz spends in the outbox, ms, and its processor time per step, ms."""
    travelling = records(spec, SESSION, steps)
    spent, cpu = [], time.process_time()
    for record, _ in zip(travelling, paced(PERIOD), strict=False):
        began = time.perf_counter()
        box.add(record)
        list(box.due(began))
        if acknowledged:
            box.acknowledge(Acknowledgement(SESSION, "learner", record.sequence, 0), began)
        spent.append(1e3 * (time.perf_counter() - began))
    return np.array(spent), 1e3 * (time.process_time() - cpu) / steps


def outbox(effort: Effort) -> Iterator[Row]:
    """Yield what a control step spends in the outbox, with and without a spool, a learner and a working disk."""
    write = os.pwrite

    def hang(*arguments) -> int:
        time.sleep(3.0)
        return write(*arguments)

    for name, spec in SPACES.items():
        for case, spooled, acknowledged, disk in (
                ("memory only", False, True, write), ("spool, acknowledged at once", True, True, write),
                ("spool, learner away", True, False, write),
                ("spool, learner away, writes take 3 s", True, False, hang)):
            with tempfile.TemporaryDirectory() as path:
                spool = open_spool(SpoolFolder(Path(path), 10**10), SESSION, spec) if spooled else None
                with mock.patch.object(os, "pwrite", disk):
                    spent, cpu = control(spec, Outbox(spool=spool), acknowledged, effort.samples // 2)
                if spool is not None:
                    spool.close(10.0)
            for what, value, limit in (
                    ("median", np.median(spent), 1.0), ("99 %", np.percentile(spent, 99), 2.0),
                    ("longest", spent.max(), 20.0), ("processor time, pacing included", cpu, 5.0)):
                yield at_most(f"outbox, {name}, {case}: {what}", float(value), limit, "ms")
