# SPDX-License-Identifier: Apache-2.0
"""What happens before any process starts: parameters are resolved, runs made and found again."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.context import Context

from rlpd_ros.errors import ConfigError, DataError, RlpdError
from rlpd_ros.graph import play_graph, train_graph
from rlpd_ros.preparation import (
    NO_DEMONSTRATIONS,
    Configurations,
    prepare_play,
    prepare_run,
    read_configurations,
    resolve,
    resume_run,
)
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.ros.bags import read_demonstrations
from rlpd_ros.ros.parameters import declare
from rlpd_ros.runs import RunDirectory
from rlpd_ros.settings import NODES, ActorConfig, ArmConfig, LearnerConfig, LearnerNodeConfig, LoaderConfig


@pytest.fixture
def write(tmp_path):
    def make(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
            for path in sorted(folder.rglob("*"))}


# Parameters


def test_the_backbones_file_is_found_from_anywhere(monkeypatch, tmp_path, write):
    monkeypatch.chdir(tmp_path)
    for configurations in (resolve([], overrides=["backbone=weights.safetensors"]),
                           resolve([write("learner: {ros__parameters: {backbone: weights.safetensors}}")])):
        assert configurations.get("learner", PolicyConfig).backbone == str(tmp_path / "weights.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = resolve([], overrides=["backbone=~/weights.safetensors"]).get("actor", PolicyConfig)
    assert found.backbone == str(tmp_path / "weights.safetensors")
    assert resolve([], overrides=["backbone=''"]).get("actor", PolicyConfig).backbone == ""


def test_the_last_word_counts_defaults_preset_files_seed_overrides(write) -> None:
    first = write("learner: {ros__parameters: {discount: 0.5, tau: 0.1, batch_size: 64, max_steps: 7}}", "first.yaml")
    second = write("/**: {ros__parameters: {batch_size: 32}}\nactor: {ros__parameters: {seed: 3}}", "second.yaml")
    found = resolve([first, second], "rlpd", ["learner.tau=0.2", "hidden_dims=[8, 8]", "actor_lr=1e-3"], seed=5)
    agent, learner = found.get("learner", AgentConfig), found.get("learner", LearnerConfig)
    assert (agent.num_qs, agent.discount, agent.tau, agent.actor_lr) == (10, 0.5, 0.2, 1e-3)
    assert (learner.batch_size, learner.max_steps, learner.seed) == (32, 7, 5)
    assert learner.steps_per_update == LearnerConfig.steps_per_update
    assert found.get("actor", ActorConfig).seed == found.get("arm_driver", ArmConfig).seed == 5
    assert found.get("learner", PolicyConfig) == found.get("actor", PolicyConfig)
    assert found.get("actor", PolicyConfig).hidden_dims == (8, 8)
    assert found.get("learner", LearnerNodeConfig).preset == "rlpd"


@pytest.mark.parametrize(("override", "says"), [
    ("learner.max_stepps=3", "unknown parameter 'max_stepps'; did you mean 'max_steps'?"),
    ("max_stepps=3", "did you mean 'max_steps'?"),
    ("actor.max_steps=3", "unknown parameter 'max_steps'"),
    ("discount=1.5", "parameter 'discount': expected a value from 0.0 to 1.0, found 1.5"),
    ("discount=nan", "expected a number, found 'nan'"),
    ("discount=.nan", "parameter 'discount': expected a value from 0.0 to 1.0, found nan"),
    ("max_steps=many", "parameter 'max_steps': expected a whole number, found 'many'"),
    ("max_steps=0", "expected a value from 1"),
    ("activation=gelu", "expected one of tanh, relu, silu, found 'gelu'"),
    ("hidden_dims=8", "expected a list, found 8"),
    ("hidden_dims=[8, x]", "parameter 'hidden_dims'[1]: expected a whole number, found 'x'"),
    ("nobody.seed=3", "expected [NODE.]NAME=VALUE with a node of arm_driver"),
    ("discount", "expected [NODE.]NAME=VALUE"),
    ("discount=[1", "the value is not YAML"),
    ("seed=-1", "parameter 'seed': expected a value from 0"),
])
def test_wrong_overrides_are_named_in_one_line(override: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Configurations().add_override(override)
    assert says in str(caught.value)
    assert "--set" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "says"), [
    ("nobody: {ros__parameters: {seed: 1}}", "section 'nobody' fits no node; known are arm_driver"),
    ("learner: {ros__parameters: {sed: 1}}", "learner: unknown parameter 'sed'; did you mean 'seed'?"),
    ("learner: {ros__parameters: {qqq: 1}}", "learner: unknown parameter 'qqq'; see 'Configure it' in README.md, or "
     "`ros2 param list`"),
    ("learner: {seed: 1}", "expected node names with 'ros__parameters' below"),
    ("learner: {ros__parameters: {seed: 1, seed: 2}}", "expected YAML: key 'seed' is there twice"),
    ("/**: {ros__parameters: {qos_overrides./transitions.subscription.depth: abc}}",
     "parameter 'qos_overrides./transitions.subscription.depth': expected a whole number from 0 to"),
    ("learner: {ros__parameters: {discount: 7.0}}", "learner: parameter 'discount': expected a value from 0.0 to 1.0"),
    ("learner: [", "expected YAML"),
])
def test_wrong_files_are_named_with_the_section(write, text: str, says: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        resolve([path])
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 250


def test_presets_are_those_that_are_installed() -> None:
    with pytest.raises(ConfigError, match="preset: expected one of hil_serl, rlpd, found 'rlpf'"):
        resolve([], "rlpf")
    for name in ("rlpd", "hil_serl"):
        assert resolve([], name).get("learner", LearnerNodeConfig).preset == name


def test_what_is_written_is_read_again_by_us_and_by_every_node(tmp_path) -> None:
    resolved = resolve([], "rlpd", ["learner.max_steps=7", "camera_topics=[a=/a, 'b=/b c']", "hidden_dims=[8]",
                                    "gym_env_kwargs='{\"a\": [1, \"x\"]}'"], seed=4)
    run, _ = prepare_run(tmp_path, "x", resolved, NO_DEMONSTRATIONS)
    again = read_configurations(run)
    assert again.as_parameter_file() == resolved.as_parameter_file()
    context = Context()
    rclpy.init(context=context)
    for name, config_types in NODES.items():
        node = rclpy.create_node(name, context=context, use_global_arguments=False,
                                 cli_args=["--ros-args", "--params-file", str(run.parameters)])
        assert declare(node, *config_types) == tuple(again.get(name, config_type) for config_type in config_types)
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_section_for_one_namespace_is_for_the_nodes_in_it(tmp_path, write) -> None:
    first = write("""
/**: {ros__parameters: {control_rate: 10.0, seed: 1}}
/left/arm_driver: {ros__parameters: {control_rate: 5.0, max_action_change: 0.1}}
/right/**: {ros__parameters: {control_rate: 20.0}}
/*/arm_driver: {ros__parameters: {seed: 3}}
""")
    resolved = resolve([first, write("arm_driver: {ros__parameters: {max_action_change: 0.5}}", "later.yaml")])
    rates = {"": 10.0, "left": 5.0, "/right": 20.0, "right/deep": 20.0, "left/deep": 10.0}
    assert {ns: resolved.get("arm_driver", ArmConfig, ns).control_rate for ns in rates} == rates
    assert resolved.get("arm_driver", ArmConfig, "left").max_action_change == 0.5, "the last word counts"
    assert [resolved.get("arm_driver", ArmConfig, ns).seed for ns in ("", "left", "right", "a/b")] == [1, 3, 3, 1]

    again = resolve([first, write("/left/arm_driver: {ros__parameters: {seed: 7}}", "again.yaml")])
    assert [again.get("arm_driver", ArmConfig, ns).seed for ns in ("left", "right")] == [7, 3]
    assert again.get("arm_driver", ArmConfig, "left").max_action_change == 0.1
    sections = list(again.as_parameter_file())
    assert sections.index("/left/arm_driver") > sections.index("/*/arm_driver")

    said: list[str] = []
    run, _ = prepare_run(tmp_path, "x", resolved, NO_DEMONSTRATIONS, (), said.append, "", ["left"])
    assert said == ["no node that starts here is in namespace /right/**: what a parameter file sets for it has no "
                    "effect here"]
    assert read_configurations(run).as_parameter_file() == resolved.as_parameter_file()
    for namespace, rate in rates.items():  # and each node gets what was resolved for it
        assert driver_of(run.parameters, namespace).control_rate == rate


def driver_of(parameters: Path, namespace: str) -> ArmConfig:
    """Return the configuration of an arm driver that is started with a parameter file."""
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node("arm_driver", context=context, use_global_arguments=False, namespace=namespace,
                             cli_args=["--ros-args", "--params-file", str(parameters)])
    config = declare(node, *NODES["arm_driver"])[NODES["arm_driver"].index(ArmConfig)]
    node.destroy_node()
    rclpy.shutdown(context=context)
    return config


def test_the_lists_of_such_a_section_are_as_ros_reads_them(tmp_path, write) -> None:
    resolved = resolve([write("""
arm_driver: {ros__parameters: {camera_topics: ["front=/f"], gym_success_keys: []}}
/left/arm_driver: {ros__parameters: {workspace_low: [0, -0.3, 0.02], max_action_change: 1}}
/right/arm_driver: {ros__parameters: {camera_topics: []}}
""")])
    run, _ = prepare_run(tmp_path, "x", resolved, NO_DEMONSTRATIONS)
    assert read_configurations(run).as_parameter_file() == resolved.as_parameter_file()
    left, right = (driver_of(run.parameters, namespace) for namespace in ("left", "right"))
    assert (left.workspace_low, left.max_action_change) == ((0.0, -0.3, 0.02), 1.0)
    assert (left.camera_topics, right.camera_topics) == (("front=/f",), ())
    assert left.gym_success_keys == right.gym_success_keys == ()


def test_quality_of_service_is_passed_on_and_simulated_time_is_not(tmp_path, write) -> None:
    name = "qos_overrides./transitions.subscription.depth"
    resolved = resolve([write(f"learner: {{ros__parameters: {{{name}: 2000, use_sim_time: false}}}}")])
    run, _ = prepare_run(tmp_path, "x", resolved, NO_DEMONSTRATIONS)
    assert yaml.safe_load(run.parameters.read_text())["/**/learner"]["ros__parameters"][name] == 2000
    assert read_configurations(run).as_parameter_file() == resolved.as_parameter_file()
    with pytest.raises(ConfigError, match=r"mine.yaml: /\*\*: parameter 'use_sim_time': expected false, found True"):
        resolve([write("/**: {ros__parameters: {use_sim_time: true}}")])


def test_a_section_for_a_tool_is_checked_and_not_part_of_the_run(write) -> None:
    found = resolve([write("teleop_joy: {ros__parameters: {axes: [1, 0, 4]}}")]).as_parameter_file()
    assert set(found) == {f"/**/{node}" for node in NODES}
    with pytest.raises(ConfigError, match="unknown parameter 'axis'; did you mean 'axes'"):
        resolve([write("teleop_joy: {ros__parameters: {axis: [1]}}")])


# New runs


def test_a_run_is_made_with_its_demonstrations(tmp_path) -> None:
    said: list[str] = []
    run, demos = prepare_run(tmp_path, "x", resolve([]), (), (), said.append)
    assert demos == (str(run.demos),)
    assert said == ["recording 20 demonstrations with the arm's scripted expert"]
    recorded = read_demonstrations(demos).manifest
    assert sum(recorded.episodes) == sum(recorded.successes) == 20
    assert read_configurations(run).get("demo_loader", LoaderConfig).demo_path == demos


def test_demonstrations_that_are_given_are_used(tmp_path, demonstrations, monkeypatch) -> None:
    monkeypatch.chdir(demonstrations.parent)
    run, demos = prepare_run(tmp_path, "given", resolve([]), (demonstrations.name,))
    assert read_configurations(run).get("demo_loader", LoaderConfig).demo_path == (str(demonstrations),)
    run, demos = prepare_run(tmp_path, "configured", resolve([], overrides=[f"demo_path=[{demonstrations}]"]), ())
    assert demos == (str(demonstrations),)
    assert not run.demos.exists()


def test_the_home_folder_may_be_written_short(tmp_path, demonstrations, monkeypatch, write) -> None:
    monkeypatch.setenv("HOME", str(demonstrations.parent))
    short = f"~/{demonstrations.name}"
    configured = resolve([write(f"demo_loader: {{ros__parameters: {{demo_path: ['{short}']}}}}")])
    for name, resolved, given in (("given", resolve([]), (short,)), ("configured", configured, ())):
        run, demos = prepare_run(tmp_path, name, resolved, given)
        assert demos == (str(demonstrations),)
        assert read_configurations(run).get("demo_loader", LoaderConfig).demo_path == demos
        assert resume_run(run.path, (short,))[1] == demos
    with pytest.raises(DataError, match="~nobody-of-this-name/demos: expected a rosbag2 bag"):
        prepare_run(tmp_path, "x", resolve([]), ("~nobody-of-this-name/demos",))


@pytest.mark.parametrize(("overrides", "demos"), [
    ([], NO_DEMONSTRATIONS), (["require_demonstrations=false"], ())])
def test_without_demonstrations_nobody_waits_for_them(tmp_path, overrides, demos) -> None:
    run, demos = prepare_run(tmp_path, "x", resolve([], overrides=overrides), demos)
    assert demos == NO_DEMONSTRATIONS
    assert read_configurations(run).get("learner", LearnerConfig).require_demonstrations is False


def test_only_who_loads_demonstrations_needs_some(tmp_path) -> None:
    run, demos = prepare_run(tmp_path, "x", resolve([]), (), ("learner", "actor"))
    assert demos == ()
    assert not run.demos.exists()


def test_a_loader_that_has_nothing_to_load_is_left_out(tmp_path) -> None:
    nodes = ("learner", "demo_loader", "monitor")
    for demos, loader in ((NO_DEMONSTRATIONS, []), (("bags",), ["demo_loader"])):
        started = [process.name for process in train_graph(tmp_path, (), demos, nodes)]
        assert started == [*loader, "learner", "monitor"]
    run, demos = prepare_run(tmp_path, "x", resolve([]), NO_DEMONSTRATIONS, nodes)
    assert resume_run(run.path, nodes=nodes)[1] == demos


def test_runs_and_parameters_may_be_in_the_home_folder_written_short(tmp_path, monkeypatch, write) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mine.yaml").write_text("learner: {ros__parameters: {max_steps: 7}}")
    run, _ = prepare_run("~/runs", "x", resolve(["~/mine.yaml"]), NO_DEMONSTRATIONS)
    assert run.path == tmp_path / "home" / "runs" / "x"
    assert resume_run("~/runs/x")[0] == run
    assert read_configurations(run).get("learner", LearnerConfig).max_steps == 7
    run.path.with_name("2026-01-02_00-00-00").mkdir()
    assert RunDirectory.fresh_name("~/runs", datetime(2026, 1, 2)) == "2026-01-02_00-00-00_2"
    actor = play_graph("~/runs/x")[1]
    assert actor.parameters["policy"] == str(run.policy)
    with pytest.raises(DataError, match="cannot read the policy"):
        prepare_play("~/runs/x", ["~/mine.yaml"])


def damaged(bag: Path, to: Path) -> Path:
    shutil.copytree(bag, to)
    file = next(to.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:-100])
    return to


@pytest.mark.parametrize(("demos", "says"), [
    (["nowhere"], "nowhere: expected a rosbag2 bag or a folder of bags, found nothing there"),
    (["none", "nowhere"], "none: expected a rosbag2 bag"),
    (["empty"], "empty: expected a rosbag2 bag"),
    (["text.mcap"], "text.mcap: expected an MCAP file"),
    (["cut"], "cut off after byte"),
])
def test_demonstrations_that_cannot_be_read_leave_no_run(tmp_path, demonstrations, demos, says) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mcap").write_text("hello")
    damaged(demonstrations, tmp_path / "cut")
    before = contents(tmp_path)
    with pytest.raises(RlpdError) as caught:
        prepare_run(tmp_path / "runs", "x", resolve([]), tuple(str(tmp_path / d) if d != "none" else d for d in demos))
    assert says in str(caught.value)
    assert contents(tmp_path) == before


def test_an_arm_without_an_expert_leaves_no_run(tmp_path) -> None:
    configurations = resolve([], overrides=["arm=gymnasium", "gym_env_id=Pendulum-v1"])
    with pytest.raises(ConfigError, match="has no scripted expert"):
        prepare_run(tmp_path, "x", configurations, ())
    assert contents(tmp_path) == {}


def test_ctrl_c_while_recording_leaves_no_run(tmp_path) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_run(tmp_path, "x", resolve([]), (), (), interrupt)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(("name", "nodes", "says"), [
    ("x", (), "exists already and is not overwritten"), ("a/b", (), "expected a plain folder name, found 'a/b'"),
    ("..", (), "expected a plain folder name"), ("new", ("leaner",), "nodes: expected some of demo_loader"),
    ("new", ("demo_loader",), "nodes: expected one besides demo_loader, which has nothing to load")])
def test_runs_are_not_made_where_they_cannot_be(tmp_path, name, nodes, says) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "precious").write_text("data")
    before = contents(tmp_path)
    with pytest.raises(ConfigError) as caught:
        prepare_run(tmp_path, name, resolve([]), NO_DEMONSTRATIONS, nodes)
    assert says in str(caught.value)
    assert contents(tmp_path) == before


# Earlier runs


def test_a_run_goes_on_as_it_began(tmp_path, demonstrations) -> None:
    for name, given in (("with", (str(demonstrations),)), ("without", NO_DEMONSTRATIONS)):
        begun, _ = prepare_run(tmp_path, name, resolve([], overrides=["discount=0.5"]), given)
        before = contents(begun.path)
        run, demos = resume_run(begun.path)
        assert demos == given
        assert contents(run.path) == before


def test_single_changes_and_other_demonstrations_are_possible(tmp_path, demonstrations) -> None:
    begun, _ = prepare_run(tmp_path, "x", resolve([], overrides=["discount=0.5"]), NO_DEMONSTRATIONS)
    run, demos = resume_run(begun.path, (str(demonstrations),), ["max_steps=9"])
    assert demos == (str(demonstrations),)
    assert read_configurations(run).get("learner", LearnerConfig).max_steps == 9
    assert read_configurations(run).get("learner", AgentConfig).discount == 0.5


def test_what_a_run_went_on_with_is_what_it_goes_on_with_next_time(tmp_path, demonstrations) -> None:
    own = shutil.copytree(demonstrations, tmp_path / "own")
    run, _ = prepare_run(tmp_path / "runs", "x", resolve([]), (str(demonstrations),))
    for given, required in ((str(own),), True), (NO_DEMONSTRATIONS, False), ((str(demonstrations),), True):
        assert resume_run(run.path, given)[1] == given
        found = read_configurations(run)
        assert found.get("demo_loader", LoaderConfig).demo_path == (given if required else ())
        assert found.get("learner", LearnerConfig).require_demonstrations is required
        assert resume_run(run.path)[1] == given
    resume_run(run.path, NO_DEMONSTRATIONS)
    resume_run(run.path, (str(own),), ["require_demonstrations=false"])
    assert not read_configurations(run).get("learner", LearnerConfig).require_demonstrations, "asked for"
    configured = resolve([], overrides=[f"demo_path=[{own}]"])
    run, _ = prepare_run(tmp_path / "runs", "without", configured, NO_DEMONSTRATIONS)
    assert resume_run(run.path)[1] == NO_DEMONSTRATIONS


def test_a_run_that_was_moved_has_its_demonstrations_with_it(tmp_path, demonstrations) -> None:
    run, _ = prepare_run(tmp_path / "runs", "x", resolve([]), (str(demonstrations),))
    for folder in (run.demos, run.transitions / "first"):
        shutil.copytree(demonstrations, folder)
    own = (str(run.demos), str(run.transitions / "first"))
    assert resume_run(run.path, (*own, str(demonstrations)))[1] == (*own, str(demonstrations))
    (tmp_path / "elsewhere").mkdir()
    moved = run.path.rename(tmp_path / "elsewhere" / "y")
    there = (str(moved / "demos"), str(moved / "transitions" / "first"), str(demonstrations))
    run, demos = resume_run(moved)
    assert demos == read_configurations(run).get("demo_loader", LoaderConfig).demo_path == there


@pytest.mark.parametrize("gone", ["demos", "other"])
def test_other_demonstrations_that_are_gone_are_not_taken_for_the_runs_own(tmp_path, demonstrations, gone) -> None:
    bag = tmp_path / "data" / gone
    shutil.copytree(demonstrations, bag)
    run, _ = prepare_run(tmp_path / "runs", "x", resolve([]), (str(bag),))
    shutil.copytree(demonstrations, run.demos)
    shutil.rmtree(bag)
    with pytest.raises(DataError, match=f"{bag}: expected a rosbag2 bag or a folder of bags, found nothing there"):
        resume_run(run.path)


def test_a_run_whose_nodes_come_into_other_namespaces_is_told(tmp_path) -> None:
    said: list[str] = []
    run, _ = prepare_run(tmp_path, "x", resolve([]), NO_DEMONSTRATIONS, (), said.append, "/lab", ["left", "right"])
    resume_run(run.path, (), (), said.append, "lab", ["left", "right"])
    assert said == []
    resume_run(run.path, (), (), said.append)
    resume_run(run.path, (), (), said.append, "lab", ["left"])
    assert said == [f"the run began with --namespace lab --arms left right, and goes on {how}: its nodes start in "
                    "other namespaces than before" for how in ("without", "with --namespace lab --arms left")]
    plain, _ = prepare_run(tmp_path, "plain", resolve([]), NO_DEMONSTRATIONS)
    assert not plain.arms.exists()


@pytest.mark.parametrize(("path", "demos", "overrides", "says"), [
    ("nowhere", (), (), "nowhere: expected the folder of a run, found nothing"),
    ("file", (), (), "file: expected the folder of a run, found a file"),
    ("folder", (), (), "folder: not a run: it has no checkpoints/ and no metrics/"),
    ("x", ("nowhere",), (), "nowhere: expected a rosbag2 bag"),
    ("x", (), ("max_stepps=3",), "did you mean 'max_steps'?"),
    ("bare", (), (), "parameters.yaml: not found"),
    ("damaged", (), (), "parameters.yaml: expected YAML"),
])
def test_what_cannot_be_resumed_is_named_and_left_alone(tmp_path, path, demos, overrides, says) -> None:
    for name in ("x", "bare", "damaged"):
        prepare_run(tmp_path, name, resolve([]), NO_DEMONSTRATIONS)
    (tmp_path / "bare" / "parameters.yaml").unlink()
    (tmp_path / "damaged" / "parameters.yaml").write_text("learner: [")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    before = contents(tmp_path)
    with pytest.raises((ConfigError, DataError)) as caught:
        resume_run(tmp_path / path, demos, overrides)
    assert says in str(caught.value)
    assert contents(tmp_path) == before


def test_parameter_files_are_plain_yaml_for_any_tool(tmp_path) -> None:
    run, _ = prepare_run(tmp_path, "x", resolve([]), NO_DEMONSTRATIONS)
    found = yaml.safe_load(run.parameters.read_text())
    assert set(found) == {f"/**/{node}" for node in NODES}
    assert found["/**/learner"]["ros__parameters"]["require_demonstrations"] is False
