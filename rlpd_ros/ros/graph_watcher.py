# SPDX-License-Identifier: Apache-2.0
"""Listen to a running graph on behalf of a diagnosis: its small topics, and who publishes and subscribes what."""

from __future__ import annotations

import os
import re
import time
from collections import Counter

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible

from rlpd_ros.data.demonstrations import DemonstrationManifest
from rlpd_ros.diagnosis.collector import Collector
from rlpd_ros.diagnosis.connection import MARKS, WIRES
from rlpd_ros.diagnosis.evidence import Endpoint, Evidence, Graph, Mismatch
from rlpd_ros.diagnosis.local import look
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.camera_status import read_statuses
from rlpd_ros.settings import NODES
from rlpd_ros.status import HOST, ActorReport, LearnerReport
from rlpd_ros.types import EpisodeSummary
from rlpd_ros.untrusted import Refusals

HEARD = (qos.LEARNER_STATUS, qos.ACTOR_STATUS, qos.SPACE_SPEC, qos.DEMO_MANIFEST, qos.EPISODE, qos.DIAGNOSTICS)
TOPICS = tuple(dict.fromkeys([topic for topic, _, _ in WIRES] + list(MARKS.values())))
ARM_TOPICS = (qos.SPACE_SPEC.name, qos.OBSERVATION.name, qos.ACTION.name)  # in the namespace of each arm
ENOUGH = 2.2  # s
MAX_ARMS = 50  # bounds what strangers can make it look for
COUNT = re.compile("[0-9]{1,6}")
RESTARTS = "restarts"  # the status by which a monitor tells how often it saw nodes die


class GraphWatcher:
    """Subscribe ``node`` to what a diagnosis needs. The owner spins the node and calls ``look`` now and then."""

    def __init__(self, node: Node, patience: int, domain: int) -> None:
        self._node = node
        self._domain = domain
        self._collector = Collector(patience)
        self._strangers: Counter[str] = Counter()
        self._refusals = Refusals(node.get_logger().warning)
        callbacks = (self._on_learner, self._on_actor, self._on_space, self._on_manifest, self._on_episode,
                     self._on_diagnostics)
        for topic, callback in zip(HEARD, callbacks, strict=True):
            qos.subscription(node, topic, callback, self._refusals)
        self._heeds_monitor = False
        self._seen_arms: set[str] = set()

    def heed_monitor(self) -> None:
        """Take what a monitor of the same namespace has seen before this process came."""
        self._heeds_monitor = True

    @property
    def heard_enough(self) -> bool:
        """Tell whether learner and actor have been heard for long enough to see what changes."""
        evidence = self._collector.evidence
        tracks = [evidence.learner_track, next(iter(evidence.actor_tracks), None)]
        return all(track is not None and track.span() >= ENOUGH for track in tracks)

    def look(self) -> Evidence:
        """Look at the graph and the machine, and return all evidence."""
        evidence = self._collector.evidence
        learner = evidence.learner
        run = learner.run if learner is not None and learner.host == HOST and os.path.isdir(learner.run) else ""
        now = time.time()
        machine = look(self._domain, self._node.get_namespace(), run, self._strangers)
        self._collector.look(self._graph(now), machine, now)
        return self._collector.at(now)

    def _graph(self, now: float) -> Graph:
        node = self._node
        endpoints, mismatches = [], []
        arms = self._arms()
        names = [(topic, node.resolve_topic_name(topic)) for topic in TOPICS]
        names += [(topic, f"{arm}/{topic}") for topic in ARM_TOPICS for arm in arms]
        for topic, name in names:
            publishers = _known(node.get_publishers_info_by_topic(name))
            subscribers = _known(node.get_subscriptions_info_by_topic(name))
            endpoints += [Endpoint(topic, _name(info), True, _gid(info)) for info in publishers]
            endpoints += [Endpoint(topic, _name(info), False, _gid(info)) for info in subscribers]
            mismatches += [Mismatch(topic, _name(offered), _name(asked), reason) for offered in publishers
                           for asked in subscribers if (reason := _why_not(offered, asked))]
        return Graph({e.node: now for e in endpoints}, tuple(endpoints), self._elsewhere(arms), tuple(mismatches))

    def _arms(self) -> list[str]:
        """Return the namespaces of the arms, if they have any: those of the actors that report to this one, or did."""
        actors = self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(qos.ACTOR_STATUS.name))
        for arm in {info.node_namespace for info in _known(actors)} - {self._node.get_namespace()}:
            if len(self._seen_arms) < MAX_ARMS:
                self._seen_arms.add(arm)
        return sorted(self._seen_arms)

    def _elsewhere(self, arms: list[str]) -> dict[str, str]:
        """Return the namespaces of nodes of this package that are neither in this node's own nor arms."""
        found = {}
        kinds = {qos_topic: kind for kind, qos_topic in MARKS.items()}
        for name, types in self._node.get_topic_names_and_types():
            namespace, _, topic = name.rpartition("/")
            if topic in kinds and any(t.startswith("rlpd_ros/") for t in types):
                namespace = namespace or "/"
                ours = namespace in (self._node.get_namespace(), *arms)
                if not ours and self._node.get_publishers_info_by_topic(name):
                    found[kinds[topic]] = namespace
        return found

    def _on_learner(self, message) -> None:
        self._collector.hear_learner(messages.to_fields(LearnerReport, message), _stamp(message), time.time())

    def _on_actor(self, message) -> None:
        self._collector.hear_actor(messages.to_fields(ActorReport, message), _stamp(message), time.time())

    def _on_space(self, message) -> None:
        self._collector.hear_space(messages.to_space_spec(message))

    def _on_manifest(self, message) -> None:
        self._collector.hear_manifest(messages.to_fields(DemonstrationManifest, message))

    def _on_episode(self, message) -> None:
        self._collector.hear_episode(messages.to_fields(EpisodeSummary, message))

    def _on_diagnostics(self, message) -> None:
        namespace = self._node.get_namespace()
        for camera, sight in read_statuses(message, namespace, time.time()).items():
            self._collector.hear_camera(camera, sight)
        name = status_name(namespace, RESTARTS)
        for status in message.status:
            if self._heeds_monitor and status.name == name:
                counts = {v.key: int(v.value) for v in status.values if v.key in NODES and COUNT.fullmatch(v.value)}
                self._collector.hear_restarts(counts)


def status_name(namespace: str, check: str) -> str:
    """Return the name of a check's status on /diagnostics."""
    return f"rlpd{namespace.rstrip('/')}: {check}"


def _known(infos: list) -> list:
    """Leave out the endpoints of nodes that are not known yet, and those of tools."""
    return [info for info in infos if not info.node_name.startswith("_")]


def _name(info) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def _gid(info) -> str:
    return bytes(info.endpoint_gid).hex()


def _why_not(offered, asked) -> str:
    compatibility, reason = qos_check_compatible(offered.qos_profile, asked.qos_profile)
    return reason.rstrip(";").replace("ERROR: ", "") if compatibility == QoSCompatibility.ERROR else ""


def _stamp(message) -> float:
    return message.header.stamp.sec + message.header.stamp.nanosec / 1e9
