# SPDX-License-Identifier: Apache-2.0
"""``rlpd teleop``: move the arm by the keyboard of a terminal, while its nodes run elsewhere."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rlpd_ros.cli import give_up_output
from rlpd_ros.cli.runner import given_domain
from rlpd_ros.enclaves import TELEOP, enclave_arguments
from rlpd_ros.errors import ConfigError
from rlpd_ros.graph import check_namespace
from rlpd_ros.ros.middleware import use_profile
from rlpd_ros.ros.realtime import go_first
from rlpd_ros.teleoperation import SLOWEST, KeyTeleoperator, split_keys
from rlpd_ros.types import Command, Source, SpaceSpec
from rlpd_ros.untrusted import Refusals

if TYPE_CHECKING:
    from rclpy.node import Node

CLEAR = "\r\x1b[K"  # to the line's beginning, then delete it


def main(options: argparse.Namespace) -> int:
    """Send what the keys say until q, Ctrl-C, SIGTERM or the terminal's end."""
    for name, value, low, high in (("--rate", options.rate, 1.0, 1000.0), ("--speed", options.speed, SLOWEST, 1.0)):
        if not low <= value <= high:
            raise ConfigError(f"{name}: expected a number from {low:g} to {high:g}, found {value:g}")
    check_namespace("--namespace", options.namespace)
    domain = given_domain()
    if not sys.stdin.isatty():
        raise ConfigError("expected a keyboard, found standard input that is no terminal; start it in a terminal")
    if domain is None:
        print("ROS_DOMAIN_ID is not set, so this is domain 0: export the same number here and where the nodes start")
    use_profile()
    ended = False

    def end(*_: object) -> None:  # and nothing else: an exception could leave the middleware's work half done
        nonlocal ended
        ended = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, end)
    keyboard = sys.stdin.fileno()
    with _node(options.namespace) as (node, spin), raw_terminal(keyboard):
        panel = Panel(node, options, domain or 0)
        try:
            due = time.monotonic()
            while not ended:
                if select.select([keyboard], [], [], max(0.0, due - time.monotonic()))[0]:
                    ended = ended or not panel.take(_read(keyboard))
                spin()
                if time.monotonic() >= due:
                    due = max(due + 1.0 / options.rate, time.monotonic())
                    panel.send()
        finally:
            panel.close()
    return 0


class Panel:
    """A person's keys, the topics, and the one line that tells what goes on."""

    def __init__(self, node: Node, options: argparse.Namespace, domain: int) -> None:
        from rlpd_ros.ros.interventions import Interventions

        self._options = options
        self._where = f"with ROS_DOMAIN_ID {domain}, namespace {node.get_namespace()}"
        self._person: KeyTeleoperator | None = None
        self._line = ""
        self._interventions = Interventions(node, self._on_space, Refusals(node.get_logger().warning))

    def _on_space(self, spec: SpaceSpec) -> None:
        speed, always = self._options.speed, self._options.always
        if self._person is not None:
            speed, always = self._person.speed, self._person.always
        self._person = KeyTeleoperator(spec, speed, always)
        if not spec.lockstep:
            go_first()  # what computes on this machine must not delay what the arm does
        _write(CLEAR + "".join(f"{line}\n" for line in (f"{spec.robot}:", *self._person.help())))
        self._line = ""

    def take(self, text: str) -> bool:
        """Take what the terminal sent; return whether to go on."""
        now = time.monotonic()
        for key in split_keys(text):
            if key == "q":
                return False
            if self._person is not None:
                self._person.press(key, now)
                verdict = self._person.take_verdict()
                if verdict is not None:
                    self._interventions.judge(verdict)
        return bool(text)  # without any text the terminal is gone

    def send(self) -> None:
        """Send the action that is due, if there is one, and tell of it."""
        self._interventions.check()
        command = self._person.command(time.monotonic()) if self._person is not None else None
        if command is not None:
            self._interventions.send(command)
        self._show(self._told(command))

    def _told(self, command: Command | None) -> str:
        person, listeners = self._person, self._interventions.listeners
        if person is None:
            return f"no space_spec yet: is the arm driver running, {self._where}?"
        if not listeners:
            return f"nobody listens: is the actor running, {self._where}?"
        settings = f"speed {person.speed:.2f}"
        if command is None:
            return f"{settings} | nothing is sent: the policy may act"
        if command.source is Source.HOLD:
            return f"{settings} | sent to {listeners}: hold still{', the policy too' if person.always else ''}"
        values = ", ".join(f"{person.names[i]} {value:+.2f}" for i, value in enumerate(command.action)
                           if value and not math.isnan(value))
        return f"{settings} | sent to {listeners}: {values or 'no motion'}"

    def _show(self, line: str) -> None:
        if line != self._line:
            self._line = line
            _write(CLEAR + line[:shutil.get_terminal_size().columns - 1])

    def close(self) -> None:
        """Let the arm stand still."""
        self._interventions.close(self._person.stop() if self._person is not None else None)
        _write("\n")


def _read(keyboard: int) -> str:
    try:
        return os.read(keyboard, 1024).decode(errors="replace")
    except OSError:  # the terminal was closed
        return ""


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:  # the terminal was closed: the loop ends by itself
        give_up_output()


@contextlib.contextmanager
def raw_terminal(terminal: int) -> Iterator[None]:
    """Have the keys of a terminal (file descriptor) delivered at once, Ctrl-S too, and not shown.

    Afterwards it is as it was, and also while Ctrl-Z suspends the program. What was typed and not read is dropped.
    """
    before = termios.tcgetattr(terminal)

    def restore() -> None:
        with contextlib.suppress(termios.error):  # it was closed
            termios.tcflush(terminal, termios.TCIFLUSH)
            termios.tcsetattr(terminal, termios.TCSANOW, before)

    def listen() -> None:
        tty.setcbreak(terminal, termios.TCSANOW)
        modes = termios.tcgetattr(terminal)
        modes[0] &= ~termios.IXON  # Ctrl-S would stop this program's output, and with that all of it
        termios.tcsetattr(terminal, termios.TCSANOW, modes)

    def suspend(*_: object) -> None:
        _write(f"{CLEAR}suspended: nothing is sent any more, so the policy may act\n")
        restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        listen()  # the shell has continued the program

    previous = signal.signal(signal.SIGTSTP, suspend)
    try:
        listen()
        yield
    finally:
        signal.signal(signal.SIGTSTP, previous)
        restore()


@contextlib.contextmanager
def _node(namespace: str) -> Iterator[tuple[Node, Callable[[], None]]]:
    """Join the graph; yield the node and a function that gives it a turn."""
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    context = Context()
    rclpy.init(args=["--ros-args", *enclave_arguments(TELEOP, namespace)], context=context,
               signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("rlpd_teleop", namespace=namespace, context=context, use_global_arguments=False,
                             start_parameter_services=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield node, lambda: executor.spin_once(timeout_sec=0.0)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
