# SPDX-License-Identifier: Apache-2.0
"""A set of demonstrations: what can be learned from it, counted and with a digest, and under which names it travels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

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
    """What can be learned from of all bags, as one session, and the manifest that counts it per bag."""

    spec: SpaceSpec
    records: list[TransitionRecord]  # each is completed by the next one of its episode, or by itself
    manifest: DemonstrationManifest
    gaps: list[str]  # what bags lack inside their recordings, a line per bag
    left_out: int  # episodes that did not end in success, if only successful ones were wanted


@dataclass
class _Episode:
    """What a recording has of one episode, in order."""

    records: list[TransitionRecord]
    missing: int  # records between those of the recording that are not there

    @property
    def successful(self) -> bool:
        return self.records[-1].last and self.records[-1].success

    def learnable(self) -> list[TransitionRecord]:
        """Return the records that can be learned from, each completed by the next one or by itself.

        One before a gap, or at the end of a recording that was cut off, lacks what followed. What it saw still
        completes the one before it, which therefore carries it, like the last step before a time limit.
        """
        kept: list[TransitionRecord] = []
        for record, following in zip(self.records, [*self.records[1:], None], strict=True):
            if record.last or (following is not None and following.step == record.step + 1):
                kept.append(record)
            elif kept and not kept[-1].last and kept[-1].step + 1 == record.step:
                kept[-1] = replace(kept[-1], truncated=True, final_observation=record.observation)
        return kept


def collect(spec: SpaceSpec, bags: Iterable[tuple[str, list[TransitionRecord]]],
            successful_only: bool = False) -> Demonstrations:
    """Join what can be learned from of bags (path, records) to one session.

    The session's name follows from the content, so that a loader that starts again goes on where it was. Sequences
    count from 1, episodes too: those of different bags and recordings never have the same number. The recordings in a
    bag may alternate, and a record may come late: its sequence tells where it belongs. Raises DataError if records
    contradict each other, if nothing of a bag can be learned from, or if no episode ended in success where only such
    are wanted.
    """
    manifest = DemonstrationManifest(space_fingerprint=spec.fingerprint, complete=True)
    gaps: list[str] = []
    joined: list[list[TransitionRecord]] = []  # by episode
    left_out = 0
    for path, records in bags:
        recorded = _episodes(path, records)
        wanted = [episode for episode in recorded if episode.successful or not successful_only]
        left_out += len(recorded) - len(wanted)
        learned = [steps for episode in wanted if (steps := episode.learnable())]
        here, usable = sum(len(episode.records) for episode in wanted), sum(map(len, learned))
        if here and not usable:
            raise DataError(f"{path}: expected steps that can be learned from, found {here} of which none ends an "
                            "episode or is followed by the next step of its episode; record again, or load without it")
        missing = sum(episode.missing for episode in wanted)
        if missing or here - usable > len({record.session for record in records}):  # each may be cut off at its end
            gaps.append(f"{path}: {here - usable} of its {here} steps cannot be learned from, for lack of what "
                        f"followed them; {missing} record(s) are missing between those that it has")
        manifest.complete = manifest.complete and not missing
        manifest.path.append(path)
        manifest.transitions.append(usable)
        manifest.episodes.append(len(learned))
        manifest.successes.append(sum(episode.successful for episode in wanted))
        manifest.digest.append(digest(record for steps in learned for record in steps))
        joined += learned
    if left_out and not joined:
        raise DataError(f"successful_only: expected an episode that ended in success, found none among {left_out} in "
                        f"{', '.join(manifest.path)}; load others, or set it false")
    _measure(manifest, [record for steps in joined for record in steps])
    return Demonstrations(spec, _renumbered(joined, manifest.session), manifest, gaps, left_out)


def _measure(manifest: DemonstrationManifest, records: list[TransitionRecord]) -> None:
    """Fill in what the manifest says of all bags together."""
    manifest.session = f"demos-{fingerprint(' '.join(manifest.digest))}"
    manifest.total = len(records)
    if records:
        manifest.highest_reward = float(max(record.reward for record in records))
        manifest.lowest_reward = float(min(record.reward for record in records))
        manifest.saturated_share = float(np.mean([np.abs(record.action) > SATURATED for record in records]))


def _renumbered(episodes: list[list[TransitionRecord]], session: str) -> list[TransitionRecord]:
    """Return the records of all episodes as those of one session."""
    records: list[TransitionRecord] = []
    for episode, steps in enumerate(episodes, 1):
        records += [replace(record, session=session, sequence=sequence, episode=episode)
                    for sequence, record in enumerate(steps, len(records) + 1)]
    return records


def _episodes(path: str, records: Iterable[TransitionRecord]) -> list[_Episode]:
    """Return the episodes of a bag, session by session, in the order of their sequences. Raises DataError."""
    sessions: dict[str, list[TransitionRecord]] = {}
    for record in records:
        sessions.setdefault(record.session, []).append(record)
    episodes: list[_Episode] = []
    for session in sessions.values():
        session.sort(key=lambda record: record.sequence)
        episodes.append(_Episode(session[:1], missing=0))  # a recording may begin anywhere
        for before, record in pairwise(session):
            _expect_order(path, before, record)
            if record.episode == before.episode:
                episodes[-1].records.append(record)
                episodes[-1].missing += record.step - before.step - 1
            else:
                gap = record.sequence - before.sequence - 1
                beginning = min(gap, record.step)
                if not before.last:  # otherwise whole episodes are not there, and nothing that is there lacks them
                    episodes[-1].missing += gap - beginning
                episodes.append(_Episode([record], beginning))
    return episodes


def _expect_order(path: str, before: TransitionRecord, record: TransitionRecord) -> None:
    """Raise DataError unless ``record`` can come after ``before``, which has the sequence before it."""
    if record.sequence == before.sequence:
        raise DataError(f"{path}: sequence {record.sequence} of {record.session}: expected one step, found step "
                        f"{before.step} of episode {before.episode} and step {record.step} of episode "
                        f"{record.episode}; give each recording a session of its own")
    if record.episode == before.episode and record.step <= before.step:
        raise DataError(f"{path}: episode {record.episode} of {record.session}: expected a step after {before.step}, "
                        f"found {record.step}")


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
