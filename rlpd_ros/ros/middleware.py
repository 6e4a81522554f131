# SPDX-License-Identifier: Apache-2.0
"""The middleware's profile: with Fast DDS's own, who comes late is found late, and policies wait for room."""

from __future__ import annotations

import os

from rclpy.utilities import get_rmw_implementation_identifier

from rlpd_ros.installation import share

FILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")  # of Fast DDS 2, of 3
RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
_CHOICES = (*FILES, "FASTDDS_BUILTIN_TRANSPORTS")


def profile() -> dict[str, str]:
    """Return the environment that lets a process use config/fastdds.xml; {} if the user has chosen for himself.

    ROS_LOCALHOST_ONLY is such a choice too. Other middleware than Fast DDS looks at none of it. That nodes keep to this
    machine is told by another file: what rmw_fastrtps does for LOCALHOST, beside a profile, sends everything twice.
    """
    if os.environ.get("ROS_LOCALHOST_ONLY") == "1" or any(os.environ.get(name) for name in _CHOICES):
        return {}
    local = os.environ.get(RANGE) == "LOCALHOST" and not os.environ.get("ROS_STATIC_PEERS")
    if not (local and get_rmw_implementation_identifier().startswith("rmw_fastrtps")):
        return dict.fromkeys(FILES, str(share() / "config" / "fastdds.xml"))
    return {**dict.fromkeys(FILES, str(share() / "config" / "fastdds_local.xml")), RANGE: "SYSTEM_DEFAULT"}


def use_profile() -> None:
    """Let this process, if ROS is not up in it yet, and those that it starts use the profile."""
    os.environ.update(profile())
