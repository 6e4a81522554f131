# SPDX-License-Identifier: Apache-2.0
"""Configurations as parameters of real nodes, and parameter files."""

from dataclasses import dataclass

import pytest
import rclpy
from rcl_interfaces.msg import ParameterType
from rclpy.context import Context
from rclpy.parameter import Parameter

from rlpd_ros.config import parameter
from rlpd_ros.errors import ConfigError
from rlpd_ros.ros import qos
from rlpd_ros.ros.parameters import declare, load_parameter_file
from rlpd_ros.untrusted import parse_yaml


@dataclass(frozen=True)
class AgentConfig:
    discount: float = parameter(0.97, "discount factor", 0.0, 1.0)
    learning_rate: float = parameter(3e-4, "step size", low=0.0)
    num_qs: int = parameter(2, "critics in the ensemble", low=1)
    layer_norm: bool = parameter(True, "normalise the critics' layers")
    activation: str = parameter("tanh", "of hidden layers", choices=("tanh", "relu"))
    hidden_dims: tuple[int, ...] = parameter((256, 256), "units per hidden layer", low=1)
    seed: int = parameter(0, "of the initialisation", low=0)


@dataclass(frozen=True)
class LoaderConfig:
    demo_path: tuple[str, ...] = parameter((), "bags")
    scales: tuple[float, ...] = parameter((0.5, 1.0), "per axis", high=2.0)
    seed: int = parameter(0, "of the order", low=0)


@pytest.fixture
def make_node(tmp_path):
    """Make nodes on a private context, with the parameters in a file and on the command line."""
    context = Context()
    rclpy.init(context=context)
    nodes = []

    def make(yaml: str = "", *arguments: str, name: str = "learner", namespace: str = ""):
        file = tmp_path / "parameters.yaml"
        file.write_text(yaml)
        cli_args = ["--ros-args", *arguments] + (["--params-file", str(file)] if yaml else [])
        nodes.append(rclpy.create_node(name, context=context, namespace=namespace, use_global_arguments=False,
                                       cli_args=cli_args))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def section(**values: str) -> str:
    lines = "".join(f"    {name}: {value}\n" for name, value in values.items())
    return f"/**:\n  ros__parameters:\n{lines}"


def test_defaults_become_parameters(make_node):
    node = make_node()
    agent, loader = declare(node, AgentConfig, LoaderConfig)
    assert (agent, loader) == (AgentConfig(), LoaderConfig())
    found = {p.name: p.value for p in node.get_parameters_by_prefix("").values()}
    found = {name: list(value) if isinstance(value, (list, tuple)) or hasattr(value, "tolist") else value
             for name, value in found.items()}
    for name, value in {"discount": 0.97, "num_qs": 2, "layer_norm": True, "activation": "tanh",
                        "hidden_dims": [256, 256], "demo_path": [], "scales": [0.5, 1.0]}.items():
        assert found[name] == value
        assert type(found[name]) is type(value)


def test_descriptors_say_what_is_admissible(make_node):
    node = make_node()
    declare(node, AgentConfig, LoaderConfig)
    described = {name: node.describe_parameter(name) for name in (
        "discount", "learning_rate", "num_qs", "layer_norm", "activation", "hidden_dims", "demo_path", "scales")}
    assert all(d.read_only for d in described.values())
    assert described["discount"].description == "discount factor"
    (unit,), (positive,) = described["discount"].floating_point_range, described["learning_rate"].floating_point_range
    assert (unit.from_value, unit.to_value) == (0.0, 1.0)
    assert (positive.from_value, positive.to_value) == (0.0, float("inf"))
    (count,) = described["num_qs"].integer_range
    assert (count.from_value, count.to_value) == (1, 2**63 - 1)
    assert not described["layer_norm"].integer_range
    assert described["activation"].additional_constraints == "one of tanh, relu"
    assert described["hidden_dims"].additional_constraints == "each at least 1"
    assert described["scales"].additional_constraints == "each at most 2"
    types = {name: d.type for name, d in described.items()}
    assert types == {
        "discount": ParameterType.PARAMETER_DOUBLE, "learning_rate": ParameterType.PARAMETER_DOUBLE,
        "num_qs": ParameterType.PARAMETER_INTEGER, "layer_norm": ParameterType.PARAMETER_BOOL,
        "activation": ParameterType.PARAMETER_STRING, "hidden_dims": ParameterType.PARAMETER_INTEGER_ARRAY,
        "demo_path": ParameterType.PARAMETER_STRING_ARRAY, "scales": ParameterType.PARAMETER_DOUBLE_ARRAY}


def test_parameters_cannot_be_changed_while_running(make_node):
    node = make_node()
    declare(node, AgentConfig, LoaderConfig)
    for change in (Parameter("num_qs", value=5), Parameter("demo_path", value=["x"])):
        (result,) = node.set_parameters([change])
        assert not result.successful
        assert "read-only" in result.reason


def test_files_and_the_command_line_override(make_node):
    text = section(discount="1", learning_rate="3e-5", hidden_dims="[64]", demo_path="[a, b/c]", scales="[1, 2]",
                   seed="9")
    node = make_node(text, "-p", "num_qs:=10", "-p", "activation:=relu")
    agent, loader = declare(node, AgentConfig, LoaderConfig)
    assert agent == AgentConfig(
        discount=1.0, learning_rate=3e-5, num_qs=10, activation="relu", hidden_dims=(64,), seed=9)
    assert type(agent.discount) is float
    assert loader == LoaderConfig(demo_path=("a", "b/c"), scales=(1.0, 2.0), seed=9)
    assert list(node.get_parameter("scales").value) == [1.0, 2.0]
    assert node.get_parameter("discount").value == 1.0


@pytest.mark.parametrize("values", [{"demo_path": "[]"}, {"hidden_dims": "[]"}, {"scales": "[]"}])
def test_empty_lists_have_a_type(make_node, values):
    node = make_node(section(**values))
    configs = declare(node, AgentConfig, LoaderConfig)
    (name,) = values
    assert [getattr(c, name) for c in configs if hasattr(c, name)] == [()]
    assert list(node.get_parameter(name).value) == []
    expected = {"demo_path": ParameterType.PARAMETER_STRING_ARRAY, "hidden_dims": ParameterType.PARAMETER_INTEGER_ARRAY,
                "scales": ParameterType.PARAMETER_DOUBLE_ARRAY}
    assert node.get_parameter(name).get_parameter_value().type == expected[name]
    assert node.describe_parameter(name).type == expected[name]


@pytest.mark.parametrize(("values", "message"), [
    ({"discont": "0.9"}, "/learner: unknown parameter 'discont'; did you mean 'discount'"),
    ({"discount": "1.5"}, "/learner: parameter 'discount': expected a value from 0.0 to 1.0, found 1.5"),
    ({"num_qs": "2.5"}, "/learner: parameter 'num_qs': expected a whole number, found 2.5"),
    ({"num_qs": "true"}, "parameter 'num_qs': expected a whole number, found True"),
    ({"layer_norm": "1"}, "parameter 'layer_norm': expected true or false, found 1"),
    ({"activation": "gelu"}, "parameter 'activation': expected one of tanh, relu, found 'gelu'"),
    ({"hidden_dims": "[256, 0]"}, r"parameter 'hidden_dims'\[1\]: expected a value from 1 to inf, found 0"),
    ({"demo_path": "demos"}, "parameter 'demo_path': expected a list, found 'demos'"),
    ({"demo_path": "3"}, "parameter 'demo_path': expected a list, found 3"),
])
def test_wrong_parameters_are_one_clear_error(make_node, values, message):
    with pytest.raises(ConfigError, match=message):
        declare(make_node(section(**values)), AgentConfig, LoaderConfig)


def test_what_others_declare_is_no_error(make_node):
    node = make_node(section(use_sim_time="false") + """
    qos_overrides:
      /transitions:
        publisher:
          depth: 7
          reliability: best_effort
""")
    declare(node, AgentConfig)
    made = qos.publisher(node, qos.TRANSITIONS)
    assert made.qos_profile.depth == 7
    assert made.qos_profile.reliability == rclpy.qos.QoSReliabilityPolicy.BEST_EFFORT


def test_what_only_a_tool_has_may_stand_in_a_section_for_all(make_node):
    assert declare(make_node(section(deadband="0.2", seed="3")), AgentConfig) == (AgentConfig(seed=3),)


def test_simulated_time_is_refused_rather_than_half_obeyed(make_node):
    with pytest.raises(ConfigError, match="'use_sim_time': expected false, found True: stamps and deadlines are wall"):
        declare(make_node(section(use_sim_time="true")), AgentConfig)


@pytest.mark.parametrize(("kind", "value", "says"), [
    ("depth", "abc", "expected a whole number from 0 to 2147483647, found 'abc'"),
    ("depth", "-1", "found -1"), ("depth", "2147483648", "found 2147483648"), ("depth", "true", "found True"),
    ("reliability", "sure", "expected one of system_default, reliable, best_effort.*, found 'sure'"),
    ("reliability", "unknown", "found 'unknown'"), ("history", "3", "expected one of .*keep_last, keep_all, found 3"),
    ("durability", "latched", "expected one of .*transient_local, volatile.*, found 'latched'")])
def test_a_quality_of_service_that_there_is_not_is_refused(make_node, kind, value, says):
    name = f"qos_overrides./transitions.publisher.{kind}"
    with pytest.raises(ConfigError, match=f"^/learner: parameter '{name}': .*{says}"):
        declare(make_node(section(**{name: value})), AgentConfig)


@pytest.mark.parametrize("value", ["depth: 0", "depth: 2147483647", "reliability: Best_Effort", "history: keep_all"])
def test_what_is_let_pass_of_it_rclpy_takes(make_node, value):
    node = make_node(f"/**: {{ros__parameters: {{qos_overrides./transitions.publisher.{value}}}}}")
    declare(node, AgentConfig)
    qos.publisher(node, qos.TRANSITIONS)


# Files


def test_a_parameter_file_says_what_the_node_gets(make_node, tmp_path):
    text = """
/**:
  ros__parameters: {seed: 1, num_qs: 3}
/arm/learner:
  ros__parameters:
    discount: 1e-1
    learning_rate: 5.0e-1
other:
  learner:
    ros__parameters: {num_qs: 4}
"""
    (tmp_path / "p.yaml").write_text(text)
    sections = load_parameter_file(tmp_path / "p.yaml")
    assert list(sections.items()) == [
        ("/**", {"seed": 1, "num_qs": 3}),
        ("/arm/learner", {"discount": 0.1, "learning_rate": 0.5}),
        ("other/learner", {"num_qs": 4}),
    ]
    (agent,) = declare(make_node(text, namespace="/arm"), AgentConfig)
    assert agent == AgentConfig(seed=1, num_qs=3, discount=0.1, learning_rate=0.5)
    (agent,) = declare(make_node(text, namespace="/other"), AgentConfig)
    assert agent == AgentConfig(seed=1, num_qs=4)


def test_nested_parameters_have_dotted_names(tmp_path):
    (tmp_path / "p.yaml").write_text("n:\n  ros__parameters: {a: {b: 1, c: {d: x}}, e: []}\nm:\n  ros__parameters:\n")
    assert load_parameter_file(tmp_path / "p.yaml") == {"n": {"a.b": 1, "a.c.d": "x", "e": []}, "m": {}}


def test_an_empty_file_holds_nothing(tmp_path):
    (tmp_path / "p.yaml").write_text("# nothing\n")
    assert load_parameter_file(tmp_path / "p.yaml") == {}


@pytest.mark.parametrize(("text", "value"), [
    ("3e-4", 3e-4), ("-1E+3", -1000.0), (".5e1", 5.0), ("2.e2", 200.0), ("0.1", 0.1), ("7", 7), ("true", True),
    ("e5", "e5"), ("1e", "1e"), ("3e-4x", "3e-4x"), ("[1e3, 2]", [1000.0, 2]),
])
def test_numbers_read_as_ros_reads_them(text, value):
    assert parse_yaml(text) == value
    assert type(parse_yaml(text)) is type(value)


@pytest.mark.parametrize(("content", "message"), [
    (b"a: [1, 2", "expected YAML: .*line 1"),
    (b"\xff\xfe\x00", "expected YAML: "),
    (b"[1, 2]", r"top level: expected node names with 'ros__parameters' below, found \[1, 2\]"),
    (b"learner: {seed: 1}", "learner/seed: expected node names with 'ros__parameters' below, found 1; a parameter "
     r"stands below 'ros__parameters': write learner: {ros__parameters: {seed: \.\.\.}}$"),
    (b"/**: {seed: 1}", r"found 1; .*: write /\*\*: {ros__parameters: {seed: \.\.\.}}$"),
    (b"/arm/learner: {seed: 1}", r"found 1; .*: write /arm/learner: {ros__parameters: {seed: \.\.\.}}$"),
    (b"seed: 1", "seed: expected node names .*found 1; write NODE: {ros__parameters: {NAME: VALUE}}$"),
    (b"learner:", "learner: expected node names .*found None; write NODE: {ros__parameters: {NAME: VALUE}}$"),
    (b"learner: {ros_parameters: {seed: 1}}", "found 1; 'ros_parameters': did you mean 'ros__parameters'?"),
    (b"learner: {ros__params: {seed: 1}}", "found 1; 'ros__params': did you mean 'ros__parameters'?"),
    (b"learner: {ros__parameters: {seed: 1}}\nlearner: {ros__parameters: {}}",
     "expected YAML: key 'learner' is there twice, first in line 1 .*line 2"),
    (b"learner:\n  ros__parameters:\n    seed: 1\n    seed: 2", "key 'seed' is there twice, first in line 3 .*line 4"),
    (b"learner: {ros__parameters: [1]}", "learner: expected 'ros__parameters' with names and values"),
    (b"learner: {ros__parameters: {seed: 1}, seed: 2}", "learner: expected 'ros__parameters' with names and values"),
    (b"!!python/object/apply:os.system [echo]", "expected YAML: could not determine a constructor"),
    (b"a: " + b"[" * 5000, "expected YAML: "),
    (b"#" * 1_000_001, "at most 1000000 characters"),
])
def test_unreadable_files_are_one_clear_line(tmp_path, content, message):
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_parameter_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot read the parameter file: No such file or directory"):
        load_parameter_file(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot read the parameter file: Is a directory"):
        load_parameter_file(tmp_path)
