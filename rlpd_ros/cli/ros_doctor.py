# SPDX-License-Identifier: Apache-2.0
"""``ros2 run rlpd_ros doctor``: the same as ``rlpd doctor``."""

from __future__ import annotations

import sys

from rlpd_ros.cli import main as rlpd


def main() -> int:
    arguments = sys.argv[1:]
    if "--ros-args" in arguments:
        arguments = arguments[:arguments.index("--ros-args")]
    return rlpd(["doctor", *arguments])
