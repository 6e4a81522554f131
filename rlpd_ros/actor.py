# SPDX-License-Identifier: Apache-2.0
"""The actor: answers observations with actions and turns what the arm did into transitions. No ROS, no threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import jax
import numpy as np

from rlpd_ros.data.episodes import validate_time_step
from rlpd_ros.data.sender import Sender
from rlpd_ros.errors import DataError
from rlpd_ros.person import Person
from rlpd_ros.rl.networks import Params
from rlpd_ros.rl.policy import Policy, verify
from rlpd_ros.settings import ActorConfig
from rlpd_ros.status import ActorReport, ActorState, LearnerReport, LearnerState
from rlpd_ros.tally import NO_EVALUATION, EpisodeTally, Evaluation, RecentActions
from rlpd_ros.types import (
    Acknowledgement,
    ActionRecord,
    EpisodeSummary,
    PolicySnapshot,
    Source,
    SpaceSpec,
    TimeStep,
    TransitionRecord,
    asked_if_changed,
)
from rlpd_ros.untrusted import printable

RIVAL = "another actor, {}, moves this arm too: stop one of the two"
SILENCE = 2.0  # s without an observation, and at least two control periods, after which the arm seems to be gone


class ActorOutputs(Protocol):
    """What an actor can do to the world."""

    def act(self, action: ActionRecord) -> None: ...
    def send(self, record: TransitionRecord) -> None: ...
    def finish_episode(self, summary: EpisodeSummary) -> None: ...
    def reset_arm(self) -> None: ...
    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...

    @property
    def resetting(self) -> bool: ...  # what was last asked to reset is there, and has not answered


class Actor:
    """Drive one arm through ``out`` with the newest verified policy.

    Call ``observe`` for every observation, ``offer`` for every policy, ``acknowledge`` for every receipt, ``hear`` for
    the learner's status, ``intervene`` for a person's command, ``judge`` for their word on the episode, and ``tick``
    now and then. ``sender`` has the session and what the learner has not yet. ``clock`` returns seconds, monotonic;
    ``wall_ns`` nanoseconds.
    """

    def __init__(self, config: ActorConfig, policy: Policy, spec: SpaceSpec, out: ActorOutputs, sender: Sender,
                 clock: Callable[[], float], wall_ns: Callable[[], int]) -> None:
        self.config = config
        self.spec = spec
        self.sender = sender
        self.report = ActorReport(sender.session, random_steps=config.random_steps, space_fingerprint=spec.fingerprint,
                                  network_fingerprint=policy.fingerprint)
        self._policy = policy
        self._out = out
        self._clock = clock
        self._wall_ns = wall_ns
        self._rng = np.random.default_rng(config.seed)
        self._key = jax.random.PRNGKey(config.seed)

        self._params = None
        self._applied: PolicySnapshot | None = None
        self._offered: tuple[PolicySnapshot, Params, float] | None = None  # waits for the end of an evaluation
        self._newest_version = 0
        self._over = ""  # why training has ended, as the learner says
        self._plays = False
        self._run_steps = 0  # training steps that the learner knows of, those of earlier lives and other actors too

        self._current: TimeStep | None = None
        self._answer: ActionRecord | None = None
        self._person = Person(spec, config.intervention_timeout, clock)
        self._moved_by_person = False  # what the answer asks for
        self._judged = False  # a person has ended the episode
        self._last_seen = clock()
        self._asked_arm = ""  # session of the arm that was asked to reset, until an episode begins
        self._rival, self._rival_at = "", -math.inf  # session of another actor that moved the arm, and when
        self._episode = 0
        self._tally = EpisodeTally(clock())
        self._evaluation: Evaluation | None = None
        self._evaluations = 0
        self._episodes_since_evaluation = 0

        self._recent = RecentActions()

    @property
    def session(self) -> str:
        return self.sender.session

    # What the world tells the actor

    def observe(self, now: TimeStep) -> None:
        """Take an observation: complete the step that led to it and answer it with an action.

        Raises DataError for one that is not of this space, not finite or beyond the bounds: it changes nothing.
        """
        validate_time_step(now, self.spec)
        self._last_seen = self._clock()
        current = self._current
        if current is None or (now.session, now.episode) != (current.session, current.episode):
            if current is not None and not current.last and self._tally.steps:  # broken off: by a reset, a crash
                self._end_episode(replace(current, terminated=False, truncated=True, success=False))
            self._current, self._answer = None, None
            if now.step > 0:  # an episode that somebody else began
                self._reset_arm(now.session)
                return
            self._begin_episode()
        elif current.last:  # which the arm need not know, if a person said so
            self._reset_arm(now.session)
            return
        elif now.step == current.step:
            if now.stamp == current.stamp:
                if self._answer is not None and self._waits_for() is None:  # it was lost
                    self._out.act(self._answer)
                return
            self._count_hold()
        elif now.step == current.step + 1:
            ours = self.session if self._answer is None else self._answer.session  # which may have changed since
            if now.actor not in ("", ours):  # not our step, and not ours to tell
                self._rival, self._rival_at = now.actor, self._clock()
                self._tally.helped = True
                self._out.warn(RIVAL.format(printable(now.actor)))
            elif self._answer is not None:
                self._judged = self._person.verdict is not None
                now = self._person.judge(now)
                self._complete(current, self._answer, now)
        self._current, self._answer = now, None
        if now.last:
            self._end_episode(now)
            self._reset_arm(now.session)
        else:
            self._try_answer()
        self._send()  # after the answer: the arm waits for that

    def offer(self, snapshot: PolicySnapshot) -> None:
        """Take a policy from the learner, if it is what it says; apply it now, or after the evaluation under way."""
        if (before := self._applied) and (before.session, before.version) == (snapshot.session, snapshot.version):
            return
        try:
            proven = verify(snapshot, self._policy, self.spec)
        except DataError as error:
            self.report.refused_version, self.report.refusal = snapshot.version, str(error)
            self._out.warn(f"refused network parameters: version {snapshot.version}: {error}")
            return
        self._newest_version = self.report.newest_version = snapshot.version
        if self._evaluation is not None and self._params is not None:
            self._offered = snapshot, *proven
        else:
            self._apply(snapshot, *proven)
            self._try_answer()

    def play(self, snapshot: PolicySnapshot) -> None:
        """Act greedily on this policy for ``eval_episodes`` episodes, of which nothing is sent, then hold still.

        Raises DataError if it is not what it says.
        """
        self._plays = True
        self._evaluation = Evaluation(1, self.config)
        self._newest_version = self.report.newest_version = snapshot.version
        self._apply(snapshot, *verify(snapshot, self._policy, self.spec))

    @property
    def has_played(self) -> bool:
        return self._plays and self._evaluation is None

    def acknowledge(self, ack: Acknowledgement) -> None:
        """Take the learner's receipt and the step budget that comes with it.

        Raises DataError for a receipt for what was never sent.
        """
        if self.sender.acknowledge(ack, self._clock()):
            if ack.env_steps and not self._run_steps and not self.report.env_steps:  # else each life explores the same
                self._rng = np.random.default_rng([self.config.seed, ack.env_steps])
                self._key = jax.random.fold_in(self._key, ack.env_steps)
            self._run_steps = ack.env_steps
            self.report.session = self.session
            self._try_answer()
        self._send()

    def hear(self, learner: LearnerReport) -> None:
        """Take the learner's status: when training is over, the arm holds still, until it goes on."""
        over = learner.state in (LearnerState.FINISHED, LearnerState.FAILED)
        self._over = f"training is over: {learner.text or 'the learner has stopped'}" if over else ""

    def intervene(self, action: np.ndarray | None) -> None:
        """Take a person's action, normalised to [-1, 1]; it goes before the policy's for a short while.

        None: the arm shall stand still, of which nothing is learned. NaN for a gripper: it stays as it is. Raises
        DataError for another number of elements or one that is not finite.
        """
        self._person.ask(action)

    def judge(self, success: bool) -> None:
        """Take a person's word on the episode under way: with its next step it ends, in success (reward 1) or not.

        If nobody acts, that step is one of standing still. Raises DataError if no episode is under way, or one in which
        nothing has been done yet: then the one before was meant.
        """
        if self._current is None or self._current.last or self._over:
            raise DataError(f"success: expected an episode under way, found none: {self._describe()[1]}")
        if self._current.step == 0:
            raise DataError("success: expected an episode in which something was done, found one that has only begun")
        self._person.verdict = success
        self._try_answer()

    def tick(self) -> None:
        """Send what is due again and answer an observation that had to wait."""
        self._send()
        self._try_answer()

    def _reset_arm(self, arm: str) -> None:
        """Ask for a new episode, once: resetting takes an arm a while. One that was started since was never asked.

        A reset moves the arm too. So it waits for a person who holds the arm still, unless it was they who ended the
        episode, and once all is over the arm stays where it is. Observations that are repeated bring it up again.
        """
        asked = self._is_resetting and arm == self._asked_arm
        held = self._over or (self._person.holds and not self._judged)
        if not asked and not held:
            self._asked_arm = arm
            self._out.reset_arm()

    @property
    def _is_resetting(self) -> bool:
        return bool(self._asked_arm) and self._out.resetting

    # Policies

    def _apply(self, snapshot: PolicySnapshot, params: Params, probe_error: float) -> None:
        self._params, self._applied = params, snapshot
        report = self.report
        report.applied_version, report.applied_gradient_step = snapshot.version, snapshot.gradient_step
        report.applied_checksum, report.probe_error = snapshot.checksum, probe_error
        report.refused_version, report.refusal = 0, ""
        age = (self._wall_ns() - snapshot.stamp) / 1e6
        self._out.say(
            f"received network parameters: version {snapshot.version}, learner step {snapshot.gradient_step}, "
            f"checksum {snapshot.checksum}, change {snapshot.change:.4g}, age {age:.1f} ms")

    # Acting

    def _try_answer(self) -> None:
        if self._current is None or self._current.last or self._answer is not None or self._waits_for() is not None:
            return
        action, source = self._choose(self._current)
        version = self._applied.version if source is Source.POLICY and self._applied else 0
        self._answer = ActionRecord(self.session, self._current.episode, self._current.step, action, version, source,
                                    self._current.stamp)
        self._out.act(self._answer)

    def _waits_for(self) -> ActorState | None:
        if self._over:
            return ActorState.FINISHED
        if self._person.acts or self._person.verdict is not None:  # which needs neither a policy nor a learner
            return None
        if self._person.holds or not self.config.policy_acts:
            return ActorState.WAITING_FOR_PERSON
        if not self._can_act:
            return ActorState.WAITING_FOR_POLICY
        if self.spec.lockstep and self._evaluation is None and self.sender.next_sequence > self.sender.budget:
            return ActorState.WAITING_FOR_BUDGET
        return None

    @property
    def _can_act(self) -> bool:
        """Tell whether there is anything to act by, when no person does."""
        return self._params is not None or self._in_random_phase()

    def _in_random_phase(self) -> bool:
        return self._evaluation is None and self._random_steps_left() > 0

    def _random_steps_left(self) -> int:
        """Return how many are left: a run has them once, however often actors or the whole run are started again."""
        return self.config.random_steps - max(self.report.env_steps, self._run_steps)

    def _choose(self, now: TimeStep) -> tuple[np.ndarray, Source]:
        self._moved_by_person = self._person.acts
        if self._moved_by_person or self._person.holds or not self.config.policy_acts or not self._can_act:
            return self._person.action(now), Source.INTERVENTION
        if self._in_random_phase():
            return self._rng.uniform(-1.0, 1.0, self.spec.action_size).astype(np.float32), Source.RANDOM
        started = self._clock()
        if self._evaluation is not None or self.config.deterministic:
            action = self._policy.mode(self._params, now.observation)
        else:
            action, self._key = self._policy.sample(self._params, now.observation, self._key)
        self._recent.add_policys(action, self._clock() - started)
        return action, Source.POLICY

    def _count_hold(self) -> None:
        """Account for an arm that held still in real time: it had no answer yet, or a late one (an overrun)."""
        if self._evaluation is None:
            self.report.held_actions += 1
        if self._answer is not None:
            self.report.overruns += 1

    def _complete(self, current: TimeStep, answer: ActionRecord, now: TimeStep) -> None:
        """Account for the step from ``current`` to ``now``; keep it for the learner if it is for training."""
        assert now.executed_action is not None  # only the observation after a reset comes without
        if now.source is Source.INTERVENTION and answer.source is not now.source:  # by a person, on the arm itself
            answer = replace(answer, source=now.source, policy_version=0, action=now.executed_action)
            self._moved_by_person = True
        self._tally.add(now.reward, answer.source, max(0, self._newest_version - answer.policy_version),
                        self._moved_by_person)
        if self._evaluation is not None:
            return
        report = self.report
        report.env_steps += 1
        report.policy_actions += answer.source is Source.POLICY
        report.random_actions += answer.source is Source.RANDOM
        report.intervention_actions += answer.source is Source.INTERVENTION
        self._recent.add_step(answer.source)
        self.sender.add(TransitionRecord(
            session=self.session, sequence=self.sender.next_sequence, episode=self._episode, step=current.step,
            observation=current.observation, action=now.executed_action, reward=now.reward,
            terminated=now.terminated, truncated=now.truncated, success=now.success, source=answer.source,
            policy_version=answer.policy_version, final_observation=now.observation if now.last else None,
            space_fingerprint=self.spec.fingerprint, stamp=current.stamp,
            asked_action=asked_if_changed(answer.action, now.executed_action)))

    # Episodes

    def _begin_episode(self) -> None:
        self._asked_arm = ""  # whether or not it is the one that was asked
        self._person.verdict, self._judged = None, False
        self._episode += 1
        self._tally = EpisodeTally(self._clock())
        due = self.config.eval_every and self._episodes_since_evaluation >= self.config.eval_every
        if due and self._evaluation is None and self._params is not None and self.config.policy_acts:
            self._evaluations += 1
            self._evaluation = Evaluation(self._evaluations, self.config)

    def _end_episode(self, last: TimeStep) -> None:
        evaluation, tally, applied = self._evaluation, self._tally, self._applied
        if evaluation is not None:
            evaluation.record(last.success and not tally.helped)  # otherwise it is not the policy that succeeded
        else:
            self.report.episodes += 1
            self._episodes_since_evaluation += 1
        self._out.finish_episode(EpisodeSummary(
            session=self.session, episode=self._episode, success=last.success, terminated=last.terminated,
            truncated=last.truncated, policy_version=applied.version if applied else 0,
            gradient_step=applied.gradient_step if applied else 0, env_steps=self.report.env_steps,
            **tally.summary(self._clock()), **(evaluation.summary() if evaluation is not None else NO_EVALUATION)))
        if evaluation is not None and self._plays:
            outcome = f"{'success' if last.success else 'no success'}{' with help' if tally.helped else ''}"
            self._out.say(f"episode {evaluation.episodes}: {outcome} after {tally.steps} steps, return "
                          f"{tally.total_reward:.3f}; {evaluation.successes} of {evaluation.episodes} successful")
        if evaluation is not None and evaluation.done:
            self._over = "all episodes have been played" if self._plays else self._over
            self._evaluation = None
            self._episodes_since_evaluation = 0
            if self._offered is not None:
                self._apply(*self._offered)
                self._offered = None

    # Telling others

    def _send(self) -> None:
        for record in self.sender.due(self._clock()):
            self._out.send(record)

    def status(self) -> ActorReport:
        """Bring the report up to date and return it."""
        report = self.report
        report.state, report.text = self._describe()
        report.observation_age, report.resetting = self._clock() - self._last_seen, self._is_resetting
        if self._applied:
            report.policy_age = max(0.0, (self._wall_ns() - self._applied.stamp) / 1e9)
        self._recent.fill(report)
        self.sender.fill(report)
        return report

    def _describe(self) -> tuple[ActorState, str]:
        waits_for = self._waits_for()
        if waits_for is ActorState.FINISHED:
            return waits_for, f"holding still: {self._over}"
        if waits_for is ActorState.WAITING_FOR_POLICY:
            if self.report.refusal:
                return waits_for, f"holding still: the learner's policy was refused: {self.report.refusal}"
            return waits_for, ("holding still: no policy received yet; is the learner running, on the same "
                               "ROS_DOMAIN_ID and namespace, and past its start-up?")
        silence = self._clock() - self._last_seen
        ended = self._current is None or self._current.last
        if (self._current is None and not self._person.holds) or silence > max(SILENCE, 2.0 / self.spec.control_rate):
            if self._is_resetting:
                state = ActorState.EVALUATING if self._evaluation is not None else ActorState.WAITING_FOR_ARM
                return state, f"waiting until the arm has reset: {silence:.1f} s so far"
            return ActorState.WAITING_FOR_ARM, f"no observation for {silence:.1f} s: is the arm driver running?"
        if waits_for is ActorState.WAITING_FOR_PERSON:
            text = ("holding still: a person keeps the arm from moving" if self._person.holds else
                    "holding still until a person acts: policy_acts is false")
            return waits_for, f"{text}{', and from its reset' if self._person.holds and ended else ''}"
        if waits_for is ActorState.WAITING_FOR_BUDGET:
            return waits_for, (f"waiting for the learner: {self.sender.next_sequence - 1} training steps taken, "
                               f"{self.sender.budget} released")
        if self._clock() - self._rival_at < SILENCE:
            state = ActorState.EVALUATING if self._evaluation is not None else ActorState.ACTING
            return state, RIVAL.format(printable(self._rival))
        if self._evaluation is not None:
            done = self._evaluation
            return ActorState.EVALUATING, f"evaluation {done.number}: {done.successes} of {done.episodes} successful"
        if self._in_random_phase():
            return ActorState.ACTING, (f"acting at RANDOM for {self._random_steps_left()} more steps "
                                       f"(random_steps {self.config.random_steps})")
        return ActorState.ACTING, f"acting on version {self.report.applied_version}"
