# SPDX-License-Identifier: Apache-2.0
"""Every topic with its type and quality of service: one table, which nodes and bags share.

A profile can be overridden per node by the usual parameters, ``qos_overrides./<topic>.<publisher|subscription>.depth``
and so on. The middleware refuses to connect incompatible profiles and says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSHistoryPolicy,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from rlpd_ros.errors import DataError
from rlpd_ros.untrusted import Refusals

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks  # type: ignore[no-redef]

TRANSITIONS_DEPTH = 1000  # more than a sender has under way: nothing is dropped between sender and receiver
SESSIONS_DEPTH = 100  # receipts to different sessions must not push each other out
STATUS_DEPTH = 10
SENSOR_DEPTH = 5  # as rclpy's sensor data profile
JOY_DEPTH = 100  # spacenav sends up to 1,000 messages a second, and of a pressed button only one


@dataclass(frozen=True)
class Topic:
    """A relative name, the type's name, and how messages are delivered."""

    name: str
    type_name: str
    depth: int = 1
    reliable: bool = True
    latched: bool = False  # who comes late still gets the newest

    @property
    def type(self) -> Any:
        """Return the message class; imported at first use, so that a process loads only the packages it uses."""
        package, kind, name = self.type_name.split("/")
        return getattr(import_module(f"{package}.{kind}"), name)

    @property
    def qos(self) -> QoSProfile:
        durability = QoSDurabilityPolicy.TRANSIENT_LOCAL if self.latched else QoSDurabilityPolicy.VOLATILE
        reliability = QoSReliabilityPolicy.RELIABLE if self.reliable else QoSReliabilityPolicy.BEST_EFFORT
        return QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=self.depth, reliability=reliability,
                          durability=durability)


SPACE_SPEC = Topic("space_spec", "rlpd_ros/msg/SpaceSpec", latched=True)
OBSERVATION = Topic("observation", "rlpd_ros/msg/Observation")
ACTION = Topic("action", "rlpd_ros/msg/Action")
INTERVENTION = Topic("intervention", "rlpd_ros/msg/Action", reliable=False)
OUTCOME = Topic("outcome", "rlpd_ros/msg/Outcome")
JOY = Topic("joy", "sensor_msgs/msg/Joy", JOY_DEPTH, reliable=False)
TRANSITIONS = Topic("transitions", "rlpd_ros/msg/Transition", TRANSITIONS_DEPTH)
TRANSITIONS_ACK = Topic("transitions_ack", "rlpd_ros/msg/TransitionsAck", SESSIONS_DEPTH)  # not latched: see Outbox
DEMO_TRANSITIONS = Topic("demo_transitions", "rlpd_ros/msg/Transition", TRANSITIONS_DEPTH)
DEMO_MANIFEST = Topic("demo_manifest", "rlpd_ros/msg/DemoManifest", latched=True)
POLICY_PARAMS = Topic("policy_params", "rlpd_ros/msg/PolicyParams", latched=True)
POLICY_VERSION = Topic("policy_version", "rlpd_ros/msg/PolicyVersion", latched=True)
ACTOR_STATUS = Topic("actor_status", "rlpd_ros/msg/ActorStatus", STATUS_DEPTH)
LEARNER_STATUS = Topic("learner_status", "rlpd_ros/msg/LearnerStatus", STATUS_DEPTH, latched=True)
EPISODE = Topic("episode", "rlpd_ros/msg/EpisodeStats", STATUS_DEPTH)
JOINT_STATES = Topic("joint_states", "sensor_msgs/msg/JointState", SENSOR_DEPTH, reliable=False)
EE_POSE = Topic("ee_pose", "geometry_msgs/msg/PoseStamped", SENSOR_DEPTH, reliable=False)
DIAGNOSTICS = Topic("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", STATUS_DEPTH)


def camera(name: str) -> Topic:
    """Return the topic of an observed image; what a name of a topic may not have becomes _."""
    name = re.sub(r"[^A-Za-z0-9_]|^(?=[0-9])", "_", name)
    return Topic(f"camera/{name}/image_raw", "sensor_msgs/msg/Image", SENSOR_DEPTH, reliable=False)


_refused: WeakKeyDictionary[Node, dict[str, str]] = WeakKeyDictionary()  # topic -> policy, as the middleware reported


def checked(topic: str, callback: Callable[[Any], None], refusals: Refusals) -> Callable[[Any], None]:
    """Return ``callback`` so that a message that it refuses by DataError is counted in ``refusals``, not raised."""
    def receive(message: Any) -> None:
        try:
            callback(message)
        except DataError as error:
            refusals.add(topic, error)

    return receive


def publisher(node: Node, topic: Topic, **options: Any) -> Publisher:
    """Publish ``topic`` from ``node``; ``options`` go to ``create_publisher``."""
    events = PublisherEventCallbacks(incompatible_qos=_on_incompatible(node, topic, "a subscriber asks for more"))
    return node.create_publisher(topic.type, topic.name, topic.qos, event_callbacks=events,
                                 qos_overriding_options=QoSOverridingOptions.with_default_policies(), **options)


def subscription(node: Node, topic: Topic, callback: Callable[[Any], None], refusals: Refusals | None = None,
                 **options: Any) -> Subscription:
    """Subscribe ``node`` to ``topic``; ``options`` go to ``create_subscription``.

    With ``refusals`` a message for which ``callback`` raises DataError is counted there, and that is all.
    """
    if refusals is not None:
        callback = checked(topic.name, callback, refusals)
    events = SubscriptionEventCallbacks(incompatible_qos=_on_incompatible(node, topic, "a publisher offers less"))
    return node.create_subscription(topic.type, topic.name, callback, topic.qos, event_callbacks=events,
                                    qos_overriding_options=QoSOverridingOptions.with_default_policies(), **options)


def incompatible(node: Node) -> str:
    """Return what the middleware has refused to connect to ``node`` since it started: topics with policies, or ""."""
    return ", ".join(f"{topic}: {policy}" for topic, policy in _refused.get(node, {}).items())


def _on_incompatible(node: Node, topic: Topic, what: str) -> Callable[[Any], None]:
    def refused(event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
        _refused.setdefault(node, {})[topic.name] = policy
        node.get_logger().warning(f"incompatible quality of service on {topic.name}: {policy}: {what}, and nothing is "
                                  "delivered; remove the qos_overrides of that topic")

    return refused
