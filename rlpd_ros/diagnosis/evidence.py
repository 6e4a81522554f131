# SPDX-License-Identifier: Apache-2.0
"""What is known about a run: what its nodes said and when, what the ROS graph shows, what this machine is like.

Times are in s on one clock, that of whoever listened (a bag: of its recorder).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from rlpd_ros.data.demonstrations import DemonstrationManifest
from rlpd_ros.status import HOST, ActorReport, ActorState, LearnerReport, LearnerState
from rlpd_ros.types import EpisodeSummary, SpaceSpec

Report = TypeVar("Report", ActorReport, LearnerReport)

KEPT = 80  # samples of one session: 40 s at the usual rate
BURST = 0.1  # s between messages that were kept for whom comes late, or held up
FORGET = 60.0  # s after which a session that is gone is of no interest any more
ALIVE = 3.0  # s of silence after which a session is not counted as living
PATIENCE = 5000  # environment steps that learning may take before its lack of success counts as a fault


@dataclass(frozen=True)
class Sample(Generic[Report]):
    """One status: when it came, when it was made (by its sender's clock) and what it says."""

    at: float
    stamp: float
    report: Report


class Track(Generic[Report]):
    """The newest statuses of one session, oldest first."""

    def __init__(self) -> None:
        self.samples: deque[Sample[Report]] = deque(maxlen=KEPT)

    @property
    def last(self) -> Report:
        return self.samples[-1].report

    @property
    def heard_at(self) -> float:
        return self.samples[-1].at

    @property
    def fresh(self) -> list[Sample[Report]]:
        """Return the samples without a first one that was latched: it may be of any age."""
        samples = list(self.samples)
        return samples[1:] if len(samples) > 1 else samples

    def since(self, at: float) -> Report:
        """Return the newest report from ``at`` or before, the oldest there is if all are newer."""
        return next((s.report for s in reversed(self.samples) if s.at <= at), self.samples[0].report)

    def span(self) -> float:
        """Return for how many s this session has been heard."""
        return self.samples[-1].at - self.samples[0].at

    def silence(self, now: float) -> float:
        """Return the s since the last status. What came all at once was perhaps latched: then its own stamp counts,
        if it is by this machine's clock."""
        silence = now - self.heard_at
        if self.span() < BURST and self.last.host == HOST:
            silence = max(silence, now - self.samples[-1].stamp)
        return silence

    def clock_offset(self) -> float:
        """Return how far the sender's clock is behind ours, in s, at most: the delivery counts as well."""
        return min(sample.at - sample.stamp for sample in self.fresh)


@dataclass(frozen=True)
class Endpoint:
    """One publisher or subscription of a node in the graph."""

    topic: str  # relative to the namespace examined
    node: str  # with its namespace
    publishes: bool
    gid: str = field(default="", compare=False)  # tells those of two nodes of one name apart

    @property
    def namespace(self) -> str:
        return self.node.rpartition("/")[0] or "/"


@dataclass(frozen=True)
class Mismatch:
    """A publisher and a subscription that the middleware does not connect, though their topic is the same."""

    topic: str  # relative to the namespace examined
    publisher: str  # node, with its namespace
    subscriber: str
    reason: str


@dataclass(frozen=True)
class Graph:
    """The ROS graph: node -> when it was first seen; endpoints; topics of this package in other namespaces; what does
    not fit together; nodes that gave up an endpoint just now, as one that ends does one after another; endpoint, by its
    gid -> when it was first seen."""

    nodes: dict[str, float] = field(default_factory=dict)
    endpoints: tuple[Endpoint, ...] = ()
    elsewhere: dict[str, str] = field(default_factory=dict)  # kind of node -> its namespace
    mismatches: tuple[Mismatch, ...] = ()
    leaving: frozenset[str] = frozenset()
    since: dict[str, float] = field(default_factory=dict)

    def nodes_that_publish(self, topic: str) -> set[str]:
        return {e.node for e in self.endpoints if e.publishes and e.topic == topic}

    def nodes_that_subscribe(self, topic: str) -> set[str]:
        return {e.node for e in self.endpoints if not e.publishes and e.topic == topic}

    def publishers(self, topic: str) -> dict[str, list[Endpoint]]:
        """Return those of a topic by the namespace of their nodes: of two nodes of one name, both."""
        found: dict[str, list[Endpoint]] = {}
        for end in self.endpoints:
            if end.publishes and end.topic == topic:
                found.setdefault(end.namespace, []).append(end)
        return found


@dataclass(frozen=True)
class CameraSight:
    """What an arm driver said of one camera: when that came, whether and how badly something is wrong, and what."""

    at: float
    faulty: bool
    blind: bool  # and so the arm holds still
    text: str


@dataclass(frozen=True)
class LocalProcess:
    """A node of this package that runs on this machine, whether or not it can be discovered."""

    pid: int
    node: str  # "learner", "actor" ...
    namespace: str
    domain: int
    discovery: str  # ROS_AUTOMATIC_DISCOVERY_RANGE in capitals, or "LOCALHOST" as ROS_LOCALHOST_ONLY or our profile has it
    age: float  # s
    stopped: bool = False  # by a signal or a debugger
    cpu: float = 0.0  # s of computing so far
    secured: bool = False  # DDS security is on, and enforced
    shared_memory: bool = False  # its middleware may send through /dev/shm


@dataclass(frozen=True)
class Machine:
    """The machine that the examination runs on. ``None``: not known, or not of interest here."""

    host: str = HOST
    domain: int = 0
    namespace: str = "/"
    disk_free: int | None = None  # bytes, where the run is
    shm_free: int | None = None  # bytes in /dev/shm
    socket_buffer: int | None = None  # bytes: the largest receive buffer that the kernel allows
    networked: bool = False  # there is a network that other machines may be on
    processes: tuple[LocalProcess, ...] = ()

    def here(self, node: str) -> list[LocalProcess]:
        """Return the local processes of a kind of node that belong to the graph examined."""
        return self.nodes(node, self.namespace)

    def nodes(self, node: str, namespace: str) -> list[LocalProcess]:
        """Return those in a namespace: each of several arms has its own."""
        return [p for p in self.processes if (p.node, p.domain, p.namespace) == (node, self.domain, namespace)]


@dataclass
class Evidence:
    """Everything that the checks judge by. What is None or empty has not been heard, or does not apply."""

    now: float = 0.0
    live: bool = True  # a running graph; otherwise what it left behind
    learners: dict[str, Track[LearnerReport]] = field(default_factory=dict)  # by session
    actors: dict[str, Track[ActorReport]] = field(default_factory=dict)
    spaces: dict[str, SpaceSpec] = field(default_factory=dict)  # of arms, by fingerprint, the newest last
    manifest: DemonstrationManifest | None = None
    cameras: dict[str, CameraSight] = field(default_factory=dict)  # by name; of several arms after that of the arm
    episodes: deque[EpisodeSummary] = field(default_factory=lambda: deque(maxlen=200))
    graph: Graph | None = None
    machine: Machine = field(default_factory=Machine)
    restarts: dict[str, int] = field(default_factory=dict)  # node -> new processes of it within the last minute
    slow_restarts: dict[str, int] = field(default_factory=dict)  # within the last ten minutes
    idle: set[int] = field(default_factory=set)  # local processes that have not computed for a while
    errors: dict[str, str] = field(default_factory=dict)  # node -> the line with which it ended, from its log
    patience: int = PATIENCE

    @property
    def learner_track(self) -> Track[LearnerReport] | None:
        """Return what the newest learner said."""
        return max(self.learners.values(), key=lambda track: track.heard_at, default=None)

    @property
    def learner(self) -> LearnerReport | None:
        track = self.learner_track
        return track.last if track else None

    @property
    def actor_tracks(self) -> list[Track[ActorReport]]:
        """Return what the living actors said; the one heard last if none lives."""
        tracks = sorted(self.actors.values(), key=lambda track: track.heard_at, reverse=True)
        living = [track for track in tracks if self.now - track.heard_at < ALIVE or not self.live]
        return living or tracks[:1]

    @property
    def newest_actors(self) -> list[Track[ActorReport]]:
        """Return what the newest life of each actor said, whether it still lives or not."""
        newest: dict[str, Track[ActorReport]] = {}
        for session, track in sorted(self.actors.items(), key=lambda item: item[1].heard_at):
            newest[session.rpartition("-")[0]] = track
        return list(newest.values())

    def name_of(self, actor: ActorReport) -> tuple[str, str]:
        """Return what to call an actor: of several arms it has its session as well."""
        several = len({session.rpartition("-")[0] for session in self.actors}) > 1
        return (f"the actor {actor.session}", f"执行器 {actor.session} ") if several else ("the actor", "执行器")

    @property
    def pausing(self) -> bool:
        """Tell whether an actor evaluates or its arm resets, or did just now: it brings no data then."""
        return any(report.state == ActorState.EVALUATING or report.resetting for track in self.actor_tracks
                   for report in (track.last, track.since(self.now - ALIVE)))

    @property
    def ended(self) -> bool:
        """Tell whether training is over, as it should be in the end: the learner said so, or told an actor before it
        ended."""
        if self.learner is not None:
            return self.learner.state == LearnerState.FINISHED
        return any(track.last.state == ActorState.FINISHED for track in self.actor_tracks)

    @property
    def space(self) -> SpaceSpec | None:
        return next(reversed(self.spaces.values()), None)

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing at all to examine."""
        return not (self.learners or self.actors or self.spaces or self.manifest or self.errors)


def compiling(learner: LearnerReport) -> bool:
    """Tell whether the learner compiles, or what comes before its first step does: it is silent for a while."""
    near = learner.online_buffer_size >= 0.5 * learner.training_starts
    return learner.compiling or (learner.gradient_step == learner.restored_gradient_step and near)
