# SPDX-License-Identifier: Apache-2.0
"""What surrounds a command: no home, no reader, a full disk, another alphabet, and what killed nodes left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.factory import make_arm
from rlpd_ros.preparation import NO_DEMONSTRATIONS, prepare_run, resolve
from rlpd_ros.ros.bag_reader import Bag
from rlpd_ros.ros.bags import read_demonstrations

DEADLINE = 100.0  # s for what takes a few


def rlpd(*arguments: str, **how) -> subprocess.CompletedProcess[str]:
    """Run the command with ``env`` added to the environment (None: taken out of it)."""
    environment = {k: v for k, v in (os.environ | how.pop("env", {})).items() if v is not None}
    return subprocess.run(["rlpd", *arguments], env=environment, text=True, timeout=DEADLINE, check=False,
                          stdout=how.get("stdout", subprocess.PIPE), stderr=subprocess.PIPE)


@pytest.fixture
def run(tmp_path) -> Path:
    made, _ = prepare_run(tmp_path / "runs", "grün", resolve([]), NO_DEMONSTRATIONS)
    return made.path


@pytest.mark.parametrize("environment", [{"HOME": "/proc"}, {"HOME": None}], ids=["unwritable", "none"])
def test_without_a_home_nodes_start_all_the_same(domain, environment):
    seen = rlpd("doctor", env={"ROS_DOMAIN_ID": str(domain), "ROS_LOG_DIR": None, "ROS_HOME": None, **environment})
    assert (seen.returncode, seen.stderr) == (2, "")
    assert seen.stdout.startswith("nothing to examine: no node was heard")


def test_shared_memory_of_a_node_that_was_killed_while_it_made_it_keeps_no_doctor_waiting():
    """Fast DDS waits for ever for a mutex that nobody has initialised."""
    def ports_of(domain: int) -> list[Path]:
        return [Path(f"/dev/shm/fastrtps_port{7400 + 250 * domain + offset}") for offset in (10, 11)]

    domain = next(d for d in range(102, 232) if not any(port.exists() for port in ports_of(d)))
    ports = ports_of(domain)
    try:
        for port in ports:
            port.write_bytes(bytes(4096))
        seen = rlpd("doctor", env={"ROS_DOMAIN_ID": str(domain)})
    finally:
        for port in ports:
            port.unlink(missing_ok=True)
    assert seen.stdout.startswith("nothing to examine")


@pytest.mark.parametrize(("arguments", "environment", "says"), [
    ([], {"ROS_DOMAIN_ID": "abc"}, "ROS_DOMAIN_ID: expected a number from 0 to 232, found 'abc'"),
    ([], {"ROS_DOMAIN_ID": "999"}, "ROS_DOMAIN_ID: expected a number from 0 to 232, found '999'"),
    (["--namespace", "a b"], {}, "--namespace a b: expected a ROS namespace"),
])
def test_the_doctor_refuses(arguments, environment, says):
    seen = rlpd("doctor", *arguments, env=environment)
    assert (seen.returncode, seen.stdout, seen.stderr.count("\n")) == (2, "", 1)
    assert seen.stderr.startswith(f"rlpd doctor: {says}")


@pytest.mark.parametrize("command", ["report", "doctor"])
def test_who_stops_reading_gets_no_complaint(run, command):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        seen = rlpd(command, str(run), stdout=nobody)
    assert (seen.returncode, seen.stderr) == (141, "")


@pytest.mark.parametrize("command", ["report", "doctor"])
def test_a_disk_without_room_for_what_is_printed_is_told(run, command):
    with open("/dev/full", "wb") as full:
        seen = rlpd(command, str(run), stdout=full)
    assert (seen.returncode, seen.stderr) == (
        2, f"rlpd {command}: standard output: No space left on device; make room on that disk\n")


@pytest.mark.parametrize("environment", [
    {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=str)
def test_a_terminal_without_the_letters_of_a_path_shows_what_it_can(run, environment):
    seen = rlpd("report", str(run), env=environment)
    assert (seen.returncode, seen.stderr) == (0, "")
    assert seen.stdout.endswith("n/report.html\n")
    assert (run / "report.html").stat().st_size > 1000


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_what_was_recorded_when_the_terminal_was_closed_is_kept(tmp_path, number):
    bag = tmp_path / "bag"
    with subprocess.Popen(["rlpd", "record", str(bag), "--episodes", "100000"], stdout=subprocess.PIPE) as recording:
        while not list(bag.glob("*.mcap")):
            assert recording.poll() is None
        recording.send_signal(number)
        printed, _ = recording.communicate(timeout=DEADLINE)
    assert recording.returncode == (130 if number == signal.SIGHUP else -number)
    (file,) = bag.glob("*.mcap")
    shown = sum(record.success for record in Bag(file, partial=True).records(make_arm(ArmConfig()).spec))
    assert shown > 0
    if number == signal.SIGHUP:
        assert printed.decode() == f"stopped; {shown} demonstrations are in {bag}\n"
        assert sum(read_demonstrations([bag]).manifest.successes) == shown
