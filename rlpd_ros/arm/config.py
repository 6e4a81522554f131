# SPDX-License-Identifier: Apache-2.0
"""The parameters of every arm: one flat set, so that each is a ROS parameter of the arm driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlpd_ros.config import parameter
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.untrusted import parse_json


@dataclass(frozen=True)
class CameraConfig:
    """What images are observed, and from which topics a real arm's come. See docs/cameras.md."""

    image_width: int = parameter(
        128, "of the observed images, pixels; a Gymnasium environment has its own", low=8, high=2048)
    image_height: int = parameter(
        128, "of the observed images, pixels; a Gymnasium environment has its own", low=8, high=2048)
    camera_topics: tuple[str, ...] = parameter(
        (), "cameras to observe by, each NAME=TOPIC: sensor_msgs/Image, CompressedImage if TOPIC ends in /compressed")
    camera_crops: tuple[str, ...] = parameter(
        (), "what of their pictures to use, each NAME=X,Y,WIDTH,HEIGHT in pixels; without: all")
    camera_sizes: tuple[str, ...] = parameter(
        (), "other sizes than image_width and image_height for some of them, each NAME=WIDTH,HEIGHT")
    camera_max_difference: float = parameter(
        0.1, "largest difference between the stamps of an image and of the state, s; beyond it the arm holds still",
        low=0.001, high=10.0)


@dataclass(frozen=True)
class DriverConfig(CameraConfig):
    """What every arm driver is told."""

    control_rate: float = parameter(10.0, "actions per second, Hz", low=0.1, high=1000.0)
    lockstep: bool = parameter(True, "wait for each action (simulation) instead of ticking at control_rate")
    max_episode_steps: int = parameter(0, "truncate an episode after so many steps; 0: the task's own limit", low=0)
    max_action_change: float = parameter(
        2.0, "largest change of an action's element from one step to the next, normalised; 2: no limit",
        low=0.01, high=2.0)
    seed: int = parameter(0, "of the start positions", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class MujocoArmConfig(DriverConfig):
    """The cube task. Positions in panda_link0: x forward, y left, z up from the table's top."""

    translation_scale: tuple[float, ...] = parameter(
        (0.025, 0.025, 0.025), "motion of the tool for an action of 1: x, y, z, m per step", low=0.001, high=0.2)
    workspace_low: tuple[float, ...] = parameter(
        (0.3, -0.15, 0.015), "lower corner of the box that the tool stays in, m", low=-1.0, high=1.0)
    workspace_high: tuple[float, ...] = parameter(
        (0.6, 0.15, 0.35), "upper corner of the box that the tool stays in, m", low=-1.0, high=1.0)
    home_position: tuple[float, ...] = parameter(
        (0.45, 0.0, 0.2), "where the tool is after a reset, m", low=-1.0, high=1.0)
    max_lead: float = parameter(
        0.03, "how far the commanded position may run ahead of the tool, where something blocks it, m per axis; "
        "more than translation_scale", low=0.005, high=0.3)
    cube_center: tuple[float, ...] = parameter(
        (0.45, 0.0), "centre of the square in which the cube starts: x, y, m", low=-1.0, high=1.0)
    cube_range: float = parameter(0.2, "side of that square, m", low=0.0, high=1.0)
    lift_height: float = parameter(0.1, "the held cube has to rise so far, m", low=0.01, high=0.5)
    cameras: tuple[str, ...] = parameter((), "simulated cameras to observe by: front, wrist, overview; empty: none")
    observe_cube: bool = parameter(True, "observe where the cube is; without, only cameras show it")


@dataclass(frozen=True)
class GymnasiumArmConfig(DriverConfig):
    """A Gymnasium environment with a Box action and a Box or Dict observation."""

    gym_env_id: str = parameter("", "id of a registered environment, e.g. gym_hil/PandaPickCubeBase-v0")
    gym_env_kwargs: str = parameter("{}", "keyword arguments for gymnasium.make, as a JSON object")
    gym_import_module: str = parameter("", "module to import first, for it registers the environment, e.g. gym_hil")
    gym_observation_keys: tuple[str, ...] = parameter(
        (), "entries of a Dict observation to keep, in this order, nested ones as outer.inner; empty: all")
    gym_observation_bounds: str = parameter(
        "{}", "low and high of entries that have no real bounds, each a number or one for each element, as a JSON "
        'object: {"agent_pos": [-3.1, 3.1]}; an observation that is not a Dict is called observation')
    gym_action_map: str = parameter(
        "{}", "elements of the environment's action that a policy commands, each with the values for -1 and 1, as a "
        'JSON object: {"0": [-0.02, 0.02], "6": [-1, 1]}; the others stay at 0. Empty: all, over their bounds')
    gym_success_keys: tuple[str, ...] = parameter(
        ("is_success", "success", "succeed"), "entries of info that tell success; where none is there, an episode "
        "that terminates with a positive reward is one")
    gym_frame_id: str = parameter("world", "frame of the environment's positions")


@dataclass(frozen=True)
class ArmConfig(MujocoArmConfig, GymnasiumArmConfig):
    """Which arm, and the parameters of all."""

    arm: str = parameter("mujoco", "which arm to drive: mujoco, gymnasium, or MODULE:CLASS, an ArmDriver of your own "
                         "that is made with these parameters")
    arm_kwargs: str = parameter("{}", "keyword arguments for that class, besides these parameters, as a JSON object")


def json_object(name: str, text: str) -> dict[str, Any]:
    """Return the JSON object that a parameter holds. Raises ConfigError with the parameter's ``name``."""
    try:
        value = parse_json(text)
    except DataError as error:
        raise ConfigError(f"{name}: expected a JSON object, found {text!r}: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: expected a JSON object, found {text!r}")
    return value
