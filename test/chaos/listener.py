# SPDX-License-Identifier: Apache-2.0
"""An independent recording of what nodes say to each other, as lines of JSON: ``listener.py FILE``.

It knows nothing of the package's logic: it writes down what it hears, with its own hash of every transition's content.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.qos import QoSProfile

from rlpd_ros.ros import qos

DEPTH = 20_000  # messages that may wait: nothing is to be missed


def transition_digest(message) -> str:
    """Return a hash of everything that a transition says, but for who sent it."""
    numbers = [message.episode, message.step, message.source, message.policy_version, message.header.stamp.sec,
               message.header.stamp.nanosec, bool(message.terminated), bool(message.truncated), bool(message.success)]
    digest = hashlib.sha256(json.dumps([int(number) for number in numbers]).encode())
    for name in ("state", "images", "action", "asked_action", "reward", "final_state", "final_images"):
        value = getattr(message, name)
        digest.update(np.asarray(value, np.uint8 if "images" in name else np.float32).tobytes())
        digest.update(b"|")
    return digest.hexdigest()[:20]


def step_digest(action, reward, terminated, truncated) -> str:
    """Return a hash of what a step did."""
    digest = hashlib.sha256(np.asarray(action, np.float32).tobytes() + np.float32(reward).tobytes())
    digest.update(bytes([bool(terminated), bool(truncated)]))
    return digest.hexdigest()[:20]


def state_digest(state) -> str:
    return hashlib.sha256(np.asarray(state, np.float32).tobytes()).hexdigest()[:20]


def stamp_of(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def describe(topic: str, m) -> dict:
    """Return what is to be remembered of a message."""
    if topic == "transitions":
        return {"session": m.session, "sequence": m.sequence, "digest": transition_digest(m)}
    if topic == "observation":
        return {"stamp": stamp_of(m), "place": [m.session, m.episode, m.step], "state": state_digest(m.state),
                "did": step_digest(m.executed_action, m.reward, m.terminated, m.truncated)}
    if topic == "transitions_ack":
        return {"session": m.session, "sequence": m.sequence, "learner": m.learner_session}
    if topic == "policy_params":
        return {"session": m.session, "version": m.version}
    if topic == "actor_status":
        return {name: getattr(m, name) for name in (
            "session", "state", "applied_version", "env_steps", "overruns", "transitions_unacked",
            "transitions_in_memory", "transitions_spooled", "transitions_resent", "transitions_lost", "spool_error")}
    return {name: getattr(m, name) for name in (
        "session", "state", "text", "gradient_step", "version", "env_steps", "demo_buffer_size", "demo_expected",
        "transitions_stored", "transitions_duplicate", "transitions_rejected", "gaps")}


TOPICS = (qos.TRANSITIONS, qos.OBSERVATION, qos.TRANSITIONS_ACK, qos.POLICY_PARAMS, qos.ACTOR_STATUS,
          qos.LEARNER_STATUS)


def main(path: Path) -> None:
    rclpy.init()
    node = rclpy.create_node("listener")
    with path.open("w", buffering=1) as file:

        def listen(topic: qos.Topic) -> None:
            def write(message) -> None:
                told = {"t": time.monotonic(), "topic": topic.name} | describe(topic.name, message)
                file.write(json.dumps(told) + "\n")

            profile = topic.qos
            deep = QoSProfile(depth=DEPTH, history=profile.history, reliability=profile.reliability,
                              durability=profile.durability)
            node.create_subscription(topic.type, topic.name, write, deep)

        for topic in TOPICS:
            listen(topic)
        file.write(json.dumps({"t": time.monotonic(), "topic": "ready"}) + "\n")
        rclpy.spin(node)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
