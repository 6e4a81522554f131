# SPDX-License-Identifier: Apache-2.0
"""Messages from and to the data that the rest of the package works with.

``from_x`` makes a message, ``to_x`` reads one. What comes in is checked for its sizes and raises DataError naming the
field; arrays of what came in are views of the message. Floats survive a round trip bit by bit. A message may also be
one that rosbags decoded from a bag: it has the same fields, with NumPy arrays in place of ``array.array``.
"""

from __future__ import annotations

import dataclasses
import math
from array import array
from typing import Any, TypeVar

import numpy as np

from rlpd_ros import msg  # type: ignore[attr-defined]  # generated
from rlpd_ros.arm.driver import Telemetry
from rlpd_ros.errors import DataError
from rlpd_ros.status import ActorReport, ActorState, LearnerReport, LearnerState
from rlpd_ros.types import (
    Acknowledgement,
    ActionRecord,
    Observation,
    PolicySnapshot,
    Source,
    SpaceField,
    SpaceSpec,
    TimeStep,
    TransitionRecord,
)
from rlpd_ros.untrusted import expect_name, printable

Record = TypeVar("Record")

MAX_FIELDS = 1000  # of a space
MAX_ELEMENTS = 2**26  # of one field, and of all images of an observation
MAX_NUMBERS = 10_000  # of a state or an action: what networks are built for
MAX_RATE = 1e5  # Hz
MAX_TEXT = 4096  # characters of a text for people
MAX_ENTRIES = 10_000  # of a list
SESSIONS = ("session", "learner_session")
STATES: dict[type, range] = {ActorReport: range(len(ActorState)), LearnerReport: range(len(LearnerState))}
SECOND = 1_000_000_000  # ns


# Spaces


def from_space_spec(spec: SpaceSpec, stamp: int = 0) -> msg.SpaceSpec:
    """Make the message that describes ``spec``; ``stamp`` in ns."""
    message = msg.SpaceSpec(
        robot=spec.robot, control_rate=float(spec.control_rate), max_episode_steps=spec.max_episode_steps,
        lockstep=spec.lockstep, fingerprint=spec.fingerprint,
        observation=[_from_space_field(f) for f in spec.observation],
        action=[_from_space_field(f) for f in spec.action])
    _set_header(message, stamp, spec.frame_id)
    return message


def _from_space_field(f: SpaceField) -> msg.SpaceField:
    return msg.SpaceField(name=f.name, dtype=f.dtype, shape=f.shape, unit=f.unit, low=f.low, high=f.high)


def to_space_spec(message: Any) -> SpaceSpec:
    """Read a specification. Raises DataError naming the field that makes no sense, or a wrong fingerprint."""
    spec = SpaceSpec(
        robot=expect_name("space_spec: robot", message.robot, 0), control_rate=message.control_rate,
        lockstep=bool(message.lockstep), frame_id=expect_name("space_spec: frame_id", message.header.frame_id, 0),
        max_episode_steps=int(message.max_episode_steps),
        observation=_to_space_fields("observation", message.observation),
        action=_to_space_fields("action", message.action))
    if not 1.0 / MAX_RATE <= spec.control_rate <= MAX_RATE:
        raise DataError(f"space_spec: control_rate: expected Hz above 0 and at most {MAX_RATE:g}, found "
                        f"{spec.control_rate}")
    for kind, size, limit in (("observation", spec.state_size, MAX_NUMBERS), ("action", spec.action_size, MAX_NUMBERS),
                              ("images", sum(f.size for f in spec.image_fields), MAX_ELEMENTS)):
        if size > limit:
            raise DataError(f"space_spec: {kind}: expected at most {limit} numbers, found {size}")
    if any(f.is_image for f in spec.action):
        raise DataError("space_spec: action: expected float32 fields, found an image")
    if message.fingerprint != spec.fingerprint:
        raise DataError(f"space_spec: fingerprint: expected {spec.fingerprint} for these fields, found "
                        f"'{printable(message.fingerprint)}'")
    return spec


def _to_space_fields(kind: str, messages: Any) -> tuple[SpaceField, ...]:
    if not 0 < len(messages) <= MAX_FIELDS:
        raise DataError(f"space_spec: {kind}: expected 1 to {MAX_FIELDS} fields, found {len(messages)}")
    fields = tuple(_to_space_field(f"{kind}[{i}]", message) for i, message in enumerate(messages))
    names = [f.name for f in fields]
    if len(set(names)) < len(names):
        raise DataError(f"space_spec: {kind}: expected different names, found {printable(names)}")
    return fields


def _to_space_field(where: str, message: Any) -> SpaceField:
    dimensions = {"float32": 1, "uint8": 3}.get(message.dtype)
    if dimensions is None:
        raise DataError(f"space_spec: {where}.dtype: expected float32 or uint8, found '{printable(message.dtype)}'")
    shape = tuple(int(n) for n in message.shape)
    if len(shape) != dimensions or not 0 < math.prod(shape) <= MAX_ELEMENTS:
        raise DataError(f"space_spec: {where}.shape: expected {dimensions} numbers above 0, their product at most "
                        f"{MAX_ELEMENTS}, found {shape[:8]}")
    bounds = 1 if message.dtype == "uint8" else shape[0]
    low, high = ([float(x) for x in bound] for bound in (message.low, message.high))
    if len(low) != bounds or len(high) != bounds or not all(a <= b for a, b in zip(low, high, strict=True)):
        raise DataError(f"space_spec: {where}: expected {bounds} bounds with low <= high, found low {low[:8]} and high "
                        f"{high[:8]}")
    return SpaceField(expect_name(f"space_spec: {where}.name", message.name), shape, tuple(low), tuple(high),
                      expect_name(f"space_spec: {where}.unit", message.unit, 0), message.dtype)


# Observations, actions, transitions


def from_time_step(now: TimeStep, spec: SpaceSpec) -> msg.Observation:
    """Make the message for one observation."""
    message = msg.Observation(
        session=now.session, episode=now.episode, step=now.step, reward=float(now.reward),
        terminated=bool(now.terminated), truncated=bool(now.truncated), success=bool(now.success),
        source=int(now.source), actor=now.actor)
    _set_header(message, now.stamp, spec.frame_id)
    _fill_observation(message.state, message.images, now.observation, spec)
    if now.executed_action is not None:
        _fill_floats(message.executed_action, now.executed_action)
    return message


def to_time_step(message: Any, spec: SpaceSpec) -> TimeStep:
    """Read an observation of ``spec``. Raises DataError naming the field whose size is wrong."""
    executed = np.asarray(message.executed_action, np.float32)
    if message.step > 0 or executed.size:
        _expect_size("executed_action", executed, spec.action_size)
    return TimeStep(
        message.session, message.episode, message.step, _to_observation("", message.state, message.images, spec),
        message.reward, message.terminated, message.truncated, message.success, executed if executed.size else None,
        _source(message.source), message.actor, stamp_of(message))


def from_action(record: ActionRecord) -> msg.Action:
    """Make the message for one answer."""
    message = msg.Action(
        session=record.session, episode=record.episode, step=record.step, policy_version=record.policy_version,
        source=int(record.source))
    _set_header(message, record.stamp)
    _fill_floats(message.action, record.action)
    return message


def to_action(message: Any) -> ActionRecord:
    """Read an answer. Its size is up to who executes it. Raises DataError for an unknown source."""
    return ActionRecord(message.session, message.episode, message.step, np.asarray(message.action, np.float32),
                        message.policy_version, _source(message.source), stamp_of(message))


def from_outcome(success: bool, stamp: int) -> msg.Outcome:
    """Make the message for a person's word on an episode, given at ``stamp``, ns."""
    message = msg.Outcome(success=success)
    _set_header(message, stamp)
    return message


def from_transition(record: TransitionRecord, spec: SpaceSpec) -> msg.Transition:
    """Make the message for one step of experience."""
    message = msg.Transition(
        session=record.session, sequence=record.sequence, episode=record.episode, step=record.step,
        space_fingerprint=record.space_fingerprint, reward=float(record.reward), terminated=bool(record.terminated),
        truncated=bool(record.truncated), success=bool(record.success), source=int(record.source),
        policy_version=record.policy_version)
    _set_header(message, record.stamp, spec.frame_id)
    _fill_floats(message.action, record.action)
    if record.asked_action is not None:
        _fill_floats(message.asked_action, record.asked_action)
    _fill_observation(message.state, message.images, record.observation, spec)
    if record.final_observation is not None:
        _fill_observation(message.final_state, message.final_images, record.final_observation, spec)
    return message


def to_transition(message: Any, spec: SpaceSpec) -> TransitionRecord:
    """Read one step of experience made in ``spec``.

    Raises DataError naming the field whose size is wrong; a foreign fingerprint comes first, since it explains sizes.
    """
    if message.space_fingerprint != spec.fingerprint:
        raise DataError(f"space_fingerprint: expected {spec.fingerprint}, found "
                        f"'{printable(message.space_fingerprint)}': it was made in another space")
    final = None
    if len(message.final_state) or len(message.final_images):
        final = _to_observation("final_", message.final_state, message.final_images, spec)
    action, asked = np.asarray(message.action, np.float32), np.asarray(message.asked_action, np.float32)
    _expect_size("action", action, spec.action_size)
    if asked.size:
        _expect_size("asked_action", asked, spec.action_size)
    return TransitionRecord(
        message.session, message.sequence, message.episode, message.step,
        _to_observation("", message.state, message.images, spec), action, message.reward, message.terminated,
        message.truncated, message.success, _source(message.source), message.policy_version, final,
        message.space_fingerprint, stamp_of(message), asked if asked.size else None)


# Policies


def from_policy_snapshot(snapshot: PolicySnapshot) -> msg.PolicyParams:
    """Make the message that carries a policy. The probe's images are in the order of the space."""
    message = msg.PolicyParams(
        session=snapshot.session, version=snapshot.version, gradient_step=snapshot.gradient_step,
        checksum=snapshot.checksum, network=snapshot.network, network_fingerprint=snapshot.network_fingerprint,
        space_fingerprint=snapshot.space_fingerprint, change=float(snapshot.change))
    _set_header(message, snapshot.stamp)
    _fill_floats(message.probe_state, snapshot.probe.state)
    for image in snapshot.probe.images.values():
        _fill_bytes(message.probe_images, image)
    _fill_floats(message.probe_action, snapshot.probe_action)
    message.data.frombytes(snapshot.data)
    return message


def to_policy_snapshot(message: Any, spec: SpaceSpec) -> PolicySnapshot:
    """Read a policy for whoever verifies it.

    Raises DataError naming a part of the probe whose size is wrong, or a change that is not finite. A policy for
    another space has a probe that cannot be taken apart: it comes without images, to be refused by its fingerprint.
    """
    if not math.isfinite(message.change):
        raise DataError(f"change: expected a finite number, found {message.change}")
    state, action = np.asarray(message.probe_state, np.float32), np.asarray(message.probe_action, np.float32)
    probe = Observation(state)
    if message.space_fingerprint == spec.fingerprint:
        probe = _to_observation("probe_", message.probe_state, message.probe_images, spec)
        _expect_size("probe_action", action, spec.action_size)
    return PolicySnapshot(
        message.session, message.version, message.gradient_step, message.checksum, message.network,
        message.network_fingerprint, message.space_fingerprint, probe, action, message.change,
        np.asarray(message.data, np.uint8).data, stamp_of(message))


def from_policy_version(snapshot: PolicySnapshot, lowest_applied_version: int, actors: int,
                        stamp: int = 0) -> msg.PolicyVersion:
    """Make the message that tells people which policy is out and in use."""
    message = msg.PolicyVersion(
        version=snapshot.version, gradient_step=snapshot.gradient_step, checksum=snapshot.checksum,
        lowest_applied_version=lowest_applied_version, actors=actors)
    _set_header(message, stamp)
    return message


# Records of plain values


def to_acknowledgement(message: msg.TransitionsAck) -> Acknowledgement:
    """Read the learner's receipt."""
    return to_fields(Acknowledgement, message)


def from_fields(message_type: type, record: Any, stamp: int = 0) -> Any:
    """Make a message whose fields are those of ``record`` by the same names: numbers, texts or lists of them."""
    message = message_type()
    for name in message.get_fields_and_field_types():
        if name != "header":
            value, kind = getattr(record, name), type(getattr(message, name))
            setattr(message, name, kind(value) if kind in (bool, int, float, str) else list(value))
    _set_header(message, stamp)
    return message


def to_fields(record_type: type[Record], message: Any) -> Record:
    """Read the fields of a dataclass from a message's fields of the same names; sequences become lists.

    Texts are made printable and shortened. Raises DataError naming a number that is not finite, a session with an
    impossible name, a list that is too long or a state that there is not.
    """
    values = {f.name: _plain(f.name, getattr(message, f.name))
              for f in dataclasses.fields(record_type)}  # type: ignore[arg-type]
    states = STATES.get(record_type)
    if states is not None and values["state"] not in states:
        raise DataError(f"state: expected 0 to {states[-1]}, found {values['state']}")
    return record_type(**values)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray):  # of a message out of a bag
        value = value.tolist()
    if isinstance(value, str):
        return expect_name(name, value, 0) if name in SESSIONS else printable(value, MAX_TEXT)
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{name}: expected a finite number, found {value}")
    if isinstance(value, (bool, int, float)):
        return value
    if len(value) > MAX_ENTRIES:
        raise DataError(f"{name}: expected at most {MAX_ENTRIES} entries, found {len(value)}")
    return [_plain(name, entry) for entry in value]


# What people look at


def from_joint_state(telemetry: Telemetry, stamp: int, frame_id: str) -> Any:
    """Make a sensor_msgs/JointState: rad, rad/s, N m (fingers: m, m/s, N)."""
    from sensor_msgs.msg import JointState  # only who drives an arm needs it

    message = JointState(
        name=list(telemetry.joint_names), position=telemetry.position.tolist(), velocity=telemetry.velocity.tolist(),
        effort=telemetry.effort.tolist())
    _set_header(message, stamp, frame_id)
    return message


def from_ee_pose(telemetry: Telemetry, stamp: int, frame_id: str) -> Any:
    """Make a geometry_msgs/PoseStamped of the tool: m, quaternion, in ``frame_id``."""
    from geometry_msgs.msg import PoseStamped

    message = PoseStamped()
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = telemetry.ee_position.tolist()
    orientation.x, orientation.y, orientation.z, orientation.w = telemetry.ee_orientation.tolist()
    _set_header(message, stamp, frame_id)
    return message


def from_image(image: np.ndarray, stamp: int, frame_id: str) -> Any:
    """Make a sensor_msgs/Image of an image, uint8 (height, width, channels); RGB if there are three."""
    from sensor_msgs.msg import Image

    height, width, channels = image.shape
    encoding = {1: "mono8", 3: "rgb8", 4: "rgba8"}.get(channels, f"8UC{channels}")
    message = Image(height=height, width=width, encoding=encoding, step=width * channels)
    _fill_bytes(message.data, image)
    _set_header(message, stamp, frame_id)
    return message


# Parts


def _set_header(message: Any, stamp: int, frame_id: str = "") -> None:
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
    message.header.frame_id = frame_id


def stamp_of(message: Any) -> int:
    """Return the stamp of a message's header, ns. Raises DataError for what is none."""
    stamp = message.header.stamp
    if not (stamp.sec >= 0 and stamp.nanosec < SECOND):
        raise DataError(f"stamp: expected a time since 1970, found {stamp.sec} s and {stamp.nanosec} ns")
    return stamp.sec * SECOND + stamp.nanosec


# A new message's arrays are filled in place: assigning an array copies it once or twice more.


def _fill_floats(target: array, values: np.ndarray) -> None:
    target.frombytes(np.asarray(values, np.float32).tobytes())


def _fill_bytes(target: array, image: np.ndarray) -> None:
    target.frombytes(np.ascontiguousarray(image, np.uint8).data)


def _fill_observation(state: array, images: array, observation: Observation, spec: SpaceSpec) -> None:
    _fill_floats(state, observation.state)
    for f in spec.image_fields:
        _fill_bytes(images, observation.images[f.name])


def _to_observation(prefix: str, state: Any, images: Any, spec: SpaceSpec) -> Observation:
    state, flat = np.asarray(state, np.float32), np.asarray(images, np.uint8)
    _expect_size(f"{prefix}state", state, spec.state_size)
    _expect_size(f"{prefix}images", flat, sum(f.size for f in spec.image_fields))
    parts, start = {}, 0
    for f in spec.image_fields:
        parts[f.name] = flat[start:start + f.size].reshape(f.shape)
        start += f.size
    return Observation(state, parts)


def _expect_size(name: str, values: np.ndarray, size: int) -> None:
    if values.shape != (size,):
        raise DataError(f"{name}: expected {size} values, found {values.size}")


def _source(value: int) -> Source:
    try:
        return Source(value)
    except ValueError:
        raise DataError(f"source: expected one of {', '.join(f'{s.value} ({s.name})' for s in Source)}, found "
                        f"{value}") from None

