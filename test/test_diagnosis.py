# SPDX-License-Identifier: Apache-2.0
"""The checks on constructed evidence: a healthy run, and one thing changed at a time."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from evidence_world import (
    ACTOR,
    EMPTY,
    LEARNER,
    MACHINE,
    MANIFEST,
    NAMES,
    NOW,
    PROCESSES,
    SPACE,
    evidence,
    heard,
    machine_without,
    process,
    twice,
    verdict,
    wires,
)

from rlpd_ros.diagnosis import CHECKS, LANGUAGES, Evidence, Level, diagnose, faults, troubleshooting_rows
from rlpd_ros.diagnosis.collector import Collector
from rlpd_ros.diagnosis.connection import MARKS
from rlpd_ros.diagnosis.evidence import CameraSight, Endpoint, Mismatch
from rlpd_ros.status import HOST, ActorState, LearnerState
from rlpd_ros.types import EpisodeSummary


def test_a_healthy_run_has_no_fault():
    findings = diagnose(evidence())
    assert not faults(findings)
    assert {f.level for f in findings} <= {Level.OK, Level.STALE}
    assert sum(f.level is Level.OK for f in findings) == len(CHECKS), [f for f in findings if f.level is Level.STALE]


OTHER = replace(SPACE, control_rate=20.0)
LEARNER_2 = replace(LEARNER, session="learner-2")
ACTOR_2 = replace(ACTOR, session="actor-2")
SECOND_LEARNER = replace(PROCESSES[list(MARKS).index("learner")], pid=200)
SECOND_DRIVER = replace(PROCESSES[2], pid=200)
NONE = {"applied_version": 0, "newest_version": 0, "state": ActorState.WAITING_FOR_POLICY}  # no policy ever came
RIGHT = replace(ACTOR, session="right.actor-1", host=HOST)
ARM_ENDS = [replace(end, node=f"/right{end.node}") for end in wires().endpoints
            if end.node in (NAMES["actor"], NAMES["arm_driver"])]


def two_arms(*heard_of: tuple, without: str = "", processes: tuple = PROCESSES) -> dict:
    """Make the evidence of a run with a second arm in /right: what its actor said, which end is lacking."""
    ends = [end for end in ARM_ENDS if end.node != without]
    nodes = {**wires().nodes, "/right/actor": 0.0}
    return {"graph": replace(wires(), nodes=nodes, endpoints=(*wires().endpoints, *ends)),
            "actors": heard((ACTOR, 9.0, 0.0), *heard_of), "machine": replace(MACHINE, processes=processes)}


FAULTS = {
    "failed": {"learner": {"state": LearnerState.FAILED, "text": "not finite"}},
    "disk": {"learner": {"store_error": "no space left"}},
    "disk of the actor": {"actor": {"spool_error": "no space left"}},
    "disk of the actor lost": {"actor": {"transitions_lost": 1}, "earlier_actor": {"transitions_lost": 0}},
    "nodes and not the full memory of an actor whose learner died": {
        "silent": "learner", "learner": {"host": HOST}, "machine": machine_without("learner"),
        "actor": {"transitions_lost": 90}, "earlier_actor": {"transitions_lost": 0}},
    "disk nearly full": {"machine": replace(MACHINE, disk_free=2**20)},
    "domain": {"graph": wires(without="learner"), "learners": {}, "actor": NONE,
               "machine": process("learner", domain=6)},
    "domain namespace": {"graph": wires(without="learner"), "learners": {}, "actor": NONE,
                         "machine": process("learner", namespace="/l")},
    "domain range": {"graph": wires(without="learner"), "learners": {}, "actor": NONE,
                     "machine": process("learner", discovery="OFF")},
    "domain elsewhere": {"graph": replace(wires(without="learner"), elsewhere={"learner": "/l"}), "learners": {},
                         "actor": NONE, "machine": machine_without("learner")},
    "duplicates": {"learners": heard((LEARNER, 9.0, 0.0), (LEARNER_2, 2.0, 0.0))},
    "duplicates learners of which one compiles": {"graph": twice("learner"), "machine": replace(
        MACHINE, processes=(*PROCESSES, SECOND_LEARNER))},
    "duplicates actors": {"actors": heard((ACTOR, 9.0, 0.0), (ACTOR_2, 2.0, 0.0)), "graph": twice("actor")},
    "duplicates actors of other names": {
        "actors": heard((ACTOR, 9.0, 0.0), (replace(ACTOR, session="mine-2"), 2.0, 0.0)),
        "graph": twice("actor", "/mine")},
    "duplicates drivers": {"graph": twice("arm_driver"), "machine": replace(
        MACHINE, processes=(*PROCESSES, SECOND_DRIVER))},
    "duplicates drivers elsewhere": {"graph": twice("arm_driver", first=NOW - 99.0, second=NOW - 30.0),
                                     "machine": EMPTY},
    "qos": {"graph": wires(mismatches=(Mismatch("policy_params", "/learner", "/actor", "best effort"),))},
    "connections": {"graph": wires(unplugged="policy_params")},
    "connections out": {"graph": wires(unplugged="transitions")},
    "restarts": {"restarts": {"actor": 3}},
    "refused_messages": {"learner": {"messages_refused": 7, "last_refusal": "episode: no"},
                         "earlier_learner": {"messages_refused": 6}},
    "refused_messages actor": {"actor": {"messages_refused": 1, "last_refusal": "observation: no"},
                               "earlier_actor": {"messages_refused": 0}},
    "exposure": {"machine": replace(process("actor", discovery="SUBNET"), networked=True)},
    "blocked": {"silent": "actor"},
    "blocked learner": {"silent": "learner"},
    "blocked from the beginning": {"actors": {}, "machine": machine_without("actor")},
    "blocked stopped": {"machine": process("actor", stopped=True)},
    "demonstrations": {"learner": {"demo_error": "empty"}},
    "demonstrations missing": {"learner": {"state": LearnerState.WAITING_FOR_DEMONSTRATIONS, "demo_buffer_size": 9,
                                           "gradient_step": 0, "version": 1}, "actor": {"applied_version": 1}},
    "nodes": {"graph": wires(without="learner"), "learners": {}, "machine": EMPTY},
    "nodes no loader": {"graph": wires(without="demo_loader"), "machine": EMPTY, "learner": {
        "state": LearnerState.WAITING_FOR_DEMONSTRATIONS, "demo_expected": 0, "demo_buffer_size": 0}},
    "nodes of one of two arms": two_arms((RIGHT, 40.0, 30.0), without="/right/actor"),
    "nodes of the second arm killed": two_arms((RIGHT, 20.0, 5.0)),
    "nodes driver of the second arm": two_arms((RIGHT, 9.0, 0.0), without="/right/arm_driver"),
    "nodes of a third arm, found too late": {**two_arms((RIGHT, 9.0, 0.0)), "graph": replace(
        two_arms()["graph"], elsewhere={"arm_driver": "/third"})},
    "blocked second arm": two_arms((replace(RIGHT, host="another"), 20.0, 5.0)),
    "blocked second arm never heard": two_arms(),
    "blocked second arm stopped": two_arms((RIGHT, 9.0, 0.0), processes=(
        *PROCESSES, replace(PROCESSES[1], pid=300, namespace="/right", stopped=True))),
    "nodes dead": {"silent": "learner", "learner": {"host": HOST}, "machine": machine_without("learner")},
    "nodes ended": {"errors": {"learner": "ValueError: no"}},
    "cameras": {"cameras": {"wrist": CameraSight(NOW - 1.0, True, True, "no image received yet")},
                "actor": {"state": ActorState.WAITING_FOR_ARM}},
    "cameras often late": {"cameras": {"wrist": CameraSight(NOW - 1.0, True, False, "3 of the last 10 waited")}},
    "arm": {"actor": {"state": ActorState.WAITING_FOR_ARM}},
    "arm that hangs soon after its start": {"machine": process("arm_driver", age=20.0), "actor": {
        "state": ActorState.WAITING_FOR_ARM, "observation_age": 6.0}},
    "arm that never comes back from a reset": {"actor": {
        "state": ActorState.WAITING_FOR_ARM, "resetting": True, "observation_age": 130.0}},
    "arm that never comes back from one in an evaluation": {"actor": {
        "state": ActorState.EVALUATING, "resetting": True, "observation_age": 130.0}},
    "buffers": {"machine": replace(MACHINE, shm_free=1000, processes=(replace(PROCESSES[0], shared_memory=True),
                                                                    *PROCESSES[1:]))},
    "buffers network": {"machine": replace(MACHINE, socket_buffer=1000), "actor": {"host": "another"}},
    "spaces": {"learner": {"space_difference": "order"}},
    "spaces arm": {"spaces": {OTHER.fingerprint: OTHER}},
    "spaces two": {"spaces": {OTHER.fingerprint: OTHER, SPACE.fingerprint: SPACE}},
    "network": {"actor": {"network_fingerprint": "other", "refusal": "policy version 3 refused: network fingerprint"}},
    "checksum": {"actor": {"refusal": "policy version 3 refused: checksum: learner a, received data b"}},
    "probe": {"actor": {"refusal": "policy version 3 refused: probe: learner's action [0]"}},
    "refused": {"actor": {"refusal": "policy version 3 refused: size: expected 3 bytes, found 4"}},
    "demo_rewards": {"manifest": replace(MANIFEST, highest_reward=0.0)},
    "training_starts": {"learner": {"state": LearnerState.FILLING, "training_starts": 300_000, "gradient_step": 0}},
    "training_starts slow": {
        "learner": {"state": LearnerState.FILLING, "training_starts": 150_000, "online_buffer_size": 60},
        "earlier_learner": {"online_buffer_size": 10}},
    "transitions": {"actor": {"transitions_acked": 1900, "transitions_unacked": 200}},
    "transitions not sent": {"actor": {"transitions_sent": 1900}},
    "transitions refused": {"learner": {"transitions_rejected": 500}, "earlier_learner": {"transitions_rejected": 0}},
    "policy_lag": {"actor": {"applied_version": 1}},
    "policy_lag none": {"actor": {"applied_version": 0, "state": ActorState.WAITING_FOR_POLICY}},
    "frozen": {"learner": {"parameter_change": 0.0}},
    "q_values": {"learner": {"q_mean": -90.0}},
    "q_values that swing": {"earlier_learner": {"q_mean": -90.0}},
    "began_anew": {"learner": {"restored_env_steps": 1500}},
    "random_actions": {"actor": {"random_steps": 1_000_000, "random_share": 1.0}},
    "random_actions long": {"actor": {"random_steps": 3000, "random_share": 1.0}},
    "clock": {"late": -60.0},
    "clock a little": {"late": -2.0},
    "overruns where the arm refuses each action": {
        "actor": {"env_steps": 2100, "overruns": 50}, "earlier_actor": {"overruns": 0}},
    "overruns": {"actor": {"overruns": 50}, "earlier_actor": {"overruns": 0}},
    "demo_actions": {"manifest": replace(MANIFEST, saturated_share=0.99)},
    "stale_data": {"learner": {"data_age": 30.0}},
    "entropy": {"learner": {"entropy": 1.38}},
    "saturated": {"actor": {"saturated_share": 0.99}},
    "reward": {"learner": {"reward_seen": 0.0, "env_steps": 6000}},
    "imitation": {"learner": {"demo_action_distance": 0.79, "gradient_step": 4000}},
    "stale_data for a person who has left": {"learner": {"data_age": 900.0, "gradient_step": 2000}, "actor": {
        "state": ActorState.WAITING_FOR_PERSON}},
    "nodes where another run's learner is elsewhere": {"graph": wires(without="learner"), "machine": replace(
        machine_without("learner"), processes=(*machine_without("learner").processes, replace(
            PROCESSES[list(MARKS).index("learner")], domain=9)))},
    "restarts that come slowly": {"slow_restarts": {"learner": 6}},
    "utd": {"learner": {"utd_measured": 0.3}},
    "utd high": {"learner": {"utd_measured": 30.0}},
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_named_first(name):
    found = evidence(**FAULTS[name])
    assert verdict(found) == name.split()[0]
    first = faults(diagnose(found))[0]
    for language in LANGUAGES:
        assert first.summary.in_language(language)
        assert first.remedy.in_language(language) == first.check.remedy.in_language(language)


def test_every_check_has_a_fault_that_it_names():
    assert {name.split()[0] for name in FAULTS} == {check.name for check in CHECKS}


HARMLESS = {
    "a long filling brings no reward": {"learner": {"reward_seen": 0.0, "env_steps": 6000, "training_starts": 5000}},
    "the learner has finished and is gone": {
        "learners": {}, "graph": wires(without="learner"), "actor": {"state": ActorState.FINISHED}},
    "an evaluation keeps its version": {"actor": {"applied_version": 20, "state": ActorState.EVALUATING}},
    "an evaluation brings no data": {"learner": {"data_age": 100.0}, "actor": {"state": ActorState.EVALUATING}},
    "a learner compiles silently": {"silent": "learner", "learner": {"gradient_step": 0}},
    "a learner compiles again, for demonstrations": {"silent": "learner", "learner": {"compiling": True}},
    "a learner that was killed lives on as another": {"learners": heard((LEARNER, 9.0, 2.0), (LEARNER_2, 1.5, 0.0))},
    "a learner that was killed lingers in the graph": {"graph": twice("learner")},
    "an actor that was killed lives on as another": {
        "actors": heard((ACTOR, 9.0, 2.0), (ACTOR_2, 1.5, 0.0)), "graph": twice("actor")},
    "an arm driver that was killed lingers in the graph": {
        "graph": twice("arm_driver", first=NOW - 99.0, second=NOW - 15.0)},
    "one of two drivers that was killed lingers in the graph": {
        "graph": replace(twice("arm_driver"), endpoints=(
            *twice("arm_driver").endpoints, Endpoint("space_spec", "/arm_driver2", True, "third"))),
        "machine": replace(MACHINE, processes=(*PROCESSES, SECOND_DRIVER))},
    "two actors with an arm each": {
        "actors": heard((ACTOR, 9.0, 0.0), (replace(ACTOR, session="actor2-2"), 9.0, 0.0)),
        "graph": twice("actor", "/actor2", ("observation", "action"))},
    "the actors of a finished run have ended": {
        "learner": {"state": LearnerState.FINISHED}, "actor": {"state": ActorState.FINISHED}, "restarts": {"actor": 2}},
    "a finished policy is played": {
        "graph": replace(wires(without="learner"), endpoints=tuple(
            end for end in wires(without="learner").endpoints
            if end.node != NAMES["actor"] or end.topic not in ("policy_params", "transitions_ack"))),
        "learners": {}, "machine": machine_without("learner")},
    "another run below": {**two_arms((RIGHT, 9.0, 0.0)), "graph": replace(
        two_arms()["graph"], elsewhere={"arm_driver": "/third", "learner": "/third"})},
    "another arm, which nobody uses": {"graph": replace(wires(), elsewhere={"arm_driver": "/right"})},
    "another run beside": {"graph": replace(wires(), elsewhere={"arm_driver": "/right"}),
                           "machine": replace(MACHINE, namespace="/left", processes=tuple(
                               replace(p, namespace="/left") for p in PROCESSES))},
    "two arms, one in a namespace": two_arms((RIGHT, 9.0, 0.0)),
    "two arms, of which one's actor was started again": two_arms(
        (RIGHT, 9.0, 5.0), (replace(RIGHT, session="right.actor-2"), 3.0, 0.0)),
    "an arm resets for long": {"learner": {"data_age": 60.0}, "actor": {
        "state": ActorState.WAITING_FOR_ARM, "resetting": True, "observation_age": 60.0}},
    "an arm resets in an evaluation": {"learner": {"data_age": 60.0}, "actor": {
        "state": ActorState.EVALUATING, "resetting": True, "observation_age": 60.0, "applied_version": 20}},
    "an arm has just reset": {"learner": {"data_age": 60.0}, "earlier_actor": {"resetting": True}},
    "an arm driver that was started again resets": {"machine": process("arm_driver", age=50.0), "actor": {
        "state": ActorState.WAITING_FOR_ARM, "observation_age": 55.0}},
    "an arm's first reset takes long": {"machine": process("arm_driver", age=60.0), "learner": {
        "gradient_step": 0, "state": LearnerState.FILLING, "data_age": -1.0}, "actor": {
        "state": ActorState.WAITING_FOR_ARM, "observation_age": 55.0, "env_steps": 0}},
    "a learner has just read its log back": {
        "actor": {"transitions_acked": 1900, "transitions_unacked": 200},
        "earlier_learner": {"state": LearnerState.WAITING_FOR_SPACE}},
    "transitions were lost long ago": {"actor": {"transitions_lost": 1}},
    "late answers in an evaluation": {
        "actor": {"env_steps": 2100, "overruns": 50, "state": ActorState.EVALUATING}, "earlier_actor": {"overruns": 0}},
    "a person holds the arm in an evaluation": {"learner": {"data_age": 60.0}, "actor": {
        "applied_version": 20, "state": ActorState.WAITING_FOR_PERSON}},
    "training ended in an evaluation": {"learner": {"state": LearnerState.FINISHED}, "actor": {
        "applied_version": 20, "state": ActorState.FINISHED}},
    "arms wait for a slow learner": {"learner": {"data_age": 60.0}, "actor": {"state": ActorState.WAITING_FOR_BUDGET}},
    "what an earlier life kept is sent": {
        "actor": {"transitions_acked": 0, "transitions_unacked": 4000},
        "earlier_actor": {"transitions_acked": 0, "transitions_unacked": 9000}},
    "an actor compiles on another host": {"silent": "actor", "machine": machine_without("actor"), "actor": {
        "host": "another",
        "state": ActorState.WAITING_FOR_SPACE, "applied_version": 0}},
    "a learner computes features": {"silent": "learner", "learner": {
        "state": LearnerState.WAITING_FOR_DEMONSTRATIONS, "gradient_step": 0, "demo_buffer_size": 0}},
    "a learner on another host has not spoken yet": {
        "learners": {}, "machine": machine_without("learner"),
        "graph": replace(wires(), nodes=dict.fromkeys(wires().nodes, NOW - 20.0))},
    "a learner that compiles in a container of the same host name": {
        "silent": "learner", "machine": machine_without("learner"), "learner": {"host": HOST, "compiling": True}},
    "an arm on another host resets at first": {"machine": machine_without("arm_driver"), "learner": {
        "gradient_step": 0, "state": LearnerState.FILLING, "data_age": -1.0}, "actor": {
        "state": ActorState.WAITING_FOR_ARM, "observation_age": 12.0, "env_steps": 0}},
    "critics that value entropy": {"learner": {
        "q_mean": 65.0, "temperature": 0.8, "entropy": 1.0, "reward_seen": 1.0}},
    "an actor is starting": {"silent": "actor", "machine": process("actor", age=5.0)},
    "a node is starting": {"graph": wires(without="actor"), "actors": {}, "machine": process("actor", age=5.0)},
    "another run is elsewhere": {"machine": replace(MACHINE, processes=(
        *PROCESSES, *(replace(p, domain=9, pid=p.pid + 10) for p in PROCESSES)))},
    "random steps of an earlier life": {"actor": {"random_steps": 2100, "env_steps": 50, "random_share": 0.5}},
    "random steps of which none is taken": {"actor": {"random_steps": 5000}},
    "random steps that end in time": {"actor": {"random_steps": 2200}, "learner": {"gradient_step": 0}},
    "negative rewards": {"learner": {"reward_seen": 0.0, "reward_lowest": -16.0, "env_steps": 9000, "q_mean": -200.0}},
    "training is over": {"learner": {"state": LearnerState.FINISHED}, "graph": wires(without="actor"), "actors": {},
                         "machine": EMPTY},
    "a long way over one machine": {"machine": replace(MACHINE, socket_buffer=1000)},
    "demonstrations are looked at one by one": {
        "learner": {"state": LearnerState.WAITING_FOR_DEMONSTRATIONS, "gradient_step": 0, "text": "3 to go"},
        "earlier_learner": {"text": "9 to go"}},
    "a slow learner is waited for": {"learner": {"data_age": 30.0, "env_steps": 2120}},
    "a camera that was late long ago": {"cameras": {"wrist": CameraSight(NOW - 9.0, True, True, "no image")}},
    "one restart": {"restarts": {"learner": 1}},
    "clocks that nearly agree": {"late": -0.5},
    "a process that cannot be seen, but speaks": {"machine": machine_without("learner")},
    "a node that has just been found": {"actors": {}, "machine": machine_without("actor"),
                                        "graph": replace(wires(), nodes={**wires().nodes, "/actor": NOW - 1.2})},
    "demonstrations are on their way": {
        "learner": {"state": LearnerState.WAITING_FOR_DEMONSTRATIONS, "demo_buffer_size": 9, "gradient_step": 0,
                    "version": 1}, "earlier_learner": {"demo_buffer_size": 5}, "actor": {"applied_version": 1}},
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_looks_like_a_fault_and_is_none(name):
    assert verdict(evidence(**HARMLESS[name])) == ""


def test_another_run_on_this_machine_does_not_explain_a_missing_node():
    others = tuple(replace(p, domain=9, pid=p.pid + 10) for p in PROCESSES)
    ours = tuple(p for p in PROCESSES if p.node != "learner")
    found = evidence(graph=wires(without="learner"), learners={}, machine=replace(MACHINE, processes=ours + others))
    assert verdict(found) == "nodes"


def test_a_whole_run_in_another_namespace_does_not_explain_it_either():
    elsewhere = dict.fromkeys(MARKS, "/another")
    found = evidence(graph=replace(wires(without="learner"), elsewhere=elsewhere), learners={},
                     machine=machine_without("learner"))
    assert verdict(found) == "nodes"


@pytest.mark.parametrize(("changes", "says"), [
    ({"graph": wires(without="learner"), "learners": {}, "machine": EMPTY}, "it has died since it sent version 40"),
    ({"graph": wires(without="actor"), "actors": {}, "machine": EMPTY}, "it has died after 2100 environment steps"),
    ({"graph": wires(without="arm_driver"), "machine": EMPTY}, "it was not started, or runs where"),
    (FAULTS["duplicates drivers"], "2 arm drivers observe in namespace /: /arm_driver, /arm_driver; on this machine "
                                   "process 102 since 100 s, process 200 since 100 s"),
    (FAULTS["duplicates actors of other names"], f"actor-1 ({HOST}), mine-2 ({HOST})"),
    ({"actor": {"network_fingerprint": "other"}}, "learner net, actor other"),
    ({"actor": {"network_fingerprint": "other", "refusal": "hidden_dims"}}, "hidden_dims"),
])
def test_what_is_known_of_a_fault_is_told(changes, says):
    assert says in faults(diagnose(evidence(**changes)))[0].summary.en


@pytest.mark.parametrize("complete", [True, False])
def test_what_bags_of_demonstrations_lack_is_told(complete):
    findings = diagnose(evidence(manifest=replace(MANIFEST, complete=complete)))
    (finding,) = [finding for finding in findings if finding.check.name == "demonstrations"]
    assert finding.level is Level.OK
    assert ("their bags lack records" in finding.summary.en) != complete


def test_a_finding_is_short_whatever_names_strangers_give():
    named = faults(diagnose(evidence(actor={"network_fingerprint": "x" * 10**6})))[0]
    assert named.check.name == "network"
    assert all(len(named.summary.in_language(language)) < 2100 for language in LANGUAGES)


def test_an_error_goes_before_a_warning_that_could_cause_it():
    found = evidence(actor={"random_steps": 1_000_000, "random_share": 1.0}, learner={"parameter_change": 0.0})
    assert [f.check.name for f in faults(diagnose(found))] == ["frozen", "random_actions"]


def test_an_arm_that_refuses_each_action_is_an_error_and_not_late():
    found = faults(diagnose(evidence(**FAULTS["overruns where the arm refuses each action"])))[0]
    assert found.level is Level.ERROR
    assert "executed none of the last 50 actions" in found.summary.en


def test_an_actor_that_has_been_blocked_for_long_is_not_taken_for_one_that_never_spoke():
    found = faults(diagnose(evidence(actors=heard((replace(ACTOR, host="another"), 100.0, 90.0)))))[0]
    assert "has said nothing for 90.0 s" in found.summary.en


def test_of_several_arms_the_one_is_named():
    lacking = replace(RIGHT, state=ActorState.WAITING_FOR_ARM, text="no observation for 9 s", observation_age=50.0)
    found = faults(diagnose(evidence(**two_arms((lacking, 9.0, 0.0)))))[0]
    assert found.check.name == "arm"
    assert found.summary.en == "the actor right.actor-1 gets no observations: no observation for 9 s"
    assert found.summary.zh.startswith("执行器 right.actor-1 ")


def test_a_success_without_reward_is_an_error_at_once():
    episode = EpisodeSummary("a", 1, 9, 0.0, True, True, False, False, 0, False, 0, 0, 1, 1, 9, 0.0, 9, 0, 0, 1.0)
    found = evidence(learner={"reward_seen": 0.0})
    assert verdict(found) == ""
    found.episodes.append(episode)
    assert verdict(found) == "reward"


def test_of_statuses_that_were_kept_for_who_comes_late_the_newest_ones_age_counts():
    collector = Collector(1)
    for stamp in (NOW - 9.0, NOW - 8.4, NOW - 8.39):  # the last two right after each other, as before a compilation
        collector.hear_learner(LEARNER, stamp, NOW - 3.0)
    assert collector.evidence.learner_track.silence(NOW) == pytest.approx(8.39)
    collector.hear_learner(LEARNER, NOW - 7.0, NOW - 2.5)  # it lives; its clock is not ours
    assert collector.evidence.learner_track.silence(NOW) == pytest.approx(2.5)


def test_nothing_heard_is_nothing_to_examine():
    assert Evidence().empty
    assert not evidence().empty


def test_a_node_that_gave_up_an_endpoint_just_now_is_ending_and_not_remapped():
    collector = Collector(1)
    for at, graph, found in ((-2.0, wires(), ""), (0.0, wires(unplugged="observation"), ""),
                             (4.0, wires(unplugged="observation"), "connections")):
        collector.look(graph, MACHINE, NOW + at)
        assert verdict(evidence(graph=replace(collector.evidence.graph, nodes=graph.nodes))) == found


def test_two_publishers_of_one_node_s_name_are_told_apart_and_keep_their_times():
    collector = Collector(1)
    for at, graph in ((0.0, wires()), (1.0, twice("arm_driver")), (2.0, twice("arm_driver"))):
        collector.look(graph, MACHINE, NOW + at)
    assert {gid: since - NOW for gid, since in collector.evidence.graph.since.items()} == {"first": 1.0, "second": 1.0}
    assert [end.gid for end in collector.evidence.graph.publishers("observation")["/"]] == ["first", "second"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_troubleshooting_table_has_a_row_per_check(language):
    rows = troubleshooting_rows(language)
    assert [re.match(r"\| `(\w+)` \| [^|]+ \| [^|]+ \|$", row)[1] for row in rows[2:]] == [c.name for c in CHECKS]


def test_chinese_is_chinese():
    for check in CHECKS:
        for text in (check.title, check.symptom, check.remedy):
            assert re.search("[\u4e00-\u9fff]", text.zh), check.name
            assert not re.search("[\u4e00-\u9fff]", text.en), check.name


def test_what_is_open_to_nobody_is_not_warned_of():
    reachable = process("actor", discovery="SUBNET")
    assert verdict(evidence(machine=replace(reachable, networked=False))) == ""
    secured = process("actor", discovery="SUBNET", secured=True)
    assert verdict(evidence(machine=replace(secured, networked=True))) == ""
    elsewhere = process("actor", discovery="SUBNET", domain=6)  # another run, of another examination
    assert verdict(evidence(machine=replace(elsewhere, networked=True))) == ""
