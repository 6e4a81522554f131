# SPDX-License-Identifier: Apache-2.0
"""What several test files use: a ROS domain of one's own, demonstrations, and nodes of one graph in one process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from training_world import Training

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.factory import make_arm
from rlpd_ros.cli.runner import ros_domain
from rlpd_ros.nodes.learner import LearnerNode
from rlpd_ros.record import record_demonstrations
from rlpd_ros.rl.compilation import keep_compiled
from rlpd_ros.ros import qos
from rlpd_ros.runs import RunDirectory

keep_compiled()

DEADLINE = 120.0  # s for what takes a second on a machine that has nothing else to do
SMALL = {"hidden_dims": [8], "critic_hidden_dims": [8], "utd_ratio": 1, "batch_size": 8, "training_starts": 20,
         "steps_per_update": 5, "log_period": 10, "checkpoint_period": 20}
"""Parameters of a learner that compiles and trains in no time."""


class Graph:
    """Nodes on a private context and real middleware, spun by turns, and a node that hears what they say."""

    def __init__(self, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._nodes: list[Node] = []
        self.heard: dict[str, list[Any]] = defaultdict(list)
        self.ears = rclpy.create_node("ears", context=self._context, use_global_arguments=False)
        self._executor.add_node(self.ears)

    def add(self, kind: type[Node], namespace: str = "", **parameters: Any) -> Any:
        arguments = [part for name, value in parameters.items()
                     for part in ("-p", f"{name}:={yaml.safe_dump(value, default_flow_style=True).split(chr(10))[0]}")]
        node = kind(context=self._context, cli_args=["--ros-args", *arguments], use_global_arguments=False,
                    namespace=namespace)
        self._nodes.append(node)
        self._executor.add_node(node)
        return node

    def remove(self, node: Node, properly: bool = True) -> None:
        """End a node: with its last words, or as SIGKILL does."""
        self._nodes.remove(node)
        self._executor.remove_node(node)
        if properly and hasattr(node, "close"):
            node.close()
        elif hasattr(node, "_lock"):
            os.close(node._lock)  # as the kernel does
        node.destroy_node()

    def listen(self, *topics: qos.Topic) -> None:
        for topic in topics:
            qos.subscription(self.ears, topic, self.heard[topic.name].append)

    def last(self, topic: qos.Topic) -> Any:
        return self.heard[topic.name][-1] if self.heard[topic.name] else None

    def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Spin until ``condition`` holds; return what it returned."""
        deadline = time.monotonic() + DEADLINE
        while not (holds := condition()):
            assert time.monotonic() < deadline, (
                f"waited {DEADLINE:.0f} s in vain: {what or condition}; heard last: {self._last_words()}")
            self.spin()
        return holds

    def _last_words(self) -> str:
        return "\n".join(f"{topic} ({len(messages)}): {str(messages[-1])[:2000]}"
                         for topic, messages in self.heard.items() if messages) or "nothing"

    def spin(self) -> None:
        """Give every node a turn."""
        self._executor.spin_once(timeout_sec=0.01)
        for node in self._nodes:
            getattr(node, "work", bool)()

    def drain(self, quiet: int = 50) -> None:
        """Hear what has been sent: spin until so many turns in a row bring nothing."""
        turns, heard = 0, -1
        while turns < quiet:
            self.spin()
            now = sum(map(len, self.heard.values()))
            turns, heard = (turns + 1 if now == heard else 0), now

    def close(self) -> None:
        for node in list(self._nodes):
            self.remove(node)
        self._executor.shutdown()
        self.ears.destroy_node()
        rclpy.shutdown(context=self._context)


@pytest.fixture
def domain() -> Iterator[int]:
    """Hold a ROS domain in which nothing else happens, also for child processes."""
    with ros_domain() as number:
        yield number


@pytest.fixture
def make_graph(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Graph]]:
    made: list[Graph] = []

    def make(domain: int) -> Graph:
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        made.append(Graph(domain))
        return made[-1]

    yield make
    for graph in made:
        graph.close()


@pytest.fixture
def graph(domain: int, make_graph: Callable[[int], Graph]) -> Graph:
    return make_graph(domain)


@pytest.fixture
def small() -> dict[str, Any]:
    return dict(SMALL)


@pytest.fixture(scope="session")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record ten successful episodes of the scripted expert."""
    bag = tmp_path_factory.mktemp("recorded") / "demos"
    record_demonstrations(ArmConfig(), bag, episodes=10)
    return bag


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path, "run")


@pytest.fixture
def learn(graph: Graph, run: RunDirectory, small: dict[str, Any]) -> Callable[..., LearnerNode]:
    """Start a learner of the run in the graph, without demonstrations unless asked for."""
    def start(**parameters: Any) -> LearnerNode:
        return graph.add(LearnerNode, **{**small, "run": str(run.path), "require_demonstrations": False, **parameters})

    return start


@pytest.fixture
def start_node() -> Callable[..., subprocess.Popen[str]]:
    """Start a node as a process of its own."""
    def start(node: str, **parameters: str) -> subprocess.Popen[str]:
        arguments = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
        return subprocess.Popen([sys.executable, "-m", f"rlpd_ros.nodes.{node}", "--ros-args", *arguments], text=True,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=Path(__file__).parent,
                                env=os.environ | {"RCUTILS_LOGGING_USE_STDOUT": "1"})

    return start


@pytest.fixture
def train(tmp_path):
    started = []

    def start(*arguments: str, **options) -> Training:
        started.append(Training(tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for training in started:
        training.stop()


@pytest.fixture(scope="session")
def spec():
    arm = make_arm(ArmConfig())
    arm.close()
    return arm.spec


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[RunDirectory, str]:
    """Train to the end, once for several tests: the run and what was printed."""
    folder = tmp_path_factory.mktemp("system")
    training = Training(folder, "--run", "x", "--seed", "5")
    assert training.wait() == 0, training.text
    return RunDirectory.open(folder / "runs" / "x"), training.text


@pytest.fixture
def copy(finished, tmp_path) -> RunDirectory:
    """Return a copy of the finished run, to go on with."""
    shutil.copytree(finished[0].path, tmp_path / "runs" / "x")
    return RunDirectory.open(tmp_path / "runs" / "x")
