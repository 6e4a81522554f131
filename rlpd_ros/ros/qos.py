# SPDX-License-Identifier: Apache-2.0
"""Every topic with its type and quality of service: one table, which nodes and bags share.

A profile can be overridden per node by the usual parameters, ``qos_overrides./<topic>.<publisher|subscription>.depth``
and so on. The middleware refuses to connect incompatible profiles and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSHistoryPolicy,
    QoSProfile,
    QoSReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

TRANSITIONS_DEPTH = 1000  # more than a sender has under way: nothing is dropped between sender and receiver
SESSIONS_DEPTH = 100  # receipts to different sessions must not push each other out
STATUS_DEPTH = 10
SENSOR_DEPTH = 5  # as rclpy's sensor data profile


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
TRANSITIONS = Topic("transitions", "rlpd_ros/msg/Transition", TRANSITIONS_DEPTH)
TRANSITIONS_ACK = Topic("transitions_ack", "rlpd_ros/msg/TransitionsAck", SESSIONS_DEPTH, latched=True)
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
    """Return the topic of a camera's images."""
    return Topic(f"camera/{name}/image_raw", "sensor_msgs/msg/Image", SENSOR_DEPTH, reliable=False)


def publisher(node: Node, topic: Topic, **options: Any) -> Publisher:
    """Publish ``topic`` from ``node``; ``options`` go to ``create_publisher``."""
    return node.create_publisher(topic.type, topic.name, topic.qos,
                                 qos_overriding_options=QoSOverridingOptions.with_default_policies(), **options)


def subscription(node: Node, topic: Topic, callback: Callable[[Any], None], **options: Any) -> Subscription:
    """Subscribe ``node`` to ``topic``; ``options`` go to ``create_subscription``."""
    return node.create_subscription(topic.type, topic.name, callback, topic.qos,
                                    qos_overriding_options=QoSOverridingOptions.with_default_policies(), **options)
