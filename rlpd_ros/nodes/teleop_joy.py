# SPDX-License-Identifier: Apache-2.0
"""Teleoperation node: what a person does with a joystick, gamepad or SpaceMouse on `joy` goes out on `intervention`."""

from __future__ import annotations

import sys
import time

from rclpy.node import Node

from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.ros import qos
from rlpd_ros.ros.interventions import Interventions
from rlpd_ros.ros.main import run_node
from rlpd_ros.ros.parameters import declare
from rlpd_ros.settings import TeleopJoyConfig
from rlpd_ros.teleoperation import JoyTeleoperator
from rlpd_ros.types import SpaceSpec
from rlpd_ros.untrusted import Refusals

REMINDER = 10.0  # s between two warnings that nobody listens


class TeleopJoyNode(Node):
    """Topics in and out of a ``JoyTeleoperator``, which exists once the space is known."""

    def __init__(self, **kwargs) -> None:
        super().__init__("teleop_joy", **kwargs)
        (self._config,) = declare(self, TeleopJoyConfig)
        self._person: JoyTeleoperator | None = None
        self._lockstep = True
        self._lost = False
        refusals = Refusals(self.get_logger().warning)
        self._interventions = Interventions(self, self._on_space, refusals)
        self._joy = qos.subscription(self, qos.JOY, self._on_joy, refusals)
        self.create_timer(1.0 / self._config.rate, self._on_tick)
        self.get_logger().info("waiting for space_spec from the arm driver")

    def _on_space(self, spec: SpaceSpec) -> None:
        try:
            person = JoyTeleoperator(self._config, spec, time.monotonic())
        except ConfigError as error:
            if self._person is None:
                raise
            raise DataError(str(error)) from error  # what once worked shall go on
        if self._person is not None:
            person.go_on_from(self._person)
        self._person, self._lockstep = person, spec.lockstep
        self.get_logger().info(f"space {spec.fingerprint} of {spec.robot}: {person}")

    @property
    def goes_first(self) -> bool:
        """Tell whether an arm that does not wait is controlled from here."""
        return not self._lockstep

    def _on_joy(self, message) -> None:
        if self._person is not None:
            self._person.hear(message.axes, message.buttons, time.monotonic())
            verdict = self._person.take_verdict()
            if verdict is not None:
                self._interventions.judge(verdict)

    def _on_tick(self) -> None:
        self._interventions.check()
        if self._person is None:
            return
        now = time.monotonic()
        self._tell(self._person.lost(now))
        command = self._person.command(now)
        if command is not None:
            self._interventions.send(command)
            if not self._interventions.listeners:
                self.get_logger().warning("nobody listens on intervention: is the actor running, on the same "
                                          "ROS_DOMAIN_ID and namespace?", throttle_duration_sec=REMINDER)

    def _tell(self, lost: bool) -> None:
        if lost != self._lost:
            self._lost = lost
            if lost:
                held = self._person is not None and self._person.pauses(time.monotonic())
                what = "it was in use, so the arm is held until it is back" if held else "it moves nothing"
                self.get_logger().warning(
                    f"no message on {self._joy.topic_name} for {self._config.timeout:g} s: {what}. Is "
                    "the device plugged in, its node running, and joy remapped to its topic?")
            else:
                self.get_logger().info(f"{self._joy.topic_name}: the device is there")

    def close(self) -> None:
        """Let the arm stand still."""
        self._interventions.close(self._person.stop() if self._person is not None else None)


def main() -> int:
    return run_node(TeleopJoyNode)


if __name__ == "__main__":
    sys.exit(main())
