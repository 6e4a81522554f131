# SPDX-License-Identifier: Apache-2.0
"""The launch file with the real ``ros2 launch``, where there is one; what can be checked without it, everywhere."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import queue
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.factory import make_arm_alone
from rlpd_ros.cli.runner import ros_domain
from rlpd_ros.exported_policy import save_policy
from rlpd_ros.graph import MAX_RESPAWNS, SAVE_TIMEOUT
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.policy import Policy, make_snapshot

FOLDER = Path(__file__).parents[1] / "launch"
ARM = ["nodes:=arm_driver"]
needs_launch = pytest.mark.skipif(shutil.which("ros2") is None, reason="no `ros2 launch`: ROS 2 comes from wheels here")


def prepare(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "rlpd_ros.cli.prepare", *arguments], cwd=folder, check=False,
                          capture_output=True, text=True)


def save_some_policy(folder: Path) -> None:
    """Give the run in ``folder`` a policy that has learned nothing."""
    with contextlib.closing(make_arm_alone(ArmConfig())) as arm:
        policy = Policy(arm.spec, PolicyConfig())
        save_policy(folder / "policy.params", make_snapshot(
            policy, policy.serialize(policy.init(0)), arm.spec, arm.reset(), session="learner", version=1,
            gradient_step=1))


def test_prepare_makes_the_run_that_the_graph_needs(tmp_path):
    done = prepare(tmp_path, "--run=first", "--demos", "none", "--seed=7")
    run = tmp_path / "runs" / "first"
    assert json.loads(done.stdout) == {
        "run": str(run), "parameter_files": [str(run / "parameters.yaml")], "demos": ["none"], "said": []}
    assert "seed: 7" in (run / "parameters.yaml").read_text()


def test_prepare_goes_on_with_a_run(tmp_path):
    first = json.loads(prepare(tmp_path, "--run=first", "--demos", "none").stdout)
    assert json.loads(prepare(tmp_path, "--resume=runs/first", "--demos", "none").stdout) == first


def test_prepare_records_no_demonstrations_where_no_loader_starts(tmp_path):
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("/**/actor: {ros__parameters: {random_steps: 3}}\n")
    done = prepare(tmp_path, "--run=first", "--nodes", "arm_driver", "actor", "--config", str(parameters))
    prepared = json.loads(done.stdout)
    assert prepared["demos"] == []
    assert "random_steps: 3" in Path(prepared["parameter_files"][0]).read_text()
    assert not (tmp_path / "runs" / "first" / "demos").exists()


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--preset=rlpf"], "rlpf"),
    (["--demos", "nowhere.mcap"], "nowhere.mcap"),
    (["--config", "missing.yaml"], "missing.yaml"),
    (["--resume=missing"], "missing"),
    (["--resume=missing", "--seed=1"], "seed"),
    (["--namespace=my-robot"], "namespace my-robot: expected a ROS namespace"),
    (["--arms", "left", "right-arm"], "arms right-arm: expected a ROS namespace"),
    (["--arms", "left", "left"], "arms: expected different names, found left left"),
    (["--nodes", "leaner"], "nodes: expected some of demo_loader, learner"),
    (["--play=missing", "--namespace=my-robot"], "namespace my-robot: expected a ROS namespace"),
    (["--play=missing", "--nodes", "learner"], "nodes: expected some of arm_driver, actor, found learner"),
    (["--play="], "run: expected the folder of a run, found nothing"),
    (["--demos", ""], "demos: expected bags, or folders of bags, found nothing"),
])
def test_prepare_refuses_in_one_line(tmp_path, arguments, expected):
    done = prepare(tmp_path, *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--namespace=my-robot"], "namespace my-robot: expected a ROS namespace"),
    (["--arms", "left", "left"], "arms: expected different names, found left left"),
    (["--nodes", "leaner"], "nodes: expected some of demo_loader, learner"),
])
def test_prepare_refuses_to_go_on_in_one_line(tmp_path, arguments, expected):
    prepare(tmp_path, "--run=first", "--demos", "none")
    done = prepare(tmp_path, "--resume=runs/first", *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


NOISY = '''
import ctypes, os, subprocess
from rlpd_ros.arm.mujoco_arm import MujocoArm

class Noisy(MujocoArm):
    def reset(self, seed=None):
        print("said by Python")
        os.write(1, b"said by a library\\n")
        ctypes.CDLL(None).puts(b"said at the end, as the library has a buffer")
        subprocess.run(["echo", "said by a tool"])
        return super().reset(seed)
'''


def test_what_an_arm_prints_is_no_part_of_the_answer(tmp_path):
    (tmp_path / "noisy.py").write_text(NOISY)
    (tmp_path / "mine.yaml").write_text("/**: {ros__parameters: {arm: 'noisy:Noisy'}}\n")
    done = prepare(tmp_path, "--run=first", "--config", "mine.yaml")
    assert json.loads(done.stdout)["demos"] == [str(tmp_path / "runs" / "first" / "demos")]
    assert {"said by Python", "said by a library", "said by a tool"} <= set(done.stderr.splitlines())
    assert "said at the end" in done.stderr


@pytest.mark.parametrize("name", ["train", "play"])
def test_the_arguments_that_are_used_are_those_declared(name):
    text = (FOLDER / f"{name}.launch.py").read_text()
    tree = ast.parse(text)
    declared = next(ast.literal_eval(node.value) for node in tree.body
                    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ARGUMENTS")
    used = set(re.findall(r'values\["(\w+)"\]', text))
    used |= {name for node in ast.walk(tree) if isinstance(node, ast.comprehension) and isinstance(node.iter, ast.Tuple)
             for name in ast.literal_eval(node.iter)}
    assert used == set(declared)
    assert all(len(text) > 5 for _, text in declared.values())


class Action(SimpleNamespace):
    """Stands in for what ``launch`` makes: keeps what it was made of."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(arguments=arguments, **named)

    def perform(self, context: SimpleNamespace) -> str:
        return context.launch_configurations[self.arguments[0]]


@pytest.fixture
def load(monkeypatch):
    """Load launch files without ``launch``."""
    for name in ("launch", "launch.actions", "launch.events", "launch.substitutions", "launch.launch_context",
                 "launch_ros", "launch_ros.actions"):
        module = ModuleType(name)
        for made in ("LaunchDescription", "DeclareLaunchArgument", "EmitEvent", "LogInfo", "OpaqueFunction", "Shutdown",
                     "LaunchConfiguration", "LaunchContext", "Node"):
            setattr(module, made, Action)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "rlpd_ros.launching", raising=False)
    yield lambda name: SimpleNamespace(**runpy.run_path(str(FOLDER / f"{name}.launch.py")))
    sys.modules.pop("rlpd_ros.launching", None)  # it has the stand-ins


def nodes_of(file: SimpleNamespace, above: str = "", **given: str) -> dict[str, Action]:
    """Return the nodes that a launch file starts by their full names, where a group has pushed a namespace or not."""
    context = SimpleNamespace(launch_configurations={
        **{name: default for name, (default, _) in file.ARGUMENTS.items()}, **given,
        **({"ros_namespace": above} if above else {})})
    return {f"{action.namespace.rstrip('/')}/{action.name}": action for action in file.start(context)}


def test_a_namespace_that_is_pushed_is_that_of_all(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    (tmp_path / "mine.yaml").write_text("/robot1/left/arm_driver: {ros__parameters: {control_rate: 5.0}}\n")
    given = {"demos": "none", "arms": "left,right", "params_file": "mine.yaml"}
    nodes = nodes_of(load("train"), "/robot1", **given)  # and nobody tells that the section fits no node
    assert set(nodes) == {"/robot1/learner", "/robot1/monitor", "/robot1/left/arm_driver", "/robot1/left/actor",
                          "/robot1/right/arm_driver", "/robot1/right/actor"}
    assert ("transitions", "/robot1/transitions") in nodes["/robot1/right/actor"].remappings
    assert nodes["/robot1/learner"].remappings == [("space_spec", "/robot1/left/space_spec")]
    assert "/rlpd/robot1/left/actor" in nodes["/robot1/left/actor"].ros_arguments


@pytest.mark.parametrize(("above", "namespace", "expected"), [
    ("", "", "/learner"), ("/robot1", "", "/robot1/learner"), ("/robot1", "lab", "/robot1/lab/learner"),
    ("", "lab", "/lab/learner"), ("/robot1", "/lab", "/lab/learner"), ("/", "lab", "/lab/learner")])
def test_a_namespace_is_below_that_which_is_pushed_unless_it_is_absolute(load, monkeypatch, above, namespace, expected):
    file = load("train")
    answer = {"run": "/runs/x", "parameter_files": [], "demos": ["none"], "said": []}
    monkeypatch.setitem(file.start.__globals__, "prepared", lambda *_: answer)
    assert set(nodes_of(file, above, namespace=namespace, nodes="learner")) == {expected}


def test_a_policy_is_played_in_the_namespace_that_is_pushed(load, monkeypatch):
    file = load("play")
    asked = []

    def prepared(values: dict[str, str], *arguments: str) -> dict[str, object]:
        asked.append((values["namespace"], *arguments))
        return {"parameter_files": ["play.yaml"], "episodes": 0}

    monkeypatch.setitem(file.start.__globals__, "prepared", prepared)
    nodes = nodes_of(file, "/robot1", run="runs/first", namespace="left")
    assert set(nodes) == {"/robot1/left/arm_driver", "/robot1/left/actor"}
    nodes = nodes_of(file, "/robot1", run="runs/first", namespace="left", nodes="actor")
    assert set(nodes) == {"/robot1/left/actor"}
    assert asked[-1] == ("robot1/left", "--play=runs/first", "--config", "--nodes", "actor")


@pytest.mark.parametrize(("name", "given", "says"), [
    ("play", {"run": ""}, "run: expected the folder of a run, found nothing"),
    ("play", {"run": "runs/first", "episodes": "x"}, "episodes: expected a whole number, found 'x'"),
    ("play", {"run": "runs/first", "episodes": "-3"}, "episodes: expected 0 or more, found -3"),
    ("train", {"seed": "x"}, "seed: expected a whole number, found 'x'"),
])
def test_a_launch_is_refused_in_one_line_before_anything_is_made(load, tmp_path, monkeypatch, name, given, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError) as refused:
        nodes_of(load(name), **given)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("given", "episodes"), [("", 0), ("0", 0), ("3", 3)])
def test_as_many_episodes_are_played_as_are_asked_for(load, tmp_path, monkeypatch, given, episodes):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path, "--run=first", "--demos", "none")
    save_some_policy(tmp_path / "runs" / "first")
    (parameters,) = (each for each in nodes_of(load("play"), run="runs/first", episodes=given)["/actor"].parameters
                     if isinstance(each, dict))
    assert parameters["episodes"] == episodes


@pytest.mark.parametrize(("arguments", "says"), [
    (["--resume", ""], "run: expected the folder of a run, found nothing"),
    (["--demos", ""], "demos: expected bags, or folders of bags, found nothing"),
    (["--demos", "none", ""], "demos: expected bags, or folders of bags, found nothing"),
])
def test_the_command_takes_an_unset_variable_for_no_folder_either(tmp_path, arguments, says):
    command = ["rlpd", "train", *arguments, "--nodes", "leaner"]  # one that would be refused too, but later
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"rlpd train: {says}\n")
    assert not list(tmp_path.iterdir())


def test_the_learner_has_as_long_for_its_checkpoint_as_under_rlpd_train(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nodes = nodes_of(load("train"), demos="none", nodes="learner")
    asked = nodes["/learner"].sigterm_timeout
    assert asked.arguments == ("sigterm_timeout",), "a launch file around this one may set it"
    assert asked.default == SAVE_TIMEOUT


@pytest.mark.parametrize("name", ["train", "play"])
def test_a_log_level_that_ros_does_not_know_is_refused(load, name):
    (found,) = load(name).generate_launch_description().arguments
    declared = {action.arguments[0]: action for action in found if hasattr(action, "default_value")}
    assert declared["log_level"].default_value in declared["log_level"].choices
    assert "verbose" not in declared["log_level"].choices
    assert declared["namespace"].choices is None


class Launched:
    """A running ``ros2 launch rlpd_ros ...`` and what it prints."""

    def __init__(self, folder: Path, *arguments: str, file: str = "train.launch.py",
                 command: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            command or ["ros2", "launch", "rlpd_ros", file, *arguments], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self.text = ""
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)

    def expect(self, pattern: str, seconds: float = 60.0) -> re.Match:
        """Wait for the next line that matches."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=left)
                self.text += line
                if match := re.search(pattern, line):
                    return match
        raise AssertionError(f"no /{pattern}/ within {seconds} s in:\n{self.text}")

    def wait(self, seconds: float = 60.0) -> int:
        return self.process.wait(seconds)


@pytest.fixture
def start(tmp_path):
    with ros_domain(), contextlib.ExitStack() as stack:
        def launch(*arguments: str, **options: str) -> Launched:
            launched = Launched(tmp_path, *arguments, **options)
            stack.callback(stop, launched)
            return launched
        yield launch


def stop(launched: Launched) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(launched.process.pid, signal.SIGKILL)
    launched.process.wait()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@needs_launch
def test_a_killed_node_comes_back_and_ctrl_c_ends_all(start):
    launched = start(*ARM, "namespace:=left")
    first = int(launched.expect(r"arm_driver.*process started with pid \[(\d+)\]")[1])
    launched.expect("driving")
    assert b"/config/fastdds" in Path(f"/proc/{first}/environ").read_bytes()
    os.kill(first, signal.SIGKILL)
    second = int(launched.expect(r"arm_driver.*process started with pid \[(\d+)\]")[1])
    launched.expect("driving")
    assert second != first
    launched.process.send_signal(signal.SIGINT)
    launched.wait()
    assert not alive(second)


@needs_launch
def test_parameters_and_namespace_reach_the_node(start, tmp_path):
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("/**/arm_driver: {ros__parameters: {control_rate: 25.0}}\n")
    start(*ARM, "namespace:=left", f"params_file:={parameters}").expect("driving")
    command = ["ros2", "param", "get", "--no-daemon", "--spin-time", "2", "/left/arm_driver", "control_rate"]
    got = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert "25.0" in got.stdout


@needs_launch
def test_a_node_whose_input_is_wrong_ends_the_launch(start, tmp_path):
    parameters = tmp_path / "wrong.yaml"
    parameters.write_text("/**/arm_driver: {ros__parameters: {arm: gymnasium, gym_env_id: NoSuchArm-v0}}\n")
    launched = start(*ARM, f"params_file:={parameters}")
    launched.expect("NoSuchArm-v0")
    launched.expect("arm_driver ended with status 2")
    launched.wait()


@needs_launch
def test_a_node_that_dies_again_and_again_ends_the_launch(start):
    launched = start(*ARM)
    for _ in range(MAX_RESPAWNS + 1):
        os.kill(int(launched.expect(r"arm_driver.*process started with pid \[(\d+)\]")[1]), signal.SIGKILL)
    launched.expect("arm_driver ended with status -9: stopping all")
    launched.wait()


@needs_launch
def test_a_wrong_log_level_ends_it_before_anything_starts(start, tmp_path):
    launched = start("log_level:=verbose")
    launched.expect("verbose")
    assert launched.wait() != 0
    assert not (tmp_path / "runs").exists()


@needs_launch
def test_a_namespace_around_the_launch_file_is_above_its_nodes(tmp_path):
    file = tmp_path / "robots.launch.py"
    file.write_text(f'''
from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace

def generate_launch_description():
    included = IncludeLaunchDescription(
        PythonLaunchDescriptionSource({str(FOLDER / "train.launch.py")!r}),
        launch_arguments=[("demos", "none"), ("arms", "left,right"), ("nodes", "learner,arm_driver,actor")])
    return LaunchDescription([GroupAction([PushRosNamespace("robot1"), included])])
''')
    with ros_domain(), contextlib.ExitStack() as stack:
        launched = Launched(tmp_path, command=["ros2", "launch", str(file)])
        stack.callback(stop, launched)
        launched.expect(r"robot1\.right\.actor\]: received network parameters: version \d+", 120.0)


@needs_launch
def test_wrong_arguments_end_it_before_anything_starts(start, tmp_path):
    launched = start("demos:=nowhere.mcap")
    launched.expect("nowhere.mcap")
    assert launched.wait() != 0
    assert "process started" not in launched.text
    assert not (tmp_path / "runs").exists()


@needs_launch
def test_a_policy_is_played(start, tmp_path):
    prepare(tmp_path, "--run=first", "--demos", "none")
    start("run:=runs/first", file="play.launch.py").expect("first/policy.params: cannot read the policy: No such file")
    save_some_policy(tmp_path / "runs" / "first")
    launched = start("run:=runs/first", "episodes:=1", file="play.launch.py")
    launched.expect(r"episode 1: (no )?success after \d+ steps")
    launched.wait()


@needs_launch
def test_it_says_what_its_arguments_are():
    shown = subprocess.run(["ros2", "launch", "rlpd_ros", "train.launch.py", "--show-args"], capture_output=True,
                           text=True, check=True, timeout=30).stdout
    assert {"'params_file':", "'run':", "'demos':", "'nodes':", "'namespace':", "'log_level':"} <= set(shown.split())
