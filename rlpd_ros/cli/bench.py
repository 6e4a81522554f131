# SPDX-License-Identifier: Apache-2.0
"""``rlpd bench``: measure the hot paths on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlpd_ros.cli.runner import ros_domain
from rlpd_ros.ros.middleware import use_profile
from rlpd_ros.tables import all_ok, print_table, write_report_json


def main(options: argparse.Namespace) -> int:
    """Run the benchmarks, print one table and write one JSON file; fail if a target was missed."""
    from rlpd_ros.bench.suite import run
    from rlpd_ros.bench.timing import FULL, QUICK
    from rlpd_ros.rl.compilation import keep_compiled
    from rlpd_ros.ros.main import keep_memory

    Path(options.out).mkdir(parents=True, exist_ok=True)  # to know now, and not in ten minutes, if that cannot be
    keep_memory()  # as a node does: before there are threads
    keep_compiled()
    with ros_domain():
        use_profile()
        rows = run(options.names, QUICK if options.quick else FULL,
                   lambda name: print(f"measuring: {name}", file=sys.stderr, flush=True))
    print_table("Benchmarks, quick" if options.quick else "Benchmarks", rows)
    print(write_report_json("bench", rows, options.out))
    return 0 if all_ok(rows) else 1
