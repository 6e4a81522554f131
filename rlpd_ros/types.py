# SPDX-License-Identifier: Apache-2.0
"""What every other module shares: spaces, observations, transitions, batches and policies as plain data."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
import xxhash

from rlpd_ros.errors import DataError
from rlpd_ros.untrusted import printable

MAX_DIFFERENCES, MAX_DIFFERENCE = 12, 600  # lines, and characters of each, that tell two spaces apart


class Source(IntEnum):
    """Who chose an executed action. The values are those of ``Action.SOURCE_*``."""

    POLICY = 0
    RANDOM = 1
    INTERVENTION = 2
    DEMONSTRATION = 3
    HOLD = 4


EXPERTS = (Source.INTERVENTION, Source.DEMONSTRATION)
"""Whose actions are worth imitating."""


MAX_KIND = 64  # characters of a node's name in the names of its sessions


def new_session(kind: str) -> str:
    """Name one life of one process, e.g. "actor-3fa9c1d2": a restarted process is a new session."""
    return f"{kind}-{secrets.token_hex(4)}"


def session_kind(node: str) -> str:
    """Return the kind of an actor's sessions, after the full name of its node: "left.actor" of /left/actor."""
    return node.strip("/").replace("/", ".")[-MAX_KIND:]


def fingerprint(data: bytes | str) -> str:
    """Return the first 16 hex digits of the SHA-256 of ``data`` (64 bits: enough to notice any accident)."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:16]


def checksum(data: bytes | memoryview) -> str:
    """Return the XXH3 hash of ``data``, 16 hex digits: for a policy in a twentieth of SHA-256's time."""
    return xxhash.xxh3_64_hexdigest(data)


@dataclass(frozen=True)
class SpaceField:
    """One named part of an observation or an action.

    ``shape`` is ``(n,)`` for float32 fields and ``(height, width, channels)`` for uint8 images; ``low`` and ``high``
    hold ``n`` bounds in ``unit`` (images: one each).
    """

    name: str
    shape: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    unit: str = ""
    dtype: str = "float32"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        return self.dtype == "uint8"

    @staticmethod
    def box(name: str, low, high, unit: str = "") -> SpaceField:
        """Make a float32 field from its bounds (sequences of equal length)."""
        low, high = (tuple(float(x) for x in np.ravel(bound)) for bound in (low, high))
        return SpaceField(name, (len(low),), low, high, unit)

    @staticmethod
    def image(name: str, height: int, width: int, channels: int = 3) -> SpaceField:
        return SpaceField(name, (height, width, channels), (0.0,), (255.0,), "", "uint8")


@dataclass(frozen=True)
class SpaceSpec:
    """What an arm driver observes and accepts.

    ``control_rate`` is in Hz, ``frame_id`` names the frame of positions and motions. Two specifications with the same
    ``fingerprint`` may exchange policies and demonstrations; ``robot``, ``max_episode_steps`` and ``lockstep`` do not
    enter it.
    """

    robot: str
    observation: tuple[SpaceField, ...]
    action: tuple[SpaceField, ...]
    control_rate: float
    frame_id: str
    max_episode_steps: int
    lockstep: bool = True

    @cached_property
    def state_fields(self) -> tuple[SpaceField, ...]:
        return tuple(f for f in self.observation if not f.is_image)

    @cached_property
    def image_fields(self) -> tuple[SpaceField, ...]:
        return tuple(f for f in self.observation if f.is_image)

    @cached_property
    def state_size(self) -> int:
        return sum(f.size for f in self.state_fields)

    @cached_property
    def action_size(self) -> int:
        return sum(f.size for f in self.action)

    @cached_property
    def gripper(self) -> int | None:
        """Return which element of the action is the gripper's: the last, if it is alone in a field of such a name."""
        last = self.action[-1]
        return self.action_size - 1 if last.size == 1 and "gripper" in last.name.lower() else None

    @cached_property
    def state_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return low and high of the concatenated state, float32 (state_size,) each."""
        return _bounds(self.state_fields)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(json.dumps(self._identity()))

    def _identity(self) -> dict:
        return {
            "observation": [_field_identity(f) for f in self.observation],
            "action": [_field_identity(f) for f in self.action],
            "control_rate": self.control_rate,
            "frame_id": self.frame_id,
        }

    def difference(self, other: SpaceSpec, mine: str = "mine", theirs: str = "theirs") -> list[str]:
        """List, one line per field, what keeps the two fingerprints from being equal; [] if nothing does.

        Of many or long ones only the beginning is told: a stranger's space may have thousands of numbers.
        """
        lines = []
        for kind in ("observation", "action"):
            ours, others = getattr(self, kind), getattr(other, kind)
            names, other_names = [f.name for f in ours], [f.name for f in others]
            if names != other_names:
                lines.append(f"{kind} fields: {mine} {names}, {theirs} {other_names}")
            by_name = {f.name: f for f in others}
            for f in ours:
                if f.name in by_name:
                    lines += _field_difference(kind, f, by_name[f.name], mine, theirs)
        for name in ("control_rate", "frame_id"):
            if getattr(self, name) != getattr(other, name):
                lines.append(f"{name}: {mine} {getattr(self, name)!r}, {theirs} {getattr(other, name)!r}")
        more = [f"and {len(lines) - MAX_DIFFERENCES} more"] if len(lines) > MAX_DIFFERENCES else []
        return [printable(line, MAX_DIFFERENCE) for line in lines[:MAX_DIFFERENCES]] + more

    def changes(self, other: SpaceSpec, mine: str = "mine", theirs: str = "theirs") -> list[str]:
        """List what a node that began with this one has to begin anew for: all of `difference`, and ``lockstep``."""
        pace = [f"lockstep: {mine} {self.lockstep}, {theirs} {other.lockstep}"]
        return self.difference(other, mine, theirs) + (pace if self.lockstep != other.lockstep else [])


def _bounds(fields: tuple[SpaceField, ...]) -> tuple[np.ndarray, np.ndarray]:
    low = [x for f in fields for x in f.low]
    high = [x for f in fields for x in f.high]
    return np.asarray(low, np.float32), np.asarray(high, np.float32)


def _field_identity(f: SpaceField) -> list:
    return [f.name, f.dtype, list(f.shape), f.unit, [repr(x) for x in f.low], [repr(x) for x in f.high]]


def _field_difference(kind: str, a: SpaceField, b: SpaceField, mine: str, theirs: str) -> list[str]:
    return [
        f"{kind} {a.name}.{name}: {mine} {getattr(a, name)}, {theirs} {getattr(b, name)}"
        for name in ("dtype", "shape", "unit", "low", "high")
        if getattr(a, name) != getattr(b, name)
    ]


@dataclass(frozen=True)
class Observation:
    """``state``: float32 (state_size,), SI units; ``images``: uint8 (height, width, channels) by field name."""

    state: np.ndarray
    images: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class StepResult:
    """What an arm did with one action: the observation after it, and the action as executed, in [-1, 1]."""

    observation: Observation
    reward: float
    terminated: bool
    truncated: bool
    success: bool
    executed_action: np.ndarray


@dataclass(frozen=True)
class TimeStep:
    """One observation with its place in an episode (``step`` 0: after a reset) and the step that led to it."""

    session: str
    episode: int
    step: int
    observation: Observation
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success: bool = False
    executed_action: np.ndarray | None = None
    source: Source = Source.HOLD
    actor: str = ""  # session of whose action was executed; empty: not told
    stamp: int = 0  # ns

    @property
    def last(self) -> bool:
        return self.terminated or self.truncated


@dataclass(frozen=True)
class ActionRecord:
    """An actor's answer to the observation of the same (episode, step, stamp); see Action.msg."""

    session: str
    episode: int
    step: int
    action: np.ndarray  # float32 (action_size,), [-1, 1]
    policy_version: int
    source: Source
    stamp: int = 0  # ns, of the observation answered


class Command(NamedTuple):
    """What a person wants of the arm."""

    action: np.ndarray  # float32 (action_size,), [-1, 1]; NaN for a gripper that stays as it is
    source: Source  # INTERVENTION, or HOLD: the arm shall stand still, of which nothing is learned


WINDOW = 500  # transitions under way, of all senders together: half of what the middleware queues


@dataclass(frozen=True)
class Acknowledgement:
    """The learner's receipt to one session; see TransitionsAck.msg."""

    session: str
    learner_session: str
    sequence: int
    budget: int
    env_steps: int = 0
    stored: int = 0
    duplicates: int = 0
    rejected: int = 0
    text: str = ""
    window: int = WINDOW


@dataclass(frozen=True)
class EpisodeSummary:
    """One finished episode; see EpisodeStats.msg."""

    session: str
    episode: int
    steps: int
    episode_return: float
    success: bool
    terminated: bool
    truncated: bool
    evaluation: bool
    evaluation_id: int
    evaluation_done: bool
    evaluation_episodes: int
    evaluation_successes: int
    policy_version: int
    gradient_step: int
    env_steps: int
    policy_lag: float
    policy_actions: int
    random_actions: int
    intervention_actions: int
    duration: float  # s


@dataclass(frozen=True)
class TransitionRecord:
    """One step as it travels and as it is stored in bags: completed by the next record of its episode.

    ``final_observation`` is present exactly if the episode ended with this step.
    """

    session: str
    sequence: int
    episode: int
    step: int
    observation: Observation
    action: np.ndarray  # executed, float32 (action_size,), [-1, 1]
    reward: float
    terminated: bool
    truncated: bool
    success: bool
    source: Source
    policy_version: int = 0
    final_observation: Observation | None = None
    space_fingerprint: str = ""
    stamp: int = 0  # ns
    asked_action: np.ndarray | None = None  # what was asked for, if limits changed it

    @property
    def last(self) -> bool:
        return self.terminated or self.truncated


@dataclass(frozen=True)
class Transition:
    """A complete step: what the replay buffer stores. ``mask`` is 0 where the value of what follows is zero."""

    observation: Observation
    action: np.ndarray
    reward: float
    next_observation: Observation
    terminated: bool
    source: Source

    @property
    def mask(self) -> float:
        return 1.0 - float(self.terminated)  # a truncated episode bootstraps


class Batch(NamedTuple):
    """Arrays with a common leading shape: (batch, ...) or (utd_ratio, batch, ...).

    ``observations`` and ``next_observations`` map "state" (float32) and image names (uint8) to arrays. ``shown`` is 1
    where an expert or a person chose the action (see ``EXPERTS``), else 0.
    """

    observations: dict[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    masks: np.ndarray
    next_observations: dict[str, np.ndarray]
    shown: np.ndarray


@dataclass(frozen=True)
class PolicySnapshot:
    """A policy on its way from the learner to the actors, with its evidence. See PolicyParams.msg."""

    session: str
    version: int
    gradient_step: int
    checksum: str
    network: str
    network_fingerprint: str
    space_fingerprint: str
    probe: Observation
    probe_action: np.ndarray
    change: float
    data: bytes | memoryview
    stamp: int = 0  # ns


def expect_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise DataError unless ``array`` has exactly ``shape``."""
    if np.shape(array) != shape:
        raise DataError(f"{name}: expected shape {shape}, found {np.shape(array)}")


def asked_if_changed(asked: np.ndarray, executed: np.ndarray) -> np.ndarray | None:
    """Return the action that was asked for if what was executed differs from it by more than rounding, else None."""
    return np.asarray(asked, np.float32) if np.max(np.abs(asked - executed)) > 1e-3 else None
