# SPDX-License-Identifier: Apache-2.0
"""The nodes as others meet them: nonsense on their topics, names, parameters, services, processes."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
from rcl_interfaces.srv import DescribeParameters, GetParameters
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy
from std_srvs.srv import Trigger

from rlpd_ros.msg import Action, SpaceSpec, Transition
from rlpd_ros.nodes.actor import ActorNode
from rlpd_ros.nodes.arm_driver import ArmDriverNode
from rlpd_ros.nodes.demo_loader import DemoLoaderNode
from rlpd_ros.nodes.learner import LearnerNode
from rlpd_ros.ros import messages, qos
from rlpd_ros.settings import LearnerConfig

NETWORK = {"hidden_dims": [8]}


# What anyone can send


def test_nonsense_on_every_topic_is_refused_and_nobody_dies(graph, learn):
    graph.listen(qos.LEARNER_STATUS, qos.ACTOR_STATUS)
    driver = graph.add(ArmDriverNode)
    graph.add(ActorNode, **NETWORK)
    learn()
    fingerprint = driver._driver.spec.fingerprint
    senders = {topic.name: qos.publisher(graph.ears, topic) for topic in (
        qos.SPACE_SPEC, qos.TRANSITIONS, qos.DEMO_TRANSITIONS, qos.ACTION, qos.INTERVENTION, qos.OBSERVATION,
        qos.POLICY_PARAMS, qos.EPISODE)}
    graph.until(lambda: all(sender.get_subscription_count() for sender in senders.values()))
    graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and s.env_steps, "everybody is at work")
    for name, message in {
            "space_spec": SpaceSpec(fingerprint="feed"), "action": Action(source=77),
            "intervention": Action(source=77), "observation": qos.OBSERVATION.type(state=[1.0]),
            "policy_params": qos.POLICY_PARAMS.type(version=9), "episode": qos.EPISODE.type(evaluation_done=True),
            "transitions": Transition(session="x", sequence=1, space_fingerprint=fingerprint, action=[1.0]),
            "demo_transitions": Transition(session="y", sequence=1, source=77)}.items():
        senders[name].publish(message)
    graph.until(lambda: (s := graph.last(qos.LEARNER_STATUS)) and s.transitions_rejected == 2)
    graph.until(lambda: any(s.refused_version == 9 for s in graph.heard["actor_status"]))
    steps = graph.last(qos.ACTOR_STATUS).env_steps
    graph.until(lambda: graph.last(qos.ACTOR_STATUS).env_steps > steps + 20, "life goes on")


def test_a_space_that_the_network_does_not_fit_does_not_end_an_actor_at_work(graph, learn):
    graph.listen(qos.ACTOR_STATUS)
    driver = graph.add(ArmDriverNode)
    graph.add(ActorNode, **NETWORK, hybrid_gripper=True)
    learn(hybrid_gripper=True)
    status = graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and s.env_steps and s, "the actor at work")
    spec = driver._driver.spec
    without = replace(spec, action=spec.action[:1])
    qos.publisher(graph.ears, qos.SPACE_SPEC).publish(messages.from_space_spec(without))
    refusal = graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)).messages_refused and s.last_refusal)
    assert refusal.startswith("space_spec: parameter 'hybrid_gripper': expected a last action field of one element")
    graph.until(lambda: graph.last(qos.ACTOR_STATUS).env_steps > status.env_steps + 20, "life goes on")


# What people see


LATCHED, VOLATILE = QoSDurabilityPolicy.TRANSIENT_LOCAL, QoSDurabilityPolicy.VOLATILE
RELIABLE, BEST_EFFORT = QoSReliabilityPolicy.RELIABLE, QoSReliabilityPolicy.BEST_EFFORT
TABLE = {
    "space_spec": (RELIABLE, LATCHED, 1), "observation": (RELIABLE, VOLATILE, 1), "action": (RELIABLE, VOLATILE, 1),
    "intervention": (BEST_EFFORT, VOLATILE, 1), "outcome": (RELIABLE, VOLATILE, 1),
    "transitions": (RELIABLE, VOLATILE, 1000),
    "transitions_ack": (RELIABLE, VOLATILE, 100), "demo_transitions": (RELIABLE, VOLATILE, 1000),
    "demo_manifest": (RELIABLE, LATCHED, 1), "policy_params": (RELIABLE, LATCHED, 1),
    "policy_version": (RELIABLE, LATCHED, 1), "actor_status": (RELIABLE, VOLATILE, 10),
    "learner_status": (RELIABLE, LATCHED, 10), "episode": (RELIABLE, VOLATILE, 10),
    "joint_states": (BEST_EFFORT, VOLATILE, 5), "ee_pose": (BEST_EFFORT, VOLATILE, 5)}


def test_every_topic_is_there_as_designed_and_within_the_namespace(graph, run, small, demonstrations):
    nodes = [graph.add(ArmDriverNode, "left"), graph.add(DemoLoaderNode, "left", demo_path=[str(demonstrations)]),
             graph.add(LearnerNode, "left", **small, run=str(run.path)), graph.add(ActorNode, "left", **NETWORK)]
    found: dict[str, set] = {}
    for node in nodes:
        for endpoint in [*node.publishers, *node.subscriptions]:
            name = endpoint.topic_name
            assert name.startswith("/left/") or name in ("/rosout", "/parameter_events"), name
            profile = endpoint.qos_profile
            found.setdefault(name.removeprefix("/left/"), set()).add(
                (profile.reliability, profile.durability, profile.depth))
    assert {name: profiles for name, profiles in found.items() if not name.startswith("/")} == {
        name: {profile} for name, profile in TABLE.items()}
    directions = {
        "space_spec": "arm_driver", "policy_params": "learner", "transitions_ack": "learner", "transitions": "actor",
        "action": "actor", "observation": "arm_driver", "demo_manifest": "demo_loader"}
    graph.until(lambda: all(
        [i.node_name for i in graph.ears.get_publishers_info_by_topic(f"/left/{topic}")] == [node]
        for topic, node in directions.items()))


def call(graph, kind, name, request):
    client = graph.ears.create_client(kind, name)
    graph.until(client.service_is_ready, name)
    future = client.call_async(request)
    graph.until(future.done, name)
    return future.result()


def test_parameters_can_be_looked_up_with_what_they_mean(graph, learn):
    learn(discount=0.9)
    names = ["discount", "batch_size", "actor_q_reduction"]
    described = call(graph, DescribeParameters, "/learner/describe_parameters", DescribeParameters.Request(names=names))
    discount, batch_size, reduction = described.descriptors
    assert (discount.description, discount.read_only) == ("discount factor per environment step", True)
    assert (discount.floating_point_range[0].from_value, discount.floating_point_range[0].to_value) == (0.0, 1.0)
    assert batch_size.description == LearnerConfig.__dataclass_fields__["batch_size"].metadata["range"].doc
    assert reduction.additional_constraints == "one of mean, min"
    values = call(graph, GetParameters, "/learner/get_parameters", GetParameters.Request(names=names)).values
    assert (values[0].double_value, values[1].integer_value, values[2].string_value) == (0.9, 8, "mean")


def test_the_arm_is_reset_by_a_service(graph):
    graph.listen(qos.OBSERVATION)
    graph.add(ArmDriverNode)
    graph.until(lambda: graph.last(qos.OBSERVATION))
    assert call(graph, Trigger, "/reset", Trigger.Request()).success
    graph.until(lambda: (graph.last(qos.OBSERVATION).episode, graph.last(qos.OBSERVATION).step) == (2, 0))


def test_the_arm_shows_itself_to_who_wants_to_see_it(graph, learn):
    graph.listen(qos.JOINT_STATES, qos.EE_POSE)
    graph.add(ArmDriverNode)
    joints = graph.until(lambda: graph.last(qos.JOINT_STATES))
    pose = graph.until(lambda: graph.last(qos.EE_POSE))
    assert len(joints.name) == len(joints.position) == 9
    assert pose.header.frame_id == "panda_link0"


def test_in_real_time_the_arm_keeps_its_pace(graph, learn):
    graph.listen(qos.OBSERVATION, qos.ACTOR_STATUS)
    graph.add(ArmDriverNode, lockstep=False, control_rate=20.0)
    graph.add(ActorNode, **NETWORK)
    graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and s.held_actions >= 3, "it holds still at its own pace")
    learn()
    status = graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and s.policy_actions >= 20 and s)
    stamps = [messages.stamp_of(o) for o in graph.heard["observation"]]
    assert (stamps[-1] - stamps[0]) / (len(stamps) - 1) > 0.045e9  # a busy machine may be slower
    assert status.overruns <= status.held_actions


# Processes


@pytest.mark.parametrize(("node", "parameters", "says"), [
    ("learner", {}, "learner: run: expected the folder of the run, found none"),
    ("learner", {"run": "/nowhere"}, "learner: /nowhere: expected the folder of a run, found nothing"),
    ("actor", {"random_stepps": "5"}, "unknown parameter 'random_stepps'; did you mean 'random_steps'?"),
    ("arm_driver", {"control_rate": "0.0"}, "parameter 'control_rate': expected a value from 0.1 to 1000.0, found 0.0"),
])
def test_wrong_input_ends_a_node_with_one_line_and_status_2(domain, node, parameters, says, start_node):
    process = start_node(node, **parameters)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 2
    assert says in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_that_is_asked_to_stop_saves_and_ends_well(graph, run, small, number, start_node):
    graph.listen(qos.LEARNER_STATUS)
    graph.add(ArmDriverNode)
    graph.add(ActorNode, **NETWORK)
    settings = {**small, "run": str(run.path), "require_demonstrations": "false", "checkpoint_period": 100_000}
    process = start_node("learner", **{name: str(value) for name, value in settings.items()})
    graph.until(lambda: (s := graph.last(qos.LEARNER_STATUS)) and s.gradient_step > 5)
    assert not list(run.checkpoints.iterdir())
    process.send_signal(number)
    process.send_signal(number)  # who is impatient does not break it off
    graph.until(lambda: process.poll() is not None)
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert [int(path.name) > 5 for path in run.checkpoints.iterdir()] == [True]
    assert run.policy.exists()
    assert (run.transitions / "metadata.yaml").exists()
