# SPDX-License-Identifier: Apache-2.0
"""Messages: what goes in at one end comes out at the other, bit by bit, after real serialization."""

from array import array
from dataclasses import dataclass, replace

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message, serialize_message

from rlpd_ros.arm.driver import Telemetry
from rlpd_ros.errors import DataError
from rlpd_ros.msg import DemoManifest, EpisodeStats
from rlpd_ros.ros import definitions, messages, qos, status_bag
from rlpd_ros.types import (
    Acknowledgement,
    ActionRecord,
    EpisodeSummary,
    Observation,
    PolicySnapshot,
    Source,
    SpaceField,
    SpaceSpec,
    TimeStep,
    TransitionRecord,
)

SPEC = SpaceSpec(
    "robot", (SpaceField.box("position", [-0.1, -np.inf], [0.3, np.inf], "m"), SpaceField.image("front", 4, 6),
              SpaceField.box("grip", [0], [1]), SpaceField.image("wrist", 3, 2, 1)),
    (SpaceField.box("delta", [-0.02] * 3, [0.02] * 3, "m"),), 10.0, "base", 100, lockstep=False)
STAMP = 1_700_000_000_123_456_789
RNG = np.random.default_rng(0)


def any_floats(size: int) -> np.ndarray:
    """Make floats of arbitrary bit patterns: denormal, huge, infinite, not a number."""
    return RNG.integers(0, 2**32, size, dtype=np.uint32).view(np.float32)


def observe() -> Observation:
    return Observation(any_floats(SPEC.state_size),
                       {f.name: RNG.integers(0, 256, f.shape, dtype=np.uint8) for f in SPEC.image_fields})


def send(message):
    """Return what a subscriber gets."""
    return deserialize_message(serialize_message(message), type(message))


def expect_equal(found, expected):
    """Compare dataclasses field by field, arrays bit by bit with type and shape."""
    assert type(found) is type(expected)
    for name, value in vars(expected).items():
        other = getattr(found, name)
        if isinstance(value, np.ndarray):
            assert other.dtype == value.dtype, name
            assert other.shape == value.shape, name
            assert other.tobytes() == value.tobytes(), name
        elif isinstance(value, Observation):
            expect_equal(other, value)
        elif isinstance(value, dict):
            assert list(other) == list(value)
            for key in value:
                np.testing.assert_array_equal(other[key], value[key])
        else:
            assert other == value, name


def transition(**changes) -> TransitionRecord:
    record = TransitionRecord(
        session="actor-1", sequence=2**40, episode=3, step=4, observation=observe(), action=any_floats(3),
        reward=float(np.float32(0.1)), terminated=False, truncated=False, success=True, source=Source.INTERVENTION,
        policy_version=7, space_fingerprint=SPEC.fingerprint, stamp=STAMP)
    return replace(record, **changes)


def test_space_specifications_survive():
    found = messages.to_space_spec(send(messages.from_space_spec(SPEC, STAMP)))
    assert found == SPEC
    assert found.fingerprint == SPEC.fingerprint
    assert messages.from_space_spec(SPEC, STAMP).header.stamp.nanosec == 123_456_789


@pytest.mark.parametrize("step", [0, 5])
def test_time_steps_survive(step):
    now = TimeStep("arm-1", 2, step, observe(), reward=0.5, terminated=True, truncated=False, success=True,
                   executed_action=any_floats(3) if step else None, source=Source.RANDOM, stamp=STAMP)
    message = send(messages.from_time_step(now, SPEC))
    assert message.header.frame_id == "base"
    expect_equal(messages.to_time_step(message, SPEC), now)


def test_actions_survive():
    action = ActionRecord("actor-1", 3, 4, any_floats(3), 5, Source.POLICY, STAMP)
    expect_equal(messages.to_action(send(messages.from_action(action))), action)


@pytest.mark.parametrize("final", [False, True])
def test_transitions_survive(final):
    record = transition(terminated=final, final_observation=observe() if final else None,
                        asked_action=any_floats(3) if final else None)
    expect_equal(messages.to_transition(send(messages.from_transition(record, SPEC)), SPEC), record)


def test_transitions_survive_that_are_not_contiguous_or_float64():
    state, image = np.arange(6.0)[::2], np.zeros((4, 6, 6), np.uint8)[:, :, ::2]
    observation = Observation(state, {"front": image, "wrist": np.ones((3, 2, 1), np.uint8)})
    found = messages.to_transition(send(messages.from_transition(transition(observation=observation), SPEC)), SPEC)
    np.testing.assert_array_equal(found.observation.state, [0, 2, 4])
    assert not found.observation.images["front"].any()
    assert found.observation.images["wrist"].all()


def test_images_travel_in_the_order_of_the_space():
    images = {"wrist": np.full((3, 2, 1), 2, np.uint8), "front": np.full((4, 6, 3), 1, np.uint8)}
    message = messages.from_transition(transition(observation=Observation(np.zeros(3, np.float32), images)), SPEC)
    assert list(message.images) == [1] * 72 + [2] * 6


def test_policies_survive():
    snapshot = PolicySnapshot(
        "learner-1", 3, 400, "c" * 16, '{"layers": 2}', "n" * 16, SPEC.fingerprint, observe(), any_floats(3),
        float(np.float32(0.3)), RNG.bytes(5003), STAMP)
    expect_equal(messages.to_policy_snapshot(send(messages.from_policy_snapshot(snapshot)), SPEC), snapshot)


def test_a_policy_for_another_space_can_be_read_to_be_refused():
    other = Observation(any_floats(8))
    snapshot = PolicySnapshot("learner-1", 3, 400, "c", "{}", "n", "another space", other, any_floats(2), 0.0, b"data")
    expect_equal(messages.to_policy_snapshot(send(messages.from_policy_snapshot(snapshot)), SPEC), snapshot)


def test_receipts_and_summaries_survive():
    ack = Acknowledgement("actor-1", "learner-1", 2**63, 9, stored=8, duplicates=1, rejected=2, text="why")
    message = messages.from_fields(qos.TRANSITIONS_ACK.type, ack, STAMP)
    assert messages.to_acknowledgement(send(message)) == ack
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == divmod(STAMP, 10**9)
    summary = EpisodeSummary("actor-1", 3, np.int64(20), np.float32(1.5), np.True_, False, True, True, 2, False, 4, 3,
                             9, 450, 800, 0.5, 18, 1, 1, 2.25)
    assert messages.to_fields(EpisodeSummary, send(messages.from_fields(EpisodeStats, summary))) == summary


def test_lists_survive():
    @dataclass
    class Manifest:
        session: str
        path: list
        transitions: list
        episodes: list
        successes: list
        digest: list
        total: int
        highest_reward: float
        lowest_reward: float
        saturated_share: float
        space_fingerprint: str
        complete: bool
        error: str

    manifest = Manifest("demos-1", ["a", "b/c"], [10, 2**31], [1, 2], [0, 1], ["x", "y"], 30, 1.0, -0.5, 0.25,
                        "f", True, "")
    assert messages.to_fields(Manifest, send(messages.from_fields(DemoManifest, manifest))) == manifest


@pytest.mark.parametrize("topic", [*status_bag.TOPICS.values(), qos.TRANSITIONS], ids=lambda topic: topic.name)
def test_empty_lists_are_read_out_of_bags(topic):
    """The middleware pads empty lists of eight-byte numbers, which readers of bags take for rubbish at the end."""
    message = topic.type()
    message.header.frame_id = "base"
    assert definitions.decode(topic.type_name, serialize_message(message)).header.frame_id == "base"


def test_every_message_has_a_topic_that_delivers_it():
    """Publish every message of this package over real middleware with the profile of its topic."""
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node("tester", context=context, use_global_arguments=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    topics = [t for t in vars(qos).values() if isinstance(t, qos.Topic) and t.type_name.startswith("rlpd_ros")]
    got, publishers = {}, {}
    try:
        for topic in topics:
            publishers[topic] = qos.publisher(node, topic)
            if topic.latched:  # published before anybody listens
                publishers[topic].publish(topic.type())
        for topic in topics:
            qos.subscription(node, topic, lambda message, topic=topic: got.setdefault(topic, message))
        deadline = node.get_clock().now().nanoseconds + 10 * 10**9
        while len(got) < len(topics) and node.get_clock().now().nanoseconds < deadline:
            for topic in topics:
                if not topic.latched and topic not in got:
                    publishers[topic].publish(topic.type())
            executor.spin_once(timeout_sec=0.1)
        assert [topic.name for topic in topics if topic not in got] == []
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_people_see_joints_and_tool():
    telemetry = Telemetry(("a", "b"), np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([5.0, 6.0]),
                          np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.5, -0.5, 0.5]))
    joints = send(messages.from_joint_state(telemetry, STAMP, "base"))
    assert list(joints.name) == ["a", "b"]
    assert [list(x) for x in (joints.position, joints.velocity, joints.effort)] == [[1, 2], [3, 4], [5, 6]]
    pose = send(messages.from_ee_pose(telemetry, STAMP, "base"))
    p, q = pose.pose.position, pose.pose.orientation
    assert (p.x, p.y, p.z, q.x, q.y, q.z, q.w) == (0.1, 0.2, 0.3, 0.5, 0.5, -0.5, 0.5)
    assert pose.header.frame_id == joints.header.frame_id == "base"


# What must not come in


def resized(field: str, size: int):
    def change(message):
        kind = getattr(message, field).typecode
        setattr(message, field, array(kind, [0] * size))

    return change


def assigned(field: str, value):
    return lambda message: setattr(message, field, value)


@pytest.mark.parametrize(("change", "error"), [
    (resized("state", 2), "^state: expected 3 values, found 2"),
    (resized("state", 4), "^state: expected 3 values, found 4"),
    (resized("images", 77), "^images: expected 78 values, found 77"),
    (resized("images", 0), "^images: expected 78 values, found 0"),
    (resized("action", 2), "^action: expected 3 values, found 2"),
    (resized("asked_action", 2), "^asked_action: expected 3 values, found 2"),
    (resized("final_state", 2), "^final_state: expected 3 values, found 2"),
    (resized("final_state", 0), "^final_state: expected 3 values, found 0"),
    (resized("final_images", 3), "^final_images: expected 78 values, found 3"),
    (assigned("source", 5), r"^source: expected one of 0 \(POLICY\), .*, found 5"),
    (assigned("space_fingerprint", "beef"), f"^space_fingerprint: expected {SPEC.fingerprint}, found 'beef'"),
])
def test_transitions_of_wrong_sizes_are_refused(change, error):
    message = messages.from_transition(transition(terminated=True, final_observation=observe()), SPEC)
    change(message)
    with pytest.raises(DataError, match=error):
        messages.to_transition(send(message), SPEC)


@pytest.mark.parametrize(("change", "error"), [
    (resized("state", 2), "^state: expected 3 values, found 2"),
    (resized("images", 79), "^images: expected 78 values, found 79"),
    (resized("executed_action", 0), "^executed_action: expected 3 values, found 0"),
    (assigned("source", 200), "^source: .* found 200"),
])
def test_time_steps_of_wrong_sizes_are_refused(change, error):
    message = messages.from_time_step(TimeStep("arm-1", 2, 1, observe(), executed_action=any_floats(3)), SPEC)
    change(message)
    with pytest.raises(DataError, match=error):
        messages.to_time_step(send(message), SPEC)


@pytest.mark.parametrize(("change", "error"), [
    (resized("probe_state", 2), "^probe_state: expected 3 values, found 2"),
    (resized("probe_images", 2), "^probe_images: expected 78 values, found 2"),
    (resized("probe_action", 2), "^probe_action: expected 3 values, found 2"),
])
def test_policies_with_a_wrong_probe_are_refused(change, error):
    message = messages.from_policy_snapshot(PolicySnapshot(
        "learner-1", 3, 400, "c", "{}", "n", SPEC.fingerprint, observe(), any_floats(3), 0.0, b"data"))
    change(message)
    with pytest.raises(DataError, match=error):
        messages.to_policy_snapshot(send(message), SPEC)


def in_field(index: int, name: str, value):
    return lambda message: setattr(message.observation[index], name, value)


def no_action(message):
    message.action = []


def same_names(message):
    message.observation[2].name = "position"


def image_as_action(message):
    message.action = [message.observation[1]]


@pytest.mark.parametrize(("change", "error"), [
    (in_field(0, "dtype", "float64"), r"observation\[0\].dtype: expected float32 or uint8, found 'float64'"),
    (in_field(0, "shape", [2, 1]), r"observation\[0\].shape: expected 1 numbers above 0"),
    (in_field(1, "shape", [4, 0, 3]), r"observation\[1\].shape: expected 3 numbers above 0"),
    (in_field(1, "shape", [2**31, 2**31, 2**31]), r"observation\[1\].shape: .* at most 67108864"),
    (in_field(0, "low", [0.0]), r"observation\[0\]: expected 2 bounds with low <= high"),
    (in_field(0, "low", [0.0, float("nan")]), r"observation\[0\]: expected 2 bounds with low <= high"),
    (in_field(2, "high", [-1.0]), r"observation\[2\]: expected 1 bounds with low <= high"),
    (in_field(0, "name", "x" * 129), r"observation\[0\].name: expected a name of 1 to 128 characters, found 129"),
    (in_field(0, "unit", "mm"), f"fingerprint: expected .* for these fields, found '{SPEC.fingerprint}'"),
    (in_field(2, "high", [float(np.nextafter(1, 2))]), "fingerprint: expected"),
    (assigned("fingerprint", ""), "fingerprint: expected"),
    (assigned("control_rate", 0.0), "control_rate: expected Hz above 0 and at most 100000, found 0.0"),
    (assigned("control_rate", float("nan")), "control_rate: expected Hz above 0 and at most 100000, found nan"),
    (no_action, "action: expected 1 to 1000 fields, found 0"),
    (same_names, "observation: expected different names"),
    (image_as_action, "action: expected float32 fields, found an image"),
])
def test_spaces_that_make_no_sense_are_refused(change, error):
    message = messages.from_space_spec(SPEC)
    change(message)
    with pytest.raises(DataError, match=f"^space_spec: .*{error}"):
        messages.to_space_spec(send(message))
