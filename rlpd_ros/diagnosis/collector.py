# SPDX-License-Identifier: Apache-2.0
"""Gather evidence as it comes in, from a running graph or out of a bag."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from rlpd_ros.data.demonstrations import DemonstrationManifest
from rlpd_ros.diagnosis.evidence import (
    BURST,
    FORGET,
    CameraSight,
    Endpoint,
    Evidence,
    Graph,
    Machine,
    Sample,
    Track,
)
from rlpd_ros.status import ActorReport, LearnerReport
from rlpd_ros.types import EpisodeSummary, SpaceSpec

MINUTE = 60.0  # s over which restarts are counted
TEN_MINUTES = 600.0  # s over which those are that come slowly
LEAVING = 5.0  # s that a node may take to give up its endpoints when it ends
IDLE = 0.04  # share of a core that a process does not need for doing nothing
IDLE_TIME = 1.5  # s over which that is measured
MAX_SESSIONS = 50  # of learners, actors and cameras; these two bound the memory that strangers can claim
MAX_SPACES = 10


class Collector:
    """Hold the evidence. Every ``hear`` takes when a message came, in s, and where it matters when it was made."""

    def __init__(self, patience: int) -> None:
        self.evidence = Evidence(patience=patience)
        self._endpoints: dict[Endpoint, float] = {}  # when they were last seen
        self._alive: dict[str, set[int]] = {}  # node -> its processes
        self._deaths: dict[str, list[float]] = {}
        self._told_restarts: dict[str, int] = {}
        self._cpu: deque[tuple[float, dict[int, float]]] = deque(maxlen=10)  # of every process, at the last looks

    def hear_learner(self, report: LearnerReport, stamp: float, at: float) -> None:
        self._add(self._track(self.evidence.learners, report.session, at), Sample(at, stamp, report))

    def hear_actor(self, report: ActorReport, stamp: float, at: float) -> None:
        self._add(self._track(self.evidence.actors, report.session, at), Sample(at, stamp, report))

    def hear_space(self, spec: SpaceSpec) -> None:
        self.evidence.spaces.pop(spec.fingerprint, None)
        self.evidence.spaces[spec.fingerprint] = spec
        while len(self.evidence.spaces) > MAX_SPACES:
            del self.evidence.spaces[next(iter(self.evidence.spaces))]

    def hear_manifest(self, manifest: DemonstrationManifest) -> None:
        self.evidence.manifest = manifest

    def hear_episode(self, episode: EpisodeSummary) -> None:
        self.evidence.episodes.append(episode)

    def hear_camera(self, name: str, sight: CameraSight) -> None:
        self.evidence.cameras.pop(name, None)
        self.evidence.cameras[name] = sight
        while len(self.evidence.cameras) > MAX_SESSIONS:
            del self.evidence.cameras[next(iter(self.evidence.cameras))]

    def hear_restarts(self, restarts: dict[str, int]) -> None:
        """Take what a monitor has counted: it may have been here for longer."""
        self._told_restarts = restarts

    def look(self, graph: Graph, machine: Machine, at: float) -> None:
        """Take a look at the graph and at this machine; a node that is seen again keeps its first time."""
        before = self.evidence.graph or Graph()
        known = {e: seen for e, seen in self._endpoints.items() if at - seen < LEAVING}
        self._endpoints = known | dict.fromkeys(graph.endpoints, at)
        self.evidence.graph = replace(graph, nodes={node: before.nodes.get(node, at) for node in graph.nodes},
                                      since={e.gid: before.since.get(e.gid, at) for e in graph.endpoints},
                                      leaving=frozenset(e.node for e in known.keys() - set(graph.endpoints)))
        self.evidence.machine = machine
        self._count_deaths(graph, machine, at)
        self._find_idle(machine, at)
        if len(self.evidence.spaces) > 1 and len(graph.nodes_that_publish("space_spec")) < 2:
            self.evidence.spaces = {spec.fingerprint: spec for spec in [self.evidence.space] if spec}

    def at(self, now: float) -> Evidence:
        """Return the evidence as of ``now``."""
        self.evidence.now = now
        return self.evidence

    def _track(self, tracks: dict[str, Track], session: str, at: float) -> Track:
        if session not in tracks:
            for name in [name for name, track in tracks.items() if at - track.heard_at > FORGET]:
                del tracks[name]
            if len(tracks) >= MAX_SESSIONS:
                del tracks[min(tracks, key=lambda name: tracks[name].heard_at)]
            tracks[session] = Track()
        return tracks[session]

    @staticmethod
    def _add(track: Track, sample: Sample) -> None:
        """Append a sample. Of several that come at once, though they were made one after another, the last counts."""
        samples = track.samples
        if samples and sample.at - samples[-1].at < BURST and sample.stamp - samples[-1].stamp > 2 * BURST:
            samples.pop()
        samples.append(sample)

    def _count_deaths(self, graph: Graph, machine: Machine, at: float) -> None:
        """Count the processes, of all arms, that are gone while another of the same node is there or was there since."""
        alive: dict[str, set[int]] = {}
        namespaces = {machine.namespace, *(end.namespace for end in graph.endpoints)}
        ours = [p for p in machine.processes if p.domain == machine.domain and p.namespace in namespaces]
        for process in ours:
            alive.setdefault(process.node, set()).add(process.pid)
        for node in alive.keys() | self._alive.keys():
            gone = self._alive.get(node, set()) - alive.get(node, set())
            self._deaths.setdefault(node, []).extend([at] * len(gone))
        self._alive = alive
        self._deaths = {node: recent for node, times in self._deaths.items()
                        if (recent := [t for t in times if at - t < TEN_MINUTES])}
        self.evidence.slow_restarts = {node: len(times) for node, times in self._deaths.items()}
        seen = {node: count for node, times in self._deaths.items() if (count := sum(at - t < MINUTE for t in times))}
        told = self._told_restarts
        self.evidence.restarts = {node: max(seen.get(node, 0), told.get(node, 0)) for node in seen.keys() | told.keys()}

    def _find_idle(self, machine: Machine, at: float) -> None:
        now = {process.pid: process.cpu for process in machine.processes}
        self._cpu.append((at, now))
        earlier = [(then, cpu) for then, cpu in self._cpu if at - then >= IDLE_TIME]
        if earlier:
            then, cpu = earlier[-1]
            self.evidence.idle = {pid for pid in now if pid in cpu and now[pid] - cpu[pid] < IDLE * (at - then)}

