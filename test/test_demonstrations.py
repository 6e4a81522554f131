# SPDX-License-Identifier: Apache-2.0
"""Sets of bags that overlap, lie in one another or are named twice, and bags as other recorders make them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from recordings import (
    STATE,
    TRANSITION,
    expect_refusal,
    expect_same_steps,
    make_records,
    other_writer,
    serialize,
    write_log,
)
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer

from rlpd_ros.data.demonstrations import Demonstrations, validate_manifest
from rlpd_ros.data.intake import Intake
from rlpd_ros.data.replay_buffer import ReplayBuffer
from rlpd_ros.ros import definitions
from rlpd_ros.ros.bag_files import zstd
from rlpd_ros.ros.bags import find_bags, read_demonstrations
from rlpd_ros.status import LearnerReport

RECORDS = make_records(STATE, 30)


def bags_of(folder, *parts) -> list[str]:
    """Record each part into a bag of its own."""
    return [str(write_log(folder / f"bag_{i}", STATE, part)) for i, part in enumerate(parts, 1)]


def expect_learned(demonstrations: Demonstrations) -> None:
    """Let a learner's intake complete all that is sent and counted."""
    manifest, buffer = demonstrations.manifest, ReplayBuffer(STATE, 1000)
    validate_manifest(manifest, STATE)
    intake = Intake(STATE, ReplayBuffer(STATE, 1), buffer, LearnerReport("learner"), store=pytest.fail,
                    warn=pytest.fail, clock=lambda: 0.0)
    intake.expect_demonstrations(manifest.session, manifest.total)
    for record in demonstrations.records:
        intake.receive_demonstration(record)
    assert intake.lacking_demonstrations() == ""
    twice = sum(record.asked_action is not None for record in demonstrations.records)
    assert len(buffer) - twice == manifest.total == len(demonstrations.records)


# Bags that are named twice, and those in one another


def test_a_bag_counts_once_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_log(tmp_path / "demos", STATE, RECORDS)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to("../demos")
    names = ["demos", tmp_path / "demos", "folder/../demos", "folder/link", "folder", "~/demos"]
    assert [str(path) for path in find_bags(names)] == ["demos"]
    assert read_demonstrations(names).manifest.transitions == [30]


def test_a_folder_may_hold_bags_and_single_files(tmp_path):
    write_log(tmp_path / "set" / "monday", STATE, RECORDS)
    other_writer(tmp_path / "tuesday", make_records(STATE, 10, "tuesday"), STATE)
    shutil.move(tmp_path / "tuesday" / "tuesday.mcap", tmp_path / "set")
    manifest = read_demonstrations([tmp_path / "set"]).manifest
    assert dict(zip(manifest.path, manifest.transitions, strict=True)) == {
        str(tmp_path / "set"): 10, str(tmp_path / "set" / "monday"): 30}


# Bags that overlap


@pytest.mark.parametrize("whole", [False, True], ids=["one goes on where the other ends", "one has all"])
@pytest.mark.parametrize("other_way", [False, True])
def test_what_two_bags_recorded_of_one_session_counts_once(tmp_path, whole, other_way):
    first, second = RECORDS[:12], RECORDS if whole else RECORDS[7:]
    parts = [second, first] if other_way else [first, second]
    paths = bags_of(tmp_path, *parts)
    demonstrations = read_demonstrations(paths)
    expect_same_steps(demonstrations, RECORDS)
    expect_learned(demonstrations)
    twice = len(first) + len(second) - 30
    manifest = demonstrations.manifest
    assert manifest.transitions == [len(parts[0]), 30 - len(parts[0])]
    assert (sum(manifest.episodes), sum(manifest.successes), manifest.complete) == (6, 6, True)
    assert demonstrations.gaps == []
    assert demonstrations.repeated == [
        f"{paths[1]}: {twice} of its {len(parts[1])} transitions are in a bag before it too: they count once"]


def test_bags_fill_the_gaps_of_each_other(tmp_path):
    lacking = [record for record in RECORDS if record.sequence % 4]
    heard = [record for record in RECORDS if record.sequence % 4 != 1]
    demonstrations = read_demonstrations(bags_of(tmp_path, lacking, heard))
    expect_same_steps(demonstrations, RECORDS)
    expect_learned(demonstrations)
    assert (demonstrations.gaps, demonstrations.manifest.complete) == ([], True)
    assert demonstrations.manifest.transitions == [len(lacking), 30 - len(lacking)]


def test_a_gap_that_no_bag_fills_is_told_of_the_one_that_was_recording(tmp_path):
    lacking = [record for record in RECORDS if not 7 <= record.sequence <= 9]
    paths = bags_of(tmp_path, RECORDS[:4], lacking, RECORDS[6:8])
    demonstrations = read_demonstrations(paths)
    expect_learned(demonstrations)
    (gap,) = demonstrations.gaps
    assert gap == (f"{paths[1]}: 0 of its 23 steps cannot be learned from, for lack of what followed them; 1 record(s) "
                   "are missing between those that it has")
    assert not demonstrations.manifest.complete


def test_between_two_recordings_of_one_session_nothing_is_missing(tmp_path):
    demonstrations = read_demonstrations(bags_of(tmp_path, RECORDS[:7], RECORDS[12:]))
    expect_learned(demonstrations)
    assert demonstrations.manifest.transitions == [6, 18]  # the first one's last step was not followed by anything
    assert (demonstrations.gaps, demonstrations.manifest.complete) == ([], True)


def test_recordings_that_share_no_more_than_a_name_are_both_read(tmp_path):
    others = [replace(record, action=np.zeros_like(record.action)) for record in RECORDS]
    demonstrations = read_demonstrations(bags_of(tmp_path, RECORDS, others, others[:20]))
    expect_same_steps(demonstrations, RECORDS + others)
    expect_learned(demonstrations)
    assert demonstrations.manifest.transitions == [30, 30, 0]


def test_the_wanted_episodes_may_be_spread_over_bags(tmp_path):
    failed = [replace(record, success=record.success and record.episode != 3) for record in RECORDS]
    demonstrations = read_demonstrations(bags_of(tmp_path, failed[:17], failed[11:]), successful_only=True)
    expect_learned(demonstrations)
    expect_same_steps(demonstrations, [record for record in failed if record.episode != 3])
    assert demonstrations.left_out == 1
    assert (demonstrations.manifest.transitions, demonstrations.manifest.episodes) == ([12, 13], [3, 2])


# What other recorders write


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("file", [False, True])
def test_messages_may_be_compressed(tmp_path, plugin, file):
    path = other_writer(tmp_path / "bag", RECORDS, STATE, plugin, CompressionMode.MESSAGE)
    (found,) = [p for p in path.iterdir() if p.suffix != ".yaml"]
    expect_same_steps(read_demonstrations([found if file else path]), RECORDS)


def test_messages_that_are_compressed_by_something_else_are_refused(tmp_path):
    path = other_writer(tmp_path / "bag", RECORDS, STATE, compression=CompressionMode.MESSAGE)
    metadata = yaml.safe_load((path / "metadata.yaml").read_text())
    metadata["rosbag2_bagfile_information"]["compression_format"] = "brotli"
    (path / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    expect_refusal([path], "metadata.yaml: expected messages compressed by zstd, found 'brotli'; convert the bag with")


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda packed: packed[:-3], "expected a whole compressed message"),
    (lambda packed: packed[:4] + b"x" * 60, "damaged"),
])
def test_a_damaged_compressed_message_is_named(tmp_path, spoil, says):
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/transitions", TRANSITION, typestore=definitions._typestore())
        for record, change in zip(RECORDS, (bytes, spoil), strict=False):
            writer.write(connection, record.stamp, change(zstd.compress(serialize(record, STATE))))
    expect_refusal([tmp_path / "bag"], f"topic '/transitions', message 2: {says}", spec=STATE)


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_a_topic_of_that_name_but_of_another_type_is_another_topic(tmp_path, plugin):
    with Writer(tmp_path / "bag", version=9, storage_plugin=plugin) as writer:
        store = definitions._typestore()
        strange = writer.add_connection("/smach/transitions", "std_msgs/msg/Header", typestore=store)
        ours = writer.add_connection("/robot/transitions", TRANSITION, typestore=store)
        for record in RECORDS:
            writer.write(strange, record.stamp, b"anything")
            writer.write(ours, record.stamp, serialize(record, STATE))
    expect_same_steps(read_demonstrations([tmp_path / "bag"], STATE), RECORDS)
