# SPDX-License-Identifier: Apache-2.0
"""The actor's logic, with a real policy, against an arm and a learner that the test plays by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlpd_ros.actor import Actor
from rlpd_ros.data.sender import Sender
from rlpd_ros.errors import DataError
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.policy import Policy, make_snapshot
from rlpd_ros.settings import ActorConfig
from rlpd_ros.status import ActorState, LearnerReport, LearnerState
from rlpd_ros.types import (
    Acknowledgement,
    ActionRecord,
    EpisodeSummary,
    Observation,
    PolicySnapshot,
    Source,
    SpaceField,
    SpaceSpec,
    TimeStep,
    TransitionRecord,
)

SPEC = SpaceSpec("point", (SpaceField.box("x", [-1, -1], [1, 1], "m"),),
                 (SpaceField.box("dx", [-0.1] * 3, [0.1] * 3, "m"),), 10.0, "world", 100)
POLICY = Policy(SPEC, PolicyConfig(hidden_dims=(8,)))
PARAMS = [POLICY.init(seed) for seed in range(9)]
EXECUTED = np.array([0.5, -0.5, 0.25], np.float32)  # what the arm does, whatever it is asked to


def snapshot(number: int = 1, **changes) -> PolicySnapshot:
    """Return the policy with the parameters of that number."""
    probe = Observation(np.array([0.3, -0.2], np.float32))
    made = make_snapshot(POLICY, PARAMS[number], SPEC, probe, session="learner-1", version=number,
                         gradient_step=50 * number, stamp=1_000_000)
    return replace(made, **changes)


class World:
    """An arm that the test moves and a learner that it plays; both clocks stand still unless moved."""

    def __init__(self, spec: SpaceSpec = SPEC, budget: int = 10**6, **config) -> None:
        self.now = 100.0
        self.actions: list[ActionRecord] = []
        self.sent: list[TransitionRecord] = []
        self.episodes: list[EpisodeSummary] = []
        self.resets = 0
        self.said: list[str] = []
        self.warnings: list[str] = []
        settings = ActorConfig(**config)
        sender = Sender("actor-1", settings.resend_period, settings.outbox_memory, self.warn)
        self.actor = Actor(settings, POLICY, spec, self, sender, lambda: self.now, lambda: 3_000_000)
        self.arm, self.episode, self.step, self.stamp = "arm-1", 0, 0, 0
        self.learner = "learner-1"
        self.acknowledge(0, budget)

    # What the actor does

    def act(self, action: ActionRecord) -> None:
        self.actions.append(action)

    def send(self, record: TransitionRecord) -> None:
        self.sent.append(record)

    def finish_episode(self, summary: EpisodeSummary) -> None:
        self.episodes.append(summary)

    def reset_arm(self) -> None:
        self.resets += 1

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    # What the world does

    def acknowledge(self, sequence: int, budget: int, env_steps: int = 0) -> None:
        self.actor.acknowledge(Acknowledgement(self.actor.session, self.learner, sequence, budget, env_steps))

    def observe(self, step: int, **fields) -> TimeStep:
        """Show the arm's state after ``step`` steps; it follows from episode and step."""
        self.step = step
        self.stamp += 1
        now = TimeStep(self.arm, self.episode, step, state(self.episode, step), stamp=self.stamp,
                       executed_action=EXECUTED if step else None)
        now = replace(now, **fields)
        self.actor.observe(now)
        return now

    def begin(self) -> TimeStep:
        self.episode += 1
        return self.observe(0)

    def advance(self, **fields) -> TimeStep:
        return self.observe(self.step + 1, **fields)

    def run_episode(self, steps: int, success: bool = False, reward: float = 0.0) -> None:
        self.begin()
        for i in range(1, steps + 1):
            self.advance(reward=reward, truncated=i == steps, success=success and i == steps)


def state(episode: int, step: int) -> Observation:
    return Observation(np.array([episode / 100, step / 100], np.float32))


def waits_for(world: World) -> tuple[ActorState, str]:
    report = world.actor.status()
    return ActorState(report.state), report.text


# Before the first policy


def test_without_a_policy_it_holds_still_and_says_so() -> None:
    world = World()
    for step in (0, 0, 0):
        world.observe(step)
        world.actor.tick()
    assert world.actions == []
    waiting, text = waits_for(world)
    assert waiting is ActorState.WAITING_FOR_POLICY
    assert "holding still: no policy received yet" in text
    world.actor.offer(snapshot())
    assert [a.source for a in world.actions] == [Source.POLICY]  # to the observation that was waiting
    assert world.actions[0].stamp == world.stamp
    assert waits_for(world)[0] is ActorState.ACTING


def test_a_person_needs_no_policy() -> None:
    world = World()
    world.begin()
    assert world.actions == []
    world.actor.intervene(np.ones(3))
    world.actor.tick()
    assert [(a.source, a.policy_version) for a in world.actions] == [(Source.INTERVENTION, 0)]
    world.now += 1.0
    world.observe(1)
    assert len(world.actions) == 1  # the person has let go
    assert waits_for(world)[0] is ActorState.WAITING_FOR_POLICY


@pytest.mark.parametrize("state", [LearnerState.FINISHED, LearnerState.FAILED])
def test_when_training_is_over_the_arm_holds_still_until_it_goes_on(state: LearnerState) -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    assert len(world.actions) == 1
    world.actor.hear(LearnerReport("learner-1", state=state, text="success rate 100%"))
    world.actor.intervene(np.ones(3))
    world.observe(1)
    assert len(world.actions) == 1
    assert len(world.sent) == 1  # what was done before is still told
    found, text = waits_for(world)
    assert found is ActorState.FINISHED
    assert "success rate 100%" in text
    world.actor.hear(LearnerReport("learner-1", state=LearnerState.TRAINING))
    world.actor.tick()
    assert len(world.actions) == 2


def test_random_steps_are_counted_exactly_and_marked() -> None:
    world = World(random_steps=7)
    for _ in range(2):
        world.run_episode(3)
    world.begin()
    assert "RANDOM for 1 more" in world.actor.status().text
    world.advance()
    assert len(world.actions) == 7
    assert waits_for(world)[0] is ActorState.WAITING_FOR_POLICY
    world.actor.offer(snapshot(2))
    world.advance()
    assert [a.source for a in world.actions] == [Source.RANDOM] * 7 + [Source.POLICY] * 2
    assert [a.policy_version for a in world.actions] == [0] * 7 + [2] * 2
    report = world.actor.status()
    assert (report.random_actions, report.policy_actions, report.env_steps) == (7, 1, 8)
    assert report.random_share == pytest.approx(7 / 8)
    drawn = np.array([a.action for a in world.actions[:7]])
    assert len(np.unique(drawn)) == drawn.size
    assert drawn.min() < -0.5 < 0.5 < drawn.max()


def test_random_steps_come_once_in_a_run_however_often_the_actor_is_started() -> None:
    world = World(random_steps=50)
    world.actor.offer(snapshot())
    world.acknowledge(0, 10**6, env_steps=48)  # 48 were taken in an earlier life
    world.run_episode(1)
    assert "RANDOM for 2 more" in world.actor.status().text
    world.acknowledge(1, 10**6, env_steps=49)
    world.run_episode(2)
    world.acknowledge(3, 10**6, env_steps=51)
    world.run_episode(1)
    assert [a.source for a in world.actions] == [Source.RANDOM] * 3 + [Source.POLICY]


def test_no_random_steps_are_none() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.run_episode(5)
    assert {a.source for a in world.actions} == {Source.POLICY}


# Policies


WIDER = Policy(SPEC, PolicyConfig(hidden_dims=(16,)))


@pytest.mark.parametrize(("changes", "says"), [
    ({"checksum": "0" * 16}, "checksum: learner 0000000000000000"),
    ({"space_fingerprint": "feed"}, "space fingerprint: learner feed"),
    ({"data": snapshot(2).data[:-4]}, "size: expected"),
    ({"data": b"\0" * len(snapshot(2).data)}, "checksum"),
    ({"network": WIDER.description, "network_fingerprint": WIDER.fingerprint}, "hidden_dims: learner [16], actor [8]"),
    ({"probe_action": np.array([0.9, 0.9, 0.9], np.float32)}, "probe: learner's action [0.9"),
    ({"data": snapshot(3).data, "checksum": snapshot(3).checksum}, "probe: learner's action"),
])
def test_a_policy_that_is_not_what_was_learned_is_refused_and_the_old_one_kept(changes: dict, says: str) -> None:
    world = World(deterministic=True)
    world.actor.offer(snapshot(1))
    world.actor.offer(snapshot(2, **changes))
    report = world.actor.status()
    assert (report.applied_version, report.refused_version) == (1, 2)
    assert says in report.refusal
    assert len(world.warnings) == 1
    assert says in world.warnings[0]
    now = world.begin()
    np.testing.assert_array_equal(world.actions[0].action, POLICY.mode(PARAMS[1], now.observation))
    world.actor.offer(snapshot(2))
    report = world.actor.status()
    assert (report.applied_version, report.refused_version, report.refusal) == (2, 0, "")


def test_while_the_only_policy_is_refused_it_holds_still_and_says_why() -> None:
    world = World()
    world.actor.offer(snapshot(1, checksum="0" * 16))
    world.begin()
    assert world.actions == []
    assert "was refused: policy version 1 refused: checksum: learner 0000000000000000" in world.actor.status().text


def test_the_newest_policy_acts_and_its_arrival_is_told() -> None:
    world = World(deterministic=True)
    for version in (1, 2, 5, 5):
        world.actor.offer(snapshot(version))
    now = world.begin()
    np.testing.assert_array_equal(world.actions[0].action, POLICY.mode(PARAMS[5], now.observation))
    assert world.actions[0].policy_version == 5
    assert [line.split(",")[0] for line in world.said] == [
        f"received network parameters: version {version}" for version in (1, 2, 5)]
    assert world.said[-1].endswith(f"learner step 250, checksum {snapshot(5).checksum}, change 0, age 2.0 ms")
    report = world.actor.status()
    assert report.applied_gradient_step == 250
    assert report.applied_checksum == snapshot(5).checksum
    assert report.probe_error < 1e-6
    assert report.policy_age == pytest.approx(0.002)


def test_a_restarted_learners_policy_is_taken_though_its_version_is_known() -> None:
    world = World(deterministic=True)
    world.actor.offer(snapshot(1))
    world.actor.offer(replace(snapshot(2), version=1, session="learner-2"))
    now = world.begin()
    np.testing.assert_array_equal(world.actions[0].action, POLICY.mode(PARAMS[2], now.observation))


def test_exploration_varies_and_greed_does_not() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.advance(observation=state(1, 0))
    world.advance(observation=state(1, 0))
    first, second, third = (a.action for a in world.actions)
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)
    assert (np.abs([first, second, third]) <= 1).all()


# Observations and transitions


def test_what_was_executed_is_what_is_stored() -> None:
    world = World()
    world.actor.offer(snapshot(4))
    first = world.begin()
    second = world.advance(reward=0.25)
    third = world.advance(reward=2.0, terminated=True, success=True)
    assert [(r.session, r.sequence, r.episode, r.step) for r in world.sent] == [
        ("actor-1", 1, 1, 0), ("actor-1", 2, 1, 1)]
    for record, answer, before, after in zip(world.sent, world.actions, (first, second), (second, third), strict=True):
        np.testing.assert_array_equal(record.action, EXECUTED)
        np.testing.assert_array_equal(record.asked_action, answer.action)
        np.testing.assert_array_equal(record.observation.state, before.observation.state)
        assert (record.reward, record.terminated, record.success) == (after.reward, after.terminated, after.success)
        assert (record.policy_version, record.source, record.stamp) == (4, Source.POLICY, before.stamp)
        assert record.space_fingerprint == SPEC.fingerprint
    assert world.sent[0].final_observation is None
    np.testing.assert_array_equal(world.sent[1].final_observation.state, third.observation.state)


@pytest.mark.parametrize(("terminated", "truncated"), [(True, False), (False, True)])
def test_the_end_of_an_episode_is_kept_as_it_was(terminated: bool, truncated: bool) -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    last = world.advance(terminated=terminated, truncated=truncated)
    (record,) = world.sent
    assert (record.terminated, record.truncated) == (terminated, truncated)
    np.testing.assert_array_equal(record.final_observation.state, last.observation.state)
    assert (world.episodes[0].terminated, world.episodes[0].truncated) == (terminated, truncated)
    assert (world.resets, len(world.actions)) == (1, 1)  # nothing answers the last observation but a reset
    world.actor.observe(last)  # repeated: the request for the reset was lost
    assert (world.resets, len(world.actions)) == (2, 1)


def test_a_repeated_observation_gets_the_same_answer_and_counts_once() -> None:
    world = World()
    world.actor.offer(snapshot())
    now = world.begin()
    world.actor.observe(now)
    world.actor.tick()
    assert len(world.actions) == 2
    assert world.actions[0] is world.actions[1]
    world.advance()
    assert (len(world.sent), world.actor.status().env_steps) == (1, 1)


def test_an_observation_that_was_missed_pairs_with_nothing() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.advance()
    world.observe(3)
    world.advance()
    assert [(r.sequence, r.step) for r in world.sent] == [(1, 0), (2, 3)]
    assert world.actor.status().env_steps == 2


def test_an_episode_cut_short_by_the_arms_restart_pairs_with_nothing() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.advance()
    world.arm = "arm-2"  # it counts its episodes from 1 again
    world.observe(0)
    world.advance()
    assert [(r.sequence, r.episode, r.step) for r in world.sent] == [(1, 1, 0), (2, 2, 0)]
    assert world.episodes == []


def test_an_episode_that_somebody_else_began_is_not_joined() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.episode = 7
    world.observe(12)
    world.observe(12)
    assert (world.actions, world.resets) == ([], 2)
    world.begin()
    assert len(world.actions) == 1


def test_an_answer_goes_out_before_the_transition_is_sent() -> None:
    world = World()
    order: list[str] = []
    world.act = lambda action: order.append("act")
    world.send = lambda record: order.append("send")
    world.actor.offer(snapshot())
    world.begin()
    world.advance()
    assert order == ["act", "act", "send"]


# Real time


REAL_TIME = replace(SPEC, lockstep=False)


def test_in_real_time_a_late_answer_is_an_overrun_and_the_arm_held() -> None:
    world = World(REAL_TIME)
    world.begin()
    world.observe(0)  # no policy yet: held, but nothing was late
    report = world.actor.status()
    assert (report.held_actions, report.overruns) == (1, 0)
    world.actor.offer(snapshot())
    world.observe(0)  # the answer came too late for this tick
    report = world.actor.status()
    assert (report.held_actions, report.overruns, report.env_steps) == (2, 1, 0)
    now = world.advance()
    assert [(r.sequence, r.stamp) for r in world.sent] == [(1, now.stamp - 1)]
    assert [a.stamp for a in world.actions] == [2, 3, 4]


def test_waiting_at_the_start_of_an_episode_does_not_begin_it_again() -> None:
    world = World(REAL_TIME)
    world.begin()
    for _ in range(5):
        world.observe(0)
    world.actor.offer(snapshot())
    world.advance()
    assert world.sent[0].episode == 1


def test_real_time_knows_no_budget() -> None:
    world = World(REAL_TIME, budget=0)
    world.actor.offer(snapshot())
    world.run_episode(3)
    assert len(world.actions) == 3


# Budget


def test_in_lockstep_the_budget_is_kept_exactly() -> None:
    world = World(budget=3)
    world.actor.offer(snapshot())
    world.begin()
    for _ in range(3):
        world.advance()
    assert len(world.actions) == 3
    waiting, text = waits_for(world)
    assert waiting is ActorState.WAITING_FOR_BUDGET
    assert "3 training steps taken, 3 released" in text
    world.actor.tick()
    assert len(world.actions) == 3
    world.acknowledge(2, 4)
    assert len(world.actions) == 4  # the observation that was waiting
    world.advance()
    assert len(world.actions) == 4


def test_an_evaluation_needs_no_budget() -> None:
    world = World(budget=2, eval_every=1, eval_episodes=1)
    world.actor.offer(snapshot())
    world.run_episode(2)
    assert len(world.actions) == 2
    world.run_episode(4)
    assert len(world.actions) == 6
    assert world.episodes[-1].evaluation
    world.begin()
    assert len(world.actions) == 6
    assert waits_for(world)[0] is ActorState.WAITING_FOR_BUDGET


# Evaluation


def test_evaluation_is_greedy_with_one_version_and_not_stored() -> None:
    world = World(eval_every=2, eval_episodes=3)
    world.actor.offer(snapshot(1))
    world.run_episode(2)
    world.run_episode(2)
    sent = len(world.sent)
    assert sent == 4
    for i in range(3):
        world.begin()
        assert waits_for(world)[0] is ActorState.EVALUATING
        world.actor.offer(snapshot(2 + i))
        world.advance()
        world.advance(truncated=True, success=True)
    evaluated = world.actions[4:]
    assert {a.policy_version for a in evaluated} == {1}
    for action, (episode, step) in zip(evaluated, [(e, s) for e in (3, 4, 5) for s in (0, 1)], strict=True):
        np.testing.assert_array_equal(action.action, POLICY.mode(PARAMS[1], state(episode, step)))
    assert len(world.sent) == sent
    report = world.actor.status()
    assert (report.env_steps, report.episodes) == (4, 2)
    assert report.applied_version == 4  # the newest of those that came meanwhile
    assert [(e.evaluation, e.evaluation_id, e.evaluation_episodes, e.evaluation_successes, e.evaluation_done)
            for e in world.episodes] == [(False, 0, 0, 0, False)] * 2 + [
                (True, 1, 1, 1, False), (True, 1, 2, 2, False), (True, 1, 3, 3, True)]
    world.run_episode(2)
    assert not world.episodes[-1].evaluation
    assert {a.policy_version for a in world.actions[-2:]} == {4}
    world.run_episode(2)
    world.run_episode(2)
    assert (world.episodes[-1].evaluation, world.episodes[-1].evaluation_id) == (True, 2)


@pytest.mark.parametrize(("outcomes", "episodes"), [
    ("1" * 20, 20),  # reached only at the end
    ("0" + "1" * 19, 20),  # 95 % of 20 allows one failure
    ("00" + "1" * 18, 10),  # hopeless from the second on, but ten are measured in any case
    ("1" * 10 + "0" * 10, 12),  # hopeless after the twelfth
    ("1" * 18 + "00", 20),
])
def test_an_evaluation_ends_when_its_outcome_is_known(outcomes: str, episodes: int) -> None:
    world = World(eval_every=1, eval_episodes=20, eval_min_episodes=10, success_target=0.95)
    world.actor.offer(snapshot())
    world.run_episode(1)
    for outcome in outcomes:
        world.run_episode(1, success=outcome == "1")
        if world.episodes[-1].evaluation_done:
            break
    last = world.episodes[-1]
    assert (last.evaluation_episodes, last.evaluation_successes) == (episodes, outcomes[:episodes].count("1"))


def test_no_evaluation_without_a_policy_or_if_it_is_switched_off() -> None:
    for config, policy in (({"random_steps": 100, "eval_every": 1}, None), ({"eval_every": 0}, snapshot())):
        world = World(**config)
        if policy:
            world.actor.offer(policy)
        for _ in range(5):
            world.run_episode(1)
        assert not any(e.evaluation for e in world.episodes)


def test_evaluation_is_not_random_even_while_training_is() -> None:
    world = World(random_steps=100, eval_every=1, eval_episodes=1)
    world.actor.offer(snapshot())
    world.run_episode(2)
    world.run_episode(2)
    assert [a.source for a in world.actions] == [Source.RANDOM] * 2 + [Source.POLICY] * 2
    assert world.episodes[-1].evaluation


def test_what_a_person_helped_with_is_no_success_of_the_policy() -> None:
    world = World(eval_every=1, eval_episodes=2)
    world.actor.offer(snapshot())
    world.run_episode(1)
    world.actor.intervene(np.zeros(3))
    world.run_episode(2, success=True)
    assert world.actions[-1].source is Source.INTERVENTION  # who holds the joystick always has the arm
    world.now += 10
    world.run_episode(2, success=True)
    assert [(e.evaluation_episodes, e.evaluation_successes) for e in world.episodes[1:]] == [(1, 0), (2, 1)]


# Interventions


def test_a_person_goes_before_the_policy_for_a_short_while() -> None:
    world = World(intervention_timeout=0.3)
    world.actor.offer(snapshot(1))
    world.begin()
    world.actor.intervene(np.array([2.0, -3.0, 0.5]))
    world.advance()
    world.now += 0.25
    world.advance()
    world.now += 0.25
    world.advance()
    assert [a.source for a in world.actions] == [
        Source.POLICY, Source.INTERVENTION, Source.INTERVENTION, Source.POLICY]
    np.testing.assert_array_equal(world.actions[1].action, [1.0, -1.0, 0.5])
    assert [a.policy_version for a in world.actions] == [1, 0, 0, 1]
    world.advance()
    assert [r.source for r in world.sent] == [a.source for a in world.actions[:4]]
    np.testing.assert_array_equal(world.sent[1].action, EXECUTED)
    assert world.actor.status().intervention_actions == 2


@pytest.mark.parametrize("action", [[0.0, 0.0], [0.0, 0.0, float("nan")], [[0.0, 0.0, 0.0]]])
def test_a_persons_command_that_makes_no_sense_is_refused(action: list) -> None:
    world = World()
    world.actor.offer(snapshot())
    with pytest.raises(DataError, match="action: expected 3 finite numbers, found"):
        world.actor.intervene(np.array(action))
    world.begin()
    assert world.actions[0].source is Source.POLICY


@pytest.mark.parametrize(("changes", "error"), [
    ({"reward": float("nan")}, "reward: expected a finite number"),
    ({"session": "a\x1b[2J"}, "session: expected printable"),
    ({"executed_action": np.array([0.0, 0.0, 1.5], np.float32)}, "executed_action: expected values from -1 to 1"),
    ({"executed_action": np.full(3, np.nan, np.float32)}, "executed_action: expected values from -1 to 1"),
    ({"executed_action": None}, "executed_action: expected one after the first step, found none"),
    ({"observation": Observation(np.full(SPEC.state_size, np.inf, np.float32))}, "state: expected finite values")])
def test_an_observation_that_makes_no_sense_changes_nothing(changes: dict, error: str) -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    seen = world.advance()
    before = (len(world.actions), len(world.sent), replace(world.actor.status()))
    good = replace(seen, step=2, stamp=9)
    with pytest.raises(DataError, match=f"^{error}"):
        world.actor.observe(replace(good, **changes))
    assert (len(world.actions), len(world.sent), world.actor.status()) == before
    world.actor.observe(good)
    assert len(world.actions) == before[0] + 1


def test_a_receipt_for_what_was_never_sent_is_refused() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.begin()
    world.advance()
    with pytest.raises(DataError, match=r"sequence: expected at most 1, .* found 2"):
        world.actor.acknowledge(Acknowledgement(world.actor.session, "learner-1", 2, 99))
    assert world.actor.status().transitions_unacked == 1


def test_a_forged_version_does_not_count_as_the_newest() -> None:
    world = World()
    world.actor.offer(snapshot(1))
    world.actor.offer(snapshot(2, version=2**63, checksum="0" * 16))
    assert world.actor.status().newest_version == 1


# The learner's receipts


def test_what_is_acknowledged_is_not_sent_again() -> None:
    world = World(resend_period=1.0)
    world.actor.offer(snapshot())
    world.run_episode(4)
    assert [r.sequence for r in world.sent] == [1, 2, 3, 4]
    world.acknowledge(2, 1000)
    world.now += 1.5
    world.actor.tick()
    assert [r.sequence for r in world.sent[4:]] == [3, 4]
    report = world.actor.status()
    assert (report.transitions_sent, report.transitions_acked, report.transitions_unacked) == (4, 2, 2)


def test_a_receipt_for_another_session_is_not_ours() -> None:
    world = World(budget=1)
    world.actor.acknowledge(Acknowledgement("actor-2", "learner-1", 1, 10**6))
    world.actor.offer(snapshot())
    world.begin()
    world.advance()
    assert len(world.actions) == 1


def test_a_learner_of_another_run_gets_a_new_session() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.run_episode(4)
    world.acknowledge(3, 1000)
    world.learner = "learner-2"
    world.acknowledge(0, 1000)
    assert "another learner (learner-2) lacks transitions" in world.warnings[0]
    assert world.actor.session != "actor-1"
    assert world.actor.status().session == world.actor.session
    world.sent.clear()
    world.acknowledge(0, 1000)
    world.run_episode(1)
    assert [(r.session, r.sequence, r.step) for r in world.sent] == [
        (world.actor.session, 1, 3), (world.actor.session, 2, 0)]


# What it says about itself


def test_an_episodes_statistics_add_up() -> None:
    world = World(random_steps=2, deterministic=True)
    world.actor.offer(snapshot(2))
    world.begin()
    world.now += 1.5
    for _ in range(4):
        world.advance(reward=0.5)
    world.actor.offer(snapshot(5))
    world.advance(reward=0.5)  # was answered with version 2, three behind
    world.actor.intervene(np.zeros(3))
    world.advance(reward=0.5)
    world.advance(reward=1.0, terminated=True, success=True)
    (episode,) = world.episodes
    assert (episode.steps, episode.episode_return, episode.duration) == (7, 4.0, 1.5)
    assert (episode.random_actions, episode.policy_actions, episode.intervention_actions) == (2, 4, 1)
    assert (episode.policy_version, episode.gradient_step, episode.env_steps) == (5, 250, 7)
    assert episode.policy_lag == pytest.approx(3 / 4)
    assert (episode.success, episode.terminated, episode.truncated) == (True, True, False)
    world.run_episode(2, reward=0.5)
    assert (world.episodes[1].steps, world.episodes[1].episode_return, world.episodes[1].env_steps) == (2, 1.0, 9)


def test_an_arm_that_falls_silent_is_missed() -> None:
    world = World()
    world.actor.offer(snapshot())
    world.now += 4
    waiting, text = waits_for(world)
    assert waiting is ActorState.WAITING_FOR_ARM
    assert "no observation for 4.0 s" in text
    world.run_episode(1)
    assert waits_for(world)[0] is ActorState.ACTING
    world.now += 2.5  # at the end of an episode too
    assert waits_for(world)[0] is ActorState.WAITING_FOR_ARM


def test_saturation_is_measured() -> None:
    world = World(deterministic=True)
    params = {**PARAMS[0]}
    biased = make_snapshot(POLICY, _scaled(params, 1e4), SPEC, state(0, 0), session="learner-1", version=1,
                           gradient_step=0)
    world.actor.offer(biased)
    world.run_episode(10)
    assert world.actor.status().saturated_share > 0.5
    world = World(deterministic=True)
    world.actor.offer(snapshot())
    world.run_episode(10)
    assert world.actor.status().saturated_share == 0.0


def _scaled(params, factor: float):
    import jax

    return jax.tree.map(lambda x: factor * x, params)
