# SPDX-License-Identifier: Apache-2.0
"""What a diagnosis sees of this machine: which processes are nodes, and how they are set up; and when they die."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest
from evidence_world import (
    ACTOR,
    LEARNER,
)

from rlpd_ros.diagnosis.collector import Collector
from rlpd_ros.diagnosis.evidence import Endpoint, Graph, LocalProcess, Machine
from rlpd_ros.diagnosis.local import KNOWN, kind_of, processes
from rlpd_ros.installation import share
from rlpd_ros.ros import middleware
from rlpd_ros.status import HOST


def test_deaths_are_counted_for_a_minute_and_only_here():
    collector = Collector(1)
    for i in range(4):
        one = LocalProcess(i, "actor", "/", 5, "LOCALHOST", 1.0)
        collector.look(Graph(), Machine(domain=5, processes=(one, replace(one, node="learner", pid=9))), 10.0 * i)
    assert collector.evidence.restarts == {"actor": 3}
    collector.look(Graph(), Machine(domain=5, processes=(one,)), 85.0)
    assert collector.evidence.restarts == {"actor": 1, "learner": 1}
    assert collector.evidence.slow_restarts == {"actor": 3, "learner": 1}
    collector.look(Graph(), Machine(domain=5), 650.0)
    assert (collector.evidence.restarts, collector.evidence.slow_restarts) == ({"actor": 1}, {"actor": 1, "learner": 1})


def test_deaths_of_all_arms_are_counted():
    collector = Collector(1)
    graph = Graph(endpoints=(Endpoint("actor_status", "/right/actor", True),))
    for i in range(3):
        here, other = (LocalProcess(i, "actor", ns, 5, "LOCALHOST", 1.0) for ns in ("/right", "/another_run"))
        collector.look(graph, Machine(domain=5, processes=(here, replace(other, pid=90 + i))), 10.0 * i)
    assert collector.evidence.restarts == {"actor": 2}


@pytest.mark.parametrize(("arguments", "kind"), [
    (["python3", "/opt/lib/rlpd_ros/learner", "--ros-args", "-r", "__node:=learner"], "learner"),
    (["/opt/lib/rlpd_ros/actor", "--ros-args"], "actor"),
    (["python3", "/opt/rlpd_ros_broken.py", "actor", "--ros-args", "-r", "__node:=actor"], "actor"),
    (["python3", "/opt/other/actor", "--ros-args", "-r", "__node:=actor"], ""),
    (["vim", "rlpd_ros/learner"], ""),
    (["python3", "/opt/lib/rlpd_ros/monitor", "--ros-args"], ""),
])
def test_processes_are_known_by_their_command_line(arguments, kind):
    assert kind_of(arguments) == kind


BECOMES_A_NODE = """
import os, sys
sys.stdin.readline()
os.execv(sys.executable, [sys.executable, "-c", "import sys; sys.stdin.readline()", "rlpd_ros", "--ros-args", "-r",
                          "__node:=actor"])
"""


@pytest.mark.parametrize(("looks", "found"), [(KNOWN - 1, True), (KNOWN, False)])
def test_a_process_that_was_looked_at_before_its_exec_is_found_after_it(looks, found):
    strangers: Counter[str] = Counter()
    with subprocess.Popen([sys.executable, "-c", BECOMES_A_NODE], stdin=subprocess.PIPE, text=True) as child:
        for _ in range(looks):
            assert child.pid not in {p.pid for p in processes(strangers)}
        child.stdin.write("\n")
        child.stdin.flush()
        deadline = time.monotonic() + 60.0
        while child.pid not in {p.pid for p in processes()}:
            assert time.monotonic() < deadline
        assert (child.pid in {p.pid for p in processes(strangers)}) == found
        child.stdin.close()
    processes(strangers)
    assert str(child.pid) not in strangers  # another one may get its number


@pytest.mark.parametrize("name", middleware.FILES)
def test_shared_memory_may_be_used_where_the_profile_is_not(name):
    for profile in ("fastdds.xml", "fastdds_local.xml"):
        assert not started_with({name: str(share() / "config" / profile)}).shared_memory
    assert started_with({}).shared_memory
    assert started_with({name: "/home/me/fastdds.xml"}).shared_memory


def test_a_node_keeps_to_its_machine_by_its_range_or_by_the_profile(monkeypatch):
    for name in (*middleware.FILES, "FASTDDS_BUILTIN_TRANSPORTS", "ROS_STATIC_PEERS", "ROS_LOCALHOST_ONLY"):
        monkeypatch.delenv(name, raising=False)
    for reach in ("SUBNET", "LOCALHOST"):
        monkeypatch.setenv(middleware.RANGE, reach)
        assert started_with({}).discovery == started_with(middleware.profile()).discovery == reach


def started_with(choice: dict[str, str]) -> LocalProcess:
    """Start what looks like a node, with ``choice`` in its environment; return what is known of it."""
    line = [sys.executable, "-c", "import sys; sys.stdin.readline()", "rlpd_ros", "--ros-args", "-r", "__node:=actor"]
    environment = {key: value for key, value in os.environ.items() if key not in middleware.FILES}
    with subprocess.Popen(line, stdin=subprocess.PIPE, env=environment | choice) as child:
        found: list[LocalProcess] = []
        deadline = time.monotonic() + 60.0
        while not found:
            found = [process for process in processes() if process.pid == child.pid]
            assert time.monotonic() < deadline
        child.stdin.close()
    return found[0]


def test_this_host_is_the_one_that_reports_name():
    assert ACTOR.host == LEARNER.host == HOST
