# SPDX-License-Identifier: Apache-2.0
"""The learner: stores what actors and demonstrations bring, trains, publishes policies. No ROS, no threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from rlpd_ros.data.episodes import TransitionAssembler, validate
from rlpd_ros.data.replay_buffer import ReplayBuffer, symmetric_batches
from rlpd_ros.errors import DataError
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.policy import Policy, make_snapshot
from rlpd_ros.settings import LearnerConfig
from rlpd_ros.status import ActorReport, LearnerReport, LearnerState
from rlpd_ros.types import (
    Acknowledgement,
    EpisodeSummary,
    Observation,
    PolicySnapshot,
    Source,
    SpaceSpec,
    TransitionRecord,
)

ALIVE = 3.0  # s after which an actor that says nothing is not counted any more
UNLIMITED = 2**63 - 1


class LearnerOutputs(Protocol):
    """What a learner can do to the world."""

    def publish_policy(self, snapshot: PolicySnapshot) -> None: ...
    def acknowledge(self, ack: Acknowledgement) -> None: ...
    def store(self, record: TransitionRecord) -> None: ...  # in the log of transitions
    def flush(self) -> None: ...  # returns when everything stored survives the death of this process
    def save(self, agent: Agent, metadata: dict[str, Any]) -> None: ...
    def measure(self, table: str, step: int, values: Mapping[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...


class Ledger:
    """How far each session's sequence is stored without a gap. Only the next one in order is ever taken.

    A sender that hears no receipt sends again from the last one acknowledged, in order, so taking nothing out of order
    loses nothing, and episodes reach the buffers whole.
    """

    MAX_SESSIONS = 10_000  # bounds the memory that a stranger can claim

    def __init__(self) -> None:
        self.stored: dict[str, int] = {}

    def offset(self, session: str, sequence: int) -> int:
        """Return 0 for the next one in order, < 0 for a duplicate, > 0 for the number that is missing before it."""
        if session not in self.stored and len(self.stored) >= self.MAX_SESSIONS:
            raise DataError(f"session {session}: more than {self.MAX_SESSIONS} sessions in one run; start a new run")
        return sequence - self.stored.get(session, 0) - 1

    def advance(self, session: str) -> None:
        self.stored[session] = self.stored.get(session, 0) + 1


class Learner:
    """Train on what ``receive`` and ``receive_demonstration`` bring, and publish through ``out``.

    The owner calls ``train`` as often as it can and ``service`` after each round of incoming messages. ``clock``
    returns seconds, monotonic; ``wall_ns`` nanoseconds. ``run`` names the run in the status.
    """

    def __init__(self, config: LearnerConfig, agent: Agent, policy: Policy, spec: SpaceSpec, out: LearnerOutputs,
                 session: str, run: str, clock: Callable[[], float], wall_ns: Callable[[], int]) -> None:
        self.config = config
        self.agent = agent
        self.spec = spec
        self.session = session
        self.report = LearnerReport(session, run, max_steps=config.max_steps, training_starts=config.training_starts,
                                    utd_set=agent.config.utd_ratio)
        self._policy = policy
        self._out = out
        self._clock = clock
        self._wall_ns = wall_ns
        self._rng = np.random.default_rng(config.seed)

        self.online = ReplayBuffer(spec, config.replay_buffer_capacity)
        self.demos = ReplayBuffer(spec, config.demo_buffer_capacity)
        self._assembler = TransitionAssembler()
        self._ledger = Ledger()
        self._rejections: dict[str, tuple[int, str]] = {}
        self._duplicates: dict[str, int] = {}
        self._to_acknowledge: set[str] = set()
        self._actors: dict[str, tuple[ActorReport, float]] = {}  # the last report of each, and when it came
        self._demo_sessions: dict[str, int] = {}  # expected transitions by manifest session

        self._info: Mapping[str, Any] = {}
        self._published: dict[int, PolicySnapshot] = {}  # the newest few, by version
        self._previous_data = b""
        self._data_at: float | None = None
        self._began = clock()
        self._life = 0.0  # s that earlier lives of this run trained
        self._rate_mark = (clock(), 0, 0)
        self._demo_error = ""

    # What comes in

    def receive(self, record: TransitionRecord) -> None:
        """Take one transition of an actor: check it, store it, or count why not."""
        if self._admit(record):
            self._out.store(record)
            self._take(record)
            self._data_at = self._clock()

    def receive_demonstration(self, record: TransitionRecord) -> None:
        """Take one transition of a demonstration. Demonstrations are not logged: they are in their bag."""
        if self._admit(record):
            self._insert(record, (self.demos,))

    def restore(self, record: TransitionRecord) -> None:
        """Take one transition out of the log of an earlier life of this run."""
        self._ledger.stored[record.session] = record.sequence
        self._take(record)

    def _take(self, record: TransitionRecord) -> None:
        self.report.env_steps += 1
        self.report.reward_seen = max(self.report.reward_seen, record.reward)
        # What a person did is a demonstration as well (HIL-SERL, section III).
        person = record.source is Source.INTERVENTION
        self._insert(record, (self.online, self.demos) if person else (self.online,))

    def _insert(self, record: TransitionRecord, buffers: tuple[ReplayBuffer, ...]) -> None:
        for transition in self._assembler.add(record):
            for buffer in buffers:
                buffer.insert(transition)

    def _admit(self, record: TransitionRecord) -> bool:
        report = self.report
        report.transitions_received += 1
        self._to_acknowledge.add(record.session)
        try:
            missing = self._ledger.offset(record.session, record.sequence)
            if missing < 0:
                report.transitions_duplicate += 1
                self._duplicates[record.session] = self._duplicates.get(record.session, 0) + 1
                return False
            if missing > 0:
                report.gaps += 1  # the sender repeats from the last receipt on
                return False
            validate(record, self.spec)
        except DataError as error:
            self._reject(record, str(error))
            return False
        self._ledger.advance(record.session)
        report.transitions_stored += 1
        return True

    def _reject(self, record: TransitionRecord, why: str) -> None:
        self._count_rejection(record.session, f"transition {record.sequence}: {why}")
        if record.space_fingerprint == self.spec.fingerprint:
            # It will not get better by being sent again, and must not hold up what follows. One of another space
            # stays with its sender: the fault may be on this side.
            self._ledger.advance(record.session)

    def _count_rejection(self, session: str, why: str) -> None:
        self.report.transitions_rejected += 1
        if session not in self._rejections and len(self._rejections) >= Ledger.MAX_SESSIONS:
            return
        count = self._rejections.get(session, (0, ""))[0] + 1
        self._rejections[session] = (count, why)
        if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
            self._out.warn(f"refused from {session} (refusal {count}): {why}")

    def refuse(self, session: str, error: DataError) -> None:
        """Count a message that could not even be read as a transition."""
        self.report.transitions_received += 1
        self._count_rejection(session, str(error))

    def expect_demonstrations(self, session: str, total: int, error: str = "") -> None:
        """Take the demo loader's count of what it will send under ``session``, or why it cannot send any."""
        if error:
            self._demo_error = error
        elif self._demo_sessions.get(session) != total:
            self._demo_sessions[session] = total
            self._to_acknowledge.add(session)

    def hear(self, actor: ActorReport) -> None:
        """Take an actor's status; the first one of a session is answered with a receipt, and so with a budget."""
        if actor.session not in self._actors:
            self._to_acknowledge.add(actor.session)
        before = self._actors.get(actor.session)
        if before is None or before[0].applied_version != actor.applied_version:
            self._out.measure("policies", self.report.env_steps, {
                "version": actor.applied_version, "gradient_step": actor.applied_gradient_step,
                "actor": actor.session, "age_ms": 1e3 * actor.policy_age})
        self._actors[actor.session] = (actor, self._clock())

    def finish_episode(self, episode: EpisodeSummary) -> None:
        """Take note of a finished episode; finish training when an evaluation reaches the target."""
        self._out.measure("episodes", self.report.env_steps, vars(episode) | {"env_steps": self.report.env_steps})
        if not episode.evaluation_done or self.report.state == LearnerState.FINISHED:
            return
        rate = episode.evaluation_successes / episode.evaluation_episodes
        self.report.success_rate, self.report.evaluation_episodes = rate, episode.evaluation_episodes
        self._out.say(f"evaluation {episode.evaluation_id} of version {episode.policy_version}: "
                      f"{episode.evaluation_successes} of {episode.evaluation_episodes} greedy episodes successful "
                      f"after {self.report.env_steps} environment steps")
        if episode.evaluation_episodes >= self.config.eval_episodes and rate >= self.config.success_target:
            self.finish(f"success rate {rate:.0%} in {episode.evaluation_episodes} greedy episodes",
                        episode.policy_version)

    # Training

    def train(self) -> bool:
        """Do one gradient step if there is reason to; return whether it was done.

        The step is dispatched, not awaited: the caller can receive messages while it is computed.
        """
        self.report.state, self.report.text = self._describe()
        if self.report.state != LearnerState.TRAINING:
            return False
        config, report = self.config, self.report
        batch = symmetric_batches(self.online, self.demos, self.agent.config.utd_ratio, config.batch_size, self._rng)
        self._await_step()
        self.agent, self._info = self.agent.update(batch, self._demonstrations_per_batch())
        report.gradient_step += 1
        if self.spec.lockstep:
            self._to_acknowledge.update(self._live_actors())  # the budget has grown
        if report.gradient_step % config.steps_per_update == 0:
            self.publish()
        if report.gradient_step % config.log_period == 0:
            self._log()
        if report.gradient_step % config.checkpoint_period == 0:
            self.save()
        if report.gradient_step >= config.max_steps:
            self.finish(f"max_steps {config.max_steps} reached")
        elif config.max_env_steps and report.env_steps >= config.max_env_steps:
            self.finish(f"max_env_steps {config.max_env_steps} reached")
        return True

    def _demonstrations_per_batch(self) -> int:
        """Return how many of the last rows of a mini-batch are demonstrations (see ``symmetric_batches``)."""
        return self.config.batch_size // 2 if len(self.online) and len(self.demos) else 0

    def _await_step(self) -> None:
        for value in self._info.values():
            value.block_until_ready()

    def _describe(self) -> tuple[LearnerState, str]:
        config, report = self.config, self.report
        if report.state in (LearnerState.FINISHED, LearnerState.FAILED):
            return LearnerState(report.state), report.text
        if config.require_demonstrations:
            if self._demo_error and not self._demo_sessions:
                return LearnerState.WAITING_FOR_DEMONSTRATIONS, f"the demo loader found a fault: {self._demo_error}"
            if not self._demo_sessions:
                return LearnerState.WAITING_FOR_DEMONSTRATIONS, (
                    "no manifest from a demo loader yet: start it with demo_path, or set require_demonstrations false")
            stored, expected = self._demos_received(), sum(self._demo_sessions.values())
            if stored != expected:
                return LearnerState.WAITING_FOR_DEMONSTRATIONS, (
                    f"received {stored} of {expected} demonstration transitions")
            if len(self.demos) == 0:
                return LearnerState.WAITING_FOR_DEMONSTRATIONS, "the demonstrations hold no complete transition"
        if len(self.online) < config.training_starts:
            return LearnerState.FILLING, f"filling the online buffer: {len(self.online)} of {config.training_starts}"
        if self.spec.lockstep and report.gradient_step >= report.env_steps - config.training_starts:
            return LearnerState.WAITING_FOR_DATA, "every stored transition has been trained on: waiting for more"
        return LearnerState.TRAINING, f"training: gradient step {report.gradient_step}"

    def _demos_received(self) -> int:
        return sum(self._ledger.stored.get(session, 0) for session in self._demo_sessions)

    def publish(self) -> None:
        """Publish the current policy under the next version, unless training has gone wrong."""
        if not self._is_healthy():
            return
        report = self.report
        snapshot = make_snapshot(self._policy, self.agent.actor.params, self.spec, self._probe(), session=self.session,
                                 version=report.version + 1, gradient_step=report.gradient_step,
                                 previous=self._previous_data, stamp=self._wall_ns())
        self._previous_data = snapshot.data
        self._published[snapshot.version] = snapshot
        self._published.pop(snapshot.version - 20, None)
        report.version, report.parameter_change = snapshot.version, snapshot.change
        self._out.publish_policy(snapshot)
        line = (f"version {snapshot.version}, learner step {snapshot.gradient_step}, checksum {snapshot.checksum}, "
                f"change {snapshot.change:.4g}")
        self._out.say(f"sent initial network to actor: {line}" if snapshot.version == 1 else f"published: {line}")
        self._out.measure("policies", report.env_steps, {
            "version": snapshot.version, "gradient_step": snapshot.gradient_step, "checksum": snapshot.checksum,
            "change": snapshot.change, "bytes": len(snapshot.data)})

    def _probe(self) -> Observation:
        """Return an observation to prove the policy on: a recent one, or zeros while there is none."""
        for buffer in (self.online, self.demos):
            if len(buffer):
                return buffer.newest_observation()
        return Observation(np.zeros(self.spec.state_size, np.float32),
                           {f.name: np.zeros(f.shape, np.uint8) for f in self.spec.image_fields})

    def save(self) -> None:
        """Write a checkpoint of everything that the log and the demonstrations do not hold."""
        report = self.report
        self._out.save(self.agent, {
            "gradient_step": report.gradient_step, "version": report.version, "env_steps": report.env_steps,
            "wall_s": self.wall_s, "space_fingerprint": self.spec.fingerprint, "network_fingerprint": self._policy.fingerprint,
            "success_rate": report.success_rate, "evaluation_episodes": report.evaluation_episodes,
            "sampling": self._rng.bit_generator.state})

    def resume(self, agent: Agent, metadata: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; the log's transitions come through ``restore``."""
        self.agent = agent
        report = self.report
        report.gradient_step, report.version = metadata["gradient_step"], metadata["version"]
        self._life = metadata["wall_s"]
        report.success_rate = metadata["success_rate"]
        report.evaluation_episodes = metadata["evaluation_episodes"]
        self._rng.bit_generator.state = metadata["sampling"]
        self._rate_mark = (self._clock(), report.gradient_step, report.env_steps)

    @property
    def wall_s(self) -> float:
        """Return for how long this run has been going, in s, its earlier lives included."""
        return self._life + self._clock() - self._began

    @property
    def newest(self) -> PolicySnapshot:
        """Return the policy published last."""
        return self._published[self.report.version]

    def finish(self, why: str, version: int = 0) -> None:
        """End training: publish and save what was learned, keep ``version`` (0: the newest) as the run's policy."""
        if version not in self._published:
            self.publish()
            version = self.report.version
        self._log()
        self.save()
        self.report.state, self.report.text = LearnerState.FINISHED, why
        self.result = self._published[version]
        self._out.say(f"finished: {why}; kept version {version}")

    def fail(self, why: str) -> None:
        """Stop training for good and say why in the status."""
        self.report.state, self.report.text = LearnerState.FAILED, why
        self._out.warn(why)

    def _is_healthy(self) -> bool:
        """Fail, for good, if the last step's losses are not finite: such a network must not reach an arm."""
        bad = [name for name, value in self._info.items() if not np.isfinite(float(value))]
        if bad:
            self.fail(f"not finite at gradient step {self.report.gradient_step}: {', '.join(bad)}. Training has stopped "
                      "and the last policy stays out; look for huge observations or rewards, or lower the learning rates")
        return not bad

    def _log(self) -> None:
        if not self._is_healthy():
            return
        report, info = self.report, {name: float(value) for name, value in self._info.items()}
        for name, value in info.items():
            if hasattr(report, name):
                setattr(report, name, value)
        now, steps, env_steps = self._clock(), report.gradient_step, report.env_steps
        then, steps_then, env_steps_then = self._rate_mark
        self._rate_mark = (now, steps, env_steps)
        report.updates_per_second = (steps - steps_then) / max(1e-9, now - then)
        if env_steps > env_steps_then:
            report.utd_measured = report.utd_set * (steps - steps_then) / (env_steps - env_steps_then)
        self._out.measure("learner", report.env_steps, {
            "time_s": self.wall_s, "gradient_step": steps, "env_steps": env_steps,
            "version": report.version, "updates_per_second": report.updates_per_second, "utd_measured": report.utd_measured,
            "online_buffer_size": len(self.online), "demo_buffer_size": len(self.demos),
            "parameter_change": report.parameter_change, **info})
        self._out.say(f"step {steps}: online buffer size: {len(self.online)}, demo buffer size: {len(self.demos)}, "
                      f"{report.updates_per_second:.1f} steps/s, " + ", ".join(
                          f"{name} {info[name]:.4g}" for name in ("critic_loss", "q_mean", "entropy") if name in info))

    # What goes out

    def service(self) -> None:
        """Make what came in durable, then acknowledge it."""
        if not self._to_acknowledge:
            return
        self._out.flush()
        for session in self._to_acknowledge:
            rejected, text = self._rejections.get(session, (0, ""))
            stored = self._ledger.stored.get(session, 0)
            self._out.acknowledge(Acknowledgement(
                session=session, learner_session=self.session, sequence=stored, budget=stored + self._budget(session),
                stored=stored - rejected, duplicates=self._duplicates.get(session, 0), rejected=rejected, text=text))
        self._to_acknowledge.clear()

    def _budget(self, session: str) -> int:
        """Return how many training steps ``session`` may take from here, so that training keeps up (lockstep)."""
        if not self.spec.lockstep:
            return UNLIMITED - self._ledger.stored.get(session, 0)
        report = self.report
        report.env_step_budget = self.config.training_starts + report.gradient_step + self.config.steps_ahead
        share = max(1, len(self._live_actors()))
        return max(0, report.env_step_budget - report.env_steps) // share

    def _live_actors(self) -> dict[str, ActorReport]:
        now = self._clock()
        return {session: report for session, (report, at) in self._actors.items() if now - at < ALIVE}

    def lowest_applied_version(self) -> tuple[int, int]:
        """Return the oldest version that a live actor acts on (0: one has none), and how many actors live."""
        actors = self._live_actors().values()
        return min((actor.applied_version for actor in actors), default=0), len(actors)

    def status(self) -> LearnerReport:
        """Bring the report up to date and return it."""
        report = self.report
        self._to_acknowledge.update(self._live_actors())  # a receipt that got lost is repeated
        report.state, report.text = self._describe()
        report.online_buffer_size, report.demo_buffer_size = len(self.online), len(self.demos)
        report.demo_expected = sum(self._demo_sessions.values())
        report.data_age = self._clock() - self._data_at if self._data_at is not None else -1.0
        return report
