# SPDX-License-Identifier: Apache-2.0
"""What examples/ros2_control_arm.py takes for a robot: joint states and a trajectory controller on real middleware."""

from __future__ import annotations

from threading import Thread

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

PERIOD = 0.01  # s between two joint states


class FakeRobot:
    """Joints that jump to the end of each trajectory, in a thread of its own.

    No real arm does, but only one that rests when a step is over repeats an episode exactly, as the conformance test
    asks. What is published has another order than the controller, and a gripper.
    """

    def __init__(self, joints: tuple[str, ...], position: tuple[float, ...]) -> None:
        self.joints, self.position = joints, np.array(position)
        self.silent = False  # publishes nothing
        self.blocked = False  # does not move
        self.commands: list[JointTrajectory] = []
        self.speeds: list[float] = []  # rad/s that each command asked of the joint that had the longest way
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self._node = rclpy.create_node("fake_robot", context=self._context)
        self._states = self._node.create_publisher(JointState, "/joint_states", 10)
        self._node.create_subscription(JointTrajectory, "/joint_trajectory_controller/joint_trajectory",
                                       self._on_command, 10)
        self._node.create_timer(PERIOD, self._tell)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = Thread(target=self._executor.spin)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _tell(self) -> None:
        if not self.silent:
            self._states.publish(JointState(name=["finger", *reversed(self.joints)],
                                            position=[0.04, *reversed(self.position.tolist())]))
            self._states.publish(JointState(name=["finger"], position=[0.04]))

    def _on_command(self, message: JointTrajectory) -> None:
        assert tuple(message.joint_names) == self.joints
        self.commands.append(message)
        target, time = np.array(message.points[-1].positions), message.points[-1].time_from_start
        self.speeds.append(np.abs(target - self.position).max() / (time.sec + 1e-9 * time.nanosec))
        if not self.blocked:
            self.position = target
