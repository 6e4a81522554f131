# SPDX-License-Identifier: Apache-2.0
"""Recordings for the tests of bags: records in which everything follows from their number."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import CompressionFormat, StoragePlugin, Writer

from rlpd_ros.errors import DataError
from rlpd_ros.ros import definitions, messages
from rlpd_ros.ros.bags import TransitionLog, read_demonstrations
from rlpd_ros.types import Observation, Source, SpaceField, SpaceSpec, TransitionRecord

STATE = SpaceSpec("robot", (SpaceField.box("position", [-9] * 3, [9] * 3, "m"),),
                  (SpaceField.box("delta", [-1] * 2, [1] * 2),), 10.0, "base", 100)
PIXELS = replace(STATE, observation=(*STATE.observation, SpaceField.image("front", 16, 12)))
TRANSITION, SPACE = "rlpd_ros/msg/Transition", "rlpd_ros/msg/SpaceSpec"
LENGTH = 5  # steps per episode


def make_record(spec: SpaceSpec, sequence: int, session: str = "actor-1") -> TransitionRecord:
    """Make a record in which everything follows from the sequence; every fifth one ends an episode, with success."""
    rng = np.random.default_rng(sequence)
    episode, step = divmod(sequence - 1, LENGTH)

    def observe() -> Observation:
        return Observation(rng.normal(size=spec.state_size).astype(np.float32), {
            f.name: rng.integers(0, 256, f.shape, dtype=np.uint8) for f in spec.image_fields})

    last = step == LENGTH - 1
    return TransitionRecord(
        session, sequence, episode + 1, step, observe(), rng.uniform(-1, 1, spec.action_size).astype(np.float32),
        float(np.float32(rng.normal())), last, False, last, Source.DEMONSTRATION, 7,
        observe() if last else None, spec.fingerprint, 1_700_000_000_000_000_000 + sequence * 100_000_000,
        rng.uniform(-1, 1, spec.action_size).astype(np.float32) if sequence % 3 == 0 else None)


def make_records(spec: SpaceSpec, count: int, session: str = "actor-1") -> list[TransitionRecord]:
    return [make_record(spec, sequence, session) for sequence in range(1, count + 1)]


def write_log(path: Path, spec: SpaceSpec, records, flush_every: int = 3) -> Path:
    log = TransitionLog(path, spec)
    for i, record in enumerate(records):
        log.write(record)
        if i % flush_every == flush_every - 1:
            log.flush()
    log.close()
    return path


def serialize(record: TransitionRecord, spec: SpaceSpec) -> bytes:
    return bytes(serialize_message(messages.from_transition(record, spec)))


def content(records) -> list[list]:
    """Return every bit of the records in a form that can be compared."""
    return [[_plain(value) for value in vars(record).values()] for record in records]


def _plain(value):
    if isinstance(value, Observation):
        return [_plain(value.state), {name: _plain(image) for name, image in value.images.items()}]
    return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def expect_same(found, expected) -> None:
    """Compare records bit by bit. (Their serialization is no measure: what pads it is not defined.)"""
    assert content(found) == content(expected)


def expect_same_steps(demonstrations, expected) -> None:
    """Compare records that have been given another session."""
    expect_same([replace(found, session=record.session, sequence=record.sequence, episode=record.episode)
                 for found, record in zip(demonstrations.records, expected, strict=True)], expected)


def other_writer(path: Path, records, spec: SpaceSpec, plugin=StoragePlugin.MCAP, compression=None, space=True,
                 topic: str = "/transitions", type_name: str = TRANSITION) -> Path:
    """Record with the rosbags library."""
    writer = Writer(path, version=9, storage_plugin=plugin)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        store = definitions._typestore()
        if space:
            connection = writer.add_connection("/space_spec", SPACE, typestore=store)
            writer.write(connection, 5, serialize_message(messages.from_space_spec(spec)))
        connection = writer.add_connection(topic, type_name, typestore=store)
        for record in records:
            writer.write(connection, record.stamp, serialize(record, spec))
    return path


def expect_refusal(paths, *parts: str, spec=None) -> None:
    """Check that reading demonstrations fails with one line that has all ``parts``."""
    with pytest.raises(DataError) as caught:
        read_demonstrations(paths, spec)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
