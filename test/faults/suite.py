# SPDX-License-Identifier: Apache-2.0
"""Inject every fault into a real system and see what the doctor names first: ``make faults``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from cases import CASES, Case
from cost import measure
from system import System

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.cli.runner import ros_domain
from rlpd_ros.record import record_demonstrations
from rlpd_ros.ros.middleware import use_profile
from rlpd_ros.tables import Row, all_ok, print_table, write_report_json

LIMIT = 10.0  # s from the effect of a fault to its name
ROUNDS = 4  # looks at a healthy run


def examine(case: Case, folder: Path, demos: Path) -> tuple[str | None, float, str]:
    """Return the check that the doctor named first ("" none), after how many s, and what it said."""
    folder.mkdir()
    with ros_domain(), System(folder, demos, **case.parameters) as system:
        case.arrange(system)
        effect = time.monotonic()
        for _ in range(ROUNDS):
            told = system.doctor(*case.arguments)
            if told["verdict"] or (case.expected and time.monotonic() - effect > LIMIT):
                break
        said = told["checks"][0]["summary"] if told["checks"] else "; ".join(told["notes"])
        return told["verdict"] or "", time.monotonic() - effect, said


def demonstrations(folder: Path) -> Path:
    record_demonstrations(ArmConfig(cube_range=0.05), folder / "demos", 3)
    return folder / "demos"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", help="names of cases, or their beginnings (default: all)")
    parser.add_argument("--report", default="faults")
    options = parser.parse_args()
    with ros_domain():  # how far discovery goes, on which the profile depends
        use_profile()
    chosen = [c for c in CASES if not options.cases or any(c.name.startswith(name) for name in options.cases)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        demos = demonstrations(Path(folder))
        for case in chosen:
            try:
                verdict, seconds, said = examine(case, Path(folder, case.name), demos)
            except (AssertionError, OSError) as error:
                verdict, seconds, said = "not injected", 0.0, str(error)
            right = verdict == (case.expected or "") and (not case.expected or seconds <= LIMIT)
            rows.append(Row(case.name, verdict or "healthy", f"{seconds:.1f} s", case.expected or "healthy", right))
            print(f"{'ok  ' if right else 'MISS'} {case.name}: {verdict or 'healthy'} in {seconds:.1f} s"
                  + (f": {said}" if verdict else ""), flush=True)
        if not options.cases or "cost" in options.cases:
            rows += measure(Path(folder, "cost"), demos)
    print_table("Faults: what the doctor named first, and when", rows)
    write_report_json(options.report, rows)
    return 0 if all_ok(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
