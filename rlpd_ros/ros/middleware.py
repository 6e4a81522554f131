# SPDX-License-Identifier: Apache-2.0
"""The middleware's profile: with Fast DDS's own, a large policy waits for room in shared memory, piece by piece."""

from __future__ import annotations

import os

from rlpd_ros.installation import share

_FILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")  # of Fast DDS 2, of 3
_CHOICES = (*_FILES, "FASTDDS_BUILTIN_TRANSPORTS")


def use_profile() -> None:
    """Let this process, if ROS is not up in it yet, and those that it starts use config/fastdds.xml.

    What the user has chosen in the environment stays in force, and so does ROS_LOCALHOST_ONLY, which is a choice of
    transports too. Other middleware than Fast DDS looks at none of it.
    """
    if os.environ.get("ROS_LOCALHOST_ONLY") != "1" and not any(os.environ.get(name) for name in _CHOICES):
        os.environ.update(dict.fromkeys(_FILES, str(share() / "config" / "fastdds.xml")))
