# SPDX-License-Identifier: Apache-2.0
"""``rlpd record``: demonstrations by the arm's scripted expert."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.progress import Progress

from rlpd_ros.preparation import resolve
from rlpd_ros.record import record_demonstrations
from rlpd_ros.settings import ArmConfig


def main(options: argparse.Namespace) -> int:
    """Record, and say what was recorded."""
    configurations = resolve(options.config, options.preset, options.overrides, options.seed)
    recorded = 0
    with Progress(disable=not sys.stdout.isatty()) as progress:
        bar = progress.add_task("Recording demonstrations", total=options.episodes)

        def tell(done: int) -> None:
            nonlocal recorded
            recorded = done
            progress.update(bar, completed=done)

        try:
            transitions = record_demonstrations(
                configurations.get("arm_driver", ArmConfig), Path(options.bag), options.episodes, tell)
        except KeyboardInterrupt:
            if recorded:
                print(f"stopped; {recorded} demonstrations are in {options.bag}")
            raise
    print(f"{options.episodes} demonstrations, {transitions} transitions: {options.bag}")
    return 0
