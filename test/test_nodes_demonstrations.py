# SPDX-License-Identifier: Apache-2.0
"""Demonstrations on their way from bags through the loader to the learner, on real middleware."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from recordings import STATE, make_records, write_log

from rlpd_ros.nodes.arm_driver import ArmDriverNode
from rlpd_ros.nodes.demo_loader import DemoLoaderNode
from rlpd_ros.ros import qos
from rlpd_ros.status import LearnerState
from rlpd_ros.types import Source


@pytest.mark.parametrize(("sources", "told"), [
    ([Source.POLICY, Source.RANDOM], True), ([Source.POLICY, Source.INTERVENTION], False),
    ([Source.DEMONSTRATION], False)], ids=str)
def test_demonstrations_of_which_none_is_imitated_are_told(graph, capfd, tmp_path, sources, told):
    records = [replace(record, source=sources[i % len(sources)]) for i, record in enumerate(make_records(STATE, 5))]
    graph.add(DemoLoaderNode, demo_path=[str(write_log(tmp_path / "demos", STATE, records))])
    output = "".join(capfd.readouterr())
    assert "5 transitions in" in output
    assert ("imitates none (imitation_weight)" in output) == told


def test_the_loader_tells_what_bags_lack_and_which_episodes_it_left_out(graph, capfd, tmp_path):
    records = [replace(record, success=record.success and record.episode != 1) for record in make_records(STATE, 10)]
    path = write_log(tmp_path / "demos", STATE, [record for record in records if record.sequence not in (2, 8)])
    graph.add(DemoLoaderNode, demo_path=[str(path)])
    output = "".join(capfd.readouterr())
    assert "6 transitions in 2 demonstrations from 1 bag(s), 1 successful\n" in output
    assert (f"{path}: 2 of its 8 steps cannot be learned from, for lack of what followed them; 2 record(s) are missing "
            "between those that it has\n") in output
    graph.add(DemoLoaderNode, "second", demo_path=[str(path)], successful_only=True)
    output = "".join(capfd.readouterr())
    assert ("3 transitions in 1 demonstrations from 1 bag(s), 1 successful; successful_only left out 1 that did not "
            "end in success, 1 stay\n") in output
    assert f"{path}: 1 of its 4 steps cannot be learned from" in output


def test_the_loader_tells_what_another_bag_has_too(graph, capfd, tmp_path):
    records = make_records(STATE, 15)
    paths = [str(write_log(tmp_path / name, STATE, part)) for name, part in (("run", records[:12]),
                                                                             ("heard", records[5:]))]
    graph.add(DemoLoaderNode, demo_path=paths)
    output = "".join(capfd.readouterr())
    assert "15 transitions in 3 demonstrations from 2 bag(s), 3 successful\n" in output
    assert f"{paths[1]}: 7 of its 10 transitions are in a bag before it too: they count once\n" in output
    assert f"{paths[0]}: " not in output


def test_demonstrations_that_come_before_the_space_are_not_forgotten(graph, learn, demonstrations):
    graph.listen(qos.LEARNER_STATUS, qos.DEMO_MANIFEST)
    learn(require_demonstrations=True)
    graph.add(DemoLoaderNode, demo_path=[str(demonstrations)])
    manifest = graph.until(lambda: graph.last(qos.DEMO_MANIFEST))
    assert manifest.total > 100
    graph.until(lambda: (s := graph.last(qos.LEARNER_STATUS)) and "no space_spec received yet" in s.text)
    graph.add(ArmDriverNode)
    status = graph.until(lambda: (s := graph.last(qos.LEARNER_STATUS)) and s.state == LearnerState.FILLING and s)
    assert status.demo_expected == manifest.total


def test_demonstrations_of_another_space_are_named_and_end_the_loader(graph, demonstrations, start_node):
    graph.listen(qos.DEMO_MANIFEST)
    graph.add(ArmDriverNode, control_rate=20.0)
    process = start_node("demo_loader", demo_path=f"['{demonstrations}']")
    error = graph.until(lambda: (m := graph.last(qos.DEMO_MANIFEST)) and m.error)
    graph.until(lambda: process.poll() is not None)
    assert process.returncode == 2
    assert "control_rate: the arm has 20.0, the bags have 10.0" in error
    assert str(demonstrations) in error
    assert process.communicate()[1].splitlines()[-1] == f"demo_loader: {error}"


@pytest.mark.parametrize("path", ["", "nowhere", "empty"])
def test_demonstrations_that_are_not_there_are_named_and_end_the_loader(graph, tmp_path, path, start_node):
    graph.listen(qos.DEMO_MANIFEST)
    (tmp_path / "empty").mkdir()
    where = str(tmp_path / path) if path else ""
    process = start_node("demo_loader", **({"demo_path": f"['{where}']"} if path else {}))
    error = graph.until(lambda: (m := graph.last(qos.DEMO_MANIFEST)) and m.error)
    learner = qos.publisher(graph.ears, qos.LEARNER_STATUS)
    learner.publish(qos.LEARNER_STATUS.type(demo_error="another error"))
    began = time.monotonic()
    graph.until(lambda: time.monotonic() - began > 1.0)
    assert process.poll() is None  # it stays until it is heard
    assert graph.ears.count_publishers("demo_transitions") == 1  # whole, or it would be taken for one that was remapped
    learner.publish(qos.LEARNER_STATUS.type(demo_error=error))
    graph.until(lambda: process.poll() is not None)
    assert process.returncode == 2
    assert error.startswith(where or "demo_path: expected one or more rosbag2 bags")
    assert process.communicate()[1].count("\n") == 1
