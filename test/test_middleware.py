# SPDX-License-Identifier: Apache-2.0
"""The middleware's profile is in force where nothing else was chosen, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlpd_ros.ros.middleware import use_profile

VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")
REACH = "ROS_AUTOMATIC_DISCOVERY_RANGE"
LOOK = """
import os, socket
from contextlib import suppress
from pathlib import Path
import rclpy
rclpy.init()
node = rclpy.create_node("looked_at")
lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
room = ways = 0
for number in map(int, os.listdir("/proc/self/fd")):
    with suppress(OSError), socket.socket(fileno=os.dup(number)) as found:
        room = max(room, found.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
        address, port = found.getsockname()
        ways += address == "0.0.0.0" and port >= lowest
print("_port" in Path("/proc/self/maps").read_text(), room, ways)
"""

TALK = """
import sys, threading, time
import rclpy
from std_msgs.msg import Empty
rclpy.init()
publisher = rclpy.create_node("talks").create_publisher(Empty, "talk", 1)
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
while not ended.wait(0.1):
    publisher.publish(Empty())
"""
LISTEN = """
import rclpy
from std_msgs.msg import Empty
rclpy.init()
node, heard = rclpy.create_node("listens"), []
node.create_subscription(Empty, "talk", heard.append, 1)
while not heard:
    rclpy.spin_once(node)
print("heard")
"""


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    for name in (*VARIABLES, REACH, "ROS_STATIC_PEERS"):
        monkeypatch.setenv(name, "")  # remembered, so that whatever is set here is undone


@pytest.mark.parametrize("reach", ["LOCALHOST", "SUBNET"])
def test_fast_dds_takes_the_profile(domain, monkeypatch, reach):
    monkeypatch.setenv(REACH, reach)

    def look() -> list[str]:
        return subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True).stdout.split()

    for name in VARIABLES:
        os.environ.pop(name)
    assert look()[0] == "True"
    use_profile()
    shared_memory, room, ways = look()
    assert shared_memory == "False"
    assert ways == "1"  # by two, as with a range besides, everything would be sent twice
    allowed = int(Path("/proc/sys/net/core/rmem_max").read_text())
    assert int(room) == 2 * min(2**22, allowed)  # Linux doubles what it is asked for


@pytest.mark.parametrize("name", VARIABLES)
def test_what_the_user_chose_stays_in_force(name):
    os.environ[name] = "mine"
    use_profile()
    assert {os.environ[other] for other in VARIABLES if other != name} == {""}
    assert os.environ[name] == "mine"


def test_a_choice_of_this_machine_only_is_one_of_transports(monkeypatch):
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    use_profile()
    assert not any(os.environ[name] for name in VARIABLES)


@pytest.mark.parametrize(("choice", "middleware", "file"), [
    ({REACH: "LOCALHOST"}, "rmw_fastrtps_cpp", "fastdds_local.xml"),
    ({REACH: "SUBNET"}, "rmw_fastrtps_cpp", "fastdds.xml"),
    ({REACH: "LOCALHOST"}, "rmw_cyclonedds_cpp", "fastdds.xml"),
    ({REACH: "LOCALHOST", "ROS_STATIC_PEERS": "other"}, "rmw_fastrtps_cpp", "fastdds.xml")])
def test_a_choice_of_reach_stays_in_force(monkeypatch, choice, middleware, file):
    monkeypatch.setattr("rlpd_ros.ros.middleware.get_rmw_implementation_identifier", lambda: middleware)
    os.environ.update(choice)
    use_profile()
    assert Path(os.environ[VARIABLES[0]]).name == file
    assert os.environ[REACH] == ("SYSTEM_DEFAULT" if file == "fastdds_local.xml" else choice[REACH])


def test_nodes_that_keep_to_this_machine_find_each_other(domain, monkeypatch):
    """Also one that was started without the profile, as the tools of ROS are."""
    monkeypatch.setenv(REACH, "LOCALHOST")
    other = subprocess.Popen([sys.executable, "-c", TALK], env=dict(os.environ), stdin=subprocess.PIPE)
    use_profile()
    try:
        found = subprocess.run([sys.executable, "-c", LISTEN], check=True, capture_output=True, text=True, timeout=60)
        assert found.stdout == "heard\n"
    finally:
        other.communicate()
