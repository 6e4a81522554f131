# SPDX-License-Identifier: Apache-2.0
"""``rlpd record``: demonstrations by the arm's scripted expert."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.progress import track

from rlpd_ros.preparation import resolve
from rlpd_ros.record import record_demonstrations
from rlpd_ros.settings import ArmConfig


def main(options: argparse.Namespace) -> int:
    """Record, and say what was recorded."""
    configurations = resolve(options.config, options.preset, options.overrides, options.seed)
    bar = iter(track(range(options.episodes), "Recording demonstrations"))
    next(bar, None)
    transitions = record_demonstrations(
        configurations.get("arm_driver", ArmConfig), Path(options.bag), options.episodes, lambda _: next(bar, None))
    print(f"{options.episodes} demonstrations, {transitions} transitions: {options.bag}")
    return 0
