# SPDX-License-Identifier: Apache-2.0
"""A set of demonstrations: what it holds, counted and with a digest, and under which names it travels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from rlpd_ros.errors import DataError
from rlpd_ros.types import Observation, SpaceSpec, TransitionRecord, fingerprint
from rlpd_ros.untrusted import expect_name, printable

MAX_TOTAL = 10**9  # transitions that anyone may announce
SATURATED = 0.999  # an action's component beyond this is at its bound


@dataclass
class DemonstrationManifest:
    """The fields of DemoManifest.msg, by the same names."""

    session: str = ""
    path: list[str] = field(default_factory=list)
    transitions: list[int] = field(default_factory=list)
    episodes: list[int] = field(default_factory=list)
    successes: list[int] = field(default_factory=list)
    digest: list[str] = field(default_factory=list)
    total: int = 0
    highest_reward: float = 0.0
    lowest_reward: float = 0.0
    saturated_share: float = 0.0
    space_fingerprint: str = ""
    complete: bool = False
    error: str = ""


@dataclass(frozen=True)
class Demonstrations:
    """All records of all bags, as one session, and the manifest that counts them per bag."""

    spec: SpaceSpec
    records: list[TransitionRecord]
    manifest: DemonstrationManifest


def collect(spec: SpaceSpec, bags: Iterable[tuple[str, list[TransitionRecord]]]) -> Demonstrations:
    """Join the records of bags (path, records) to one session.

    The session's name follows from the content, so that a loader that starts again goes on where it was. Sequences
    count from 1, episodes too: those of different bags and recordings never have the same number. Raises DataError if
    the steps of an episode are out of order.
    """
    manifest = DemonstrationManifest(space_fingerprint=spec.fingerprint, complete=True)
    bags = list(bags)
    for path, records in bags:
        manifest.path.append(path)
        manifest.transitions.append(len(records))
        manifest.episodes.append(len({(r.session, r.episode) for r in records}))
        manifest.successes.append(sum(r.success for r in records if r.last))
        manifest.digest.append(digest(records))
    manifest.total = sum(manifest.transitions)
    every = [record for _, records in bags for record in records]
    if every:
        manifest.highest_reward = float(max(record.reward for record in every))
        manifest.lowest_reward = float(min(record.reward for record in every))
        manifest.saturated_share = float(np.mean([np.abs(record.action) > SATURATED for record in every]))
    manifest.session = f"demos-{fingerprint(' '.join(manifest.digest))}"

    joined: list[TransitionRecord] = []
    episode, previous, step = 0, None, -1
    for bag, (path, records) in enumerate(bags):
        for record in records:
            origin = (bag, record.session, record.episode)
            episode += origin != previous
            if origin == previous and record.step <= step:
                raise DataError(f"{path}: episode {record.episode} of {record.session}: expected a step after {step}, "
                                f"found {record.step}")
            previous, step = origin, record.step
            joined.append(replace(record, session=manifest.session, sequence=len(joined) + 1, episode=episode))
    return Demonstrations(spec, joined, manifest)


def validate_manifest(manifest: DemonstrationManifest, spec: SpaceSpec) -> None:
    """Raise DataError, naming the field, unless a manifest without an error makes sense for ``spec``."""
    if manifest.error:
        return
    expect_name("session", manifest.session)
    bags = len(manifest.path)
    for name in ("transitions", "episodes", "successes", "digest"):
        if len(getattr(manifest, name)) != bags:
            raise DataError(f"{name}: expected one per bag, {bags}, found {len(getattr(manifest, name))}")
    if manifest.total != sum(manifest.transitions) or manifest.total > MAX_TOTAL:
        raise DataError(f"total: expected the sum of all bags, {sum(manifest.transitions)}, and at most {MAX_TOTAL}, "
                        f"found {manifest.total}")
    if manifest.space_fingerprint != spec.fingerprint:
        raise DataError(f"space_fingerprint: expected {spec.fingerprint}, found "
                        f"'{printable(manifest.space_fingerprint)}': they were made in another space")


def digest(records: Iterable[TransitionRecord]) -> str:
    """Return the first 16 hex digits of the SHA-256 of everything that the records say, in their order."""
    total = hashlib.sha256()
    for r in records:
        total.update(repr((r.session, r.sequence, r.episode, r.step, r.reward, r.terminated, r.truncated, r.success,
                           int(r.source), r.policy_version, r.space_fingerprint, r.stamp)).encode())
        total.update(r.action.tobytes())
        total.update(b"" if r.asked_action is None else r.asked_action.tobytes())
        for observation in (r.observation, r.final_observation):
            _update(total, observation)
    return total.hexdigest()[:16]


def _update(total, observation: Observation | None) -> None:
    if observation is not None:
        total.update(observation.state.tobytes())
        for name in sorted(observation.images):
            total.update(observation.images[name].tobytes())
