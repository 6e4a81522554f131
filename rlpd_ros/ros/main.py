# SPDX-License-Identifier: Apache-2.0
"""The ``main()`` that all nodes share: start, spin, say what is wrong in one line, end cleanly."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor, TimeoutException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from rlpd_ros.errors import USER_ERROR, RlpdError
from rlpd_ros.installation import find_log_folder, make_known
from rlpd_ros.ros.realtime import go_first

PARENT = "RLPD_PARENT"  # environment variable: the process with which a node ends, however that ends


def run_node(make: Callable[[], Node]) -> int:
    """Run one node until its ``finished`` attribute is set, or until it is asked to stop; return the exit status.

    A node may have a ``work`` method: it is called between callbacks and returns whether there is more to do at once.
    Once its ``goes_first`` is set, it goes before what else the machine computes, if that is permitted. Its ``close``
    method is called at the end, also after Ctrl-C. SIGINT, SIGTERM and SIGHUP take effect between two callbacks:
    no callback, and not the end either, is broken off in the middle.
    """
    _follow_parent()
    keep_memory()
    make_known()
    find_log_folder()
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    node = None
    try:
        node = make()
        gc.freeze()  # of all that was imported nothing will ever be garbage; to look through it takes 0.1 s each time
        try:
            _spin(node)
        finally:
            getattr(node, "close", lambda: None)()
        return 0
    except RlpdError as error:
        name = node.get_name() if node else Path(sys.argv[0]).stem
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return USER_ERROR
    except KeyboardInterrupt:  # before there was a node
        return 0
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


def _follow_parent() -> None:
    parent = os.environ.get(PARENT)
    if parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != int(parent):  # too late
            sys.exit(1)


_MALLOC_OPTIONS = {-1: 1 << 28, -3: 1 << 25, -8: 1}  # trim and mmap thresholds in bytes, arenas: see mallopt(3)


def keep_memory() -> None:
    """Let this process keep the memory that a large message took for the next one.

    A message is copied some six times on its way. To get each page anew from the system takes half of that way. No
    thread gets an arena of its own any more: beyond 64 MB what is free there goes back to the system all the same.
    """
    library = ctypes.CDLL(None)
    for option, value in _MALLOC_OPTIONS.items() if hasattr(library, "mallopt") else ():  # the GNU C library
        library.mallopt(option, value)


DRAIN_TIME = 0.02  # s of callbacks in a row, at least, before the node's own work has its turn


def _spin(node: Node) -> None:
    asked_to_stop = False

    def stop(*_: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    work = getattr(node, "work", None)
    asked = False
    idle = 0.2 if work is None else 0.02  # s: waking up costs more than what a node without work has to do
    while not asked_to_stop and not getattr(node, "finished", False):
        if not asked and getattr(node, "goes_first", False):
            asked, refusal = True, go_first()
            node.get_logger().info(f"real-time scheduling: {refusal or 'on'}")
        began = time.monotonic()
        busy = work() if work is not None else False
        worked_until = time.monotonic()
        deadline = worked_until + max(DRAIN_TIME, worked_until - began)  # messages must not pile up behind slow work
        more = _handle_one(executor, 0.0 if busy else idle)
        while (_take_waiting(node, deadline) or more) and time.monotonic() < deadline:
            more = _handle_one(executor, 0.0)


def _handle_one(executor: SingleThreadedExecutor, timeout: float) -> bool:
    """Run one callback if there is one within ``timeout`` s; return whether there was."""
    try:
        handler, _, _ = executor.wait_for_ready_callbacks(timeout_sec=timeout)
    except TimeoutException:
        return False
    handler()
    if handler.exception() is not None:
        raise handler.exception()
    return True


def _take_waiting(node: Node, deadline: float) -> int:
    """Hand over the messages that wait, of each subscription in turn; return how many there were.

    The executor takes one message per wait, and Fast DDS shows what waits behind it only to a wait that lasts.
    """
    taken, subscriptions = 0, list(node.subscriptions)
    while subscriptions and time.monotonic() < deadline:
        for subscription in list(subscriptions):
            with subscription.handle:
                message = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if message is None:
                subscriptions.remove(subscription)
            else:
                subscription.callback(message[0])
                taken += 1
    return taken


def wall_ns() -> int:
    """Return the time of day in nanoseconds since 1970, as message stamps have it."""
    return time.time_ns()
