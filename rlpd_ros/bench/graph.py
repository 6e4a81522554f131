# SPDX-License-Identifier: Apache-2.0
"""A node of the benchmark's own, and real nodes as processes beside it, over real middleware."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import rclpy
import yaml
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from rlpd_ros.errors import DataError
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.main import keep_memory
from rlpd_ros.types import SpaceSpec

DEADLINE = 120.0  # s for anything to happen at all


class Bench:
    """A node that stands in for one side of what is measured; use it as a context manager.

    ``processes`` that it starts end with it.
    """

    def __init__(self, name: str = "bench") -> None:
        keep_memory()
        self._context = Context()
        rclpy.init(context=self._context)
        self.node = Node(name, context=self._context, use_global_arguments=False, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._spaces: Any = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGINT)
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10.0)
            process.kill()
            process.wait()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def start(self, module: str, **parameters: Any) -> int:
        """Start the node of one of this package's modules as a process of its own; return its number."""
        arguments = [part for name, value in parameters.items() for part in ("-p", f"{name}:={_yaml(value)}")]
        self._processes.append(subprocess.Popen(
            [sys.executable, "-m", f"rlpd_ros.{module}", "--ros-args", "--log-level", "error", *arguments],
            stdout=subprocess.DEVNULL))
        return self._processes[-1].pid

    def announce(self, spec: SpaceSpec) -> None:
        """Publish ``spec`` as an arm driver does."""
        self._spaces = qos.publisher(self.node, qos.SPACE_SPEC)
        self._spaces.publish(messages.from_space_spec(spec, time.time_ns()))

    def spin(self, seconds: float = 0.1) -> None:
        """Take in one message, or none within ``seconds``."""
        self._executor.spin_once(timeout_sec=seconds)

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Spin until ``condition`` holds. Raises DataError if it does not for too long, or a process has ended."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > deadline:
                raise DataError(f"benchmark: waited {DEADLINE:.0f} s in vain for {what}")
            ended = [process.returncode for process in self._processes if process.poll() is not None]
            if ended:
                raise DataError(f"benchmark: while waiting for {what} a node ended with status {ended[0]}")
            self.spin()


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=2**31).strip().removesuffix("\n...")
