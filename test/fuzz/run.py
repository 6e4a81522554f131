# SPDX-License-Identifier: Apache-2.0
"""Feed nodes and readers what they should never get, and print what became of it: ``make fuzz``."""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parent
PATHS = [str(FOLDER), str(FOLDER.parent), str(FOLDER.parent / "faults")]
sys.path[:0] = PATHS

from rlpd_ros.tables import Row, all_ok, at_least, at_most, informative, print_table, write_report_json  # noqa: E402

COUNTS = {"nodes": 100_000, "cameras": 100_000, "processes": 2_000, "bags": 10_000,
          "checkpoints": 10_000, "policies": 5_000, "parameters": 4_000, "decoders": 120}
"""Part -> messages on each topic, damaged files, or (decoders) seconds."""
MODULES = {name: name for name in ("nodes", "cameras", "processes")}  # the others are in files


def part(name: str, count: int, seed: int) -> list[Row]:
    """Run one part in this process."""
    sys.path[:0] = PATHS
    fuzz: Callable[[int, int], list[Row]] = getattr(importlib.import_module(MODULES.get(name, "files")), f"fuzz_{name}")
    return fuzz(count, seed)


def apart(name: str, count: int, seed: int) -> list[Row]:
    """Run one part in a process of its own, which may die of it."""
    if name == "decoders":
        return fuzz_decoders(count, seed)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(part, name, count, seed).result()
        except BrokenProcessPool:
            return [Row(name, "the process died", "", "lives", False)]
        except AssertionError as error:
            return [Row(name, str(error)[:300], "", "works afterwards", False)]


def fuzz_decoders(seconds: int, seed: int) -> list[Row]:
    """Let Atheris look for inputs that reach new lines, for so long."""
    if find_spec("atheris") is None:
        return [informative("decoders: Atheris", "not installed")]
    done = subprocess.run([sys.executable, str(FOLDER / "decoders.py"), str(seconds), str(seed)], capture_output=True,
                          text=True, check=False, errors="replace")
    said = done.stderr
    runs, covered = (re.findall(pattern, said) for pattern in (r"number_of_executed_units: (\d+)", r" cov: (\d+)"))
    if done.returncode:
        print(said[-3000:], file=sys.stderr)
    return [at_least("decoders: inputs that Atheris made", int(runs[-1]) if runs else 0, 1),
            informative("decoders: branches covered, first input", int(covered[0]) if covered else None),
            informative("decoders: branches covered, last input", int(covered[-1]) if covered else None),
            at_most("decoders: findings", int(done.returncode != 0), 0)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*COUNTS, []], metavar="PART", help=f"of {', '.join(COUNTS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full numbers (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", default="fuzz")
    options = parser.parse_args()
    rows = []
    for name in options.parts or COUNTS:
        rows += (found := apart(name, max(4, int(COUNTS[name] * options.scale)), options.seed))
        print_table(f"Fuzzing: {name}", found)
        sys.stdout.flush()
    write_report_json(options.report, rows)
    return 0 if all_ok(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
