# SPDX-License-Identifier: Apache-2.0
"""What it costs the learner to make transitions durable, by ``log_sync``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rlpd_ros.bench.timing import Effort, paced
from rlpd_ros.bench.workload import SPACES, records
from rlpd_ros.ros.run_log import RunLog
from rlpd_ros.settings import LogConfig
from rlpd_ros.tables import Row, informative

RATE = 50.0  # acknowledgements per s, of one transition each


def log(effort: Effort) -> Iterator[Row]:
    """Yield what each transition costs the learner, in the folder for temporary files (TMPDIR)."""
    seconds = 6 * effort.seconds
    for name, spec in SPACES.items():
        travelling = records(spec, "actor-bench", round(RATE * seconds))
        for policy in ("never", "period", "always"):
            with tempfile.TemporaryDirectory() as path:
                run_log = RunLog(Path(path, "log"), spec, LogConfig(log_sync=policy), 10**6)
                spent: list[float] = []
                began = time.perf_counter()
                for record, _ in zip(travelling, paced(1.0 / RATE), strict=False):
                    start = time.perf_counter()
                    run_log.write(record)
                    run_log.flush()
                    spent.append(time.perf_counter() - start)
                elapsed = time.perf_counter() - began
                run_log.close()
            values = 1e3 * np.array(spent)
            yield from (informative(f"log, {name}, log_sync {policy}: {what}", value, unit) for what, value, unit in (
                ("median", float(np.median(values)), "ms"), ("99 %", float(np.percentile(values, 99)), "ms"),
                ("longest", float(values.max()), "ms"),
                ("share of the learner's time", 100 * float(values.sum()) / 1e3 / elapsed, "%"),
                ("acknowledgements per s", len(values) / elapsed, "1/s")))
