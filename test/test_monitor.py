# SPDX-License-Identifier: Apache-2.0
"""Monitor and doctor on real middleware, and the doctor on what a run leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer

from rlpd_ros import cli
from rlpd_ros.cli import ros_doctor
from rlpd_ros.diagnosis import CHECKS, diagnose, faults
from rlpd_ros.diagnosis.from_run import evidence_of_run
from rlpd_ros.metrics import MetricsWriter
from rlpd_ros.nodes.actor import ActorNode
from rlpd_ros.nodes.learner import LearnerNode
from rlpd_ros.nodes.monitor import MonitorNode
from rlpd_ros.ros import definitions, messages, qos
from rlpd_ros.runs import RunDirectory
from rlpd_ros.status import ActorReport, ActorState, LearnerReport, LearnerState

LEARNER = LearnerReport("learner-1", state=LearnerState.TRAINING, gradient_step=900, version=9, env_steps=1000,
                        online_buffer_size=1000, training_starts=100, reward_seen=1.0, parameter_change=1.0)
ACTOR = ActorReport("actor-1", state=ActorState.WAITING_FOR_POLICY, refused_version=9,
                    refusal="policy version 9 refused: checksum: learner a, received data b")


def message_of(report):
    topic = qos.LEARNER_STATUS if isinstance(report, LearnerReport) else qos.ACTOR_STATUS
    return messages.from_fields(topic.type, report, time.time_ns())


def test_the_monitor_tells_every_check_with_its_remedy(graph):
    graph.listen(qos.DIAGNOSTICS)
    graph.add(MonitorNode, period=0.2, language="zh")
    publishers = {report: qos.publisher(graph.ears, topic) for report, topic in (
        ("learner", qos.LEARNER_STATUS), ("actor", qos.ACTOR_STATUS))}

    def statuses():
        publishers["learner"].publish(message_of(LEARNER))
        publishers["actor"].publish(message_of(ACTOR))
        last = graph.last(qos.DIAGNOSTICS)
        return {status.name: status for status in last.status} if last else {}

    found = graph.until(lambda: (s := statuses()) and s["rlpd: checksum"].level == DiagnosticStatus.ERROR and s,
                        "the refusal")
    assert set(found) == {f"rlpd: {check.name}" for check in CHECKS}
    refusal = found["rlpd: checksum"]
    values = {value.key: value.value for value in refusal.values}
    check = next(check for check in CHECKS if check.name == "checksum")
    assert (values["refused"], values["applied"], values["remedy"]) == ("9", "0", check.remedy.zh)
    assert "received data b" in refusal.message
    assert found["rlpd: frozen"].level == DiagnosticStatus.OK
    assert found["rlpd: clock"].level in (DiagnosticStatus.OK, DiagnosticStatus.STALE)


def test_two_actors_of_one_name_on_the_same_arm_are_found(graph):
    graph.listen(qos.DIAGNOSTICS)
    graph.add(MonitorNode, period=0.2)

    def duplicates():
        last = graph.last(qos.DIAGNOSTICS)
        return next((s for s in last.status if s.name == "rlpd: duplicates"), None) if last else None

    first = graph.add(ActorNode, hidden_dims=[8])
    graph.until(lambda: (s := duplicates()) and s.level == DiagnosticStatus.OK)
    second = graph.add(ActorNode, hidden_dims=[8])
    found = graph.until(lambda: (s := duplicates()) and s.level == DiagnosticStatus.ERROR and s, "both")
    assert "2 actors command the arm in namespace /: actor-" in found.message
    assert all(actor._session in found.message for actor in (first, second))
    graph.remove(second)
    graph.until(lambda: duplicates().level == DiagnosticStatus.OK, "one only")


BEST_EFFORT = {"qos_overrides./policy_params.publisher.reliability": "best_effort"}


def test_the_middleware_tells_both_nodes_which_topic_it_refused_to_connect(graph, small, tmp_path):
    graph.listen(qos.DIAGNOSTICS, qos.ACTOR_STATUS, qos.LEARNER_STATUS)
    graph.add(MonitorNode, period=0.2)
    graph.add(LearnerNode, run=str(RunDirectory.create(tmp_path, "run").path), **small, **BEST_EFFORT)
    graph.add(ActorNode, hidden_dims=[8])
    for topic in (qos.ACTOR_STATUS, qos.LEARNER_STATUS):
        graph.until(lambda topic=topic: graph.last(topic) and graph.last(topic).incompatible_qos, topic.name)
        assert graph.last(topic).incompatible_qos == "policy_params: reliability"
    found = graph.until(lambda: [s for s in graph.last(qos.DIAGNOSTICS).status if s.name == "rlpd: qos" and s.level !=
                                 DiagnosticStatus.OK], "the mismatch")
    assert "policy_params: what /learner offers is less than /actor asks for" in found[0].message
    assert "Best effort publisher and reliable subscription" in found[0].message


def ask(*arguments: str, capsys) -> tuple[int, dict]:
    status = cli.main(["doctor", "--json", *arguments])
    got = capsys.readouterr()
    assert got.out, got.err
    return status, json.loads(got.out)


def test_the_doctor_finds_nothing_where_nothing_is(domain, capsys):
    status, told = ask(capsys=capsys)
    assert (status, told["verdict"], told["checks"]) == (2, None, [])
    assert "nothing to examine" in told["notes"][0]


def test_ros2_run_reaches_the_same_doctor(domain, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["doctor", "--json", "--ros-args", "-r", "__node:=x"])
    assert ros_doctor.main() == 2
    assert json.loads(capsys.readouterr().out)["status"] == 2


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    made = RunDirectory.create(tmp_path, "run")
    made.write_parameters({"/**/learner": {"ros__parameters": {"training_starts": 100, "utd_ratio": 2}},
                           "/**/actor": {"ros__parameters": {"random_steps": 0}}})
    return made


def record(run: RunDirectory, change: float = 1.0, applied: int = 20) -> None:
    with MetricsWriter(run, tensorboard=False) as metrics:
        for version in range(1, 22):
            metrics.write("policies", 50 * version, {"version": version, "gradient_step": 50 * version,
                                                     "change": change})
            metrics.write("learner", 50 * version, {
                "gradient_step": 50 * version, "env_steps": 50 * version, "version": version, "utd_measured": 2.0,
                "parameter_change": change, "q_mean": 0.2, "demo_buffer_size": 100, "online_buffer_size": 50 * version})
        if applied:
            metrics.write("policies", 1050, {"version": applied, "actor": "actor-1", "age_ms": 5.0})


def test_a_run_that_went_well_is_healthy(run, capsys):
    record(run)
    (run.logs / "learner.log").write_text("[INFO] [1.0] [learner]: step 1050: ...\n")
    status, told = ask(str(run.path), capsys=capsys)
    assert (status, told["verdict"]) == (0, None)


def test_a_run_that_ended_in_an_evaluation_does_not_lag(run, capsys):
    record(run, applied=4)
    with MetricsWriter(run, tensorboard=False) as metrics:
        metrics.write("policies", 1100, {"version": 100, "gradient_step": 1100, "change": 1.0})
        for evaluation in (0, 1):
            assert ask(str(run.path), capsys=capsys)[1]["verdict"] == "policy_lag"
            metrics.write("episodes", 1050 + evaluation, {
                "env_steps": 1050, "policy_version": 4, "episode_return": 1.0, "evaluation": evaluation, "steps": 9,
                "random_actions": 0, "policy_actions": 9})
    assert ask(str(run.path), capsys=capsys)[1]["verdict"] is None


INFO, WARN = ("[INFO] [1.0] ", "[WARN] [1.0] ")
REFUSED = f"{WARN}[actor]: refused network parameters: version 3: policy version 3 refused: "
LEFT = {
    "policy_lag": ({"applied": 0}, {}),
    "frozen": ({"change": 0.0}, {}),
    "demonstrations": ({}, {"demo_loader": f"{INFO}[demo_loader]: x\ndemo_loader: nothing at /nowhere\n"}),
    "nodes killed": ({}, {"learner": f"{INFO}[learner]: step 9\nlearner: was killed by SIGKILL\n"}),
    "nodes of an arm": ({}, {"right.arm_driver": "Traceback (most recent call last):\nRuntimeError: no cable\n"}),
    "nodes": ({}, {"actor": "Traceback (most recent call last):\n  File 'x'\nValueError: a fault\n"}),
    "failed": ({}, {"learner": f"{WARN}[learner]: not finite at gradient step 7: critic_loss\n"}),
    "disk": ({}, {"learner": f"{WARN}[learner]: x: No space left. Nothing is acknowledged until it can be: y\n"}),
    "spaces": ({}, {"learner": f"{WARN}[learner]: the arm driver's space differs from that of this run: order\n"}),
    "checksum": ({"applied": 0}, {"actor": f"{REFUSED}checksum: learner a, received data b\n"}),
    "qos": ({}, {"actor": f"{WARN}[actor]: incompatible quality of service on policy_params: reliability: a publisher "
                          "offers less, and nothing is delivered; remove ...\n"}),
    "network": ({"applied": 0}, {"actor": f"{REFUSED}network fingerprint: learner a, actor b (widths)\n"}),
}


@pytest.mark.parametrize("name", LEFT)
def test_a_run_tells_afterwards_what_went_wrong(run, capsys, name):
    numbers, logs = LEFT[name]
    record(run, **numbers)
    for node, text in logs.items():
        (run.logs / f"{node}.log").write_text(text)
    status, told = ask(str(run.path), capsys=capsys)
    assert (status, told["verdict"]) == (1, name.split()[0]), told["checks"][0]


BEGINS, FAILS = f"{INFO}[learner]: waiting for space_spec from the arm driver\n", LEFT["failed"][1]["learner"]
ENDS = f"{INFO}[learner]: finished: max_steps 900 reached\n"


@pytest.mark.parametrize(("log", "cause"), [
    (BEGINS + ENDS + BEGINS + FAILS, "failed"), (BEGINS + FAILS + BEGINS + ENDS, None)],
    ids=["failed after it had finished", "finished after it had failed"])
def test_how_the_last_life_of_a_run_ended_is_told(run, capsys, log, cause):
    record(run)
    run.write_summary({"success_rate": None, "eval_episodes": 0, "env_steps": 900, "gradient_steps": 900, "wall_s": 9.0,
                       "seed": 0, "preset": "", "outcome": "max_steps 900 reached"})
    (run.logs / "learner.log").write_text(log)
    assert ask(str(run.path), capsys=capsys)[1]["verdict"] == cause


def test_a_refusal_that_was_followed_by_an_application_is_none(run):
    record(run)
    (run.logs / "actor.log").write_text(
        "[WARN] [1.0] [actor]: refused network parameters: version 3: checksum: x\n"
        "[INFO] [2.0] [actor]: received network parameters: version 4, learner step 9\n")
    assert not faults(diagnose(evidence_of_run(run.path, 5000)))


@pytest.mark.parametrize("change", ["", "checksum"])
def test_a_bag_of_the_status_topics_tells_the_same(tmp_path, capsys, change):
    actor = replace(ACTOR, state=ActorState.ACTING, applied_version=9, refusal=ACTOR.refusal if change else "")
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        for name, reports in (("learner_status", [LEARNER] * 9), ("actor_status", [actor] * 9)):
            type_name = f"rlpd_ros/msg/{'Learner' if 'learner' in name else 'Actor'}Status"
            connection = bag.add_connection(f"/left/{name}", type_name, msgdef=definitions.definition(type_name),
                                            rihs01="RIHS01_" + "0" * 64)
            for i, report in enumerate(reports):
                message = message_of(report)
                message.header.stamp.sec = i + 10
                bag.write(connection, (i + 10) * 10**9, bytes(serialize_message(message)))
    status, told = ask(str(tmp_path / "bag"), capsys=capsys)
    assert (status, told["verdict"]) == ((1, change) if change else (0, None)), told["checks"][0]


def test_neither_run_nor_bag_is_refused_in_one_line(tmp_path, capsys):
    assert cli.main(["doctor", str(tmp_path / "nowhere")]) == 2
    assert cli.main(["doctor", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_table_is_printed_in_both_languages(run, capsys):
    record(run, change=0.0)
    for language, cause in (("en", "most likely cause: frozen"), ("zh", "最可能的原因: frozen")):
        assert cli.main(["doctor", str(run.path), "--lang", language]) == 1
        assert cause in capsys.readouterr().out


def test_the_doctor_s_help_needs_no_ros():
    done = subprocess.run([sys.executable, "-c", "import sys; from rlpd_ros.cli import main\n"
                           "try: main(['doctor', '--help'])\nexcept SystemExit: pass\nprint('rclpy' in sys.modules)"],
                          capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.endswith("False\n")
