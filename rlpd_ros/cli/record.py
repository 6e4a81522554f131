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
    with Progress(disable=not sys.stdout.isatty()) as progress:
        bar = progress.add_task("Recording demonstrations", total=options.episodes)
        transitions = record_demonstrations(
            configurations.get("arm_driver", ArmConfig), Path(options.bag), options.episodes,
            lambda done: progress.update(bar, completed=done))
    print(f"{options.episodes} demonstrations, {transitions} transitions: {options.bag}")
    return 0
