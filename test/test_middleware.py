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
LOOK = """
import os, socket
from contextlib import suppress
from pathlib import Path
import rclpy
rclpy.init()
node = rclpy.create_node("looked_at")
room = 0
for number in map(int, os.listdir("/proc/self/fd")):
    with suppress(OSError), socket.socket(fileno=os.dup(number)) as found:
        room = max(room, found.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
print("_port" in Path("/proc/self/maps").read_text(), room)
"""


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # remembered, so that whatever is set here is undone


@pytest.mark.parametrize("reach", ["LOCALHOST", "SUBNET"])
def test_fast_dds_takes_the_profile(domain, monkeypatch, reach):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", reach)

    def look() -> list[str]:
        return subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True).stdout.split()

    for name in VARIABLES:
        os.environ.pop(name)
    assert look()[0] == "True"
    use_profile()
    shared_memory, room = look()
    assert shared_memory == "False"
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
