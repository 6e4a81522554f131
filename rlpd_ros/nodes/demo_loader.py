# SPDX-License-Identifier: Apache-2.0
"""Demo loader node: plays demonstrations out of rosbag2 files on `demo_transitions`, until the learner has them all."""

from __future__ import annotations

import sys
import time

from rclpy.node import Node

from rlpd_ros.data.outbox import Outbox
from rlpd_ros.errors import DataError
from rlpd_ros.ros import bags, messages, qos
from rlpd_ros.ros.main import run_node, wall_ns
from rlpd_ros.ros.parameters import declare
from rlpd_ros.settings import LoaderConfig
from rlpd_ros.types import EXPERTS
from rlpd_ros.untrusted import Refusals

TICK = 0.05  # s between looks for what is due again
LAST_WORDS = 10.0  # s for which an error stays on demo_manifest, if no learner says that it has heard it


class DemoLoaderNode(Node):
    """Bags in, topics out."""

    def __init__(self, **kwargs) -> None:
        super().__init__("demo_loader", **kwargs)
        (config,) = declare(self, LoaderConfig)
        self._refusals = Refusals(self.get_logger().warning)
        self._error: DataError | None = None
        self._error_at = 0.0
        self._heard = False  # the learner knows of the error
        self._told = False
        self._outbox = Outbox(config.resend_period, keep=True)
        failure = None
        try:
            if not config.demo_path:
                raise DataError("demo_path: expected one or more rosbag2 bags of demonstrations, found none; record "
                                "some with `rlpd record`, or train without by require_demonstrations:=false")
            demonstrations = bags.read_demonstrations(config.demo_path, successful_only=config.successful_only)
        except DataError as error:
            failure = error
        self._transitions = qos.publisher(self, qos.DEMO_TRANSITIONS)
        self._manifest_publisher = qos.publisher(self, qos.DEMO_MANIFEST)  # not before: who sees it expects a manifest
        if failure is not None:
            self._fail(failure)
            return
        self._spec = demonstrations.spec
        self._manifest = demonstrations.manifest
        for record in demonstrations.records:
            self._outbox.add(record)
        manifest = self._manifest
        chosen = (f"; successful_only left out {demonstrations.left_out} that did not end in success, "
                  f"{sum(manifest.episodes)} stay" if config.successful_only else "")
        self.get_logger().info(f"{manifest.total} transitions in {sum(manifest.episodes)} demonstrations from "
                               f"{len(manifest.path)} bag(s), {sum(manifest.successes)} successful{chosen}")
        for repetition in demonstrations.repeated:
            self.get_logger().info(repetition)
        for gap in demonstrations.gaps:
            self.get_logger().warning(gap)
        if not any(record.source in EXPERTS for record in demonstrations.records):
            self.get_logger().warning("no transition's source is DEMONSTRATION or INTERVENTION: the policy learns from "
                                      "all of them, but imitates none (imitation_weight)")
        self._manifest_publisher.publish(messages.from_fields(qos.DEMO_MANIFEST.type, self._manifest, wall_ns()))
        qos.subscription(self, qos.SPACE_SPEC, self._on_space, self._refusals)
        qos.subscription(self, qos.TRANSITIONS_ACK, self._on_ack, self._refusals)
        self.create_timer(TICK, self._send)

    def work(self) -> bool:
        if self._error is not None and (self._heard or time.monotonic() - self._error_at > LAST_WORDS):
            raise self._error
        return False

    def _fail(self, error: DataError) -> None:
        """Say what is wrong where the learner and the monitor hear it, then end."""
        self._error, self._error_at = error, time.monotonic()
        qos.subscription(self, qos.LEARNER_STATUS, self._on_learner_status, self._refusals)
        manifest = bags.DemonstrationManifest(error=str(error))
        self._manifest_publisher.publish(messages.from_fields(qos.DEMO_MANIFEST.type, manifest, wall_ns()))

    def _on_learner_status(self, message) -> None:
        self._heard = message.demo_error == str(self._error)

    def _on_space(self, message) -> None:
        spec = messages.to_space_spec(message)
        if spec.fingerprint != self._spec.fingerprint:
            differences = "; ".join(spec.difference(self._spec, "the arm has", "the bags have"))
            self._fail(DataError(f"demonstrations of another space: {', '.join(self._manifest.path)}: {differences}"))

    def _on_ack(self, message) -> None:
        if message.session == self._manifest.session:
            ack = messages.to_acknowledgement(message)
            if ack.sequence > self._manifest.total:
                raise DataError(f"sequence: expected at most {self._manifest.total}, found {ack.sequence}")
            self._outbox.acknowledge(ack, time.monotonic())
            self._send()

    def _send(self) -> None:
        if self._error is not None:
            return
        for record in self._outbox.due(time.monotonic()):
            self._transitions.publish(messages.from_transition(record, self._spec))
        if not self._told and not self._outbox.unacknowledged:
            self._told = True
            self.get_logger().info(f"the learner has all {self._manifest.total} demonstration transitions")


def main() -> int:
    return run_node(DemoLoaderNode)


if __name__ == "__main__":
    sys.exit(main())
