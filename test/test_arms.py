# SPDX-License-Identifier: Apache-2.0
"""Several arms that feed one learner, as real processes: none is disturbed by what happens to another."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from training_world import Training, expect_nothing_lost

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.factory import make_arm
from rlpd_ros.graph import train_graph
from rlpd_ros.ros import qos
from rlpd_ros.ros.bags import TransitionLog
from rlpd_ros.runs import RunDirectory


def test_each_arm_has_a_namespace_and_the_learner_is_shared():
    graph = {process.label: process for process in train_graph("/runs/x", namespace="lab", arms=("left", "right"))}
    assert set(graph) == {"demo_loader", "learner", "monitor", "left.arm_driver", "left.actor", "right.arm_driver",
                          "right.actor"}
    assert graph["right.actor"].namespace == graph["right.arm_driver"].namespace == "lab/right"
    assert graph["right.actor"].remaps["transitions"] == "/lab/transitions"
    assert "observation" not in graph["right.actor"].remaps
    assert graph["learner"].remaps == {"space_spec": "/lab/left/space_spec"}
    assert not train_graph("/runs/x")[0].remaps


def test_a_machine_can_have_one_of_the_arms():
    (driver, actor) = train_graph("/runs/x", nodes=("arm_driver", "actor"), arms=("right",))
    assert (driver.label, actor.label, actor.namespace) == ("right.arm_driver", "right.actor", "right")
    assert train_graph("/runs/x", nodes=("actor",), arms=("/lab/left",))[0].label == "lab.left.actor"  # a file
    assert actor.remaps["policy_params"] == "/policy_params"


def doctor(domain: int, graph) -> str:
    """Return which check `rlpd doctor` names first."""
    asked = subprocess.Popen(["rlpd", "doctor", "--json"], stdout=subprocess.PIPE, text=True,
                             env=os.environ | {"ROS_DOMAIN_ID": str(domain)})
    graph.until(lambda: asked.poll() is not None)
    return json.loads(asked.communicate()[0])["verdict"] or ""


@pytest.mark.slow
def test_one_arm_that_crashes_or_stands_still_does_not_disturb_the_other(tmp_path, make_graph):
    arm = make_arm(ArmConfig())
    arm.close()
    training = Training(tmp_path, "--run", "x", "--arms", "left", "right", "--demos", "none", **{
        "learner.max_steps": "1000000", "eval_every": "0", "checkpoint_period": "50"})
    try:
        graph = make_graph(training.domain)
        graph.listen(qos.TRANSITIONS, qos.TRANSITIONS_ACK, qos.LEARNER_STATUS)

        def stored(name: str) -> int:
            status = graph.last(qos.LEARNER_STATUS)
            assert training.process.poll() is None, training.text
            return sum(count for actor, count in zip(status.actors, status.actors_stored, strict=True)
                       if actor.startswith(f"{name}.actor-")) if status else 0

        def until_stored(name: str, count: int) -> None:
            graph.until(lambda: stored(name) > count, f"more than {count} of {name}:\n{training.text}")

        until_stored("left", 30)
        until_stored("right", 30)
        verdict = doctor(training.domain, graph)
        assert verdict in ("", "utd", "training_starts"), verdict  # nothing is missing, misplaced or unplugged
        os.kill(training.node("actor", "__ns:=/left"), signal.SIGKILL)
        training.expect("left.actor was killed by SIGKILL: starting it again", graph.spin)
        until_stored("right", stored("right") + 30)
        sessions = {message.session for message in graph.heard["transitions"]}
        graph.until(lambda: len({message.session for message in graph.heard["transitions"]} - sessions) == 1)
        stopped = training.node("arm_driver", "__ns:=/left")
        os.kill(stopped, signal.SIGSTOP)  # the left arm hangs
        until_stored("right", stored("right") + 60)
        os.kill(stopped, signal.SIGCONT)
        until_stored("left", stored("left") + 20)
    finally:
        training.stop()
    run = RunDirectory.open(tmp_path / "runs" / "x")
    expect_nothing_lost(graph, run, arm.spec)
    first = [record.observation.state.tobytes() for record in TransitionLog.read(run.transitions, arm.spec)
             if record.sequence == 1]
    assert len(set(first)) == len(first) >= 3  # the arms do not do the same, nor does the one that came back
    assert {"left.actor.log", "right.actor.log"} <= {path.name for path in run.logs.iterdir()}
