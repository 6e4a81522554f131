# SPDX-License-Identifier: Apache-2.0
"""Reading bags: those of other tools, sets of them, and what is missing or does not fit."""

import re
from dataclasses import replace
from pathlib import Path

import mcap.writer
import numpy as np
import pytest
import yaml
from rclpy.serialization import deserialize_message, serialize_message
from recordings import (
    PIXELS,
    SPACE,
    STATE,
    TRANSITION,
    expect_refusal,
    expect_same,
    expect_same_steps,
    make_record,
    make_records,
    other_writer,
    serialize,
    write_log,
)
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer

from rlpd_ros.data.demonstrations import Demonstrations
from rlpd_ros.data.intake import Intake
from rlpd_ros.data.replay_buffer import ReplayBuffer
from rlpd_ros.errors import DataError
from rlpd_ros.msg import SpaceSpec as SpaceSpecMessage
from rlpd_ros.msg import Transition as TransitionMessage
from rlpd_ros.ros import bags, definitions, messages
from rlpd_ros.ros.bags import TransitionLog, find_bags, read_demonstrations
from rlpd_ros.status import LearnerReport
from rlpd_ros.types import SpaceField


@pytest.mark.parametrize(("plugin", "compression"), [
    (StoragePlugin.MCAP, None), (StoragePlugin.MCAP, CompressionMode.STORAGE), (StoragePlugin.SQLITE3, None)])
@pytest.mark.parametrize("file", [False, True])
def test_it_reads_what_other_tools_record(tmp_path, plugin, compression, file):
    records = make_records(PIXELS, 30)
    path = other_writer(tmp_path / "bag", records, PIXELS, plugin, compression, topic="/robot_1/transitions")
    (found,) = [p for p in path.iterdir() if p.suffix != ".yaml"]
    demonstrations = read_demonstrations([found if file else path])
    expect_same_steps(demonstrations, records)


@pytest.mark.parametrize("compression", [mcap.writer.CompressionType.NONE, mcap.writer.CompressionType.LZ4])
@pytest.mark.parametrize("chunks", [True, False])
def test_it_reads_other_layouts_of_mcap(tmp_path, compression, chunks):
    records = make_records(STATE, 30)
    path = tmp_path / "a.mcap"
    with path.open("wb") as stream:
        writer = mcap.writer.Writer(stream, chunk_size=1000, compression=compression, use_chunking=chunks)
        writer.start("ros2")
        schemas = {name: writer.register_schema(name, "ros2msg", definitions.definition(name).encode())
                   for name in (TRANSITION, SPACE)}
        writer.add_metadata("anything", {"a": "b"})
        writer.add_attachment(0, 0, "file", "text/plain", b"attached")
        channel = writer.register_channel("/transitions", "cdr", schemas[TRANSITION])
        for record in records:
            writer.add_message(channel, record.stamp, serialize(record, STATE), record.stamp)
        channel = writer.register_channel("/space_spec", "cdr", schemas[SPACE])  # a latched topic may come late
        writer.add_message(channel, 9, bytes(serialize_message(messages.from_space_spec(STATE))), 9)
        writer.finish()
    expect_same_steps(read_demonstrations([path]), records)


# Sets of demonstrations


def test_bags_are_found_and_counted(tmp_path):
    write_log(tmp_path / "demos" / "b", STATE, make_records(STATE, 10, "one"))
    other_writer(tmp_path / "demos" / "a", make_records(STATE, 25, "two"), STATE, StoragePlugin.SQLITE3)
    write_log(tmp_path / "demos" / "c" / "deep", STATE, make_records(STATE, 5, "three"))
    (tmp_path / "demos" / "notes.txt").write_text("not a bag")
    paths = [str(tmp_path / "demos" / name) for name in ("a", "b", "c/deep")]
    demonstrations = read_demonstrations([str(tmp_path / "demos"), tmp_path / "demos" / "a"])
    manifest = demonstrations.manifest
    assert manifest.path == paths
    assert (manifest.transitions, manifest.episodes, manifest.successes) == ([25, 10, 5], [5, 2, 1], [5, 2, 1])
    assert (manifest.total, manifest.complete, manifest.error) == (40, True, "")
    assert manifest.space_fingerprint == STATE.fingerprint
    records = demonstrations.records
    assert [record.sequence for record in records] == list(range(1, 41))
    assert {record.session for record in records} == {manifest.session}
    assert [record.episode for record in records[::5]] == [1, 2, 3, 4, 5, 6, 7, 8]
    np.testing.assert_array_equal(records[25].observation.state, make_record(STATE, 1).observation.state)


def test_the_same_bags_make_the_same_session_and_others_another(tmp_path):
    first = write_log(tmp_path / "a", STATE, make_records(STATE, 10))
    same = other_writer(tmp_path / "b", make_records(STATE, 10), STATE, StoragePlugin.SQLITE3)
    shorter = write_log(tmp_path / "c", STATE, make_records(STATE, 9))
    paths = [first, same, shorter]
    for change in (lambda r: r.observation.state, lambda r: r.action, lambda r: r.final_observation.state):
        changed = make_records(STATE, 10)
        change(changed[4])[1] *= 1.000001
        paths.append(write_log(tmp_path / str(len(paths)), STATE, changed))
    paths.append(write_log(tmp_path / "e", STATE, [replace(r, reward=r.reward + 1) for r in make_records(STATE, 10)]))
    sessions = [read_demonstrations([path]).manifest.session for path in paths]
    assert sessions[0] == sessions[1]
    assert len(set(sessions[1:])) == len(paths) - 1


def test_repetitions_are_read_once(tmp_path):
    records = make_records(STATE, 15)
    path = other_writer(tmp_path / "a", records[:8] + records[3:15] + make_records(STATE, 5, "other"), STATE)
    demonstrations = read_demonstrations([path])
    assert demonstrations.manifest.transitions == [20]
    expect_same_steps(demonstrations, records + make_records(STATE, 5, "other"))


def test_a_space_that_was_not_recorded_may_be_known(tmp_path):
    path = other_writer(tmp_path / "a", make_records(STATE, 5), STATE, space=False)
    with pytest.raises(DataError, match="expected the space on a topic 'space_spec', found none"):
        read_demonstrations([path])
    assert read_demonstrations([path], STATE).manifest.total == 5


# Recordings that alternate, and what they lack


def learn(demonstrations: Demonstrations) -> tuple[int, str]:
    """Let a learner's intake take them; return how many steps it learned from, and what it says is lacking."""
    buffer = ReplayBuffer(STATE, 1000)
    intake = Intake(STATE, ReplayBuffer(STATE, 1), buffer, LearnerReport("learner"), store=pytest.fail,
                    warn=pytest.fail, clock=lambda: 0.0)
    intake.expect_demonstrations(demonstrations.manifest.session, demonstrations.manifest.total)
    for record in demonstrations.records:
        intake.receive_demonstration(record)
    twice = sum(record.asked_action is not None for record in demonstrations.records)  # see TransitionAssembler
    return len(buffer) - twice, intake.lacking_demonstrations()


def test_recordings_that_alternate_complete_each_other(tmp_path):
    one, two = make_records(STATE, 25, "one"), make_records(STATE, 25, "two")
    alternating = [record for pair in zip(one, two, strict=True) for record in pair]
    demonstrations = read_demonstrations([other_writer(tmp_path / "a", alternating, STATE)])
    manifest = demonstrations.manifest
    assert (manifest.transitions, manifest.episodes, manifest.successes, manifest.complete) == ([50], [10], [10], True)
    assert (demonstrations.gaps, demonstrations.left_out) == ([], 0)
    assert learn(demonstrations) == (50, "")
    expect_same_steps(demonstrations, one + two)
    assert demonstrations.records[-1].episode == 10


def test_what_the_recorder_got_only_when_it_was_sent_again_is_read(tmp_path):
    records = make_records(STATE, 10)
    late = [*records[:2], *records[3:6], records[2], records[4], *records[6:]]
    demonstrations = read_demonstrations([other_writer(tmp_path / "a", late, STATE)])
    expect_same_steps(demonstrations, records)
    assert learn(demonstrations) == (10, "")


def test_a_recording_that_begins_and_ends_within_an_episode_is_read_as_far_as_it_can_be_completed(tmp_path):
    records = make_records(STATE, 8)
    demonstrations = read_demonstrations([other_writer(tmp_path / "a", records[2:], STATE)])
    manifest = demonstrations.manifest
    assert (manifest.transitions, manifest.episodes, manifest.successes, manifest.complete) == ([5], [2], [1], True)
    assert demonstrations.gaps == []
    assert learn(demonstrations) == (5, "")
    cut = replace(records[6], truncated=True, final_observation=records[7].observation)
    expect_same_steps(demonstrations, [*records[2:6], cut])


def test_missing_records_are_told_with_what_they_cost(tmp_path):
    there = [record for record in make_records(STATE, 50) if record.sequence % 3]
    path = other_writer(tmp_path / "a", there, STATE)
    demonstrations = read_demonstrations([path])
    usable = [record.stamp for record in there if record.last or record.sequence % 3 == 1]
    assert [record.stamp for record in demonstrations.records] == usable
    assert learn(demonstrations) == (len(usable), "")
    assert demonstrations.gaps == [
        f"{path}: {34 - len(usable)} of its 34 steps cannot be learned from, for lack of what followed them; 16 "
        "record(s) are missing between those that it has"]
    assert not demonstrations.manifest.complete


@pytest.mark.parametrize(("missing", "lost", "told"), [
    ((5,), 1, 1), ((6,), 0, 1), ((5, 6), 1, 2), ((8,), 1, 1), ((7, 8), 1, 2),
    (range(6, 11), 0, 0), (range(1, 9), 0, 0), (range(9, 16), 1, 0)], ids=str)
def test_a_gap_is_what_is_missing_of_episodes_that_are_there(tmp_path, missing, lost, told):
    there = [record for record in make_records(STATE, 15) if record.sequence not in missing]
    demonstrations = read_demonstrations([other_writer(tmp_path / "a", there, STATE)])
    assert demonstrations.manifest.total == len(there) - lost
    assert [gap.split("; ")[1].split()[0] for gap in demonstrations.gaps] == ([str(told)] if told else [])
    assert learn(demonstrations) == (len(there) - lost, "")


def test_episodes_that_never_end_are_told(tmp_path):
    open_ended = [record for record in make_records(STATE, 25) if not record.last]
    open_ended = [replace(record, sequence=sequence) for sequence, record in enumerate(open_ended, 1)]
    demonstrations = read_demonstrations([path := other_writer(tmp_path / "a", open_ended, STATE)])
    (gap,) = demonstrations.gaps
    assert gap.startswith(f"{path}: 5 of its 20 steps cannot be learned from, for lack of what followed them; 0 ")


def test_a_bag_of_which_nothing_can_be_learned_from_is_refused(tmp_path):
    good = write_log(tmp_path / "good", STATE, make_records(STATE, 5))
    bad = write_log(tmp_path / "bad", STATE, [make_record(STATE, sequence, "other") for sequence in (1, 3, 7)])
    expect_refusal([good, bad], f"{bad}: expected steps that can be learned from, found 3 of which none ends")


def test_two_steps_with_one_sequence_are_refused(tmp_path):
    again = [replace(record, episode=2) for record in make_records(STATE, 5)]
    path = other_writer(tmp_path / "a", make_records(STATE, 5) + again, STATE)
    expect_refusal([path], f"{path}: sequence 1 of actor-1: expected one step, found step 0 of episode 1 and step 0 of "
                           "episode 2; give each recording a session of its own")


def test_only_successful_episodes_may_be_wanted(tmp_path):
    records = make_records(STATE, 23)  # the fifth episode is cut off
    failed = [replace(record, success=False) if record.episode in (2, 3) else record for record in records]
    paths = [write_log(tmp_path / "a", STATE, [record for record in failed if record.sequence not in (8, 17)]),
             write_log(tmp_path / "b", STATE, [replace(record, session="other") for record in failed[5:10]])]
    everything, successful = read_demonstrations(paths), read_demonstrations(paths, successful_only=True)
    assert (everything.manifest.transitions, everything.left_out) == ([18, 5], 0)
    assert (successful.manifest.transitions, successful.manifest.episodes, successful.left_out) == ([8, 0], [2, 0], 4)
    assert [record.stamp for record in successful.records] == [records[i].stamp for i in (0, 1, 2, 3, 4, 17, 18, 19)]
    (gap,) = successful.gaps
    assert gap.startswith(f"{paths[0]}: 1 of its 9 steps")
    assert "1 record(s) are missing" in gap  # of the fourth episode
    assert successful.manifest.session != everything.manifest.session
    assert learn(successful) == (8, "")
    with pytest.raises(DataError) as error:
        read_demonstrations(paths[1:], successful_only=True)
    assert str(error.value) == (f"successful_only: expected an episode that ended in success, found none among 1 in "
                                f"{paths[1]}; load others, or set it false")


# What cannot be read


def test_missing_and_empty_places_are_named(tmp_path):
    expect_refusal([tmp_path / "nowhere"], "nowhere: expected a rosbag2 bag or a folder of bags, found nothing there")
    expect_refusal([tmp_path], f"{tmp_path}: expected a rosbag2 bag (.mcap or .db3) or a folder of bags, found none")
    (tmp_path / "file.txt").write_text("hello")
    expect_refusal([tmp_path / "file.txt"], "file.txt: expected a rosbag2 bag (.mcap or .db3)")
    expect_refusal([], "expected at least one bag")
    with pytest.raises(DataError):
        find_bags([tmp_path / "nowhere"])


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_empty_bags_and_other_topics_are_named(tmp_path, plugin):
    path = other_writer(tmp_path / "a", [], STATE, plugin)
    expect_refusal([path], f"{path}: topic '/transitions': expected transitions, found none")
    path = other_writer(tmp_path / "b", make_records(STATE, 3), STATE, plugin, topic="/steps")
    expect_refusal([path], f"expected a topic 'transitions', found /space_spec ({SPACE}), /steps ({TRANSITION})")
    path = other_writer(tmp_path / "c", make_records(STATE, 3), STATE, plugin, type_name="std_msgs/msg/Header")
    expect_refusal([path], f"topic '/transitions': expected type {TRANSITION}, found std_msgs/msg/Header")


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_messages_that_do_not_fit_are_named(tmp_path, plugin):
    cases = {
        "size": (replace(make_record(STATE, 2), action=np.zeros(3, np.float32)), "action: expected 2 values, found 3"),
        "nan": (replace(make_record(STATE, 2), reward=float("nan")), "reward: expected a finite number within"),
        "clip": (replace(make_record(STATE, 2), action=np.float32([0, 2])), "action: expected values from -1 to 1"),
        "final": (replace(make_record(STATE, 2), terminated=True), "final_observation: expected one"),
        "space": (replace(make_record(STATE, 2), space_fingerprint="f00"), "space_fingerprint: expected"),
    }
    for name, (record, error) in cases.items():
        path = other_writer(tmp_path / name, [make_record(STATE, 1), record], STATE, plugin)
        expect_refusal([path], str(path), "topic '/transitions', message 2: " + error)


def test_another_space_is_refused_with_the_difference(tmp_path):
    other = replace(STATE, observation=(SpaceField.box("position", [-9] * 3, [9] * 3, "mm"),), control_rate=20.0)
    path = write_log(tmp_path / "a", other, make_records(other, 5))
    difference = ("recorded in another space: observation position.unit: expected m, found mm; "
                  "control_rate: expected 10.0, found 20.0")
    expect_refusal([path], str(path), "topic 'space_spec'", difference, spec=STATE)
    expect_refusal([write_log(tmp_path / "b", STATE, make_records(STATE, 5)), path], str(path), difference)
    with pytest.raises(DataError, match=re.escape(difference)):
        list(TransitionLog.read(path, STATE))


def test_bags_of_another_version_are_named(tmp_path):
    text = definitions.definition(TRANSITION).replace("float32[] action", "float64[] action")
    path = tmp_path / "a"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/transitions", TRANSITION, msgdef=text, rihs01="x")
        writer.write(connection, 1, serialize(make_record(STATE, 1), STATE))
    expect_refusal([path], f"topic '/transitions': {TRANSITION} is of another version: ",
                   "expected float32[] action, found float64[] action", spec=STATE)


def edit_metadata(path: Path, edit) -> None:
    content_ = yaml.safe_load((path / "metadata.yaml").read_text())
    edit(content_["rosbag2_bagfile_information"])
    (path / "metadata.yaml").write_text(yaml.safe_dump(content_))


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_metadata_tells_what_is_missing(tmp_path, plugin):
    path = other_writer(tmp_path / "a", make_records(STATE, 5), STATE, plugin)
    edit_metadata(path, lambda m: m["relative_file_paths"].append("a_1.mcap"))
    expect_refusal([path], "metadata.yaml: expected the files that it lists, found no a_1.mcap")
    path = other_writer(tmp_path / "b", make_records(STATE, 5), STATE, plugin)
    edit_metadata(path, lambda m: m["topics_with_message_count"][1].update(message_count=6))
    expect_refusal([path], "b: topic '/transitions': expected 6 messages by metadata.yaml, found 5")


@pytest.mark.parametrize("text", ["", "a: [", "[1]", "rosbag2_bagfile_information: 3", "- " * 3000,
                                  "rosbag2_bagfile_information: {relative_file_paths: 3}",
                                  "rosbag2_bagfile_information: {topics_with_message_count: [3]}",
                                  "rosbag2_bagfile_information: {topics_with_message_count: [{message_count: 3}]}"])
def test_strange_metadata_is_refused(tmp_path, text):
    path = write_log(tmp_path / "a", STATE, make_records(STATE, 5))
    (path / "metadata.yaml").write_text(text)
    expect_refusal([path], "a/metadata.yaml: expected the metadata of a rosbag2 bag, found something else")


def test_compressed_files_are_refused_with_a_remedy(tmp_path):
    path = other_writer(tmp_path / "a", make_records(STATE, 5), STATE, StoragePlugin.SQLITE3, CompressionMode.FILE)
    expect_refusal([path], "expected files that are not compressed as a whole, found mode 'file'")


# Definitions


def test_our_decoder_agrees_with_ros():
    record = make_record(PIXELS, 5)
    data = serialize(record, PIXELS)
    ours, theirs = definitions.decode(TRANSITION, data), deserialize_message(data, TransitionMessage)
    expect_same([messages.to_transition(ours, PIXELS)], [messages.to_transition(theirs, PIXELS)])
    space = bytes(serialize_message(messages.from_space_spec(PIXELS)))
    assert messages.to_space_spec(definitions.decode(SPACE, space)) == PIXELS
    assert messages.to_space_spec(deserialize_message(space, SpaceSpecMessage)) == PIXELS


def test_definitions_are_complete():
    text = definitions.definition(SPACE)
    assert [line for line in text.splitlines() if line.startswith("MSG: ")] == [
        "MSG: std_msgs/Header", "MSG: rlpd_ros/SpaceField", "MSG: builtin_interfaces/Time"]
    assert definitions.difference(SPACE, text) == ""
    generated, _ = definitions._typestore().generate_msgdef(SPACE, ros_version=2)
    assert definitions.difference(SPACE, generated) == ""


def test_more_demonstrations_than_the_memory_holds_are_refused(tmp_path, monkeypatch):
    path = write_log(tmp_path / "log", PIXELS, make_records(PIXELS, 20))
    monkeypatch.setattr(bags.os, "sysconf", {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 60}.__getitem__)
    expect_refusal([path], f"{path}: more demonstrations than half of this machine's memory holds, after 11")


def test_steps_out_of_order_are_refused(tmp_path):
    records = make_records(STATE, 4)
    path = write_log(tmp_path / "log", STATE, [*records[:2], replace(records[2], step=1), records[3]])
    expect_refusal([path], f"{path}: episode 1 of actor-1: expected a step after 1, found 1")
