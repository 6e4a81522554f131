# SPDX-License-Identifier: Apache-2.0
"""Where this package is installed: by colcon, by pip, or by a distribution, with or without a ROS environment."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import rlpd_ros
from rlpd_ros.errors import ConfigError


def prefix() -> Path:
    """Return the folder that holds this package's ``lib/rlpd_ros`` and ``share/rlpd_ros``.

    It is found from the package itself, so that no environment variable can lead to another installation. Raises
    ConfigError if this is a source tree that was not built.
    """
    for package in rlpd_ros.__path__:
        for folder in Path(package).parents:
            if (folder / "share" / "rlpd_ros" / "package.xml").is_file():
                return folder
    raise ConfigError(f"{rlpd_ros.__path__[0]} is not installed; build it (make build) and source env.sh")


def share() -> Path:
    """Return the folder with ``config/``, ``launch/`` and ``msg/``."""
    return prefix() / "share" / "rlpd_ros"


def make_known() -> None:
    """Let ament's index find this package, and what is installed beside it, where no environment script did."""
    known = [path for path in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if path]
    if str(prefix()) not in known:
        os.environ["AMENT_PREFIX_PATH"] = os.pathsep.join([str(prefix()), *known])


def find_log_folder() -> None:
    """Let ROS write its logs into a temporary folder where it has no other: it would start no node otherwise."""
    folder = os.environ.get("ROS_LOG_DIR") or os.path.join(os.environ.get("ROS_HOME") or "~/.ros", "log")
    writable = False
    if os.environ.get("HOME"):  # without, ROS does not know what ~ is
        with contextlib.suppress(OSError):
            os.makedirs(os.path.expanduser(folder), exist_ok=True)
            writable = os.access(os.path.expanduser(folder), os.W_OK)
    if not writable:
        os.environ["ROS_LOG_DIR"] = os.path.join(tempfile.gettempdir(), f"rlpd_ros_log_{os.getuid()}")
