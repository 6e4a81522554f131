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
    repeated: list[str]  # what bags have that one before them has too, likewise
    left_out: int  # episodes that did not end in success, if only successful ones were wanted


@dataclass
class _Share:
    """What counts as one bag's. What several bags have is the first one's."""

    path: str
    records: int = 0  # that it has, and how many of them another bag had before it
    repeated: int = 0
    sessions: set[str] = field(default_factory=set)
    wanted: int = 0  # records of its own in the episodes that are wanted
    missing: int = 0  # in those, records between its own that no bag has
    learned: list[TransitionRecord] = field(default_factory=list)
    episodes: int = 0
    successes: int = 0


@dataclass
class _Session:
    """What all bags together have of one session."""

    records: dict[int, TransitionRecord] = field(default_factory=dict)  # by sequence
    owners: dict[int, _Share] = field(default_factory=dict)  # likewise
    spans: list[tuple[int, int, _Share]] = field(default_factory=list)  # first and last sequence in a bag

    def agrees(self, records: dict[int, TransitionRecord]) -> bool:
        """Tell whether these may be of the same session: other recordings may go by the same name."""
        return all(digest([self.records[sequence]]) == digest([record]) for sequence, record in records.items()
                   if sequence in self.records)

    def add(self, share: _Share, records: dict[int, TransitionRecord]) -> None:
        share.repeated += len(records.keys() & self.records.keys())
        self.records = records | self.records
        self.owners = dict.fromkeys(records, share) | self.owners
        self.spans.append((min(records), max(records), share))

    def lacking(self, before: int, after: int) -> _Share | None:
        """Return whose recording was under way between two sequences, and therefore lacks what was there."""
        return next((share for first, last, share in self.spans if first <= before and after <= last), None)


@dataclass
class _Episode:
    """What there is of one episode, in order."""

    records: list[TransitionRecord]
    missing: list[tuple[_Share | None, int]] = field(default_factory=list)  # records, and the bag that lacks them

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
    count from 1, episodes too: those of different recordings never have the same number. The recordings in a bag may
    alternate, and a record may come late: its session and sequence tell where it belongs. What several bags recorded of
    one session counts once, and they complete each other. Raises DataError if records contradict each other, if nothing
    of a bag can be learned from, or if no episode ended in success where only such are wanted.
    """
    shares, sessions = _sessions(bags)
    joined: list[list[TransitionRecord]] = []  # by episode
    left_out = 0
    for session in sessions:
        for episode in _episodes(session):
            if successful_only and not episode.successful:
                left_out += 1
            elif learned := _count(session, episode):
                joined.append(learned)
    manifest = DemonstrationManifest(space_fingerprint=spec.fingerprint, complete=True)
    gaps = [gap for share in shares if (gap := _gap(share))]
    for share in shares:
        manifest.complete = manifest.complete and not share.missing
        manifest.path.append(share.path)
        manifest.transitions.append(len(share.learned))
        manifest.episodes.append(share.episodes)
        manifest.successes.append(share.successes)
        manifest.digest.append(digest(share.learned))
    if left_out and not joined:
        raise DataError(f"successful_only: expected an episode that ended in success, found none among {left_out} in "
                        f"{', '.join(manifest.path)}; load others, or set it false")
    _measure(manifest, [record for steps in joined for record in steps])
    repeated = [f"{share.path}: {share.repeated} of its {share.records} transitions are in a bag before it too: they "
                "count once" for share in shares if share.repeated]
    return Demonstrations(spec, _renumbered(joined, manifest.session), manifest, gaps, repeated, left_out)


def _sessions(bags: Iterable[tuple[str, list[TransitionRecord]]]) -> tuple[list[_Share], list[_Session]]:
    """Return the bags and the sessions in them, in the order in which they are met. Raises DataError."""
    shares: list[_Share] = []
    sessions: dict[str, list[_Session]] = {}
    order: list[_Session] = []
    for path, records in bags:
        by_name: dict[str, dict[int, TransitionRecord]] = {}
        for record in records:
            known = by_name.setdefault(record.session, {})
            if record.sequence in known:
                _expect_order(path, known[record.sequence], record)
            known[record.sequence] = record
        shares.append(_Share(path, len(records), sessions=set(by_name)))
        for name, recorded in by_name.items():
            namesakes = sessions.setdefault(name, [])
            session = next((session for session in namesakes if session.agrees(recorded)), None)
            if session is None:
                session = _Session()
                namesakes.append(session)
                order.append(session)
            session.add(shares[-1], recorded)
    return shares, order


def _count(session: _Session, episode: _Episode) -> list[TransitionRecord]:
    """Return what can be learned from of an episode, counted as that of the bags that have it."""
    learned = episode.learnable()
    for record in episode.records:
        session.owners[record.sequence].wanted += 1
    for record in learned:
        session.owners[record.sequence].learned.append(record)
    for share, missing in episode.missing:
        if share is not None:
            share.missing += missing
    first = session.owners[(learned or episode.records)[0].sequence]
    first.episodes += bool(learned)
    first.successes += episode.successful
    return learned


def _gap(share: _Share) -> str:
    """Return what a bag lacks, "" if that is no more than the end of each recording. Raises DataError if it is all."""
    lost = share.wanted - len(share.learned)
    if share.wanted and not share.learned and not share.repeated:
        raise DataError(f"{share.path}: expected steps that can be learned from, found {share.wanted} of which none "
                        "ends an episode or is followed by the next step of its episode; record again, or load without "
                        "it")
    if not share.missing and lost <= len(share.sessions):  # each may be cut off at its end
        return ""
    return (f"{share.path}: {lost} of its {share.wanted} steps cannot be learned from, for lack of what followed them; "
            f"{share.missing} record(s) are missing between those that it has")


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


def _episodes(session: _Session) -> list[_Episode]:
    """Return the episodes of a session, in the order of their sequences. Raises DataError."""
    records = [session.records[sequence] for sequence in sorted(session.records)]
    episodes = [_Episode(records[:1])]  # a recording may begin anywhere
    for before, record in pairwise(records):
        _expect_order(session.owners[record.sequence].path, before, record)
        share = session.lacking(before.sequence, record.sequence)
        if record.episode == before.episode:
            episodes[-1].records.append(record)
            episodes[-1].missing.append((share, record.step - before.step - 1))
        else:
            gap = record.sequence - before.sequence - 1
            beginning = min(gap, record.step)
            if not before.last:  # otherwise whole episodes are not there, and nothing that is there lacks them
                episodes[-1].missing.append((share, gap - beginning))
            episodes.append(_Episode([record], [(share, beginning)]))
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
