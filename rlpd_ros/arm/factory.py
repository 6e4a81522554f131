# SPDX-License-Identifier: Apache-2.0
"""From a configuration to an arm."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from importlib import import_module

from rlpd_ros.arm.config import ArmConfig, json_object
from rlpd_ros.arm.driver import ArmDriver
from rlpd_ros.arm.opengl import NEEDED
from rlpd_ros.errors import ConfigError
from rlpd_ros.untrusted import printable

_PARTS = ("spec", "reset", "step")  # without which nothing is an arm


def make_arm(config: ArmConfig) -> ArmDriver:
    """Make the arm that ``config.arm`` names, importing only what it needs. Raises ConfigError."""
    if config.arm == "gymnasium":
        from rlpd_ros.arm.gymnasium_arm import GymnasiumArm
        return GymnasiumArm(config)
    if config.arm == "mujoco":
        try:
            from rlpd_ros.arm.mujoco_arm import MujocoArm
        except (ImportError, AttributeError, RuntimeError) as error:  # MuJoCo loads the OpenGL that it is told to
            if not (wanted := os.environ.get("MUJOCO_GL")):
                raise
            raise ConfigError(f"MuJoCo cannot draw by MUJOCO_GL={wanted}: {error}; {NEEDED}") from error
        return MujocoArm(config)
    module, colon, name = config.arm.partition(":")
    if not (colon and name) or module.startswith(".") or not module:
        raise ConfigError(f"arm: expected mujoco, gymnasium, or MODULE:CLASS of your own, found {config.arm!r}")
    try:
        make = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"arm {config.arm!r}: {error}; is the folder of {module}.py on PYTHONPATH?") from error
    kwargs = json_object("arm_kwargs", config.arm_kwargs)
    try:
        inspect.signature(make).bind(config, **kwargs)
    except (TypeError, ValueError) as error:  # ValueError: of what is built into Python this cannot be told
        raise ConfigError(f"arm_kwargs: {name} cannot be made with {config.arm_kwargs}: {error}") from error
    try:
        arm = make(config, **kwargs)
    except TypeError as error:
        if hasattr(make, "reset"):  # a fault of somebody's arm is to be seen whole
            raise
        raise ConfigError(f"arm {config.arm!r}: expected a class of an arm, found {name}, which makes none: "
                          f"{printable(error)}") from error
    missing = [part for part in _PARTS if not (hasattr(type(arm), part) or hasattr(arm, part))]
    if missing:
        raise ConfigError(f"arm {config.arm!r}: expected an arm with {', '.join(_PARTS)}, found "
                          f"'{type(arm).__name__}' without {', '.join(missing)}; see docs/your_arm.md")
    return arm


def make_arm_alone(config: ArmConfig) -> ArmDriver:
    """Make an arm for a process without ROS. Raises ConfigError for one that sees by topics too.

    It is in lockstep: nobody ticks here, so ``step`` itself has to last a whole control period.
    """
    if config.camera_topics:
        raise ConfigError("camera_topics: only the arm driver node gets images from topics, and this runs without it; "
                          "record demonstrations by a person (docs/demonstrations.md), and evaluate by eval_every "
                          "while the nodes run")
    return make_arm(replace(config, lockstep=True))
