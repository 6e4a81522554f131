# SPDX-License-Identifier: Apache-2.0
"""What it costs the learner to make transitions durable, by ``log_sync``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_outbox import PIXELS, STATE, make_record

from rlpd_ros.ros.run_log import RunLog
from rlpd_ros.settings import LogConfig
from rlpd_ros.tables import Row, informative, print_table, write_report_json

RATE = 50.0  # acknowledgements per s, of one transition each
SECONDS = 6.0


def measure(folder: str | None) -> list[Row]:
    rows = []
    for name, spec in (("state", STATE), ("two 128 x 128 images", PIXELS)):
        for policy in ("never", "period", "always"):
            with tempfile.TemporaryDirectory(dir=folder) as path:
                log = RunLog(Path(path, "log"), spec, LogConfig(log_sync=policy), 10**6)
                spent = []
                began = time.perf_counter()
                while time.perf_counter() - began < SECONDS:
                    record = make_record(spec, len(spent) + 1)
                    start = time.perf_counter()
                    log.write(record)
                    log.flush()
                    spent.append(time.perf_counter() - start)
                    time.sleep(max(0.0, 1.0 / RATE - spent[-1]))
                log.close()
            values = 1e3 * np.array(spent)
            rows += [informative(f"{name}, log_sync {policy}: {what}", value, unit) for what, value, unit in (
                ("median", float(np.median(values)), "ms"), ("99 %", float(np.percentile(values, 99)), "ms"),
                ("longest", float(values.max()), "ms"),
                ("share of the learner's time", 100 * float(values.sum()) / 1e3 / SECONDS, "%"),
                ("acknowledgements per s", len(values) / SECONDS, "1/s"))]
    return rows


if __name__ == "__main__":
    rows = measure(sys.argv[1] if len(sys.argv) > 1 else None)
    print_table("time that the learner spends on its log", rows)
    write_report_json("log", rows)
