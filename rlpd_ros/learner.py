# SPDX-License-Identifier: Apache-2.0
"""The learner: stores what actors and demonstrations bring, trains, publishes policies. No ROS, no threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from rlpd_ros.data.intake import Intake
from rlpd_ros.data.living_actors import LivingActors
from rlpd_ros.data.receipts import ReceiptOutputs, Receipts
from rlpd_ros.data.replay_buffer import ReplayBuffer, expect_memory, machine_memory, symmetric_batches
from rlpd_ros.errors import DataError
from rlpd_ros.kept import IMAGES, Kept
from rlpd_ros.metrics import wilson_interval
from rlpd_ros.publications import PublicationOutputs, Publications
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.policy import Policy
from rlpd_ros.settings import LearnerConfig
from rlpd_ros.status import ActorReport, LearnerReport, LearnerState
from rlpd_ros.types import (
    EpisodeSummary,
    Observation,
    PolicySnapshot,
    SpaceSpec,
    TransitionRecord,
)
from rlpd_ros.untrusted import expect_name

REMEDY = ("Training has stopped and the last policy stays out; look for huge observations or rewards, or lower the "
          "learning rates")
DISTANCE = "demo_action_distance"
SHIFTS_AT_ONCE = 16  # shifted observations whose features are computed between two rounds of messages
BACKLOG = 500  # observations whose images may wait for that in memory: what one sender has under way


class LearnerOutputs(ReceiptOutputs, PublicationOutputs, Protocol):
    """What a learner can do to the world."""

    def store(self, record: TransitionRecord) -> None: ...  # in the log of transitions
    def save(self, agent: Agent, metadata: dict[str, Any]) -> None: ...  # or DataError
    def publish_status(self) -> None: ...


class Learner:
    """Train on what comes through ``intake``, and publish through ``out``.

    The owner calls ``train`` as often as it can and ``service`` after each round of incoming messages. ``clock``
    returns seconds, monotonic; ``wall_ns`` nanoseconds. ``run`` names the run in the status. Raises ConfigError if the
    machine has not the memory for full buffers.
    """

    result: PolicySnapshot  # the policy that the run ends with, from ``finish`` on

    def __init__(self, config: LearnerConfig, agent: Agent, policy: Policy, spec: SpaceSpec, out: LearnerOutputs,
                 session: str, run: str, clock: Callable[[], float], wall_ns: Callable[[], int],
                 kept: Kept = IMAGES) -> None:
        self.config = config
        self.agent = agent
        self.spec = spec
        self.session = session
        self.report = LearnerReport(
            session, run=run, max_steps=config.max_steps, max_env_steps=config.max_env_steps,
            training_starts=config.training_starts, replay_buffer_capacity=config.replay_buffer_capacity,
            utd_set=agent.config.utd_ratio, discount=agent.config.discount, space_fingerprint=spec.fingerprint,
            network_fingerprint=policy.fingerprint, policy_bytes=policy.data_size)
        self._policy = policy
        self._publications = Publications(policy, spec, self.report, out, self._applied_versions)
        self._out = out
        self._clock = clock
        self._wall_ns = wall_ns
        self._rng = np.random.default_rng(config.seed)

        self.online = ReplayBuffer(spec, config.replay_buffer_capacity, kept.online)
        self.demos = ReplayBuffer(spec, config.demo_buffer_capacity, kept.demos)
        expect_memory(self.online.nbytes + self.demos.nbytes, self.online.capacity + self.demos.capacity,
                      "the online and the demonstration buffer, together")
        self.intake = Intake(spec, self.online, self.demos, self.report, out.store, out.warn, clock)
        self._actors = LivingActors()
        self._receipts = Receipts(self.intake, self.report, out, session, spec.lockstep, config.training_starts,
                                  config.steps_ahead, clock)

        self._compiled: set[int] = set()  # numbers of demonstrations per batch that the update is compiled for
        self._info: Mapping[str, Any] = {}  # of the last step
        self._before: Mapping[str, Any] = {}  # of the one before
        self._distances: list[Any] = []  # of policy and demonstration actions, of the steps since the last log
        self._began = clock()
        self._life = 0.0  # s that earlier lives of this run trained
        self._rate_mark = (clock(), 0, 0)

    # What comes in

    def hear(self, actor: ActorReport) -> None:
        """Take an actor's status; the first one of a session is answered with a receipt, and so with a budget.

        Raises DataError if it has no proper name, or if there are too many actors.
        """
        before = self._actors.hear(actor, self._clock())
        if before is None:
            self.intake.to_acknowledge.add(actor.session)
        if before is None or before.applied_version != actor.applied_version:
            self._out.measure("policies", self.report.env_steps, {
                "version": actor.applied_version, "gradient_step": actor.applied_gradient_step,
                "actor": actor.session, "age_ms": 1e3 * actor.policy_age})

    def finish_episode(self, episode: EpisodeSummary) -> None:
        """Take note of a finished episode; finish training when an evaluation reaches the target.

        Raises DataError for one that cannot have been.
        """
        expect_name("session", episode.session)
        successes, episodes, version = (
            episode.evaluation_successes, episode.evaluation_episodes, episode.policy_version)
        if not 0 <= successes <= episodes or (episode.evaluation_done and not episodes):
            raise DataError(f"evaluation_successes: expected at most one per episode, found {successes} in {episodes}")
        self._out.measure("episodes", self.report.env_steps, vars(episode) | {"env_steps": self.report.env_steps})
        if not episode.evaluation_done or self._ended:
            return
        rate = successes / episodes
        self.report.success_rate, self.report.evaluation_episodes = rate, episodes
        self._out.say(f"evaluation {episode.evaluation_id} of version {version}: {successes} of {episodes} greedy "
                      f"episodes successful after {self.report.env_steps} environment steps")
        if episodes < self.config.eval_episodes or rate < self.config.success_target:
            return
        self._settle()  # it may be the one that is just out
        if self._publications.get(version):
            low, high = wilson_interval(successes, episodes)
            self.finish(f"success rate {rate:.0%} in {episodes} greedy episodes (95 % confidence: {low:.0%} to "
                        f"{high:.0%}), in evaluation {episode.evaluation_id}: the first that was good enough, so "
                        "`rlpd eval` measures it more fairly", version)
        else:
            self._out.warn(f"version {version} is good enough, but not here any more: it is of an earlier life of the "
                           "learner, or its actor was not heard for too long: going on")

    def restore(self, record: TransitionRecord) -> None:
        """Take one transition out of the log of an earlier life of this run."""
        self.intake.restore(record)
        self._limit_backlog()

    @property
    def backlog(self) -> int:
        """Return how many observations wait in memory, with their images, for their features to be computed."""
        return self.online.waiting + self.demos.waiting

    def _limit_backlog(self) -> None:
        while self.backlog > BACKLOG:
            self._compute_features()

    def _compute_features(self) -> None:
        config = self.config
        for buffer, shifts in ((self.demos, config.demo_feature_shifts), (self.online, config.feature_shifts)):
            buffer.prepare(max(1, SHIFTS_AT_ONCE // shifts))  # a few at a time: receipts must not wait for many

    # Training

    def train(self) -> bool:
        """Do one gradient step if there is reason to; return whether it was done.

        The step is dispatched, not awaited: the caller can receive messages while it is computed. Only compilation is
        awaited, of the first step and of the first with demonstrations; the status says so before.
        """
        self._end_at_limit()
        self._compute_features()
        self._settle(wait=False)
        self.report.state, self.report.text = self._describe()
        if self.report.state != LearnerState.TRAINING:
            return False
        config, report = self.config, self.report
        demonstrations = self._demonstrations_per_batch()
        if demonstrations not in self._compiled:
            self._compiled.add(demonstrations)
            report.compiling = True
            self._out.publish_status()  # the last one for some seconds
        if report.gradient_step == report.restored_gradient_step:  # rates do not count what came before
            self._rate_mark = (self._clock(), report.gradient_step, report.env_steps)
        batch = symmetric_batches(self.online, self.demos, self.agent.config.utd_ratio, config.batch_size, self._rng)
        for value in self._before.values():  # at most two steps are under way: one waits while one is computed
            value.block_until_ready()
        self._before = self._info
        self.agent, self._info = self.agent.update(batch, demonstrations)
        report.compiling = False
        if DISTANCE in self._info:
            self._distances.append(self._info[DISTANCE])
        report.gradient_step += 1
        if self.spec.lockstep:
            self.intake.to_acknowledge.update(self._live_actors())  # the budget has grown
        if report.gradient_step % config.steps_per_update == 0:
            self.publish()
        if report.gradient_step % config.log_period == 0:
            self._log()
        if report.gradient_step % config.checkpoint_period == 0:
            self.save()
        return True

    def _end_at_limit(self) -> None:
        config, report = self.config, self.report
        if self._ended:
            return
        if report.gradient_step >= config.max_steps:
            self.finish(f"max_steps {config.max_steps} reached")
        elif config.max_env_steps and report.env_steps >= config.max_env_steps:
            self.finish(f"max_env_steps {config.max_env_steps} reached")

    @property
    def _ended(self) -> bool:
        return self.report.state in (LearnerState.FINISHED, LearnerState.FAILED)

    def _demonstrations_per_batch(self) -> int:
        """Return how many of the last rows of a mini-batch are demonstrations (see ``symmetric_batches``)."""
        return self.config.batch_size // 2 if len(self.online) and len(self.demos) else 0

    def _describe(self) -> tuple[LearnerState, str]:
        if self._ended:
            return LearnerState(self.report.state), self.report.text
        state, text = self._stage()
        if self.report.store_error:
            text = f"transitions cannot be stored, and so are not acknowledged: {self.report.store_error}"
        return state, text

    def _stage(self) -> tuple[LearnerState, str]:
        config, report = self.config, self.report
        lacking = self.intake.lacking_demonstrations() if config.require_demonstrations else ""
        if lacking:
            return LearnerState.WAITING_FOR_DEMONSTRATIONS, lacking
        if self.demos.waiting:
            return LearnerState.WAITING_FOR_DEMONSTRATIONS, (
                f"computing features of demonstrations: {self.demos.waiting} observations to go")
        if self.online.waiting:  # what is drawn must not depend on how fast they were computed
            return LearnerState.FILLING, f"computing features of images: {self.online.waiting} observations to go"
        if len(self.online) < config.training_starts:
            return LearnerState.FILLING, f"filling the online buffer: {len(self.online)} of {config.training_starts}"
        if self.spec.lockstep and report.gradient_step >= report.env_steps - config.training_starts:
            return LearnerState.WAITING_FOR_DATA, "every stored transition has been trained on: waiting for more"
        if report.compiling:
            kind = "with" if self._demonstrations_per_batch() else "without"
            return LearnerState.TRAINING, f"compiling the update {kind} demonstrations: some seconds of silence"
        return LearnerState.TRAINING, f"training: gradient step {report.gradient_step}"

    def publish(self) -> None:
        """Have the current policy published under the next version, unless training has gone wrong."""
        self._settle()
        if self._is_healthy():
            self._publications.begin(self.agent.policy_params, self._probe(), self._wall_ns())
            self._settle(wait=False)

    def _settle(self, wait: bool = True) -> None:
        """Take note of the policy that is on its way, once it is out."""
        try:
            self._publications.settle(wait)
        except DataError as error:
            self.fail(f"{error}. {REMEDY}")

    def _probe(self) -> Observation:
        """Return an observation to prove the policy on: a recent one, or zeros while there is none."""
        for buffer in (self.online, self.demos):
            if len(buffer):
                return buffer.newest_observation()
        return Observation(np.zeros(self.spec.state_size, np.float32),
                           {f.name: np.zeros(f.shape, np.uint8) for f in self.spec.image_fields})

    def memory(self) -> str:
        """Return what the buffers take when they are full, for people."""
        sizes = ", ".join(f"{name} {buffer.capacity} transitions in {buffer.nbytes / 1e9:.2f} GB"
                          for name, buffer in (("online", self.online), ("demonstrations", self.demos)))
        return f"replay buffers when full: {sizes}; the machine has {machine_memory() / 1e9:.2f} GB"

    def save(self) -> None:
        """Write a checkpoint of everything that the log and the demonstrations do not hold, unless it is spoilt."""
        self._settle()
        if not self._publications.get(self.report.version) or not self._is_healthy():  # stopped before anything began
            return
        report = self.report
        metadata = {
            "gradient_step": report.gradient_step, "version": report.version, "env_steps": report.env_steps,
            "wall_s": self.wall_s, "space_fingerprint": self.spec.fingerprint,
            "network_fingerprint": self._policy.fingerprint, "network": self._policy.description,
            "success_rate": report.success_rate, "evaluation_episodes": report.evaluation_episodes,
            "demo_action_distance_first": report.demo_action_distance_first, "sampling": self._rng.bit_generator.state}
        try:
            self._out.save(self.agent, metadata)
        except DataError as error:
            self._out.warn(f"going on without this checkpoint: {error}")

    def resume(self, agent: Agent, metadata: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; the log's transitions come through ``intake.restore``."""
        self.agent = agent
        report = self.report
        report.gradient_step, report.version = metadata["gradient_step"], metadata["version"]
        report.restored_gradient_step = report.gradient_step
        self._life = metadata["wall_s"]
        report.success_rate = metadata["success_rate"]
        report.evaluation_episodes = metadata["evaluation_episodes"]
        report.demo_action_distance_first = metadata.get("demo_action_distance_first", -1.0)
        self._rng.bit_generator.state = metadata["sampling"]
        self._rate_mark = (self._clock(), report.gradient_step, report.env_steps)

    @property
    def wall_s(self) -> float:
        """Return for how long this run has been going, in s, its earlier lives included."""
        return self._life + self._clock() - self._began

    @property
    def newest(self) -> PolicySnapshot:
        """Return the policy published last; wait for the one that is on its way."""
        self._settle()
        newest = self._publications.get(self.report.version)
        assert newest is not None
        return newest

    def finish(self, why: str, version: int = 0) -> None:
        """End training: publish and save what was learned, keep ``version`` (0: the newest) as the run's policy."""
        wanted = self._publications.get(version)
        if self.newest.gradient_step < self.report.gradient_step:
            self.publish()
        self._settle()
        if not self._is_healthy():
            return
        if self._rate_mark[1] < self.report.gradient_step:
            self._log()
        self.save()
        self.report.state, self.report.text = LearnerState.FINISHED, why
        self.result = wanted or self.newest
        self._out.say(f"finished: {why}; kept version {self.result.version}")

    def fail(self, why: str) -> None:
        """Stop training for good and say why in the status."""
        self.report.state, self.report.text = LearnerState.FAILED, why
        self._out.warn(why)

    def _is_healthy(self) -> bool:
        """Fail, for good, if the last step's losses are not finite: such a network must not reach an arm."""
        if self.report.state == LearnerState.FAILED:
            return False
        bad = [name for name, value in self._info.items() if not np.isfinite(float(value))]
        if bad:
            self.fail(f"not finite at gradient step {self.report.gradient_step}: {', '.join(bad)}. {REMEDY}")
        return not bad

    def _log(self) -> None:
        if not self._is_healthy():
            return
        report, info = self.report, {name: float(value) for name, value in self._info.items()}
        for name, value in info.items():
            if hasattr(report, name):
                setattr(report, name, value)
        if self._distances:  # that of a single batch says little
            info[DISTANCE] = report.demo_action_distance = float(np.mean(self._distances))
            self._distances.clear()
            if report.demo_action_distance_first < 0:
                report.demo_action_distance_first = report.demo_action_distance
        now, steps, env_steps = self._clock(), report.gradient_step, report.env_steps
        then, steps_then, env_steps_then = self._rate_mark
        self._rate_mark = (now, steps, env_steps)
        report.updates_per_second = (steps - steps_then) / max(1e-9, now - then)
        if env_steps > env_steps_then:
            report.utd_measured = report.utd_set * (steps - steps_then) / (env_steps - env_steps_then)
        self._out.measure("learner", report.env_steps, {
            "time_s": self.wall_s, "gradient_step": steps, "env_steps": env_steps,
            "version": report.version, "updates_per_second": report.updates_per_second,
            "utd_measured": report.utd_measured,
            "online_buffer_size": len(self.online), "demo_buffer_size": len(self.demos),
            "parameter_change": report.parameter_change, **info})
        self._out.say(f"step {steps}: online buffer size: {len(self.online)}, demo buffer size: {len(self.demos)}, "
                      f"{report.updates_per_second:.1f} steps/s, " + ", ".join(
                          f"{name} {info[name]:.4g}" for name in ("critic_loss", "q_mean", "entropy") if name in info))

    # What goes out

    def service(self) -> None:
        """Make what came in durable, then acknowledge it; what cannot be made durable is not acknowledged."""
        self._limit_backlog()  # before senders are told to go on
        self._receipts.send(len(self._live_actors()))

    def _live_actors(self) -> dict[str, ActorReport]:
        return self._actors.at(self._clock())

    def _applied_versions(self) -> set[int]:
        return self._actors.versions_in_use(self._clock())

    def lowest_applied_version(self) -> tuple[int, int]:
        """Return the oldest version that a live actor acts on (0: one has none), and how many actors live."""
        actors = self._live_actors().values()
        return min((actor.applied_version for actor in actors), default=0), len(actors)

    def status(self) -> LearnerReport:
        """Bring the report up to date and return it."""
        report = self.report
        # A receipt that got lost is repeated; a loader that an earlier learner had served waits for one.
        self.intake.to_acknowledge.update(self._live_actors(), self.intake.incomplete_loaders())
        report.state, report.text = self._describe()
        report.online_buffer_size, report.demo_buffer_size = len(self.online), len(self.demos)
        self._actors.count(report, self.intake.ledger, self._clock())
        report.demo_expected = self.intake.demonstrations_expected
        received_at = self.intake.received_at
        report.data_age = -1.0 if received_at is None else self._clock() - received_at
        return report
