# SPDX-License-Identifier: Apache-2.0
"""Learner node: stores transitions and demonstrations, trains the agent, publishes `policy_params`."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from rclpy.node import Node

from rlpd_ros.data.demonstrations import DemonstrationManifest, validate_manifest
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.exported_policy import save_policy
from rlpd_ros.kept import Kept
from rlpd_ros.learner import Learner
from rlpd_ros.metrics import MetricsWriter
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.checkpoint import CheckpointStore
from rlpd_ros.rl.compilation import keep_compiled
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.policy import Policy
from rlpd_ros.rl.shares import find_devices
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.latched import LatchedSubscription
from rlpd_ros.ros.main import run_node, wall_ns
from rlpd_ros.ros.parameters import declare
from rlpd_ros.ros.policy_publisher import PolicyPublisher
from rlpd_ros.ros.run_log import RunLog
from rlpd_ros.runs import RunDirectory, write_atomically
from rlpd_ros.settings import LearnerConfig, LearnerNodeConfig, LogConfig
from rlpd_ros.status import ActorReport, LearnerReport, LearnerState
from rlpd_ros.types import Acknowledgement, EpisodeSummary, PolicySnapshot, SpaceSpec, TransitionRecord, new_session
from rlpd_ros.untrusted import Refusals

LAST_WORDS = 1.0  # s for which the final status stays out before the node ends
TURN = 0.05  # s of reading back the log between two rounds of messages


class LearnerNode(Node):
    """Topics in and out of a ``Learner``, which exists once the space is known; files of its run directory."""

    _spec: SpaceSpec  # from _on_space on
    _learner: Learner  # these two once started
    _log: RunLog

    def __init__(self, **kwargs) -> None:
        super().__init__("learner", **kwargs)
        self._node_config, self._log_config, self._config, self._agent_config, self._policy_config = declare(
            self, LearnerNodeConfig, LogConfig, LearnerConfig, AgentConfig, PolicyConfig)
        if not self._node_config.run:
            raise ConfigError("run: expected the folder of the run, found none; `rlpd train` makes one and sets it")
        self._devices = find_devices(
            self._node_config.devices, num_qs=self._agent_config.num_qs, batch_size=self._config.batch_size)
        self._run = RunDirectory.open(self._node_config.run)
        self._lock = self._run.lock()  # two would overwrite each other's log
        self._session = new_session("learner")
        self._starting: Iterator[None] | None = None  # in turns, from the space on
        self._started = False
        self._waits_for = ("no space_spec received yet: is the arm driver running, on the same ROS_DOMAIN_ID and "
                           "namespace?")
        self._space_difference = ""
        self._early: dict[str, tuple[Any, Any]] = {}  # topic -> callback and newest message before it started
        self._status_at = 0.0
        self._finished_at: float | None = None
        self._checkpoints = CheckpointStore(self._run.checkpoints, self._node_config.checkpoints_kept)
        self._metrics = MetricsWriter(self._run)

        self._policies = PolicyPublisher(self)
        self._versions = qos.publisher(self, qos.POLICY_VERSION)
        self._acks = qos.publisher(self, qos.TRANSITIONS_ACK)
        self._status = qos.publisher(self, qos.LEARNER_STATUS)
        self._refusals = Refusals(self.warn)
        self._space = LatchedSubscription(self, qos.SPACE_SPEC, self._on_space, self._refusals)
        for topic, callback in (
                (qos.TRANSITIONS, self._on_transition), (qos.DEMO_TRANSITIONS, self._on_demo_transition),
                (qos.ACTOR_STATUS, self._on_actor_status), (qos.EPISODE, self._on_episode)):
            qos.subscription(self, topic, self._once_the_space_is_known(topic.name, callback), self._refusals)
        self._manifest = LatchedSubscription(
            self, qos.DEMO_MANIFEST, self._once_the_space_is_known(qos.DEMO_MANIFEST.name, self._on_manifest),
            self._refusals)
        self.get_logger().info("waiting for space_spec from the arm driver")

    # In

    def _once_the_space_is_known(self, topic: str, callback):
        def receive(message) -> None:
            if self._started:
                callback(message)
            else:  # of statuses and manifests the newest counts; transitions are sent again
                self._early[topic] = (callback, message)

        return receive

    def _on_space(self, message) -> None:
        spec = messages.to_space_spec(message)
        if self._starting is None:
            self._spec, self._starting = spec, self._start(spec)
        elif changes := self._spec.changes(spec, "this run has", "the arm now has"):
            self._space_difference = "; ".join(changes)
            self.warn(f"the arm driver's space differs from that of this run: {self._space_difference}")
        else:
            self._space_difference = ""

    def _start(self, spec: SpaceSpec) -> Iterator[None]:
        """Build or restore everything that depends on the space, then publish the first policy.

        A long log takes minutes: it is read in turns, so that statuses go out and a request to stop is heard.
        """
        policy = Policy(spec, self._policy_config)
        if policy.backbone is not None:
            self.say(f"frozen backbone {policy.backbone.digest}: {policy.backbone.origin}")
        kept = Kept.of(policy, spec, self._config)
        agent = Agent.create(spec, self._policy_config, self._agent_config, self._config.seed, kept.backbone,
                             self._devices)
        learner = Learner(self._config, agent, policy, spec, self, self._session, str(self._run.path), time.monotonic,
                          wall_ns, kept)
        self.say(learner.memory())
        log = RunLog(self._run.transitions, spec, self._log_config, self._config.replay_buffer_capacity)
        turn_ends = time.monotonic() + TURN
        for count, record in enumerate(log.restore(), 1):
            learner.restore(record)
            if time.monotonic() > turn_ends:
                self._waits_for = f"reading back the log of transitions: {count:,} so far"
                yield
                turn_ends = time.monotonic() + TURN
        for text in log.lost:
            self.warn(text)
        for session, account in log.accounts.items():
            learner.intake.restore_deleted(session, account)
        learner.report.restored_env_steps = learner.report.env_steps
        restored = self._checkpoints.restore(agent, spec, policy)
        if restored is not None:
            learner.resume(*restored)
            self.say(f"resumed {self._run.path} at learner step {learner.report.gradient_step}: "
                     f"online buffer size: {len(learner.online)}")
        learner.report.version = max(learner.report.version, self._last_version())
        self._run.summary.unlink(missing_ok=True)  # it goes on: how it ended is not known yet
        self._log = log
        self._learner = learner
        self._started = True
        learner.publish()
        early, self._early = self._early, {}
        for topic, (callback, message) in early.items():
            qos.checked(topic, callback, self._refusals)(message)

    def _on_transition(self, message) -> None:
        self._take(message, self._learner.intake.receive)

    def _on_demo_transition(self, message) -> None:
        self._take(message, self._learner.intake.receive_demonstration)

    def _take(self, message, receive) -> None:
        try:
            record = messages.to_transition(message, self._learner.spec)
        except DataError as error:
            self._learner.intake.refuse(message.session, message.sequence, message.space_fingerprint, error)
        else:
            receive(record)

    def _on_manifest(self, message) -> None:
        manifest = messages.to_fields(DemonstrationManifest, message)
        validate_manifest(manifest, self._learner.spec)
        self._learner.intake.expect_demonstrations(manifest.session, manifest.total, manifest.error)

    def _on_actor_status(self, message) -> None:
        self._learner.hear(messages.to_fields(ActorReport, message))

    def _on_episode(self, message) -> None:
        self._learner.finish_episode(messages.to_fields(EpisodeSummary, message))

    # Between callbacks

    def work(self) -> bool:
        """Train, acknowledge, tell; return whether there is more to do at once."""
        self._space.check(missing=self._starting is None)
        self._manifest.check(missing=self._started and not self._learner.intake.announced)
        busy = False
        if self._started:
            busy = self._learner.train() or self._learner.backlog > 0
            self._learner.service()
        elif self._starting is not None:
            busy = True
            next(self._starting, None)
        if time.monotonic() - self._status_at >= self._config.status_period:
            self.publish_status()
        if self._started and self._learner.report.state == LearnerState.FINISHED:
            self._finish()
        return busy

    def publish_status(self) -> None:
        self._status_at = time.monotonic()
        if self._started:
            report = self._learner.status()
            self._publish_version()
        else:
            report = LearnerReport(self._session, run=str(self._run.path), text=self._waits_for)
        report.space_difference = self._space_difference
        report.incompatible_qos = qos.incompatible(self)
        report.messages_refused, report.last_refusal = self._refusals.count, self._refusals.text
        self._status.publish(messages.from_fields(qos.LEARNER_STATUS.type, report, wall_ns()))

    def _publish_version(self) -> None:
        snapshot = self._learner.newest
        lowest, actors = self._learner.lowest_applied_version()
        self._versions.publish(messages.from_policy_version(snapshot, lowest, actors, wall_ns()))

    # Out

    def publish_policy(self, make: Callable[[], PolicySnapshot]) -> Future[PolicySnapshot]:
        def make_and_count() -> PolicySnapshot:
            snapshot = make()
            with self._or_warn("a restarted learner may give a version again"):
                write_atomically(self._version_file, f"{snapshot.version}\n")
            return snapshot

        return self._policies.publish(make_and_count)

    def acknowledge(self, ack: Acknowledgement) -> None:
        self._acks.publish(messages.from_fields(qos.TRANSITIONS_ACK.type, ack, wall_ns()))

    def store(self, record: TransitionRecord) -> None:
        self._log.write(record)

    def flush(self) -> None:
        self._log.flush()

    def save(self, agent: Agent, metadata: dict[str, Any]) -> None:
        self._checkpoints.save(agent, metadata)
        save_policy(self._run.policy, self._learner.newest)

    def measure(self, table: str, step: int, values: Mapping[str, Any]) -> None:
        with self._or_warn("metrics are missing"):
            self._metrics.write(table, step, values)

    @contextlib.contextmanager
    def _or_warn(self, consequence: str) -> Iterator[None]:
        """Let learning go on without a file that cannot be written, e.g. because the disk is full."""
        try:
            yield
        except OSError as error:
            self.get_logger().warning(f"{consequence}: {error.strerror}: {error.filename or self._run.path}",
                                      throttle_duration_sec=10.0)

    def say(self, text: str) -> None:
        self.get_logger().info(text)

    def warn(self, text: str) -> None:
        self.get_logger().warning(text)

    # Files and the end

    @property
    def _version_file(self) -> Path:
        return self._run.path / "policy_version"

    def _last_version(self) -> int:
        try:
            return int(self._version_file.read_text())
        except (OSError, ValueError):
            return 0

    def _finish(self) -> None:
        """Leave behind what a run ends with, then stay for a moment to tell. Raises DataError if it cannot."""
        if self._finished_at is None:
            from rlpd_ros.report import write_report  # what draws plots takes long to import, and the arm would wait

            self._finished_at = time.monotonic()
            self.publish_status()
            try:
                save_policy(self._run.policy, self._learner.result)
                self._summarise()
                self.say(f"report: {write_report(self._run)}")
            except OSError as error:
                raise DataError(f"{self._run.path}: cannot write how the run ended: {error.strerror}") from error
        self.finished = time.monotonic() - self._finished_at > LAST_WORDS

    def _summarise(self) -> None:
        learner, report = self._learner, self._learner.report
        self._run.write_summary({
            "success_rate": report.success_rate if report.evaluation_episodes else None,
            "eval_episodes": report.evaluation_episodes, "env_steps": report.env_steps,
            "gradient_steps": report.gradient_step, "wall_s": learner.wall_s,
            "seed": self._config.seed, "preset": self._node_config.preset, "outcome": report.text})

    def close(self) -> None:
        """Save what a later life needs. Raises DataError if the log cannot be completed."""
        self._policies.close()
        try:
            if self._started:
                self._log.close()
        finally:
            if self._started and self._learner.report.state != LearnerState.FINISHED:
                self._learner.save()
            self._metrics.close()
            os.close(self._lock)


def main() -> int:
    keep_compiled()
    return run_node(LearnerNode)


if __name__ == "__main__":
    sys.exit(main())
