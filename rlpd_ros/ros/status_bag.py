# SPDX-License-Identifier: Apache-2.0
"""Evidence for a diagnosis out of a bag of the status topics: ``ros2 bag record learner_status actor_status ...``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlpd_ros.data.demonstrations import DemonstrationManifest
from rlpd_ros.diagnosis.collector import Collector
from rlpd_ros.diagnosis.evidence import Evidence
from rlpd_ros.errors import DataError
from rlpd_ros.ros import definitions, messages, qos
from rlpd_ros.ros.bag_files import FORMATS, RawMessage, segments_of
from rlpd_ros.status import ActorReport, LearnerReport
from rlpd_ros.types import EpisodeSummary

TOPICS = {topic.type_name: topic for topic in (
    qos.LEARNER_STATUS, qos.ACTOR_STATUS, qos.SPACE_SPEC, qos.DEMO_MANIFEST, qos.EPISODE)}
SECOND = 1e9  # ns


def evidence_of_bag(path: Path, patience: int) -> Evidence:
    """Replay a bag. ``now`` is the time of its last message; it may have been cut off. Raises DataError."""
    collector, now = Collector(patience), 0.0
    files = [path] if path.is_file() else segments_of(path)
    if not files or any(file.suffix not in FORMATS for file in files):
        raise DataError(f"{path}: expected the folder of a run, or a rosbag2 bag ({' or '.join(FORMATS)})")
    for file in files:
        for raw in FORMATS[file.suffix](file, True).messages(lambda topic, type_name: type_name in TOPICS):
            now = max(now, raw.stamp / SECOND)
            _hear(collector, raw)
    return collector.at(now)


def _hear(collector: Collector, raw: RawMessage) -> None:
    topic, at = TOPICS[raw.type], raw.stamp / SECOND
    message = definitions.decode(raw.type, raw.data)
    if topic is qos.LEARNER_STATUS:
        collector.hear_learner(messages.to_fields(LearnerReport, message), _stamp(message), at)
    elif topic is qos.ACTOR_STATUS:
        collector.hear_actor(messages.to_fields(ActorReport, message), _stamp(message), at)
    elif topic is qos.SPACE_SPEC:
        collector.hear_space(messages.to_space_spec(message))
    elif topic is qos.DEMO_MANIFEST:
        collector.hear_manifest(messages.to_fields(DemonstrationManifest, message))
    else:
        collector.hear_episode(messages.to_fields(EpisodeSummary, message))


def _stamp(message: Any) -> float:
    return message.header.stamp.sec + message.header.stamp.nanosec / SECOND
