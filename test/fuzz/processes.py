# SPDX-License-Identifier: Apache-2.0
"""Malformed messages, and bytes that are no messages, over real DDS at a system of real processes that trains."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import rclpy
from mutations import as_stranger, damage, mutate
from oracle import content, transition_is_valid
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.signals import SignalHandlerOptions
from suite import demonstrations
from system import System

from rlpd_ros.cli.runner import ros_domain
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.bags import TransitionLog
from rlpd_ros.tables import Row, at_least, at_most, informative

TOPICS = (qos.SPACE_SPEC, qos.OBSERVATION, qos.ACTION, qos.INTERVENTION, qos.TRANSITIONS, qos.TRANSITIONS_ACK,
          qos.DEMO_TRANSITIONS, qos.DEMO_MANIFEST, qos.POLICY_PARAMS, qos.ACTOR_STATUS, qos.LEARNER_STATUS, qos.EPISODE)
NODES = ("arm_driver", "demo_loader", "learner", "actor", "monitor")
LISTEN = 90.0  # s at most, from the start, until a message of every topic is known
BURST = 20  # messages between two looks at what comes back
SPARED = 0.02  # s that receivers have for a burst
SETTLE = 3.0  # s until everything that was sent has been dealt with
MIB = 2**20


class Stranger:
    """A participant that hears everything, and says what it should not."""

    def __init__(self, seed: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("stranger", context=self._context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.heard: dict[str, list[Any]] = {topic.name: [] for topic in TOPICS}
        self.heard["intervention"] = [qos.INTERVENTION.type(action=[0.5] * 4, source=2)]
        for topic in TOPICS:
            qos.subscription(self.node, topic, self.heard[topic.name].append)
        self._publishers = {topic: qos.publisher(self.node, topic) for topic in TOPICS}
        self._rng = random.Random(seed)

    def listen(self, seconds: float = 0.0) -> None:
        end = time.monotonic() + seconds
        self._executor.spin_once(timeout_sec=0.0)
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=max(0.0, end - time.monotonic()))

    def say(self, topic: qos.Topic, base: bytes, raw: bool) -> None:
        """Publish a changed message, or damaged bytes of one."""
        if raw:
            self._publishers[topic].publish(base[:4] + damage(base[4:], self._rng))
            return
        message = deserialize_message(base, topic.type)
        session = getattr(message, "session", "")
        mutate(message, self._rng)
        as_stranger(topic.name, message, session, f"stranger-{self._rng.randrange(20)}", self._rng)
        self._publishers[topic].publish(message)

    def attack(self, count: int, raw: bool) -> None:
        known = {topic: [bytes(serialize_message(m)) for m in self.heard[topic.name][-10:]] for topic in TOPICS}
        if raw:  # bytes that are a message after all would be a lie under another's name
            known = {topic: [bytes(serialize_message(nameless(m, topic))) for m in self.heard[topic.name][-10:]]
                     for topic in TOPICS}
        for i in range(count):
            for topic in TOPICS:
                self.say(topic, self._rng.choice(known[topic]), raw)
            if i % BURST == 0:
                self.listen(SPARED)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


def nameless(message: Any, topic: qos.Topic) -> Any:
    copy = deserialize_message(serialize_message(message), topic.type)
    if hasattr(copy, "session"):
        copy.session = "stranger-0"
    if topic is qos.DEMO_MANIFEST:  # by one damaged byte it must not become one of demonstrations that never come
        copy.session = copy.space_fingerprint = ""
    return copy


def fuzz_processes(count: int, seed: int) -> list[Row]:
    """Send ``count`` malformed messages on every topic, and as many damaged ones in bytes, to a system at work."""
    with tempfile.TemporaryDirectory() as name, ros_domain():
        folder = Path(name)
        with System(folder, demonstrations(folder), learner={"eval_episodes": 2**62, "max_steps": 2**31},
                    actor={"eval_every": 0}) as system:
            stranger = Stranger(seed)  # before the loader, which is soon done
            try:
                system.start_all()
                system.start("monitor")
                _until(lambda: all(stranger.heard.values()) or stranger.listen(0.05),
                       lambda: [topic for topic, heard in stranger.heard.items() if not heard])
                system.wait_for_training(20)
                memory, began = _memory(system), time.monotonic()
                stranger.attack(count, raw=False)
                stranger.attack(count, raw=True)
                seconds = time.monotonic() - began
                grown = {node: (rss - memory[node]) / MIB for node, rss in _memory(system).items()}
                end = time.monotonic() + SETTLE
                while time.monotonic() < end:  # what the watcher has not taken in yet is of before
                    system.watcher.spin(0.05)
                assert system.watcher.learner is not None
                steps = system.watcher.learner.gradient_step
                system.wait(lambda learner, actor: learner.gradient_step > steps + 100)
                dead = [node for node in NODES if system.nodes[node].poll() is not None]
                assert system.watcher.learner is not None
                refused = system.watcher.learner.messages_refused + system.watcher.learner.transitions_rejected
                return [
                    at_least("DDS: malformed messages", count * len(TOPICS), 1),
                    at_least("DDS: messages in damaged bytes", count * len(TOPICS), 1),
                    informative("DDS: messages per second", 2 * count * len(TOPICS) / seconds),
                    at_least("DDS: refused by the learner", refused, 1),
                    Row("DDS: processes that died", ", ".join(dead) or "none", "", "none", not dead),
                    *(at_most(f"DDS: {node}: memory that it grew by", grown[node], 100, "MiB") for node in NODES),
                    *_log(system, stranger)]
            except AssertionError:
                print(system.tails())
                raise
            finally:
                stranger.close()


def _until(done: Callable[[], Any], lacking: Callable[[], Any]) -> None:
    end = time.monotonic() + LISTEN
    while not done():
        assert time.monotonic() < end, f"nothing was heard on {lacking()}"


def _memory(system: System) -> dict[str, int]:
    return {node: psutil.Process(system.nodes[node].pid).memory_info().rss for node in NODES}


def _log(system: System, stranger: Stranger) -> list[Row]:
    """Return what is in the log now that the actor and the learner were stopped in order."""
    spec = messages.to_space_spec(next(m for m in stranger.heard["space_spec"] if m.fingerprint))
    system.kill("actor")
    system.kill("learner", 2)
    stranger.listen(1.0)
    stored = [messages.from_transition(record, spec) for record in TransitionLog.read(system.run.transitions, spec)]
    heard = {content(m) for m in stranger.heard["transitions"]}
    names = {found[:2] for found in heard}  # session and sequence
    numbers = [(m.session, m.sequence) for m in stored]
    unheard = [m for m in stored if content(m) not in heard]
    wrong = [m for m in stored if not transition_is_valid(m, spec)] + [
        m for m in unheard if (m.session, m.sequence) in names or not m.session.startswith("actor-")]
    return [informative("DDS: transitions in the log", len(stored)),
            at_most("DDS: wrong transitions in the log", len(wrong), 0),
            at_most("DDS: of the actor, but this ear missed them", 100 * len(unheard) / max(1, len(stored)), 50, "%"),
            at_most("DDS: transitions in the log twice", len(numbers) - len(set(numbers)), 0)]
