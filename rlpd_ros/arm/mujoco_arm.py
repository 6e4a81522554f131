# SPDX-License-Identifier: Apache-2.0
"""A simulated Franka Panda that picks up a cube: no meshes; some two thousand control steps a second, unseen."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np

from rlpd_ros.arm.config import MujocoArmConfig
from rlpd_ros.arm.driver import Expert, Telemetry
from rlpd_ros.arm.expert import Disturbance, pick_motion
from rlpd_ros.arm.kinematics import ToolKinematics
from rlpd_ros.arm.safety import admit_action, clip, limit_joint_motion
from rlpd_ros.arm.scene_cameras import SceneCameras
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.types import Observation, SpaceField, SpaceSpec, StepResult

_MODEL = Path(__file__).with_name("panda_cube.xml")
_FRAME = "panda_link0"
_JOINTS = 7
_FINGERS = slice(_JOINTS, _JOINTS + 2)
_OPEN = 0.08  # m between the open fingers
_HOLDING = 0.042  # m between the fingers once they have closed on the cube
_READY = np.array((0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785))  # rad, where the search for the home posture starts
_EPISODE_STEPS = 50  # three times what the expert takes
_PICTURE = ("overview", 400, 300)  # for people: camera, width and height in pixels
_MARGIN = 0.05  # m beyond the workspace that positions may be observed


class MujocoArm:
    """Move a simulated Panda's tool, pointing down, in x, y and z and open and close its fingers.

    Action (4): the tool's motion in units of ``translation_scale``, and the opening to go to, -1 closed, 1 open; the
    fingers move at the real hand's speed, 1 cm of opening per 0.1 s. Observation (21): joint positions and velocities,
    finger opening, the tool's position, and, with ``observe_cube``, the way from there to the cube; the pictures of
    ``cameras``. Reward 1 and termination when the cube is held ``lift_height`` above where it lay; reward 0 and
    termination when the cube has left the tool's workspace, for then no reward can follow.
    """

    def __init__(self, config: MujocoArmConfig):
        self._config = config
        self._model = model = mujoco.MjModel.from_xml_path(str(_MODEL))
        self._data = data = mujoco.MjData(model)
        self._kinematics = ToolKinematics(model, _JOINTS, "tool")
        self._substeps = _substeps(config.control_rate, model.opt.timestep)
        self._period = self._substeps * model.opt.timestep
        self._scale = np.asarray(config.translation_scale)
        self._box_low, self._box_high = np.asarray(config.workspace_low), np.asarray(config.workspace_high)
        _check(config)
        self._joint_low, self._joint_high = model.jnt_range[:_JOINTS].T.copy()
        self._max_motion = model.actuator_ctrlrange[:_JOINTS, 1] * self._period
        # A servo's damping slows its joint; so many seconds ahead of the set point it damps the velocity error instead.
        self._lead_time = model.actuator_biasprm[:_JOINTS, 2] / model.actuator_biasprm[:_JOINTS, 1]
        self._home = self._find_home()
        self.spec = self._make_spec()
        self._low, self._high = self.spec.state_bounds
        self._cameras = SceneCameras(model, data, config.cameras, config.image_width, config.image_height) if (
            config.cameras) else None
        self._overview: SceneCameras | None = None  # until somebody looks

        self._positions, self._velocities = data.qpos, data.qvel  # views: to look an attribute of MjData up takes time
        self._tool = data.site_xpos[model.site("tool").id]
        self._cube = data.joint("cube").qpos[:3]
        self._cube_geom = model.geom("cube").id
        self._finger_geoms = {model.geom("left_finger").id, model.geom("right_finger").id}
        self._arm_speed, self._finger_speed = data.ctrl[:_JOINTS], data.ctrl[_FINGERS]
        self._arm_servo, self._finger_servo = data.act[:_JOINTS], data.act[_FINGERS]
        self.reset(config.seed)  # the arm stands at home before its first episode too
        self._rng = np.random.default_rng(config.seed)
        self._over = True

    def reset(self, seed: int | None = None) -> Observation:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        mujoco.mj_resetData(self._model, self._data)
        self._positions[:_JOINTS] = self._arm_servo[:] = self._setpoint = self._home
        self._positions[_FINGERS] = self._finger_servo[:] = _OPEN / 2
        self._cube[:2] = self._config.cube_center + self._config.cube_range * self._rng.uniform(-0.5, 0.5, 2)
        mujoco.mj_forward(self._model, self._data)
        self._cube_start = float(self._cube[2])
        self._target = self._tool.copy()
        self._executed = np.array((0.0, 0.0, 0.0, 1.0), np.float32)
        self._steps, self._over = 0, False
        return self._observe()

    def step(self, action: np.ndarray) -> StepResult:
        if self._over:
            raise DataError("step: the episode is over; reset the arm first")
        self._move(admit_action(action, 4, self._executed, self._config.max_action_change))
        self._steps += 1
        success, lost = self._outcome()
        terminated = success or lost
        truncated = not terminated and self._steps >= self.spec.max_episode_steps
        self._over = terminated or truncated
        return StepResult(self._observe(), float(success), terminated, truncated, success,
                          self._executed.copy())

    def hold(self) -> StepResult:
        self._move(np.array((0.0, 0.0, 0.0, self._executed[3]), np.float32))
        return StepResult(self._observe(), 0.0, False, False, False, self._executed.copy())

    def render(self) -> np.ndarray:
        camera, width, height = _PICTURE
        if self._overview is None:
            self._overview = SceneCameras(self._model, self._data, (camera,), width, height, for_people=True)
        return self._overview.look()[camera]

    def telemetry(self) -> Telemetry:
        joints, data = slice(0, _FINGERS.stop), self._data
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, data.site("tool").xmat)
        return Telemetry(
            joint_names=tuple(self._model.joint(i).name for i in range(joints.stop)),
            position=data.qpos[joints].copy(), velocity=data.qvel[joints].copy(),
            effort=data.qfrc_actuator[joints].copy(),
            ee_position=self._tool.copy(), ee_orientation=np.roll(quaternion, -1))

    def expert(self, noise: float = 0.0, seed: int = 0) -> Expert:
        disturb = Disturbance(noise, seed)

        def act(observation: Observation) -> np.ndarray:
            opening = observation.state[14]
            motion, close = pick_motion(self._cube - self._tool, closed=opening < _HOLDING)  # observed or not
            return np.append(disturb(motion / self._scale), -1.0 if close else 1.0).astype(np.float32)

        return act

    def close(self) -> None:
        self._over = True
        for cameras in (self._cameras, self._overview):
            if cameras is not None:
                cameras.close()

    def _move(self, action: np.ndarray) -> None:
        """Make an admissible action's motion, as far as the limits allow, and note what was executed."""
        action[:3] = self._command_tool(action[:3])
        self._finger_speed[:] = ((action[3] + 1.0) * (_OPEN / 4) - self._finger_servo) / self._period
        mujoco.mj_step(self._model, self._data, self._substeps)
        mujoco.mj_kinematics(self._model, self._data)  # mj_step leaves the positions from before its last substep
        self._executed = action

    def _command_tool(self, action: np.ndarray) -> np.ndarray:
        """Set the joints' velocities for a motion of the tool; return the motion that the limits left of it."""
        lead = self._config.max_lead
        target = clip(self._target + action * self._scale, self._tool - lead, self._tool + lead)
        target = clip(target, self._box_low, self._box_high)
        wanted = self._kinematics.step(self._setpoint, target, self._home)
        motion = limit_joint_motion(self._setpoint, wanted, self._joint_low, self._joint_high, self._max_motion)
        if (motion != wanted).any():
            target = self._kinematics.moved(motion)
        self._arm_speed[:] = velocity = motion / self._period
        self._arm_servo[:] = self._setpoint + self._lead_time * velocity
        self._setpoint = self._setpoint + motion
        executed = clip((target - self._target) / self._scale, -1.0, 1.0)
        self._target = target
        return executed

    def _observe(self) -> Observation:
        state = np.empty(self._low.size, np.float32)
        state[:7] = self._positions[:_JOINTS]
        state[7:14] = self._velocities[:_JOINTS]
        state[14] = self._positions[7] + self._positions[8]
        state[15:18] = self._tool
        if self._config.observe_cube:
            state[18:21] = self._cube - self._tool
        images = self._cameras.look() if self._cameras is not None else {}
        return Observation(clip(state, self._low, self._high), images)

    def _outcome(self) -> tuple[bool, bool]:
        """Return whether the cube is held high enough, and whether it is out of reach."""
        x, y, z = self._cube.tolist()
        lifted = z - self._cube_start >= self._config.lift_height
        low, high = self._config.workspace_low, self._config.workspace_high
        return lifted and self._held(), not (low[0] <= x <= high[0] and low[1] <= y <= high[1])

    def _held(self) -> bool:
        pairs = self._data.contact.geom
        touching = pairs[(pairs == self._cube_geom).any(axis=1)]
        return self._finger_geoms <= set(touching.ravel().tolist())

    def _find_home(self) -> np.ndarray:
        wanted = np.asarray(self._config.home_position)
        home = self._kinematics.posture(wanted, _READY)
        reached = self._kinematics.position(home)
        if not np.allclose(reached, wanted, atol=1e-3):
            raise ConfigError(f"home_position: the arm cannot reach {wanted.tolist()} m, it gets to "
                              f"{reached.round(3).tolist()} m; choose a point nearer to it")
        return home

    def _make_spec(self) -> SpaceSpec:
        config = self._config
        speed = self._model.actuator_ctrlrange[:_JOINTS, 1]
        low, high = self._box_low - _MARGIN, self._box_high + _MARGIN
        low[2] = 0.0
        opening = SpaceField.box("gripper_opening", (0.0,), (_OPEN,), "m")
        cube = (SpaceField.box("cube_offset", low - high, high - low, "m"),) if config.observe_cube else ()
        return SpaceSpec(
            robot="mujoco_panda",
            observation=(
                SpaceField.box("joint_position", self._joint_low, self._joint_high, "rad"),
                SpaceField.box("joint_velocity", -speed, speed, "rad/s"),
                opening,
                SpaceField.box("ee_position", low, high, "m"),
                *cube,
                *(SpaceField.image(name, config.image_height, config.image_width) for name in config.cameras),
            ),
            action=(SpaceField.box("ee_motion", -self._scale, self._scale, "m"), opening),
            control_rate=config.control_rate, frame_id=_FRAME,
            max_episode_steps=config.max_episode_steps or _EPISODE_STEPS, lockstep=config.lockstep)


def _substeps(control_rate: float, timestep: float) -> int:
    count = round(1.0 / (control_rate * timestep))
    if count < 1 or not np.isclose(count * timestep * control_rate, 1.0):
        raise ConfigError(f"control_rate: expected a divisor of the physics rate, {1.0 / timestep:g} Hz, "
                          f"found {control_rate:g} Hz")
    return count


def _check(config: MujocoArmConfig) -> None:
    """Raise ConfigError unless the task can be done in the workspace."""
    for name, size in (("translation_scale", 3), ("workspace_low", 3), ("workspace_high", 3), ("home_position", 3),
                       ("cube_center", 2)):
        value = getattr(config, name)
        if len(value) != size:
            raise ConfigError(f"{name}: expected {size} numbers, found {list(value)}")
    low, high = np.asarray(config.workspace_low), np.asarray(config.workspace_high)
    if not (low < high).all():
        raise ConfigError(f"workspace_high: expected more than workspace_low {low.tolist()}, found {high.tolist()}")
    half = np.full(2, config.cube_range / 2)
    for name, lowest, highest in (("home_position", config.home_position, config.home_position),
                                  ("cube_center, cube_range", config.cube_center - half, config.cube_center + half)):
        n = len(lowest)
        if not ((low[:n] <= lowest).all() and (highest <= high[:n]).all()):
            raise ConfigError(f"{name}: expected positions within the workspace, from {low[:n].tolist()} to "
                              f"{high[:n].tolist()} m, found {list(map(float, lowest))} to {list(map(float, highest))}")
    if config.max_lead < max(config.translation_scale):
        raise ConfigError(f"max_lead: expected at least translation_scale, {max(config.translation_scale)} m, "
                          f"found {config.max_lead} m")
