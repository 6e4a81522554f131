# SPDX-License-Identifier: Apache-2.0
"""From a configuration to an arm."""

from __future__ import annotations

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.driver import ArmDriver


def make_arm(config: ArmConfig) -> ArmDriver:
    """Make the arm that ``config.arm`` names, importing only what it needs. Raises ConfigError."""
    if config.arm == "gymnasium":
        from rlpd_ros.arm.gymnasium_arm import GymnasiumArm
        return GymnasiumArm(config)
    from rlpd_ros.arm.mujoco_arm import MujocoArm
    return MujocoArm(config)
