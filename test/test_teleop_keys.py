# SPDX-License-Identifier: Apache-2.0
"""``rlpd teleop`` in a real terminal: keys in, actions out, and the terminal left as it was."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlpd_ros.cli.teleop import raw_terminal
from rlpd_ros.ros import messages, qos
from rlpd_ros.types import Source, SpaceField, SpaceSpec

SPEC = SpaceSpec("test arm", (SpaceField.box("state", [-1], [1]),),
                 (SpaceField.box("motion", [-1] * 3, [1] * 3), SpaceField.box("gripper", [0], [1])), 10.0, "base", 100)
LOCAL_MODES = 3  # where termios keeps them


class Terminal:
    """A terminal of its own, and what stands on it."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        self.modes = termios.tcgetattr(self.slave)
        self.text = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            ["sh", "-c", 'exec rlpd teleop "$@" < "$0"', os.ttyname(self.slave), *arguments], stdout=self.slave,
            stderr=self.slave, start_new_session=True,  # it opens its own terminal: Ctrl-C and Ctrl-Z are signals
            env={**os.environ, **environment})
        return self._process

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def shows(self, pattern: str) -> bool:
        """Read what is there, and tell whether it holds the pattern."""
        while select.select([self._master], [], [], 0.0)[0]:
            self.text += os.read(self._master, 4096).decode()
        assert self._process is None or not self._process.poll(), self.text
        return re.search(pattern, self.text) is not None

    @property
    def raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[LOCAL_MODES] & (termios.ICANON | termios.ECHO)

    def hang_up(self) -> None:
        os.close(self.slave)
        os.close(self._master)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(OSError):
            self.hang_up()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


@pytest.fixture
def listening(graph, terminal, domain, monkeypatch):
    """Be the arm's driver and the actor, as far as the person meets them."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    graph.listen(qos.INTERVENTION)
    graph.listen(qos.OUTCOME)
    qos.publisher(graph.ears, qos.SPACE_SPEC).publish(messages.from_space_spec(SPEC, 1))
    return graph


def hear(graph, terminal, *action: float | None):
    """Wait for an action; an element that is None may be anything, for instance what an earlier key still does."""
    def heard():
        terminal.shows("")
        return any(all(b is None or abs(a - b) < 1e-6 for a, b in zip(sent.action, action, strict=True))
                   for sent in graph.heard["intervention"])

    graph.heard["intervention"].clear()
    graph.until(heard, f"{action}; on the terminal: {terminal.text}")


def test_keys_move_the_arm_and_the_line_says_so(listening, terminal):
    process = terminal.start("--speed", "0.4")
    listening.until(lambda: terminal.shows("nothing is sent: the policy may act"), "the line")
    assert "test arm:\r\n  w s  or up, down" in terminal.text
    assert terminal.raw
    assert not listening.heard["intervention"]
    terminal.type("w")
    hear(listening, terminal, 0.4, 0.0, 0.0, None)
    assert {a.source for a in listening.heard["intervention"]} == {Source.INTERVENTION}
    listening.until(lambda: terminal.shows(r"sent to 1: motion\[0\] \+0.40"))
    terminal.type("\x1b[C")
    hear(listening, terminal, None, -0.4, 0.0, None)
    terminal.type("g")
    hear(listening, terminal, None, None, 0.0, -1.0)
    terminal.type("+r")
    hear(listening, terminal, None, None, 0.5, None)
    terminal.type(" ")
    listening.until(lambda: terminal.shows("hold still, the policy too"))
    hear(listening, terminal, 0.0, 0.0, 0.0, None)
    assert listening.last(qos.INTERVENTION).source == Source.HOLD
    for key, success in (("y", True), ("n", False)):
        terminal.type(key)
        listening.until(lambda success=success: (said := listening.last(qos.OUTCOME)) and said.success == success)
    terminal.type("q")
    listening.until(lambda: process.poll() is not None)
    assert process.returncode == 0
    assert termios.tcgetattr(terminal.slave) == terminal.modes


def test_with_always_it_sends_from_the_start_at_its_rate(listening, terminal):
    terminal.start("--always", "--rate", "10")
    hear(listening, terminal, 0.0, 0.0, 0.0, None)
    began = time.monotonic()
    listening.heard["intervention"].clear()
    listening.until(lambda: time.monotonic() - began > 2.0)
    assert 10 <= len(listening.heard["intervention"]) <= 21


def test_a_held_key_ends_one_episode_and_ctrl_s_stops_the_arm_like_any_other_key(listening, terminal):
    terminal.start()
    listening.until(lambda: terminal.shows("nothing is sent"))
    for _ in range(10):
        terminal.type("y")
        listening.drain()
    terminal.type("\x13")
    listening.until(lambda: terminal.shows("hold still, the policy too"))
    hear(listening, terminal, 0.0, 0.0, 0.0, None)
    listening.heard["intervention"].clear()
    began = time.monotonic()
    listening.until(lambda: time.monotonic() - began > 1.0)
    assert len(listening.heard["intervention"]) > 5
    assert [said.success for said in listening.heard["outcome"]] == [True]


@pytest.mark.parametrize("end", ["\x03", signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=str)
def test_however_it_ends_the_arm_is_stopped_and_the_terminal_as_before(listening, terminal, end):
    process = terminal.start("--speed", "1")
    listening.until(lambda: terminal.shows("nothing is sent"))
    terminal.type("s")
    hear(listening, terminal, -1.0, 0.0, 0.0, None)
    if isinstance(end, str):
        terminal.type(end)
    else:
        process.send_signal(end)
    hear(listening, terminal, 0.0, 0.0, 0.0, None)
    assert listening.last(qos.INTERVENTION).source == Source.HOLD
    listening.until(lambda: process.poll() is not None)
    assert process.returncode == 0
    assert termios.tcgetattr(terminal.slave) == terminal.modes
    terminal.shows("")
    assert "Traceback" not in terminal.text


def test_it_ends_with_its_terminal(listening, terminal):
    process = terminal.start()
    listening.until(lambda: terminal.shows("nothing is sent"))
    terminal.hang_up()
    listening.until(lambda: process.poll() is not None)
    assert process.returncode == 0


def test_while_it_is_suspended_the_terminal_is_as_before(listening, terminal):
    process = terminal.start()
    listening.until(lambda: terminal.shows("nothing is sent"))
    terminal.type("\x1a")  # Ctrl-Z
    state = Path(f"/proc/{process.pid}/stat")
    listening.until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "suspended")
    assert termios.tcgetattr(terminal.slave) == terminal.modes
    assert terminal.shows("suspended: nothing is sent any more, so the policy may act")
    process.send_signal(signal.SIGCONT)
    listening.until(lambda: terminal.raw, "keys again")
    terminal.type("w")
    hear(listening, terminal, 0.3, 0.0, 0.0, None)


def test_the_terminal_is_as_before_after_an_exception(terminal):
    def fail() -> None:
        with raw_terminal(terminal.slave):
            assert terminal.raw
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert termios.tcgetattr(terminal.slave) == terminal.modes
    assert signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL


def test_who_is_missing_is_said_in_plain_words(graph, terminal, domain):
    terminal.start("--namespace", "left", ROS_DOMAIN_ID=str(domain))
    where = rf"with ROS_DOMAIN_ID {domain}, namespace /left\?"
    graph.until(lambda: terminal.shows(f"no space_spec yet: is the arm driver running, {where[:30]}"))
    space = qos.Topic("/left/space_spec", "rlpd_ros/msg/SpaceSpec", latched=True)
    qos.publisher(graph.ears, space).publish(messages.from_space_spec(SPEC, 1))
    graph.until(lambda: terminal.shows("nobody listens: is the actor running, with"))
    graph.listen(qos.Topic("/left/intervention", "rlpd_ros/msg/Action", reliable=False))
    graph.until(lambda: terminal.shows("nothing is sent: the policy may act"))


def test_an_unset_domain_is_told(graph, terminal, monkeypatch):
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    terminal.start()
    graph.until(lambda: terminal.shows("ROS_DOMAIN_ID is not set, so this is domain 0: export the same number"))


@pytest.mark.parametrize(("arguments", "says"), [
    ([], "expected a keyboard, found standard input that is no terminal; start it in a terminal"),
    (["--rate", "0"], "--rate: expected a number from 1 to 1000, found 0"),
    (["--speed", "nan"], "--speed: expected a number from 0.02 to 1, found nan"),
    (["--namespace", "a b"], "--namespace a b: expected a ROS namespace"),
])
def test_wrong_input_is_one_line_and_status_2(arguments, says):
    done = subprocess.run(["rlpd", "teleop", *arguments], input="w", capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"rlpd teleop: {says}")
    assert done.stderr.count("\n") == 1
