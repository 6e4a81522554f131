# SPDX-License-Identifier: Apache-2.0
"""Differential inverse kinematics of a tool that keeps pointing down."""

from __future__ import annotations

import mujoco
import numpy as np

from rlpd_ros.arm.safety import clip

_DAMPING = 1e-4  # added to the squares of the Jacobian's singular values
_POSTURE_GAIN = 0.1  # share of the way back to the rest posture that redundancy makes per step
_DOWN = np.array((1.0, -1.0, -1.0))  # diagonal of the wanted rotation matrix: half a turn about x


class ToolKinematics:
    """Kinematics of the first ``joints`` joints of ``model`` at postures of the caller's choice.

    It computes in its own MjData: what it is asked about are set points, not the state of a simulation.
    """

    def __init__(self, model: mujoco.MjModel, joints: int, site: str):
        self._model = model
        self._data = mujoco.MjData(model)
        self._site = model.site(site).id
        self._low, self._high = model.jnt_range[:joints].T.copy()
        self._joints = self._data.qpos[:joints]
        self._position = self._data.site_xpos[self._site]
        self._rotation = self._data.site_xmat[self._site].reshape(3, 3)
        self._jacobian = np.zeros((6, model.nv))
        self._arm_jacobian = self._jacobian[:, :joints]
        self._error = np.empty(6)
        self._multipliers = np.empty(6)

    def step(self, joints: np.ndarray, target: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """Return the motion, rad, that takes the tool from where ``joints`` hold it to ``target``, m, pointing down.

        One step of damped least squares, J^T (J J^T + damping)^-1 e (Buss, Introduction to Inverse Kinematics, 2004,
        eq. 11), with the ``rest`` posture drawing in the null space. What the linearisation leaves over is part of the
        next step's error.
        """
        model, data, jacobian = self._model, self._data, self._arm_jacobian
        self._joints[:] = joints
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        turn = _DOWN[:, None] * self._rotation.T  # from the tool's rotation to the wanted one
        error = self._error
        error[:3] = target - self._position
        error[3] = 0.5 * (turn[2, 1] - turn[1, 2])  # axis times sine of the angle
        error[4] = 0.5 * (turn[0, 2] - turn[2, 0])
        error[5] = 0.5 * (turn[1, 0] - turn[0, 1])
        drawn = _POSTURE_GAIN * (rest - joints)
        error -= jacobian @ drawn
        normal = jacobian @ jacobian.T
        normal.flat[::7] += _DAMPING
        mujoco.mju_cholFactor(normal, 0.0)
        mujoco.mju_cholSolve(self._multipliers, normal, error)
        return drawn + jacobian.T @ self._multipliers

    def moved(self, motion: np.ndarray) -> np.ndarray:
        """Return where the tool is, m, after a small ``motion``, rad, from the last ``step``'s joints."""
        return self._position + self._arm_jacobian[:3] @ motion

    def posture(self, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Return joints, rad, within their limits that hold the tool at ``target``, or as near as they can get."""
        joints = start
        for _ in range(200):
            joints = clip(joints + self.step(joints, target, start), self._low, self._high)
        return joints

    def position(self, joints: np.ndarray) -> np.ndarray:
        """Return where ``joints`` hold the tool, m (3,)."""
        self._joints[:] = joints
        mujoco.mj_kinematics(self._model, self._data)
        return self._position.copy()
