# SPDX-License-Identifier: Apache-2.0
"""Actor node: answers `observation` with `action`, sends `transitions`, applies `policy_params`."""

from __future__ import annotations

import gc
import sys
import time
from dataclasses import replace
from pathlib import Path

from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from rlpd_ros.actor import Actor
from rlpd_ros.data.sender import Sender
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.exported_policy import load_policy
from rlpd_ros.rl.compilation import compute_in_place, keep_compiled
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.policy import Policy
from rlpd_ros.ros import messages, qos, spools
from rlpd_ros.ros.latched import LatchedSubscription
from rlpd_ros.ros.main import run_node, wall_ns
from rlpd_ros.ros.parameters import declare, own_seed
from rlpd_ros.settings import ActorConfig, ActorNodeConfig
from rlpd_ros.status import ActorReport, ActorState, LearnerReport
from rlpd_ros.types import (
    ActionRecord,
    EpisodeSummary,
    PolicySnapshot,
    Source,
    SpaceSpec,
    TransitionRecord,
    new_session,
    session_kind,
)
from rlpd_ros.untrusted import Refusals

TICK = 0.05  # s between looks for what is due again
MAX_EPISODES = 2**31 - 1  # that a policy is played if nobody says how many


class ActorNode(Node):
    """Topics in and out of an ``Actor``, which exists once the space is known."""

    def __init__(self, **kwargs) -> None:
        super().__init__("actor", **kwargs)
        node_config, self._config, self._policy_config = declare(self, ActorNodeConfig, ActorConfig, PolicyConfig)
        self._config = own_seed(self, self._config)
        self._played = load_policy(Path(node_config.policy)) if node_config.policy else None  # in place of a learner's
        if self._played is not None:
            episodes = node_config.episodes or MAX_EPISODES
            self._config = replace(self._config, eval_episodes=episodes, eval_min_episodes=episodes)
        self._spool = spools.open_folder(node_config, self.get_fully_qualified_name())
        self._kind = session_kind(self.get_fully_qualified_name())
        self._session = new_session(self._kind)
        self._actor: Actor | None = None
        self._early_policy = None  # arrived before the space
        self._arm = ""  # session whose observations are of the space that is known
        self._space_is_new = False  # one came since that session's first observation
        self._lacks_space = False  # the newest observation is of another session, whose space has not come
        self._reset_call: Future | None = None
        self._told_at = -1.0  # of a policy
        self._offered = self._published = ("", 0)  # session and version of the policy that came last, that is out

        self._actions = qos.publisher(self, qos.ACTION)
        self._transitions = qos.publisher(self, qos.TRANSITIONS)
        self._episodes = qos.publisher(self, qos.EPISODE)
        self._status = qos.publisher(self, qos.ACTOR_STATUS)
        self._reset = self.create_client(Trigger, "reset")
        self._refusals = Refusals(self.get_logger().warning)
        from_learner = () if self._played else (
            (qos.TRANSITIONS_ACK, self._on_ack), (qos.LEARNER_STATUS, self._on_learner_status))
        for topic, callback in (
                (qos.OBSERVATION, self._on_observation), (qos.INTERVENTION, self._on_intervention),
                (qos.OUTCOME, self._on_outcome), *from_learner):
            qos.subscription(self, topic, callback, self._refusals)
        self._space = LatchedSubscription(self, qos.SPACE_SPEC, self._on_space, self._refusals)
        self._policies = None if self._played else LatchedSubscription(
            self, qos.POLICY_PARAMS, self._on_policy, self._refusals)
        self.create_timer(TICK, self._on_tick)
        self.create_timer(self._config.status_period, self._publish_status)
        self.get_logger().info("waiting for space_spec from the arm driver")

    # In

    def _on_space(self, message) -> None:
        spec = messages.to_space_spec(message)
        self._space_is_new = True
        changes = self._actor.spec.changes(spec, "before", "now") if self._actor is not None else []
        if self._actor is not None and not changes:
            return
        policy = self._make_policy(spec)
        if self._actor is not None:
            self.warn(f"the arm driver's space has changed: {'; '.join(changes)}. Starting over with the new one")
            self._actor.sender.close()
            self._session = new_session(self._kind)
        policy.compile()  # now, so that no control step waits for it
        gc.freeze()  # nor for a search through all that the compiler left behind
        self._actor = Actor(self._config, policy, spec, self, self._sender(spec), time.monotonic, wall_ns)
        if policy.backbone is not None:
            self.say(f"frozen backbone {policy.backbone.digest}: {policy.backbone.origin}")
        what = "playing a policy" if self._played else "waiting for a policy"
        self.say(f"space {spec.fingerprint} of {spec.robot}, network {policy.fingerprint}: {what}")
        if self._played is not None:
            self._play(self._actor, self._played)
        self._offered = ("", 0)  # whatever was judged by another space shall come again
        if self._early_policy is not None:
            self._on_policy(self._early_policy)
        self._publish_status()

    def _sender(self, spec: SpaceSpec) -> Sender:
        config, folder = self._config, self._spool
        if folder is None:
            return Sender(self._session, config.resend_period, config.outbox_memory, self.warn)
        left = folder.sessions()
        if left:
            self.say(f"sending what earlier lives left in {folder.path}: {', '.join(left)}")
        return Sender(self._session, config.resend_period, config.outbox_memory, self.warn,
                      lambda session: spools.open_spool(folder, session, spec), left, config.spool_beyond)

    def _make_policy(self, spec: SpaceSpec) -> Policy:
        try:
            return Policy(spec, self._policy_config)
        except (ConfigError, DataError) as error:  # DataError: the backbone's file, which is not the message's fault
            kind = ConfigError if self._actor is None else DataError  # what once worked shall go on
            raise kind(str(error)) from error

    def _play(self, actor: Actor, policy: PolicySnapshot) -> None:
        try:
            actor.play(policy)
        except DataError as error:  # not the fault of the space that came just now
            raise ConfigError(f"parameter 'policy': {error}") from error

    @property
    def finished(self) -> bool:
        """Tell whether all episodes that should be played have been."""
        return self._actor is not None and self._actor.has_played

    @property
    def goes_first(self) -> bool:
        """Tell whether an arm that does not wait is controlled from here."""
        return self._actor is not None and not self._actor.spec.lockstep

    def _on_observation(self, message) -> None:
        if self._actor is None:
            return
        is_new = message.session != self._arm  # the arm has been started anew, and may be another one
        self._lacks_space = is_new and not self._space_is_new
        now = messages.to_time_step(message, self._actor.spec)
        if self._lacks_space:
            return
        if is_new:
            self._arm, self._space_is_new = now.session, False
        self._actor.observe(now)

    def _on_policy(self, message) -> None:
        self._offered = message.session, message.version
        if self._actor is None:
            self._early_policy = message
            return
        self._early_policy = None
        self._actor.offer(messages.to_policy_snapshot(message, self._actor.spec))
        self._publish_status()

    def _on_ack(self, message) -> None:
        if self._actor is not None and self._actor.sender.has(message.session):  # most are for others
            self._actor.acknowledge(messages.to_acknowledgement(message))

    def _on_learner_status(self, message) -> None:
        self._published = message.session, message.version
        if self._actor is not None:
            self._actor.hear(messages.to_fields(LearnerReport, message))

    def _on_intervention(self, message) -> None:
        if self._actor is not None:
            asked = messages.to_action(message)
            self._actor.intervene(None if asked.source is Source.HOLD else asked.action)

    def _on_outcome(self, message) -> None:
        if self._actor is not None:
            self._actor.judge(message.success)

    def _on_tick(self) -> None:
        if self.resetting and not self._reset.service_is_ready():
            self._reset_call = None  # who is gone never answers
        if self._actor is not None:
            self._actor.tick()
        self._space.check(missing=self._actor is None or self._lacks_space)
        if self._policies is not None:
            self._policies.check(missing=self._lacks_policy())

    def _lacks_policy(self) -> bool:
        """Tell whether the learner has published a policy that never came, whether or not it would be applied."""
        (session, version), (its_session, its_version) = self._offered, self._published
        return its_version > 0 and (session != its_session or version < its_version)

    # Out

    def act(self, action: ActionRecord) -> None:
        self._actions.publish(messages.from_action(action))

    def send(self, record: TransitionRecord) -> None:
        assert self._actor is not None
        self._transitions.publish(messages.from_transition(record, self._actor.spec))

    def finish_episode(self, summary: EpisodeSummary) -> None:
        self._episodes.publish(messages.from_fields(qos.EPISODE.type, summary, wall_ns()))

    @property
    def resetting(self) -> bool:
        return self._reset_call is not None and not self._reset_call.done()

    def reset_arm(self) -> None:
        self._reset_call = self._reset.call_async(Trigger.Request()) if self._reset.service_is_ready() else None

    def say(self, text: str) -> None:
        """Print a line, policies at most once a second."""
        now = time.monotonic()
        if text.startswith("received network parameters"):
            if now - self._told_at < 1.0:
                return
            self._told_at = now
        self.get_logger().info(text)

    def warn(self, text: str) -> None:
        self.get_logger().warning(text, throttle_duration_sec=1.0)

    def _publish_status(self) -> None:
        if self._actor is not None:
            report = self._actor.status()
        else:
            report = ActorReport(self._session, text="no space_spec received yet: is the arm driver running, on the "
                                                     "same ROS_DOMAIN_ID and namespace?")
        report.incompatible_qos = qos.incompatible(self)
        if report.state == ActorState.WAITING_FOR_ARM and self._refusals.text.startswith(qos.OBSERVATION.name):
            report.text += f" The last one was refused: {self._refusals.text}"
        report.messages_refused, report.last_refusal = self._refusals.count, self._refusals.text
        self._status.publish(messages.from_fields(qos.ACTOR_STATUS.type, report, wall_ns()))

    def close(self) -> None:
        """Bring to disk what the learner does not have yet."""
        if self._actor is not None and not self._actor.sender.close():
            self.warn(f"{self._actor.status().transitions_unacked} transitions that the learner has not acknowledged "
                      "are lost: there was no spool, or it could not be written")


def main() -> int:
    keep_compiled()
    compute_in_place()
    return run_node(ActorNode)


if __name__ == "__main__":
    sys.exit(main())
