# SPDX-License-Identifier: Apache-2.0
"""The nodes on real middleware. What they do inside is tested without it, in the tests of actor, learner and driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rcl_interfaces.srv import DescribeParameters, GetParameters
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy
from std_srvs.srv import Trigger

from rlpd_ros.errors import DataError
from rlpd_ros.msg import Action, SpaceSpec, Transition
from rlpd_ros.nodes import actor as actor_module
from rlpd_ros.nodes.actor import ActorNode
from rlpd_ros.nodes.arm_driver import ArmDriverNode
from rlpd_ros.nodes.demo_loader import DemoLoaderNode
from rlpd_ros.nodes.learner import LearnerNode
from rlpd_ros.ros import latched, messages, qos
from rlpd_ros.ros.bags import TransitionLog
from rlpd_ros.runs import RunDirectory
from rlpd_ros.settings import LearnerConfig
from rlpd_ros.status import ActorState, LearnerState
from rlpd_ros.types import Observation, Source, TransitionRecord

NETWORK = {"hidden_dims": [8]}


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory.create(tmp_path, "run")


@pytest.fixture
def learn(graph, run, small):
    """Start a learner of the run, without demonstrations unless asked for."""
    def start(**parameters):
        return graph.add(LearnerNode, **{**small, "run": str(run.path), "require_demonstrations": False, **parameters})

    return start


# Policies


def test_a_late_actor_has_the_policy_at_once_without_the_learner_doing_anything(graph, learn):
    graph.listen(qos.POLICY_VERSION, qos.ACTOR_STATUS)
    graph.add(ArmDriverNode)
    learn(training_starts=10**6)
    version = graph.until(lambda: graph.last(qos.POLICY_VERSION), "the first policy").version
    delays = []
    for _ in range(3):
        received = []
        began = time.monotonic()
        subscription = qos.subscription(graph.ears, qos.POLICY_PARAMS, received.append)
        graph.until(lambda received=received: received, "the latched policy")
        delays.append(time.monotonic() - began)
        graph.ears.destroy_subscription(subscription)
        assert [message.version for message in received] == [version]
    assert min(delays) < 1.0
    graph.add(ActorNode, **NETWORK)
    status = graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and s.policy_actions and s, "an actor that acts")
    assert status.applied_version == version
    assert graph.last(qos.POLICY_VERSION).version == version


def test_without_a_policy_the_arm_stays_where_it_is(graph, learn):
    graph.listen(qos.OBSERVATION, qos.ACTION, qos.ACTOR_STATUS)
    graph.add(ArmDriverNode)
    graph.add(ActorNode, **NETWORK)
    graph.until(lambda: any(s.state == ActorState.WAITING_FOR_POLICY for s in graph.heard["actor_status"]))
    graph.until(lambda: len(graph.heard["observation"]) >= 4, "the arm shows its state again and again")
    assert graph.heard["action"] == []
    assert {(o.episode, o.step) for o in graph.heard["observation"]} == {(1, 0)}
    assert graph.last(qos.ACTOR_STATUS).text.startswith("holding still: no policy received yet")
    learn()
    graph.until(lambda: len(graph.heard["action"]) > 5)
    assert {a.source for a in graph.heard["action"]} == {Source.POLICY}


def test_policies_reach_the_actor_while_the_learner_trains(graph, learn):
    graph.listen(qos.POLICY_VERSION, qos.LEARNER_STATUS)
    graph.add(ArmDriverNode)
    graph.add(ActorNode, **NETWORK)
    learn()
    graph.until(lambda: (v := graph.last(qos.POLICY_VERSION)) and v.lowest_applied_version >= 4, "version 4 in use")
    assert graph.last(qos.POLICY_VERSION).actors == 1
    status = graph.last(qos.LEARNER_STATUS)
    assert status.state in (LearnerState.TRAINING, LearnerState.WAITING_FOR_DATA)
    assert status.gradient_step <= status.env_steps - status.training_starts


def test_another_network_is_refused_with_both_sides_shown(graph, learn):
    graph.listen(qos.ACTOR_STATUS, qos.ACTION)
    graph.add(ArmDriverNode)
    graph.add(ActorNode, hidden_dims=[16])
    learn()
    status = graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and s.refused_version and s)
    assert "hidden_dims: learner [8], actor [16]" in status.refusal
    assert status.state == ActorState.WAITING_FOR_POLICY
    assert "refused" in status.text
    assert graph.heard["action"] == []


# Latched messages that get lost


def lose(node, *topics):
    """Take the message that waits for ``node`` on each of the topics out of its way, as if it had never come."""
    for topic in topics:
        subscription = next(s for s in node.subscriptions if s.topic_name == f"/{topic.name}")
        deadline = time.monotonic() + 10
        while subscription.handle.take_message(subscription.msg_type, False) is None:
            assert time.monotonic() < deadline, topic.name
            time.sleep(0.001)


def test_a_learner_that_misses_the_space_or_the_manifest_gets_them_all_the_same(graph, learn, demonstrations,
                                                                               monkeypatch):
    monkeypatch.setattr(latched, "FIRST_PATIENCE", 0.3)
    graph.listen(qos.LEARNER_STATUS, qos.DEMO_TRANSITIONS)
    graph.add(ArmDriverNode)
    loader = graph.add(DemoLoaderNode, demo_path=[str(demonstrations)])
    first = learn(require_demonstrations=True)
    graph.until(lambda: loader._told, "a loader that has no reason to say anything")
    graph.remove(first)
    second = learn(require_demonstrations=True)
    lose(second, qos.SPACE_SPEC, qos.DEMO_MANIFEST)
    graph.until(lambda: (s := graph.last(qos.LEARNER_STATUS)) and s.session == second._session
                and s.demo_buffer_size, "demonstrations")


def test_an_actor_that_misses_the_space_and_the_policy_gets_them_all_the_same(graph, learn, monkeypatch):
    monkeypatch.setattr(latched, "FIRST_PATIENCE", 0.3)
    graph.listen(qos.POLICY_VERSION, qos.ACTOR_STATUS)
    graph.add(ArmDriverNode)
    learn(training_starts=10**6)
    graph.until(lambda: graph.last(qos.POLICY_VERSION), "a policy, the only one for a long time")
    lose(graph.add(ActorNode, **NETWORK), qos.SPACE_SPEC, qos.POLICY_PARAMS)
    graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and s.policy_actions, "an actor that acts")


# Transitions


def test_what_is_acknowledged_is_in_the_log_once(graph, learn, run):
    graph.listen(qos.TRANSITIONS_ACK)
    driver = graph.add(ArmDriverNode)
    graph.add(ActorNode, **NETWORK)
    learn(max_steps=100_000)
    ack = graph.until(lambda: (a := graph.last(qos.TRANSITIONS_ACK)) and a.sequence >= 60 and a)
    records = list(TransitionLog.read(run.transitions, driver._driver.spec))
    assert [r.sequence for r in records if r.session == ack.session][:60] == list(range(1, 61))
    assert set(Counter((r.session, r.sequence) for r in records).values()) == {1}
    assert {r.policy_version for r in records} > {1, 2}


def test_a_restarted_learner_goes_on_where_the_killed_one_was(graph, learn, run, demonstrations):
    graph.listen(qos.POLICY_VERSION, qos.LEARNER_STATUS)
    graph.add(ArmDriverNode)
    graph.add(DemoLoaderNode, demo_path=[str(demonstrations)])
    actor = graph.add(ActorNode, **NETWORK)
    first = learn(require_demonstrations=True)
    graph.until(lambda: run.checkpoints.joinpath("20").exists() and graph.last(qos.LEARNER_STATUS).gradient_step > 22)
    before = graph.last(qos.LEARNER_STATUS)
    session, acknowledged = actor._actor.session, actor._actor.status().transitions_acked
    graph.remove(first, properly=False)
    graph.heard.clear()
    graph.listen(qos.POLICY_VERSION, qos.LEARNER_STATUS)
    learn(require_demonstrations=True)
    status = graph.until(lambda: (s := graph.last(qos.LEARNER_STATUS)) and s.session != before.session
                         and s.gradient_step > max(before.gradient_step, s.restored_gradient_step) and s)
    assert status.restored_gradient_step >= 20
    assert (status.demo_buffer_size, status.demo_expected) == (before.demo_buffer_size, before.demo_expected)
    assert status.env_steps >= acknowledged > 0
    later = [v.version for v in graph.heard["policy_version"] if v.version]
    assert later[-1] > before.version
    assert sorted(later) == later
    assert actor._actor.session == session


def test_a_run_of_another_arm_is_not_gone_on_with(graph, learn, run):
    driver = graph.add(ArmDriverNode)
    other = replace(driver._driver.spec, control_rate=77.0)
    log = TransitionLog(run.transitions, other)
    state, action = np.zeros(other.state_size, np.float32), np.zeros(other.action_size, np.float32)
    log.write(TransitionRecord("actor-1", 1, 1, 0, Observation(state), action, 0.0, False, False, False, Source.POLICY,
                               space_fingerprint=other.fingerprint, stamp=1))
    log.close()
    learn()
    with pytest.raises(DataError, match=r"recorded in another space: control_rate: expected 10.0, found 77.0"):
        graph.until(lambda: False)


def test_versions_do_not_fall_even_without_a_checkpoint(graph, learn, run):
    graph.listen(qos.POLICY_VERSION)
    graph.add(ArmDriverNode)
    versions = []
    for _ in range(3):
        learner = learn(training_starts=10**6)
        graph.until(lambda: (v := graph.last(qos.POLICY_VERSION)) and v.version not in versions)
        versions.append(graph.last(qos.POLICY_VERSION).version)
        graph.remove(learner, properly=False)
    assert versions == [1, 2, 3]


def test_while_nothing_can_be_stored_nothing_is_acknowledged_and_then_everything(graph, learn, run):
    graph.listen(qos.POLICY_VERSION, qos.TRANSITIONS_ACK, qos.LEARNER_STATUS)
    driver = graph.add(ArmDriverNode)
    learn()
    graph.until(lambda: graph.last(qos.POLICY_VERSION))
    run.transitions.write_text("something that is in the way of the folder")
    actor = graph.add(ActorNode, **NETWORK)
    graph.until(lambda: (s := graph.last(qos.LEARNER_STATUS)) and "cannot be stored" in s.text)
    assert all(ack.sequence == 0 for ack in graph.heard["transitions_ack"])
    run.transitions.unlink()
    graph.until(lambda: actor._actor.status().transitions_acked >= 30)
    records = list(TransitionLog.read(run.transitions, driver._driver.spec))
    assert [r.sequence for r in records][:30] == list(range(1, 31))
    graph.until(lambda: "cannot be stored" not in graph.last(qos.LEARNER_STATUS).text)


def test_a_killed_actor_loses_nothing_that_it_did_while_the_learner_was_away(graph, learn, run):
    graph.listen(qos.OBSERVATION, qos.ACTOR_STATUS)
    driver = graph.add(ArmDriverNode, lockstep=False, control_rate=50.0)
    process = start("actor", run=str(run.path), hidden_dims="[8]", random_steps="100000", eval_every="0")
    try:
        graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and s.transitions_spooled > 60)
    finally:
        process.kill()
        process.wait()
    before = graph.last(qos.ACTOR_STATUS)
    assert (before.transitions_acked, before.spool_error) == (0, "")
    done = {(o.executed_action.tobytes(), o.reward) for o in graph.heard["observation"] if o.step}
    graph.heard.clear()
    graph.listen(qos.ACTOR_STATUS)
    graph.add(ActorNode, run=str(run.path), **NETWORK)
    learn(training_starts=10**6)
    graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and s.session != before.session
                and s.transitions_acked > 5 and not s.transitions_spooled)
    records = list(TransitionLog.read(run.transitions, driver._driver.spec))
    earlier = [r for r in records if r.session == before.session]
    assert len(earlier) >= before.transitions_spooled > 60
    assert [record.sequence for record in earlier] == list(range(1, len(earlier) + 1))
    heard = [(record.action.tobytes(), np.float32(record.reward)) in done for record in earlier]
    assert sum(heard) >= len(earlier) - 10  # the listener may have missed some
    assert any(record.session != before.session for record in records)


def test_a_restarted_arm_is_taken_up_again(graph, learn, monkeypatch):
    monkeypatch.setattr(actor_module, "RESET_PATIENCE", 1e6)  # nobody waits for that answer any more
    driver = graph.add(ArmDriverNode)
    actor = graph.add(ActorNode, **NETWORK)
    learn()
    graph.until(lambda: actor._actor is not None and actor._actor.report.episodes >= 1)
    actor.reset_arm()
    graph.remove(driver, properly=False)  # before it answers
    steps = actor._actor.report.env_steps
    graph.add(ArmDriverNode)
    graph.until(lambda: actor._actor.report.env_steps > steps + 60)  # beyond the end of an episode


# Demonstrations


def test_demonstrations_that_come_before_the_space_are_not_forgotten(graph, learn, demonstrations):
    graph.listen(qos.LEARNER_STATUS, qos.DEMO_MANIFEST)
    learn(require_demonstrations=True)
    graph.add(DemoLoaderNode, demo_path=[str(demonstrations)])
    manifest = graph.until(lambda: graph.last(qos.DEMO_MANIFEST))
    assert manifest.total > 100
    graph.until(lambda: (s := graph.last(qos.LEARNER_STATUS)) and "no space_spec received yet" in s.text)
    graph.add(ArmDriverNode)
    status = graph.until(lambda: (s := graph.last(qos.LEARNER_STATUS)) and s.state == LearnerState.FILLING and s)
    assert status.demo_expected == manifest.total


def test_demonstrations_of_another_space_are_named_and_end_the_loader(graph, demonstrations):
    graph.listen(qos.DEMO_MANIFEST)
    graph.add(ArmDriverNode, control_rate=20.0)
    process = start("demo_loader", demo_path=f"['{demonstrations}']")
    error = graph.until(lambda: (m := graph.last(qos.DEMO_MANIFEST)) and m.error)
    graph.until(lambda: process.poll() is not None)
    assert process.returncode == 2
    assert "control_rate: the arm has 20.0, the bags have 10.0" in error
    assert str(demonstrations) in error
    assert process.communicate()[1].splitlines()[-1] == f"demo_loader: {error}"


@pytest.mark.parametrize("path", ["", "nowhere", "empty"])
def test_demonstrations_that_are_not_there_are_named_and_end_the_loader(graph, tmp_path, path):
    graph.listen(qos.DEMO_MANIFEST)
    (tmp_path / "empty").mkdir()
    where = str(tmp_path / path) if path else ""
    process = start("demo_loader", **({"demo_path": f"['{where}']"} if path else {}))
    error = graph.until(lambda: (m := graph.last(qos.DEMO_MANIFEST)) and m.error)
    learner = qos.publisher(graph.ears, qos.LEARNER_STATUS)
    learner.publish(qos.LEARNER_STATUS.type(demo_error="another error"))
    began = time.monotonic()
    graph.until(lambda: time.monotonic() - began > 1.0)
    assert process.poll() is None  # it stays until it is heard
    learner.publish(qos.LEARNER_STATUS.type(demo_error=error))
    graph.until(lambda: process.poll() is not None)
    assert process.returncode == 2
    assert error.startswith(where or "demo_path: expected one or more rosbag2 bags")
    assert process.communicate()[1].count("\n") == 1


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
    "intervention": (BEST_EFFORT, VOLATILE, 1), "transitions": (RELIABLE, VOLATILE, 1000),
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


def start(node: str, **parameters: str) -> subprocess.Popen[str]:
    arguments = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    return subprocess.Popen([sys.executable, "-m", f"rlpd_ros.nodes.{node}", "--ros-args", *arguments], text=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=Path(__file__).parent,
                            env=os.environ | {"RCUTILS_LOGGING_USE_STDOUT": "1"})


@pytest.mark.parametrize(("node", "parameters", "says"), [
    ("learner", {}, "learner: run: expected the folder of the run, found none"),
    ("learner", {"run": "/nowhere"}, "learner: /nowhere: expected the folder of a run, found nothing"),
    ("actor", {"random_stepps": "5"}, "unknown parameter 'random_stepps'; did you mean 'random_steps'?"),
    ("arm_driver", {"control_rate": "0.0"}, "parameter 'control_rate': expected a value from 0.1 to 1000.0, found 0.0"),
])
def test_wrong_input_ends_a_node_with_one_line_and_status_2(domain, node, parameters, says):
    process = start(node, **parameters)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 2
    assert says in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_that_is_asked_to_stop_saves_and_ends_well(graph, run, small, number):
    graph.listen(qos.LEARNER_STATUS)
    graph.add(ArmDriverNode)
    graph.add(ActorNode, **NETWORK)
    settings = {**small, "run": str(run.path), "require_demonstrations": "false", "checkpoint_period": 100_000}
    process = start("learner", **{name: str(value) for name, value in settings.items()})
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
