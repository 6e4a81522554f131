# SPDX-License-Identifier: Apache-2.0
"""Kill, delay, cut off and restart real systems, and compare what was sent with what is there: ``make chaos``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import joins
import kills
import network
import slow

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.cli.runner import ros_domain
from rlpd_ros.record import record_demonstrations
from rlpd_ros.rl.compilation import keep_compiled
from rlpd_ros.ros.middleware import use_profile
from rlpd_ros.tables import Row, all_ok, print_table, write_report_json

Part = Callable[[Path, Path, argparse.Namespace], list[Row]]
PARTS: dict[str, Part] = {
    "kills": lambda folder, demos, options: kills.measure(
        folder, demos, options.kills or (4 if options.short else 200)),
    "network": lambda folder, demos, options: network.measure(folder, options.short),
    "joins": lambda folder, demos, options: joins.measure(folder, 10 if options.short else 500),
    "slow": lambda folder, demos, options: slow.measure(3.0 if options.short else 30.0)}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--short", action="store_true", help="a small part of each")
    parser.add_argument("--kills", type=int, help="how many")
    parser.add_argument("--report", default="chaos")
    options = parser.parse_args()
    keep_compiled()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        demos = Path(folder, "demos")
        record_demonstrations(ArmConfig(), demos, 3)
        for name in options.parts or PARTS:
            Path(folder, name).mkdir()
            with ros_domain():
                use_profile()
                found = PARTS[name](Path(folder, name), demos, options)
            print_table(name, found)
            rows += [Row(f"{name}: {row.name}", row.value, row.unit, row.target, row.ok) for row in found]
            write_report_json(options.report, rows)
    return 0 if all_ok(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
