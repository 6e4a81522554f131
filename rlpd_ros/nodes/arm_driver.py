# SPDX-License-Identifier: Apache-2.0
"""Arm driver node: moves the arm as `action` says, publishes `space_spec`, `observation` and the arm's own state."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_srvs.srv import Trigger

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.factory import make_arm
from rlpd_ros.arm.interruption import stopping_between_motions
from rlpd_ros.driver import Driver
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.camera_status import CameraStatus
from rlpd_ros.ros.cameras import CameraTopics
from rlpd_ros.ros.main import run_node, wall_ns
from rlpd_ros.ros.parameters import declare, own_seed
from rlpd_ros.settings import DriverNodeConfig
from rlpd_ros.types import TimeStep, new_session
from rlpd_ros.untrusted import Refusals

CAMERA_STATUS_PERIOD = 1.0  # s between two statuses of cameras on /diagnostics
REPEAT_CHECK = 0.05  # s between looks for an observation that nobody answered (lockstep)


class ArmDriverNode(Node):
    """Topics in and out of a ``Driver``."""

    def __init__(self, **kwargs) -> None:
        super().__init__("arm_driver", **kwargs)
        node_config, arm_config = declare(self, DriverNodeConfig, ArmConfig)
        self._telemetry: dict[Publisher, Callable] = {}
        self._arm = make_arm(own_seed(self, arm_config))
        try:
            with stopping_between_motions(impatience=math.inf) as stop_if_asked:  # as `run_node` does from then on
                self._connect(node_config, arm_config)
                stop_if_asked()
                self._begin()
        except BaseException:  # nobody else has a node to close yet
            self._arm.close()
            raise

    def _connect(self, node_config: DriverNodeConfig, arm_config: ArmConfig) -> None:
        self._cameras = CameraTopics(self, arm_config)
        self._driver = Driver(self._arm, self, new_session("arm"), node_config.repeat_period, time.monotonic, wall_ns,
                              self._cameras, node_config.max_observation_age)
        spec = self._driver.spec
        self._images = {f.name: qos.publisher(self, qos.camera(f.name)) for f in spec.image_fields}
        self._observations = qos.publisher(self, qos.OBSERVATION)
        self._space = qos.publisher(self, qos.SPACE_SPEC)
        self._space.publish(messages.from_space_spec(spec, wall_ns()))
        qos.subscription(self, qos.ACTION, self._on_action, Refusals(self.get_logger().warning))
        self.create_service(Trigger, "reset", self._on_reset)
        self.create_timer(REPEAT_CHECK if spec.lockstep else 1.0 / spec.control_rate, self._driver.tick)
        if arm_config.camera_topics:
            self._camera_status = CameraStatus(self.get_namespace(), self._cameras.inputs)
            self._diagnostics = qos.publisher(self, qos.DIAGNOSTICS)
            self.create_timer(CAMERA_STATUS_PERIOD, self._tell_cameras)
        pace = "in lockstep with the actor" if spec.lockstep else f"at {spec.control_rate:g} Hz"
        self.get_logger().info(f"driving {spec.robot} {pace}: observation {spec.state_size} numbers and "
                               f"{len(spec.image_fields)} images, action {spec.action_size}, space {spec.fingerprint}")

    def _begin(self) -> None:
        self._driver.reset()
        if self._arm.telemetry() is not None:  # else the arm's own driver may be the one that publishes `joint_states`
            self._telemetry = {qos.publisher(self, qos.JOINT_STATES): messages.from_joint_state,
                               qos.publisher(self, qos.EE_POSE): messages.from_ee_pose}

    @property
    def goes_first(self) -> bool:
        """Tell whether an arm that does not wait is controlled from here."""
        return not self._driver.spec.lockstep

    def _on_action(self, message) -> None:
        self._driver.act(messages.to_action(message))

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._driver.reset()
        response.success = True
        return response

    def publish_observation(self, now: TimeStep) -> None:
        self._observations.publish(messages.from_time_step(now, self._driver.spec))
        wanted = any(publisher.get_subscription_count() for publisher in self._telemetry)
        telemetry = self._arm.telemetry() if wanted else None
        for name, publisher in self._images.items():
            if publisher.get_subscription_count():
                publisher.publish(messages.from_image(now.observation.images[name], now.stamp, name))
        if telemetry is not None:
            for publisher, convert in self._telemetry.items():
                publisher.publish(convert(telemetry, now.stamp, self._driver.spec.frame_id))

    def _tell_cameras(self) -> None:
        message = DiagnosticArray(status=self._camera_status.messages())
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def warn(self, text: str) -> None:
        self.get_logger().warning(text, throttle_duration_sec=1.0)

    def close(self) -> None:
        self._arm.close()


def main() -> int:
    return run_node(ArmDriverNode)


if __name__ == "__main__":
    sys.exit(main())
