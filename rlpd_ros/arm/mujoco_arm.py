# SPDX-License-Identifier: Apache-2.0
"""A simulated Franka Panda that picks up a cube: no meshes, no OpenGL, thousands of control steps a second."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from rlpd_ros.arm.driver import DriverConfig, Expert, Telemetry
from rlpd_ros.arm.expert import Disturbance, pick_motion
from rlpd_ros.arm.safety import admit_action, limit_joint_motion
from rlpd_ros.config import parameter
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.types import Observation, SpaceField, SpaceSpec, StepResult

_MODEL = Path(__file__).with_name("panda_cube.xml")
_FRAME = "panda_link0"
_JOINTS = 7
_OPEN = 0.08  # m between the open fingers
_EPISODE_STEPS = 100
_READY = (0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785)  # rad, where the search for the home posture starts
_DAMPING = 1e-4  # of the least squares, square of a Jacobian's singular value that is small
_POSTURE_GAIN = 0.1  # share of the way back to the home posture that redundancy makes per step
_DOWN = np.array((1.0, -1.0, -1.0))  # diagonal of the tool's rotation matrix


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
        0.03, "how far the commanded position may run ahead of the tool where something blocks it, m per axis",
        low=0.005, high=0.2)
    cube_center: tuple[float, ...] = parameter(
        (0.45, 0.0), "centre of the square in which the cube starts: x, y, m", low=-1.0, high=1.0)
    cube_range: float = parameter(0.2, "side of that square, m", low=0.0, high=1.0)
    lift_height: float = parameter(0.1, "the held cube has to rise so far, m", low=0.01, high=0.5)


class MujocoArm:
    """Move a simulated Panda's tool, pointing down, in x, y and z and open and close its fingers.

    Action (4): the tool's motion in units of ``translation_scale``, and the opening to go to, -1 closed, 1 open; the
    fingers close at the real hand's speed, so that takes several steps. Observation (21): see ``spec``.
    Reward 1 and termination when the cube is held ``lift_height`` above where it lay; reward 0 and termination when
    the cube has left the tool's workspace, since then no reward can follow.
    """

    def __init__(self, config: MujocoArmConfig):
        self._config = config
        self._model = mujoco.MjModel.from_xml_path(str(_MODEL))
        self._data = mujoco.MjData(self._model)
        self._kinematics = mujoco.MjData(self._model)  # at the set point: separate from the physics
        self._substeps = _substeps(config.control_rate, self._model.opt.timestep)
        self._period = self._substeps * self._model.opt.timestep
        self._tool = self._model.site("tool").id
        self._cube_geom = self._model.geom("cube").id
        self._finger_geoms = {self._model.geom("left_finger").id, self._model.geom("right_finger").id}
        self._joint_low, self._joint_high = self._model.jnt_range[:_JOINTS].T.copy()
        self._max_motion = self._model.actuator_ctrlrange[:_JOINTS, 1] * self._period
        self._scale = np.asarray(config.translation_scale)
        self._box_low, self._box_high = np.asarray(config.workspace_low), np.asarray(config.workspace_high)
        self._check_geometry()
        self.spec = self._make_spec()
        self._low, self._high = self.spec.state_bounds
        # A servo's damping acts on its joint's velocity; so much ahead of the set point it acts on the velocity error.
        self._velocity_lead = (self._model.actuator_biasprm[:_JOINTS, 2] / self._model.actuator_biasprm[:_JOINTS, 1])
        self._jacobian = np.zeros((6, self._model.nv))
        self._rng = np.random.default_rng(config.seed)
        self._home = self._posture(np.asarray(config.home_position))
        self._over = True

    def reset(self, seed: int | None = None) -> Observation:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        data, config = self._data, self._config
        mujoco.mj_resetData(self._model, data)
        data.qpos[:_JOINTS] = data.act[:_JOINTS] = self._joints = self._home
        data.qpos[_JOINTS:_JOINTS + 2] = data.act[_JOINTS:] = _OPEN / 2
        cube = data.joint("cube").qpos
        cube[:2] = np.asarray(config.cube_center) + config.cube_range * self._rng.uniform(-0.5, 0.5, 2)
        mujoco.mj_forward(self._model, data)
        self._cube_start = float(cube[2])
        self._target = data.site_xpos[self._tool].copy()
        self._previous = np.array((0.0, 0.0, 0.0, 1.0), np.float32)
        self._steps, self._over = 0, False
        return self._observe()

    def step(self, action: np.ndarray) -> StepResult:
        if self._over:
            raise DataError("step: the episode is over; reset the arm first")
        admitted = admit_action(action, self._previous, 4, self._config.max_action_change)
        return self._advance(admitted)

    def hold(self) -> StepResult:
        if self._over:
            raise DataError("hold: the episode is over; reset the arm first")
        return self._advance(np.array((0.0, 0.0, 0.0, self._previous[3]), np.float32))

    def telemetry(self) -> Telemetry:
        data, joints = self._data, slice(0, _JOINTS + 2)
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, data.site_xmat[self._tool])
        return Telemetry(
            joint_names=tuple(self._model.joint(i).name for i in range(_JOINTS + 2)),
            position=data.qpos[joints].copy(), velocity=data.qvel[joints].copy(),
            effort=data.qfrc_actuator[joints].copy(),
            ee_position=data.site_xpos[self._tool].copy(), ee_orientation=np.roll(quaternion, -1))

    def expert(self, noise: float = 0.0, seed: int = 0) -> Expert:
        disturb = Disturbance(noise, seed)

        def act(observation: Observation) -> np.ndarray:
            opening, tool, cube = observation.state[14], observation.state[15:18], observation.state[18:21]
            motion, close = pick_motion(tool, cube, closed=opening < 0.042)
            return np.append(disturb(motion / self._scale), -1.0 if close else 1.0).astype(np.float32)

        return act

    def close(self) -> None:
        self._over = True

    def _advance(self, action: np.ndarray) -> StepResult:
        """Move for one control period; ``action`` (4,) is admissible and becomes what was executed."""
        action[:3] = self._command_tool(action[:3])
        self._command_fingers(action[3])
        mujoco.mj_step(self._model, self._data, self._substeps)
        mujoco.mj_kinematics(self._model, self._data)  # positions of the last substep, not of the one before it
        self._previous = action
        self._steps += 1
        observation = self._observe()
        success, lost = self._outcome()
        terminated = success or lost
        truncated = not terminated and self._steps >= self.spec.max_episode_steps
        self._over = terminated or truncated
        return StepResult(observation, float(success), terminated, truncated, success, action.copy())

    def _command_tool(self, action: np.ndarray) -> np.ndarray:
        """Set the joints' velocities for a motion of the tool; return the motion that the limits left of it."""
        data = self._data
        measured, lead = data.site_xpos[self._tool], self._config.max_lead
        target = np.clip(self._target + action * self._scale, measured - lead, measured + lead)
        np.clip(target, self._box_low, self._box_high, out=target)

        position, wanted = self._solve(self._joints, target)
        motion = limit_joint_motion(self._joints, wanted, self._joint_low, self._joint_high, self._max_motion)
        if not np.array_equal(motion, wanted):
            target = position + self._jacobian[:3, :_JOINTS] @ motion
        velocity = motion / self._period
        data.ctrl[:_JOINTS] = velocity
        data.act[:_JOINTS] = self._joints + self._velocity_lead * velocity
        self._joints = self._joints + motion
        executed = np.clip((target - self._target) / self._scale, -1.0, 1.0)
        self._target = target
        return executed

    def _command_fingers(self, action: float) -> None:
        setpoint = self._data.act[_JOINTS:]
        self._data.ctrl[_JOINTS:] = ((action + 1.0) * (_OPEN / 4) - setpoint) / self._period  # clipped by ctrlrange

    def _solve(self, joints: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the tool's position at ``joints`` and the joints' motion that brings it to ``target``, pointing down.

        One step of damped least squares, J^T (J J^T + damping)^-1 e (Buss, 2004, eq. 11), with the home posture
        drawing in the null space. What a step leaves over is part of the next one's error.
        """
        scratch, jacobian = self._kinematics, self._jacobian
        scratch.qpos[:_JOINTS] = joints
        mujoco.mj_kinematics(self._model, scratch)
        mujoco.mj_comPos(self._model, scratch)
        mujoco.mj_jacSite(self._model, scratch, jacobian[:3], jacobian[3:], self._tool)
        position = scratch.site_xpos[self._tool]
        turn = _DOWN[:, None] * scratch.site_xmat[self._tool].reshape(3, 3).T  # from the tool's to the wanted rotation
        error = np.empty(6)
        error[:3] = target - position
        error[3:] = (turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1])
        error[3:] *= 0.5
        j = jacobian[:, :_JOINTS]
        posture = _POSTURE_GAIN * (self._home - joints)
        normal = j @ j.T
        normal.flat[::7] += _DAMPING
        return position, posture + j.T @ np.linalg.solve(normal, error - j @ posture)

    def _posture(self, position: np.ndarray) -> np.ndarray:
        """Return joints, rad (7,), that hold the tool at ``position``, pointing down."""
        self._home = joints = np.asarray(_READY)
        for _ in range(200):
            joints = np.clip(joints + self._solve(joints, position)[1], self._joint_low, self._joint_high)
        reached, _ = self._solve(joints, position)
        if not np.allclose(reached, position, atol=1e-4):
            raise ConfigError(f"home_position: the tool cannot reach {position.tolist()} m; "
                              f"it gets to {reached.round(3).tolist()} m")
        return joints

    def _observe(self) -> Observation:
        data = self._data
        state = np.empty(21, np.float32)
        state[:7] = data.qpos[:7]
        state[7:14] = data.qvel[:7]
        state[14] = data.qpos[7] + data.qpos[8]
        state[15:18] = data.site_xpos[self._tool]
        state[18:21] = data.qpos[9:12]
        np.clip(state, self._low, self._high, out=state)
        return Observation(state)

    def _outcome(self) -> tuple[bool, bool]:
        """Return whether the cube is held high enough, and whether it is out of reach."""
        x, y, z = self._data.qpos[9:12]
        lifted = z - self._cube_start >= self._config.lift_height
        lost = not (self._box_low[0] <= x <= self._box_high[0] and self._box_low[1] <= y <= self._box_high[1])
        return bool(lifted and self._held()), bool(lost)

    def _held(self) -> bool:
        pairs = self._data.contact.geom
        touching = pairs[(pairs == self._cube_geom).any(axis=1)]
        return self._finger_geoms <= set(touching.ravel().tolist())

    def _check_geometry(self) -> None:
        for name, size in (("translation_scale", 3), ("workspace_low", 3), ("workspace_high", 3),
                           ("home_position", 3), ("cube_center", 2)):
            value = getattr(self._config, name)
            if len(value) != size:
                raise ConfigError(f"{name}: expected {size} numbers, found {list(value)}")
        home = np.asarray(self._config.home_position)
        if not ((self._box_low <= home) & (home <= self._box_high)).all():
            raise ConfigError(f"home_position: expected a point in the workspace from {self._box_low.tolist()} to "
                              f"{self._box_high.tolist()} m, found {home.tolist()}")

    def _make_spec(self) -> SpaceSpec:
        config = self._config
        velocity = self._model.actuator_ctrlrange[:_JOINTS, 1]
        margin = np.array((0.05, 0.05, 0.05))
        low, high = self._box_low - margin, self._box_high + margin
        low[2] = 0.0
        return SpaceSpec(
            robot="mujoco_panda",
            observation=(
                SpaceField.box("joint_position", self._joint_low, self._joint_high, "rad"),
                SpaceField.box("joint_velocity", -velocity, velocity, "rad/s"),
                SpaceField.box("gripper_opening", (0.0,), (_OPEN,), "m"),
                SpaceField.box("ee_position", low, high, "m"),
                SpaceField.box("cube_position", low, high, "m"),
            ),
            action=(
                SpaceField.box("ee_motion", -self._scale, self._scale, "m"),
                SpaceField.box("gripper_opening", (0.0,), (_OPEN,), "m"),
            ),
            control_rate=config.control_rate, frame_id=_FRAME,
            max_episode_steps=config.max_episode_steps or _EPISODE_STEPS, lockstep=config.lockstep)


def _substeps(control_rate: float, timestep: float) -> int:
    count = round(1.0 / (control_rate * timestep))
    if count < 1 or not np.isclose(count * timestep * control_rate, 1.0):
        raise ConfigError(f"control_rate: expected a divisor of the physics rate, {1.0 / timestep:g} Hz, "
                          f"found {control_rate:g} Hz")
    return count
