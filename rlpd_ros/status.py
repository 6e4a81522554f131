# SPDX-License-Identifier: Apache-2.0
"""What the actor and the learner say about themselves, for people, the monitor and each other."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from enum import IntEnum

HOST = socket.gethostname()


class ActorState(IntEnum):
    """What the actor is doing; the values are those of ``ActorStatus.msg``."""

    WAITING_FOR_SPACE = 0
    WAITING_FOR_POLICY = 1
    WAITING_FOR_BUDGET = 2
    WAITING_FOR_ARM = 3
    ACTING = 4
    EVALUATING = 5
    FINISHED = 6
    WAITING_FOR_PERSON = 7


@dataclass
class ActorReport:
    """The fields of ActorStatus.msg, by the same names."""

    session: str
    host: str = HOST
    state: int = ActorState.WAITING_FOR_SPACE
    text: str = ""
    incompatible_qos: str = ""
    applied_version: int = 0
    applied_gradient_step: int = 0
    applied_checksum: str = ""
    newest_version: int = 0
    policy_age: float = 0.0
    refused_version: int = 0
    refusal: str = ""
    probe_error: float = 0.0
    space_fingerprint: str = ""
    network_fingerprint: str = ""
    env_steps: int = 0
    episodes: int = 0
    policy_actions: int = 0
    random_actions: int = 0
    intervention_actions: int = 0
    held_actions: int = 0
    random_steps: int = 0
    random_share: float = 0.0
    saturated_share: float = 0.0
    transitions_sent: int = 0
    transitions_acked: int = 0
    transitions_unacked: int = 0
    transitions_in_memory: int = 0
    transitions_spooled: int = 0
    transitions_resent: int = 0
    transitions_lost: int = 0
    spool_error: str = ""
    observation_age: float = 0.0
    resetting: bool = False
    overruns: int = 0
    inference_ms: float = 0.0
    messages_refused: int = 0
    last_refusal: str = ""


class LearnerState(IntEnum):
    """What the learner is doing; the values are those of ``LearnerStatus.msg``."""

    WAITING_FOR_SPACE = 0
    WAITING_FOR_DEMONSTRATIONS = 1
    FILLING = 2
    TRAINING = 3
    WAITING_FOR_DATA = 4
    FINISHED = 5
    FAILED = 6


@dataclass
class LearnerReport:
    """The fields of LearnerStatus.msg, by the same names."""

    session: str
    host: str = HOST
    run: str = ""
    state: int = LearnerState.WAITING_FOR_SPACE
    compiling: bool = False
    text: str = ""
    incompatible_qos: str = ""
    space_fingerprint: str = ""
    space_difference: str = ""
    network_fingerprint: str = ""
    demo_error: str = ""
    store_error: str = ""
    gradient_step: int = 0
    max_steps: int = 0
    max_env_steps: int = 0
    restored_gradient_step: int = 0
    restored_env_steps: int = 0
    version: int = 0
    policy_bytes: int = 0
    env_steps: int = 0
    env_step_budget: int = 0
    online_buffer_size: int = 0
    replay_buffer_capacity: int = 0
    demo_buffer_size: int = 0
    demo_expected: int = 0
    training_starts: int = 0
    transitions_received: int = 0
    transitions_stored: int = 0
    transitions_duplicate: int = 0
    transitions_rejected: int = 0
    gaps: int = 0
    actors: list[str] = field(default_factory=list)
    actors_stored: list[int] = field(default_factory=list)
    actors_duplicate: list[int] = field(default_factory=list)
    actors_rejected: list[int] = field(default_factory=list)
    actors_version: list[int] = field(default_factory=list)
    actors_data_age: list[float] = field(default_factory=list)
    messages_refused: int = 0
    last_refusal: str = ""
    data_age: float = -1.0
    updates_per_second: float = 0.0
    utd_set: float = 0.0
    utd_measured: float = 0.0
    critic_loss: float = 0.0
    actor_loss: float = 0.0
    q_mean: float = 0.0
    entropy: float = 0.0
    temperature: float = 0.0
    parameter_change: float = -1.0
    demo_action_distance: float = 0.0
    demo_action_distance_first: float = -1.0
    discount: float = 0.0
    reward_seen: float = 0.0
    reward_lowest: float = 0.0
    success_rate: float = -1.0
    evaluation_episodes: int = 0
