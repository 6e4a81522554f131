# SPDX-License-Identifier: Apache-2.0
"""From records, as they travel, to complete transitions; and what a record must be to be let in."""

from __future__ import annotations

from collections import Counter, OrderedDict

import numpy as np

from rlpd_ros.errors import DataError
from rlpd_ros.types import Observation, SpaceSpec, TimeStep, Transition, TransitionRecord, expect_shape
from rlpd_ros.untrusted import expect_name, printable

MAX_MAGNITUDE = 1e6  # of a state's element, in its SI unit, and of a reward: beyond, networks compute no numbers
MAX_SESSIONS = 256  # sessions whose last record may wait for the next one


class TransitionAssembler:
    """Complete each record with the observation of the next one of its episode.

    Give it the records of each session in order; sessions may alternate. A record is completed by the one with the
    same session and episode and the next step, the last one of an episode by its own final observation, and nothing
    else completes anything: what comes before a gap, or before the death of an actor, stays ``incomplete``.
    """

    def __init__(self) -> None:
        self._incomplete: Counter[str] = Counter()  # by session: what nothing can complete any more
        self._waiting: OrderedDict[str, TransitionRecord] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Return how many records may still be completed."""
        return len(self._waiting)

    def incomplete(self, session: str) -> int:
        """Return how many records of ``session`` nothing has completed, one that still waits for the next included."""
        return self._incomplete[session] + (session in self._waiting)

    def add(self, record: TransitionRecord) -> list[Transition]:
        """Take the next record of its session; return the transitions (0 to 4) that it completes.

        A step whose action the arm's limits changed makes two: the executed action led to what followed, and so did
        the asked one, since the limits are part of how the arm answers. Without the latter no data would ever
        contradict what the critics imagine of pressing against a limit, and the policy would come to rest there.
        """
        done: list[Transition] = []
        before = self._waiting.pop(record.session, None)
        if before is not None:
            if (before.episode, before.step + 1) == (record.episode, record.step):
                done += _complete(before, record.observation)
            else:
                self._incomplete[record.session] += 1
        if record.last:
            assert record.final_observation is not None  # validate saw to it
            done += _complete(record, record.final_observation)
        else:
            self._waiting[record.session] = record
            if len(self._waiting) > MAX_SESSIONS:
                session, _ = self._waiting.popitem(last=False)
                self._incomplete[session] += 1
        return done


def _complete(record: TransitionRecord, following: Observation) -> list[Transition]:
    actions = [record.action] if record.asked_action is None else [record.action, record.asked_action]
    return [Transition(record.observation, action, record.reward, following, record.terminated, record.source)
            for action in actions]


def validate(record: TransitionRecord, spec: SpaceSpec) -> None:
    """Raise DataError, naming the field, what was expected and what was found, unless ``record`` fits ``spec``."""
    if record.space_fingerprint != spec.fingerprint:
        raise DataError(f"space_fingerprint: expected {spec.fingerprint}, found "
                        f"'{printable(record.space_fingerprint)}': it was made in another space")
    expect_name("session", record.session)
    for name in ("sequence", "episode"):
        if getattr(record, name) < 1:
            raise DataError(f"{name}: expected a number from 1, found {getattr(record, name)}")
    if record.step < 0:
        raise DataError(f"step: expected a number from 0, found {record.step}")
    _validate_action("action", record.action, spec)
    if record.asked_action is not None:
        _validate_action("asked_action", record.asked_action, spec)
    _validate_reward(record.reward)
    _validate_observation("", record.observation, spec)
    if record.last != (record.final_observation is not None):
        expected, found = ("one", "none") if record.last else ("none", "one")
        raise DataError(f"final_observation: expected {expected} with terminated {record.terminated} and truncated "
                        f"{record.truncated}, found {found}")
    if record.final_observation is not None:
        _validate_observation("final_", record.final_observation, spec)


def validate_time_step(now: TimeStep, spec: SpaceSpec) -> None:
    """Raise DataError as ``validate`` does unless what an arm says that it saw and did fits ``spec``."""
    expect_name("session", now.session)
    if now.executed_action is not None:
        _validate_action("executed_action", now.executed_action, spec)
    elif now.step > 0:
        raise DataError("executed_action: expected one after the first step, found none")
    _validate_reward(now.reward)
    _validate_observation("", now.observation, spec)


def _validate_action(name: str, action: np.ndarray, spec: SpaceSpec) -> None:
    expect_shape(name, action, (spec.action_size,))
    if not (np.abs(action) <= 1.0).all():  # NaN is not <= 1 either
        raise DataError(f"{name}: expected values from -1 to 1, found {printable(action)}")


def _validate_reward(reward: float) -> None:
    if not abs(reward) <= MAX_MAGNITUDE:  # NaN is not <= either
        raise DataError(f"reward: expected a finite number within +-{MAX_MAGNITUDE:g}, found {reward}")


def _validate_observation(prefix: str, observation: Observation, spec: SpaceSpec) -> None:
    state, images = observation.state, observation.images
    expect_shape(f"{prefix}state", state, (spec.state_size,))
    good = np.abs(state) <= MAX_MAGNITUDE
    if not good.all():
        raise DataError(f"{prefix}state: expected finite values within +-{MAX_MAGNITUDE:g}, found {state[~good][0]} "
                        f"for element {int(np.argmin(good))}")
    names = [f.name for f in spec.image_fields]
    if sorted(images) != sorted(names):
        raise DataError(f"{prefix}images: expected {names}, found {sorted(images)}")
    for f in spec.image_fields:
        expect_shape(f"{prefix}image '{f.name}'", images[f.name], f.shape)
        if images[f.name].dtype != np.uint8:
            raise DataError(f"{prefix}image '{f.name}': expected uint8, found {images[f.name].dtype}")
