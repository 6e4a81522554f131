# SPDX-License-Identifier: Apache-2.0
"""What a control step pays for keeping its transition: in memory, on disk, and on a disk that hangs."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from rlpd_ros.bench.timing import Effort
from rlpd_ros.data.outbox import Outbox
from rlpd_ros.data.spool_files import SpoolFolder
from rlpd_ros.ros.spools import open_spool
from rlpd_ros.tables import Row, at_most
from rlpd_ros.types import Acknowledgement, Observation, Source, SpaceField, SpaceSpec, TransitionRecord

PERIOD = 0.02  # s: 50 Hz
STATE = SpaceSpec("arm", (SpaceField.box("state", [-1] * 21, [1] * 21),),
                  (SpaceField.box("action", [-1] * 4, [1] * 4),), 50.0, "base", 100)
PIXELS = replace(STATE, observation=(*STATE.observation, *(SpaceField.image(name, 128, 128) for name in ("a", "b"))))


def make_record(spec: SpaceSpec, sequence: int) -> TransitionRecord:
    images = {f.name: np.full(f.shape, sequence % 256, np.uint8) for f in spec.image_fields}
    return TransitionRecord("a", sequence, 1, sequence, Observation(np.zeros(21, np.float32), images),
                            np.zeros(4, np.float32), 0.0, False, False, False, Source.POLICY, 1, None, spec.fingerprint)


def control(spec: SpaceSpec, box: Outbox, acknowledged: bool, steps: int) -> tuple[np.ndarray, float]:
    """Return what each of ``steps`` steps at 50 Hz spends in the outbox, ms, and its processor time per step, ms."""
    spent, cpu = [], time.process_time()
    for sequence in range(1, steps + 1):
        record = make_record(spec, sequence)
        began = time.perf_counter()
        box.add(record)
        list(box.due(began))
        if acknowledged:
            box.acknowledge(Acknowledgement("a", "l", sequence, 0), began)
        spent.append(1e3 * (time.perf_counter() - began))
        time.sleep(PERIOD)
    return np.array(spent), 1e3 * (time.process_time() - cpu) / steps


def outbox(effort: Effort) -> Iterator[Row]:
    """Yield what a control step spends in the outbox, with and without a spool, a learner and a working disk."""
    write = os.pwrite

    def hang(*arguments) -> int:
        time.sleep(3.0)
        return write(*arguments)

    for name, spec in (("state", STATE), ("two 128 x 128 images", PIXELS)):
        for case, spooled, acknowledged, disk in (
                ("memory only", False, True, write), ("spool, acknowledged at once", True, True, write),
                ("spool, learner away", True, False, write),
                ("spool, learner away, writes take 3 s", True, False, hang)):
            with tempfile.TemporaryDirectory() as path:
                os.pwrite = disk
                spool = open_spool(SpoolFolder(Path(path), 10**10), "a", spec) if spooled else None
                spent, cpu = control(spec, Outbox(spool=spool), acknowledged, effort.samples // 2)
                os.pwrite = write
                if spool is not None:
                    spool.close(10.0)
            for what, value, limit in (
                    ("median", np.median(spent), 1.0), ("99 %", np.percentile(spent, 99), 2.0),
                    ("longest", spent.max(), 20.0), ("processor time, pacing included", cpu, 5.0)):
                yield at_most(f"outbox, {name}, {case}: {what}", float(value), limit, "ms")
