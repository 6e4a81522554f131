# SPDX-License-Identifier: Apache-2.0
"""Any Gymnasium environment with a Box action and a Box or Dict observation, driven as an arm."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, TypeGuard

import gymnasium
import numpy as np
from gymnasium import spaces

from rlpd_ros.arm.config import GymnasiumArmConfig, json_object
from rlpd_ros.arm.driver import Expert
from rlpd_ros.arm.expert import Disturbance, gym_hil_pick_cube
from rlpd_ros.arm.opengl import NEEDED, find_backend
from rlpd_ros.arm.safety import admit_action
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.types import Observation, SpaceField, SpaceSpec, StepResult

_EXPERTS = {"gym_hil/PandaPickCubeBase-v0": (gym_hil_pick_cube, {"agent_pos", "environment_state"})}
"""Environment -> the expert of its task: state fields by name -> its action, in its own units; the fields it needs."""


class GymnasiumArm:
    """Drive the environment ``config.gym_env_id``.

    Actions map from [-1, 1] onto the Box's bounds or those of ``gym_action_map``. Float entries of the observation,
    of any shape, become float32 fields; uint8 entries of height x width x channels become images; nested entries get
    dotted names. The environment's time limit truncates. Its time stands still while it is not stepped.
    """

    def __init__(self, config: GymnasiumArmConfig):
        self._config = config
        self._env = _make(config)
        space = self._env.action_space
        if not _is_floats(space):
            raise ConfigError(f"{config.gym_env_id}: expected a Box action space of floats, found {space}")
        self._action_space = space
        self._elements, self._low, self._high = _action_map(config, space)
        self._neutral = np.clip(np.zeros(space.shape, np.float64), space.low, space.high).ravel()
        self._hold_action = self._normalised(self._neutral[self._elements])
        self._fields, self._paths = _observation_fields(config, self._env.observation_space)
        self.spec = SpaceSpec(
            robot=config.gym_env_id, observation=tuple(self._fields.values()),
            action=(SpaceField.box("action", self._low, self._high),), control_rate=config.control_rate,
            frame_id=config.gym_frame_id, max_episode_steps=_episode_steps(config, self._env),
            lockstep=config.lockstep)
        self._seed: int | None = config.seed
        self._last: Observation | None = None
        self._over = True

    def reset(self, seed: int | None = None) -> Observation:
        seed = self._seed if seed is None else seed
        self._seed = None  # from here on the environment's own sequence goes on
        if seed is not None:
            np.random.seed(seed % 2**32)  # gym_hil, among others, draws from NumPy's global generator
        raw, _ = self._env.reset(seed=seed)
        self._executed, self._over = self._hold_action, False
        return self._observe(raw)

    def step(self, action: np.ndarray) -> StepResult:
        if self._over:
            raise DataError("step: the episode is over; reset the arm first")
        admitted = admit_action(action, len(self._elements), self._executed, self._config.max_action_change)
        flat = self._neutral.copy()
        flat[self._elements] = self._low + (admitted.astype(np.float64) + 1.0) * 0.5 * (self._high - self._low)
        command = flat.reshape(self._action_space.shape).astype(self._action_space.dtype)
        raw, reward, terminated, truncated, info = self._env.step(command)
        self._executed, self._over = admitted, bool(terminated or truncated)
        try:
            observation = self._observe(raw)
        except DataError as error:  # which would mean that nothing has moved
            raise RuntimeError(str(error)) from error
        reward = float(reward)
        success = self._success(info, bool(terminated), reward)
        return StepResult(observation, reward, bool(terminated), bool(truncated and not terminated), success,
                          admitted.copy())

    def hold(self) -> StepResult:
        observation = self._last if self._last is not None else self.reset()
        return StepResult(observation, 0.0, False, False, False, self._hold_action.copy())

    def render(self) -> np.ndarray | None:
        return np.asarray(self._env.render()) if self._env.render_mode == "rgb_array" else None

    def telemetry(self) -> None:
        return None

    def expert(self, noise: float = 0.0, seed: int = 0) -> Expert | None:
        decide, needed = _EXPERTS.get(self._config.gym_env_id, (None, set()))
        if decide is None or not needed <= {field.name for field in self.spec.state_fields}:
            return None
        disturb = Disturbance(noise, seed)

        def act(observation: Observation) -> np.ndarray:
            named, at = {}, 0
            for field in self.spec.state_fields:
                named[field.name], at = observation.state[at:at + field.size], at + field.size
            motion = self._normalised(decide(named)[self._elements])
            moves = self._elements < 3  # not the gripper
            motion[moves] = disturb(motion[moves])
            return np.clip(motion, -1.0, 1.0)

        return act

    def close(self) -> None:
        self._over = True
        self._env.close()

    def _normalised(self, command: np.ndarray) -> np.ndarray:
        return (2.0 * (command - self._low) / (self._high - self._low) - 1.0).astype(np.float32)

    def _success(self, info: dict[str, Any], terminated: bool, reward: float) -> bool:
        told = [info[key] for key in self._config.gym_success_keys if key in info]
        return any(bool(value) for value in told) if told else terminated and reward > 0.0

    def _observe(self, raw: Any) -> Observation:
        state, images = [], {}
        for name, field in self._fields.items():
            value = raw
            for key in self._paths[name]:
                value = value[key]
            if field.is_image:
                images[name] = np.array(value, np.uint8).reshape(field.shape)  # environments may draw into it again
            else:
                state.append(np.asarray(value, np.float32).ravel())
                if not np.isfinite(state[-1]).all():
                    raise DataError(f"{self.spec.robot}: observation {name}: expected finite numbers, found "
                                    f"{state[-1].tolist()}")
        self._last = Observation(np.concatenate(state) if state else np.empty(0, np.float32), images)
        return self._last


def _make(config: GymnasiumArmConfig) -> gymnasium.Env:
    """Make the environment; raises ConfigError for whatever keeps it from being made."""
    if not config.gym_env_id:
        raise ConfigError("gym_env_id: expected the id of a Gymnasium environment, found nothing; set it")
    kwargs = json_object("gym_env_kwargs", config.gym_env_kwargs)
    if config.max_episode_steps:
        kwargs["max_episode_steps"] = config.max_episode_steps
    _choose_opengl()
    try:
        if config.gym_import_module:
            importlib.import_module(config.gym_import_module)
        return gymnasium.make(config.gym_env_id, **{"disable_env_checker": True, **kwargs})
    except ImportError as error:
        raise ConfigError(f"gym_import_module {config.gym_import_module!r}, gym_env_id {config.gym_env_id!r}: {error}: "
                          "install the package that provides the environment") from error
    except Exception as error:  # an environment's constructor may raise anything
        text = " ".join(str(error).split())
        hint = f"; {NEEDED}" if "OpenGL" in text else ""
        raise ConfigError(f"gym_env_id {config.gym_env_id!r} with {kwargs}: {text}{hint}") from error


def _choose_opengl() -> None:
    """Make MuJoCo render in software where there is neither a display nor a choice (MUJOCO_GL) of the user's.

    Some environments need OpenGL even without images. MuJoCo reads the variable when it is first imported.
    """
    headless = sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if headless and "MUJOCO_GL" not in os.environ:
        backend = find_backend()
        if backend:
            os.environ["MUJOCO_GL"] = backend


def _action_map(config: GymnasiumArmConfig, space: spaces.Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the commanded elements of the flattened action, and their values for -1 and for 1."""
    low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    chosen = json_object("gym_action_map", config.gym_action_map)
    if not chosen:
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ConfigError(f"{config.gym_env_id}: its action space {space} has no bounds; give them in "
                              'gym_action_map, e.g. {"0": [-1, 1]}')
        return np.arange(low.size), low, high
    try:
        elements = np.array([int(key) for key in chosen])
        bounds = np.array(list(chosen.values()), np.float64).reshape(len(chosen), 2)
    except (TypeError, ValueError):
        raise ConfigError('gym_action_map: expected element -> [value for -1, value for 1], e.g. {"0": [-0.02, 0.02]}, '
                          f"found {config.gym_action_map!r}") from None
    if not ((elements >= 0) & (elements < low.size)).all():
        raise ConfigError(f"gym_action_map: expected elements from 0 to {low.size - 1}, found {elements.tolist()}")
    inside = (low[elements] <= bounds[:, 0]) & (bounds[:, 0] < bounds[:, 1]) & (bounds[:, 1] <= high[elements])
    if not inside.all():
        at = int(np.argmin(inside))
        raise ConfigError(f"gym_action_map: element {elements[at]}: expected rising values from {low[elements[at]]:g} "
                          f"to {high[elements[at]]:g}, found {bounds[at].tolist()}")
    return elements, bounds[:, 0].copy(), bounds[:, 1].copy()


def _observation_fields(config: GymnasiumArmConfig,
                        space: spaces.Space) -> tuple[dict[str, SpaceField], dict[str, tuple]]:
    """Return the kept entries by name: as fields, and the keys that lead to them in a raw observation."""
    entries = _entries(space) if isinstance(space, spaces.Dict) else {"observation": ((), space)}
    names = config.gym_observation_keys or tuple(entries)
    for name in names:
        if name not in entries:
            raise ConfigError(f"gym_observation_keys: {config.gym_env_id} has no entry {name!r}; "
                              f"it has {', '.join(entries)}")
    spaces_of = _bounded(config, {name: entries[name][1] for name in names})
    return {name: _field(name, inner) for name, inner in spaces_of.items()}, {name: entries[name][0] for name in names}


def _bounded(config: GymnasiumArmConfig, entries: dict[str, spaces.Space]) -> dict[str, spaces.Space]:
    """Return the entries with the bounds of ``gym_observation_bounds``."""
    parameter = "gym_observation_bounds"
    given: dict[str, spaces.Space] = {}
    for name, bounds in json_object(parameter, config.gym_observation_bounds).items():
        space = entries.get(name)
        if not _is_floats(space):
            floats = ", ".join(known for known, entry in entries.items() if _is_floats(entry))
            raise ConfigError(f"{parameter}: expected entries of floats that are observed ({floats}), found {name!r}")
        try:
            with np.errstate(over="ignore"):  # what is too large for float32 is not finite
                low, high = (np.broadcast_to(np.asarray(bound, np.float32), space.shape) for bound in bounds)
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(f"{parameter}: {name}: expected [low, high], each a number or one for each element of "
                              f"{space.shape}, found {bounds!r}") from None
        if not (np.isfinite([low, high]).all() and (low < high).all()):
            raise ConfigError(f"{parameter}: {name}: expected finite numbers, low below high, found {bounds!r}")
        given[name] = spaces.Box(low, high, space.shape, np.float32)
    return entries | given


def _entries(space: spaces.Dict, path: tuple = ()) -> dict[str, tuple[tuple, spaces.Space]]:
    found: dict[str, tuple[tuple, spaces.Space]] = {}
    for key, inner in space.spaces.items():
        here = (*path, key)
        found |= _entries(inner, here) if isinstance(inner, spaces.Dict) else {".".join(map(str, here)): (here, inner)}
    return found


def _is_floats(space: spaces.Space | None) -> TypeGuard[spaces.Box]:
    return isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)


def _field(name: str, space: spaces.Space) -> SpaceField:
    if _is_floats(space):
        return SpaceField.box(name, space.low, space.high)
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3:
        return SpaceField.image(name, *space.shape)
    raise ConfigError(f"observation entry {name!r}: expected a Box of floats or a uint8 image of height x width x "
                      f"channels, found {space}; leave it out with gym_observation_keys")


def _episode_steps(config: GymnasiumArmConfig, env: gymnasium.Env) -> int:
    steps = env.spec.max_episode_steps if env.spec is not None else None
    if not steps:
        raise ConfigError(f"{config.gym_env_id} does not limit its episodes: set max_episode_steps")
    return steps
