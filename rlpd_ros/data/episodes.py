# SPDX-License-Identifier: Apache-2.0
"""From records, as they travel, to complete transitions; and what a record must be to be let in."""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np

from rlpd_ros.errors import DataError
from rlpd_ros.types import Observation, SpaceSpec, Transition, TransitionRecord, expect_shape

MAX_SESSIONS = 256  # sessions whose last record may wait for the next one
MAX_NAME = 128  # characters of a session's name


class TransitionAssembler:
    """Complete each record with the observation of the next one of its episode.

    Give it the records of each session in order; sessions may alternate. A record is completed by the one with the
    same session and episode and the next step, the last one of an episode by its own final observation, and nothing
    else completes anything: what comes before a gap, or before the death of an actor, is counted in ``incomplete``.
    """

    def __init__(self) -> None:
        self.incomplete = 0
        self._waiting: OrderedDict[str, TransitionRecord] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Return how many records may still be completed."""
        return len(self._waiting)

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
                self.incomplete += 1
        if record.last:
            assert record.final_observation is not None  # validate saw to it
            done += _complete(record, record.final_observation)
        else:
            self._waiting[record.session] = record
            if len(self._waiting) > MAX_SESSIONS:
                self._waiting.popitem(last=False)
                self.incomplete += 1
        return done


def _complete(record: TransitionRecord, following: Observation) -> list[Transition]:
    actions = [record.action] if record.asked_action is None else [record.action, record.asked_action]
    return [Transition(record.observation, action, record.reward, following, record.terminated, record.source)
            for action in actions]


def validate(record: TransitionRecord, spec: SpaceSpec) -> None:
    """Raise DataError, naming the field, what was expected and what was found, unless ``record`` fits ``spec``."""
    if record.space_fingerprint != spec.fingerprint:
        raise DataError(f"space_fingerprint: expected {spec.fingerprint}, found "
                        f"{record.space_fingerprint[:MAX_NAME]!r}: it was made in another space")
    if not 0 < len(record.session) <= MAX_NAME:
        raise DataError(f"session: expected a name of 1 to {MAX_NAME} characters, found {len(record.session)}")
    for name in ("sequence", "episode"):
        if getattr(record, name) < 1:
            raise DataError(f"{name}: expected a number from 1, found {getattr(record, name)}")
    if record.step < 0:
        raise DataError(f"step: expected a number from 0, found {record.step}")
    expect_shape("action", record.action, (spec.action_size,))
    if not (np.abs(record.action) <= 1.0).all():  # NaN is not <= 1 either
        raise DataError(f"action: expected values from -1 to 1, found {record.action}")
    if record.asked_action is not None:
        expect_shape("asked_action", record.asked_action, (spec.action_size,))
        if not (np.abs(record.asked_action) <= 1.0).all():
            raise DataError(f"asked_action: expected values from -1 to 1, found {record.asked_action}")
    if not math.isfinite(record.reward):
        raise DataError(f"reward: expected a finite number, found {record.reward}")
    _validate_observation("", record.observation, spec)
    if record.last != (record.final_observation is not None):
        expected, found = ("one", "none") if record.last else ("none", "one")
        raise DataError(f"final_observation: expected {expected} with terminated {record.terminated} and truncated "
                        f"{record.truncated}, found {found}")
    if record.final_observation is not None:
        _validate_observation("final_", record.final_observation, spec)


def _validate_observation(prefix: str, observation: Observation, spec: SpaceSpec) -> None:
    state, images = observation.state, observation.images
    expect_shape(f"{prefix}state", state, (spec.state_size,))
    if not np.isfinite(state).all():
        raise DataError(f"{prefix}state: expected finite values, found {state[~np.isfinite(state)][0]} for element "
                        f"{int(np.argmin(np.isfinite(state)))}")
    names = [f.name for f in spec.image_fields]
    if sorted(images) != sorted(names):
        raise DataError(f"{prefix}images: expected {names}, found {sorted(images)}")
    for f in spec.image_fields:
        expect_shape(f"{prefix}image '{f.name}'", images[f.name], f.shape)
        if images[f.name].dtype != np.uint8:
            raise DataError(f"{prefix}image '{f.name}': expected uint8, found {images[f.name].dtype}")
