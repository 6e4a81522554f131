# SPDX-License-Identifier: Apache-2.0
"""Malformed messages at every subscription of every node, in one process, while the nodes work on real middleware."""

from __future__ import annotations

import ctypes
import gc
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from conftest import SMALL, Graph
from mutations import as_stranger, mutate
from oracle import content, transition_is_valid
from rclpy.logging import LoggingSeverity, set_logger_level
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.cli.runner import ros_domain
from rlpd_ros.data.replay_buffer import ReplayBuffer
from rlpd_ros.nodes.actor import ActorNode
from rlpd_ros.nodes.arm_driver import ArmDriverNode
from rlpd_ros.nodes.demo_loader import DemoLoaderNode
from rlpd_ros.nodes.learner import LearnerNode
from rlpd_ros.nodes.monitor import MonitorNode
from rlpd_ros.nodes.teleop_joy import TeleopJoyNode
from rlpd_ros.record import record_demonstrations
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.bags import TransitionLog
from rlpd_ros.ros.graph_watcher import GraphWatcher
from rlpd_ros.runs import RunDirectory
from rlpd_ros.tables import Row, at_least, at_most, informative
from rlpd_ros.types import ActionRecord, Source
from rlpd_ros.untrusted import Refusals

STRANGERS = 20  # sessions under which nonsense is sent
SPIN_EVERY = 200  # messages between two turns of the nodes
CAPTURED = 20  # messages of each topic that nonsense is made from
MIB = 2**20


class Doctor(Node):
    """The subscriptions of ``rlpd doctor``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("doctor", **kwargs)
        self._watcher = GraphWatcher(self, 5000, 0)
        self._watcher.heed_monitor()
        self.create_timer(0.5, self._watcher.look)


class Bench:
    """The whole system, at work, with ears on every topic; and what was forged."""

    def __init__(self, folder: Path, domain: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.run = RunDirectory.create(folder, "run")
        self.graph = Graph(domain)
        record_demonstrations(ArmConfig(cube_range=0.05), folder / "demos", 2)
        for topic in (qos.SPACE_SPEC, qos.OBSERVATION, qos.ACTION, qos.TRANSITIONS, qos.TRANSITIONS_ACK, qos.EPISODE,
                      qos.DEMO_TRANSITIONS, qos.DEMO_MANIFEST, qos.POLICY_PARAMS, qos.ACTOR_STATUS, qos.LEARNER_STATUS,
                      qos.DIAGNOSTICS):
            self.graph.listen(topic)
        self.driver = self.graph.add(ArmDriverNode, cube_range=0.05)
        self.loader = self.graph.add(DemoLoaderNode, demo_path=[str(folder / "demos")])
        self.learner = self.graph.add(LearnerNode, **SMALL, run=str(self.run.path), max_steps=2**31, max_env_steps=0,
                                      eval_episodes=2**62, success_target=1.0)
        self.actor = self.graph.add(ActorNode, hidden_dims=[8], eval_every=0)
        self.monitor = self.graph.add(MonitorNode)
        self.teleop = self.graph.add(TeleopJoyNode)
        self.doctor = self.graph.add(Doctor)
        self._nodes: tuple[Node, ...] = (self.driver, self.loader, self.learner, self.actor, self.monitor, self.teleop,
                                         self.doctor)
        self.graph.until(lambda: (s := self.graph.last(qos.LEARNER_STATUS)) and s.gradient_step >= 20, "training")
        self.graph.until(lambda: self.graph.last(qos.EPISODE) and self.graph.last(qos.DIAGNOSTICS))
        for node in self._nodes:
            set_logger_level(node.get_name(), LoggingSeverity.FATAL)  # they have a lot to say about what comes
        self.spec = self.driver._driver.spec
        self.forged: dict[tuple, None] = {}  # transitions that are well-formed, though nobody made them
        self._valid = {name.lstrip("/"): [bytes(serialize_message(m)) for m in heard[-CAPTURED:]]
                       for name, heard in self.graph.heard.items()}
        intervention = qos.INTERVENTION.type(action=[0.5] * self.spec.action_size, source=int(Source.INTERVENTION))
        self._valid[qos.INTERVENTION.name] = [bytes(serialize_message(intervention))]
        self._valid[qos.OUTCOME.name] = [bytes(serialize_message(qos.OUTCOME.type(success=success)))
                                         for success in (False, True)]
        self._valid[qos.JOY.name] = [bytes(serialize_message(qos.JOY.type(axes=[0.5] * 8, buttons=[0, 1] * 6)))]

    def endpoints(self) -> Iterator[tuple[Node, str, type, Callable[[Any], None]]]:
        """Yield node, topic, type and callback of every subscription of the nodes under test."""
        for node in self._nodes:
            for subscription in node.subscriptions:
                topic = subscription.topic_name.lstrip("/")
                if topic not in ("parameter_events", "rosout"):
                    yield node, topic, subscription.msg_type, subscription.callback

    def malformed(self, node: Node, topic: str, kind: type) -> Any:
        """Return a message that is wrong, or at least a lie, but none that a node could not tell from the truth."""
        rng = self.rng
        base = deserialize_message(rng.choice(self._valid[topic]), kind)
        session = getattr(base, "session", "")
        stranger = f"stranger-{rng.randrange(STRANGERS)}"
        if topic == "action":
            now = self.driver._driver._now
            base = messages.from_action(ActionRecord(stranger, now.episode, now.step, base.action, 0, Source.POLICY,
                                                     now.stamp))
        message = mutate(base, rng, (self.spec.fingerprint, "feed"))
        as_stranger(topic, message, session, stranger, rng)
        if topic in ("transitions", "demo_transitions") and rng.random() < 0.8:
            message.sequence = self.learner._learner.intake.ledger[message.session].sequence + 1
        elif topic == "transitions_ack" and rng.random() < 0.3:  # under its name, but for what was never sent
            message.session = self.loader._manifest.session if node is self.loader else self.actor._actor.session
            message.sequence = max(message.sequence, 2**40)
        return message

    def note(self, topic: str, message: Any) -> None:
        if topic == "transitions" and transition_is_valid(message, self.spec):
            self.forged[content(message)] = None

    def refused(self, node: Node) -> int:
        """Return how much a node has counted as refused so far."""
        if node is self.learner:
            report = self.learner._learner.report
            counted = report.transitions_rejected + report.transitions_duplicate + report.gaps
            return counted + self.learner._refusals.count
        kept = {id(cell.cell_contents): cell.cell_contents for s in node.subscriptions
                for cell in s.callback.__closure__ or () if isinstance(cell.cell_contents, Refusals)}
        return sum(refusals.count for refusals in kept.values())


def memory_in_use() -> int:
    """Return the bytes that this process needs: without what is only kept for the next large message."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss


def attack(bench: Bench, count: int) -> list[Row]:
    """Deliver ``count`` messages of each topic to those who subscribe to it, through real serialisation."""
    rows, sent = [], 0
    memory, began = 0, time.monotonic()
    endpoints = list(bench.endpoints())
    listeners = Counter(topic for _, topic, _, _ in endpoints)
    for node, topic, kind, callback in endpoints:
        before, share = bench.refused(node), -(-count // listeners[topic])
        for i in range(share):
            message = bench.malformed(node, topic, kind)
            received = deserialize_message(serialize_message(message), kind)
            bench.note(topic, received)
            callback(received)
            if i % SPIN_EVERY == 0:
                bench.graph.spin()
        sent += share
        memory = memory or memory_in_use()  # from here on all is warm
        rows.append(informative(f"{node.get_name()}: {topic}: refused of {share}", bench.refused(node) - before))
    rate = sent / (time.monotonic() - began)
    growth = (memory_in_use() - memory) / MIB
    return [at_least("malformed messages on each of the topics", count, 1),
            informative("topics", len(listeners)), informative("malformed messages", sent),
            informative("messages per second", rate), *rows,
            at_most("memory that the process grew by meanwhile", growth, 100, "MiB")]


def still_works(bench: Bench) -> list[Row]:
    """Return whether everybody goes on: the arm moves, transitions are acknowledged, training goes on."""
    bench.teleop._on_joy(qos.JOY.type(axes=[0.0] * 8))  # whoever had the joystick in use has let go
    graph, actor, learner = bench.graph, bench.actor._actor.report, bench.learner._learner.report
    steps, gradient_steps, version = actor.env_steps, learner.gradient_step, learner.version
    while learner.env_step_budget < learner.env_steps:  # of which it has forged ones to train on
        seen = learner.gradient_step
        graph.until(lambda seen=seen: learner.gradient_step >= seen + 20, "training goes on")
    graph.until(lambda: actor.env_steps >= steps + 50, "the arm moves")
    graph.until(lambda: learner.gradient_step >= gradient_steps + 20, "training goes on")
    graph.until(lambda: actor.applied_checksum == bench.learner._learner.newest.checksum, "the newest policy is in use")
    return [at_least("steps of the arm afterwards", actor.env_steps - steps, 50),
            at_least("policies afterwards", learner.version - version, 1)]


def nothing_wrong_is_stored(bench: Bench) -> list[Row]:
    """Compare the log with what was heard and with what was forged well; the buffer with the log."""
    graph, learner, spec = bench.graph, bench.learner._learner, bench.spec
    session = bench.actor._actor.session
    graph.remove(bench.actor)
    graph.until(lambda: not learner.intake.to_acknowledge, "receipts")
    last, ear = (session, learner.intake.ledger[session].sequence), graph.heard[qos.TRANSITIONS.name]
    graph.until(lambda: any((m.session, m.sequence) == last for m in ear), "the ear has heard what the learner has")
    heard = {content(m) for m in ear if transition_is_valid(m, spec)}
    stored = [messages.from_transition(record, spec) for record in TransitionLog.read(bench.run.transitions, spec)]
    wrong = [m for m in stored if not transition_is_valid(m, spec) or content(m) not in heard | bench.forged.keys()]
    numbers = Counter((m.session, m.sequence) for m in stored)
    real = [m for m in stored if content(m) in heard]
    acknowledged = {a.session: a.sequence for a in graph.heard[qos.TRANSITIONS_ACK.name]}
    here = {content(m) for m in real}
    lacking = [c for c in heard if c[1] <= acknowledged.get(c[0], 0) and c not in here]
    again = ReplayBuffer(spec, learner.config.replay_buffer_capacity)
    rebuilt = type(learner.intake)(spec, again, ReplayBuffer(spec, 1000), type(learner.report)(""), lambda r: None,
                                   lambda text: None, time.monotonic)
    for record in TransitionLog.read(bench.run.transitions, spec):
        rebuilt.restore(record)
    same = len(again) == len(learner.online) and bool((again._rows == learner.online._rows).all())
    demos = learner.intake.demonstrations_expected
    return [
        informative("transitions in the log", len(stored)), informative("of them real", len(real)),
        informative("of them forged, but well-formed", len(stored) - len(real)),
        at_most("wrong transitions in the log", len(wrong), 0),
        at_most("transitions in the log twice", sum(n > 1 for n in numbers.values()), 0),
        at_most("acknowledged transitions that are not in the log", len(lacking), 0),
        at_least("the online buffer is what the log says", int(same), 1),
        at_least("demonstrations in the buffer", len(learner.demos), min(demos, 1))]


def fuzz_nodes(count: int, seed: int) -> list[Row]:
    """Attack every subscription with ``count`` messages and look at what is left."""
    with tempfile.TemporaryDirectory() as folder, ros_domain() as domain:
        bench = Bench(Path(folder), domain, seed)
        try:
            return [*attack(bench, count), *still_works(bench), *nothing_wrong_is_stored(bench)]
        finally:
            bench.graph.close()
