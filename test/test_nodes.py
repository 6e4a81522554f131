# SPDX-License-Identifier: Apache-2.0
"""The nodes on real middleware. What they do inside is tested without it, in the tests of actor, learner and driver."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from recordings import STATE, make_records, write_log

from rlpd_ros.data.outbox import Outbox
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.nodes import learner as learner_node
from rlpd_ros.nodes.actor import ActorNode
from rlpd_ros.nodes.arm_driver import ArmDriverNode
from rlpd_ros.nodes.demo_loader import DemoLoaderNode
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.bags import TransitionLog
from rlpd_ros.status import ActorState, LearnerState
from rlpd_ros.types import Observation, Source, SpaceField, SpaceSpec, TransitionRecord

NETWORK = {"hidden_dims": [8]}


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
    status = graph.until(lambda: (s := graph.last(qos.LEARNER_STATUS)) and s.gradient_step and s)
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


def test_an_actor_without_the_backbones_file_ends_and_says_so(graph):
    spec = SpaceSpec("test", (SpaceField.box("state", [-1], [1]), SpaceField.image("front", 32, 32)),
                            (SpaceField.box("motion", [-1], [1]),), 10.0, "base", 100)
    qos.publisher(graph.ears, qos.SPACE_SPEC).publish(messages.from_space_spec(spec, 1))
    graph.add(ActorNode, **NETWORK, backbone="/nowhere/weights")
    with pytest.raises(ConfigError, match="/nowhere/weights: cannot read the backbone: No such file or directory"):
        graph.until(lambda: False)


# Transitions


def test_many_who_have_a_lot_to_send_do_not_crowd_each_other_out(graph, learn):
    """With 500 of each under way most would be pushed out of the learner's queue, and sent again."""
    learner = learn(training_starts=10**9)
    qos.publisher(graph.ears, qos.SPACE_SPEC).publish(messages.from_space_spec(STATE))
    graph.until(lambda: learner._started)
    outboxes = {f"actor-{i}": Outbox(resend_period=20.0) for i in range(8)}
    publishers = {session: qos.publisher(graph.ears, qos.TRANSITIONS) for session in outboxes}
    statuses = qos.publisher(graph.ears, qos.ACTOR_STATUS)
    windows = {}

    def on_ack(message) -> None:
        outboxes[message.session].acknowledge(messages.to_acknowledgement(message), time.monotonic())
        windows[message.session] = message.window

    qos.subscription(graph.ears, qos.TRANSITIONS_ACK, on_ack)
    graph.ears.create_timer(0.5, lambda: [statuses.publish(qos.ACTOR_STATUS.type(session=s)) for s in outboxes])
    graph.until(lambda: windows == dict.fromkeys(outboxes, 500 // 8)
                and all(publisher.get_subscription_count() for publisher in publishers.values()))
    for session, outbox in outboxes.items():
        for record in make_records(STATE, 300, session):
            outbox.add(record)

    def all_have_arrived() -> bool:
        for session, outbox in outboxes.items():
            for record in outbox.due(time.monotonic()):
                publishers[session].publish(messages.from_transition(record, STATE))
        return all(outbox.acknowledged == 300 for outbox in outboxes.values())

    graph.until(all_have_arrived)
    assert not any(outbox.resent for outbox in outboxes.values())
    assert learner._learner.report.transitions_duplicate == 0


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
    graph.until(lambda: any(run.checkpoints.glob("[0-9]*")) and graph.last(qos.LEARNER_STATUS).gradient_step > 22)
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


READING = re.compile(r"reading back the log of transitions: ([\d,]+) so far")


def test_while_a_long_log_is_read_back_the_learner_says_so_and_does_nothing_else(graph, learn, run, monkeypatch):
    monkeypatch.setattr(learner_node, "TURN", 0.0)  # a transition at a time
    write_log(run.transitions, STATE, make_records(STATE, 200))
    graph.listen(qos.LEARNER_STATUS, qos.POLICY_VERSION, qos.TRANSITIONS_ACK)
    qos.publisher(graph.ears, qos.SPACE_SPEC).publish(messages.from_space_spec(STATE))
    transitions = qos.publisher(graph.ears, qos.TRANSITIONS)
    learner = learn(status_period=0.05, training_starts=10**6)
    new = make_records(STATE, 203)[200:]
    told = []

    def started() -> bool:
        if learner._starting is not None and not learner._started:
            transitions.publish(messages.from_transition(new[0], STATE))
            told.extend(READING.findall(learner._waits_for))
        return learner._started

    graph.until(started)
    assert told == sorted(told, key=int)
    assert {"1", "100", "199"} <= set(told)
    graph.until(lambda: graph.last(qos.POLICY_VERSION))
    heard = [(s.state, READING.fullmatch(s.text)) for s in graph.heard["learner_status"]]
    assert len({match[1] for state, match in heard if match and state == LearnerState.WAITING_FOR_SPACE}) > 1
    status = graph.until(lambda: (s := graph.last(qos.LEARNER_STATUS)) and s.env_steps and s)
    assert (status.restored_env_steps, status.transitions_rejected, status.gaps) == (200, 0, 0)
    for record in new:
        transitions.publish(messages.from_transition(record, STATE))
    ack = graph.until(lambda: (a := graph.last(qos.TRANSITIONS_ACK)) and a.sequence == 203 and a)
    assert ack.env_steps == 203
    assert [r.sequence for r in TransitionLog.read(run.transitions, STATE)] == list(range(1, 204))


def test_who_reads_back_a_long_log_can_be_stopped(graph, run, start_node):
    write_log(run.transitions, STATE, make_records(STATE, 6000), flush_every=500)
    before = (run.transitions / "transitions_0.mcap").read_bytes()
    graph.listen(qos.LEARNER_STATUS)
    process = start_node("learner", run=str(run.path), hidden_dims="[8]", critic_hidden_dims="[8]", status_period="0.1")
    try:
        graph.until(lambda: graph.heard["learner_status"])
        qos.publisher(graph.ears, qos.SPACE_SPEC).publish(messages.from_space_spec(STATE))
        graph.until(lambda: READING.fullmatch(graph.last(qos.LEARNER_STATUS).text))
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0, process.stderr.read()
    finally:
        process.kill()
    assert READING.fullmatch(graph.last(qos.LEARNER_STATUS).text)
    assert (run.transitions / "transitions_0.mcap").read_bytes() == before
    assert not (run.path / "policy_version").exists()


def test_another_space_while_the_log_is_read_back_is_told(graph, learn, run, monkeypatch):
    monkeypatch.setattr(learner_node, "TURN", 0.0)
    write_log(run.transitions, STATE, make_records(STATE, 200))
    graph.listen(qos.LEARNER_STATUS)
    spaces = qos.publisher(graph.ears, qos.SPACE_SPEC)
    spaces.publish(messages.from_space_spec(STATE))
    learner = learn(status_period=0.05)
    graph.until(lambda: learner._starting is not None)
    spaces.publish(messages.from_space_spec(replace(STATE, control_rate=77.0)))
    graph.until(lambda: (s := graph.last(qos.LEARNER_STATUS)) and "control_rate" in s.space_difference
                and READING.fullmatch(s.text))
    graph.until(lambda: learner._started)
    assert learner._learner.spec.control_rate == STATE.control_rate
    graph.until(lambda: graph.last(qos.LEARNER_STATUS).space_difference and graph.last(qos.LEARNER_STATUS).env_steps)
    spaces.publish(messages.from_space_spec(STATE))
    graph.until(lambda: not graph.last(qos.LEARNER_STATUS).space_difference)


def test_what_a_power_cut_took_of_the_log_is_told(graph, learn, run, monkeypatch):
    said = []
    monkeypatch.setattr(learner_node.LearnerNode, "warn", lambda self, text: said.append(text))
    write_log(run.transitions, STATE, make_records(STATE, 9))
    file = run.transitions / "transitions_1.mcap"
    file.touch()
    graph.listen(qos.POLICY_VERSION)
    qos.publisher(graph.ears, qos.SPACE_SPEC).publish(messages.from_space_spec(STATE))
    learn(training_starts=10**6)
    graph.until(lambda: graph.last(qos.POLICY_VERSION), "the first policy")
    assert said == [f"{file}: nothing of it reached the disk: going on without it"]


def test_a_second_learner_leaves_a_run_alone_in_which_one_is_at_work(graph, learn):
    graph.add(ArmDriverNode)
    first = learn()
    with pytest.raises(ConfigError, match="another learner is at work"):
        learn()
    graph.remove(first)
    learn()


def test_how_an_earlier_life_ended_is_not_told_of_a_run_that_goes_on(graph, learn, run):
    graph.listen(qos.POLICY_VERSION)
    run.write_summary({"success_rate": None, "eval_episodes": 0, "env_steps": 9, "gradient_steps": 9, "wall_s": 1.0,
                       "seed": 0, "preset": "default"})
    learn(training_starts=10**6)
    graph.add(ArmDriverNode)
    graph.until(lambda: graph.last(qos.POLICY_VERSION), "the first policy")
    assert not run.summary.exists()


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


def test_a_killed_actor_loses_nothing_that_it_did_while_the_learner_was_away(graph, learn, run, start_node):
    graph.listen(qos.OBSERVATION, qos.ACTOR_STATUS)
    driver = graph.add(ArmDriverNode, lockstep=False, control_rate=50.0)
    process = start_node("actor", run=str(run.path), hidden_dims="[8]", random_steps="100000", eval_every="0")
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


def test_the_learner_says_when_it_compiles_for_a_persons_first_intervention(graph, learn):
    graph.listen(qos.LEARNER_STATUS)
    graph.add(ArmDriverNode)
    actor = graph.add(ActorNode, intervention_timeout=60.0, **NETWORK)
    learn()
    said = "compiling the update {} demonstrations: some seconds of silence"
    statuses = graph.heard["learner_status"]
    graph.until(lambda: any(s.compiling and s.text == said.format("without") for s in statuses))
    graph.until(lambda: statuses[-1].gradient_step and not statuses[-1].compiling)
    actor._actor.intervene(np.ones(actor._actor.spec.action_size))
    graph.until(lambda: any(s.compiling and s.text == said.format("with") for s in statuses))
    graph.until(lambda: not statuses[-1].compiling)
