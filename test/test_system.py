# SPDX-License-Identifier: Apache-2.0
"""The whole system as a user starts it: real processes, real middleware, small networks and few steps."""

from __future__ import annotations

import os
import re
import signal
import time

import numpy as np
import pytest
from training_world import children, expect_nothing_lost, wait_until_gone

from rlpd_ros.exported_policy import load_policy
from rlpd_ros.metrics import read_table, table_path
from rlpd_ros.ros import qos
from rlpd_ros.ros.bags import TransitionLog
from rlpd_ros.runs import RunDirectory

pytestmark = pytest.mark.slow


def checkpoints(run: RunDirectory) -> list[int]:
    return sorted(int(path.name) for path in run.checkpoints.iterdir() if path.name.isdigit())


def test_training_leaves_everything_behind(finished, spec):
    run, _ = finished
    summary = run.read_summary()
    assert (summary.gradient_steps, summary.seed, summary.preset) == (60, 5, "default")
    assert summary.outcome == "max_steps 60 reached"
    assert summary.eval_episodes == 2
    assert 90 <= summary.env_steps <= 60 + 30 + 20
    assert summary.wall_s > 0
    assert checkpoints(run) == [20, 40, 60]
    assert load_policy(run.policy).gradient_step == 60
    records = list(TransitionLog.read(run.transitions, spec))
    assert summary.env_steps <= len(records) <= summary.env_steps + 20  # what came while the run was ending is kept
    assert [r.sequence for r in records] == list(range(1, len(records) + 1))
    assert run.report.read_text().startswith("<!")
    learner, episodes = (read_table(table_path(run.metrics, name)) for name in ("learner", "episodes"))
    assert list(learner["gradient_step"]) == [10, 20, 30, 40, 50, 60]
    brought = np.diff(learner["env_steps"])
    assert learner["utd_measured"][1:][brought > 0] == pytest.approx(2 * 10 / brought[brought > 0])
    assert set(episodes["evaluation"]) == {0, 1}
    assert sorted(path.stem for path in run.logs.iterdir())[:4] == ["actor", "arm_driver", "demo_loader", "learner"]


def test_training_says_what_people_look_for(finished):
    _, text = finished
    for pattern in (
            r"recording 20 demonstrations with the arm's scripted expert",
            r"demo_loader \| .*\d+ transitions in 20 demonstrations from 1 bag\(s\), 20 successful",
            r"learner \| .*sent initial network to actor: version 1, learner step 0, checksum \w{16}, change 0",
            r"learner \| .*published: version 2, learner step 10, checksum \w{16}, change 0\.\d+",
            r"learner \| .*step 10: online buffer size: \d+, demo buffer size: \d+, [\d.]+ steps/s, critic_loss",
            r"actor \| .*received network parameters: version 1, learner step 0, checksum \w{16}, change 0, age ",
            r"learner \| .*evaluation 1 of version \d+: \d of 2 greedy episodes successful",
            r"learner \| .*finished: max_steps 60 reached; kept version 7",
            r"rlpd \| everything stopped within \d\.\d s",
            r"rlpd \| report: runs/x/report.html"):
        assert re.search(pattern, text), f"no {pattern!r} in:\n{text}"
    assert "Traceback" not in text


def test_a_finished_run_can_be_continued(train, copy, spec):
    before = copy.read_summary()
    training = train("--resume", "runs/x", **{"learner.max_steps": "140"})  # needs more than what the log has
    assert training.wait() == 0, training.text
    assert re.search(r"resumed .*runs/x at learner step 60: online buffer size: \d+", training.text)
    assert "sent initial network" not in training.text
    summary = copy.read_summary()
    assert summary.gradient_steps == 140
    assert summary.wall_s > before.wall_s
    records = list(TransitionLog.read(copy.transitions, spec))
    assert len(records) >= summary.env_steps > before.env_steps
    assert len({r.session for r in records}) == 2
    versions = read_table(table_path(copy.metrics, "policies"))
    published = [int(v) for v, actor in zip(versions["version"], versions["actor"], strict=True) if not actor]
    assert published == sorted(set(published))
    assert published[-1] > 7


def test_a_checkpoint_of_another_network_is_named_and_nothing_is_overwritten(train, copy):
    parameters, steps, policy = copy.parameters.read_bytes(), checkpoints(copy), copy.policy.read_bytes()
    training = train("--resume", "runs/x", hidden_dims="[24]")
    assert training.wait() == 2, training.text
    (line,) = {line.partition("| ")[2] for line in training.text.splitlines() if "network fingerprint: " in line}
    assert line.startswith(f"learner: {copy.checkpoints}/60: network fingerprint: expected ")
    assert "Traceback" not in training.text
    assert (copy.parameters.read_bytes(), checkpoints(copy), copy.policy.read_bytes()) == (parameters, steps, policy)


def test_whoever_is_killed_training_goes_on_and_ctrl_c_saves_it(train, tmp_path, spec, demonstrations, make_graph):
    training = train("--run", "x", "--demos", str(demonstrations), **{
        "learner.max_steps": "1000000", "eval_every": "0", "checkpoint_period": "50"})
    graph = make_graph(training.domain)  # an independent recording of what is sent, and of the receipts
    graph.listen(qos.TRANSITIONS, qos.TRANSITIONS_ACK, qos.POLICY_VERSION, qos.LEARNER_STATUS)

    def step_after(step: int) -> int:
        def reached() -> int:
            assert training.process.poll() is None, training.text
            status = graph.last(qos.LEARNER_STATUS)
            return status.gradient_step if status and status.gradient_step > step else 0

        return graph.until(reached)

    def hear(count: int) -> None:
        """Let so many more transitions be heard: a fast machine has done a lot before this ear is found."""
        enough = len(graph.heard["transitions"]) + count
        graph.until(lambda: len(graph.heard["transitions"]) >= enough)

    step = step_after(60)
    hear(30)
    sessions = {message.learner_session for message in graph.heard["transitions_ack"]}
    os.kill(training.node("learner"), signal.SIGKILL)
    training.expect("learner was killed by SIGKILL: starting it again", graph.spin)
    graph.until(lambda: {message.learner_session for message in graph.heard["transitions_ack"]} > sessions)
    step = step_after(step)
    actors = {message.session for message in graph.heard["transitions"]}
    os.kill(training.node("actor"), signal.SIGKILL)
    training.expect("actor was killed by SIGKILL: starting it again", graph.spin)
    graph.until(lambda: len({message.session for message in graph.heard["transitions"]} - actors) == 1)
    hear(30)
    step = step_after(step)

    nodes = list(children(training.process.pid))
    assert len(nodes) >= 4
    began = time.monotonic()
    while training.process.poll() is None:  # who is impatient does not leave it half done
        training.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert training.wait() == 130, training.text
    assert time.monotonic() - began < 20  # 3 s on a machine that has nothing else to do
    wait_until_gone(nodes)
    assert "stopped; go on with: rlpd train --resume runs/x" in training.text
    assert "did not stop within" not in training.text
    assert "Traceback" not in training.text

    run = RunDirectory.open(tmp_path / "runs" / "x")
    assert checkpoints(run)[-1] >= step
    assert (run.transitions / "metadata.yaml").exists()
    expect_nothing_lost(graph, run, spec)
    versions = [message.version for message in graph.heard["policy_version"]]
    assert versions == sorted(versions)

    resumed = train("--resume", "runs/x", **{"learner.max_steps": str(checkpoints(run)[-1] + 5)})
    assert resumed.wait() == 0, resumed.text
    assert f"at learner step {checkpoints(run)[-1] - 5}" in resumed.text
    assert run.read_summary().gradient_steps == checkpoints(run)[-1]


def test_two_runs_at_once_do_not_mix_and_nodes_do_not_outlive_the_command(train, tmp_path, spec):
    trainings = {name: train("--run", name, "--demos", "none", "--seed", seed, **{"eval_every": "0"})
                 for name, seed in (("left", "1"), ("right", "2"))}
    assert trainings["left"].domain != trainings["right"].domain
    trainings["left"].expect("received network parameters")
    nodes = list(children(trainings["left"].process.pid))
    trainings["left"].process.kill()  # the other one must not care
    wait_until_gone(nodes)
    assert trainings["right"].wait() == 0, trainings["right"].text
    run = RunDirectory.open(tmp_path / "runs" / "right")
    records = list(TransitionLog.read(run.transitions, spec))
    assert len(records) >= run.read_summary().env_steps > 60
    assert len({r.session for r in records}) == 1
    assert run.read_summary().seed == 2


def test_demonstrations_of_another_space_end_it_with_one_line(train, demonstrations):
    training = train("--demos", str(demonstrations), control_rate="20.0")
    assert training.wait() == 2, training.text
    (line,) = {line.partition("| ")[2] for line in training.text.splitlines() if "of another space" in line
               and line.startswith("demo_loader")}
    assert line == (f"demo_loader: demonstrations of another space: {demonstrations}: control_rate: the arm has 20.0, "
                    "the bags have 10.0")


NO_LIMIT = """
import rlpd_ros.data.episodes
rlpd_ros.data.episodes.MAX_MAGNITUDE = float("inf")  # such rewards would be refused: this is about what if not
"""
HUGE_REWARDS = """
import gymnasium, numpy
class Huge(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,))
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return numpy.zeros(2, numpy.float32), {}
    def step(self, action):
        return numpy.zeros(2, numpy.float32), 1e30, False, False, {}
gymnasium.register("Huge-v0", Huge, max_episode_steps=20)
"""


def test_learning_that_fails_ends_it_and_says_why(train, tmp_path):
    (tmp_path / "huge_rewards.py").write_text(HUGE_REWARDS)
    (tmp_path / "sitecustomize.py").write_text(NO_LIMIT)
    training = train(
        "--run", "x", "--demos", "none", env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        arm="gymnasium", gym_import_module="huge_rewards", gym_env_id="Huge-v0")
    assert training.wait() == 1, training.text
    assert re.search(r"rlpd \| learning has failed: not finite at gradient step \d+: .*critic_loss", training.text)
    run = RunDirectory.open(tmp_path / "runs" / "x")
    assert checkpoints(run) == []
    assert not run.summary.exists()
