# SPDX-License-Identifier: Apache-2.0
"""The middleware's profile is in force where nothing else was chosen, and only there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rlpd_ros.ros.middleware import use_profile

VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")
SEGMENT = """
from pathlib import Path
import rclpy
rclpy.init()
node = rclpy.create_node("segment")
maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
mapped = [words[0].split("-") for words in maps if words[-1].startswith("/dev/shm/")]
print(max(int(end, 16) - int(begin, 16) for begin, end in mapped))
"""


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # remembered, so that whatever is set here is undone


def test_fast_dds_takes_the_profile(domain):
    def segment() -> int:
        return int(subprocess.run([sys.executable, "-c", SEGMENT], check=True, capture_output=True, text=True).stdout)

    for name in VARIABLES:
        os.environ.pop(name)
    usual = segment()
    use_profile()
    assert segment() >= 2**23 > usual


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
