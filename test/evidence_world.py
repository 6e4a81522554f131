# SPDX-License-Identifier: Apache-2.0
"""Evidence for tests: a healthy run, of which one thing is changed at a time."""

from __future__ import annotations

from dataclasses import replace

from rlpd_ros.data.demonstrations import DemonstrationManifest
from rlpd_ros.diagnosis import Evidence, diagnose, faults
from rlpd_ros.diagnosis.collector import Collector
from rlpd_ros.diagnosis.connection import MARKS, WIRES
from rlpd_ros.diagnosis.evidence import Endpoint, Graph, LocalProcess, Machine, Mismatch, Sample, Track
from rlpd_ros.status import ActorReport, ActorState, LearnerReport, LearnerState
from rlpd_ros.types import SpaceField, SpaceSpec

NOW = 1000.0
SPACE = SpaceSpec("robot", (SpaceField.box("position", [-1] * 3, [1] * 3, "m"),),
                  (SpaceField.box("delta", [-1] * 2, [1] * 2),), 10.0, "base", 50)
LEARNER = LearnerReport(
    "learner-1", state=LearnerState.TRAINING, space_fingerprint=SPACE.fingerprint, network_fingerprint="net",
    gradient_step=2000, max_steps=100_000, version=40, policy_bytes=300_000, env_steps=2100, online_buffer_size=2100,
    replay_buffer_capacity=200_000, demo_buffer_size=300, demo_expected=300, training_starts=100,
    transitions_received=2100, transitions_stored=2100, data_age=0.1, utd_set=2.0, utd_measured=2.0, q_mean=0.5,
    entropy=-1.0, temperature=0.01, parameter_change=1.0, demo_action_distance=0.3, demo_action_distance_first=0.8,
    discount=0.95, reward_seen=1.0)
ACTOR = ActorReport(
    "actor-1", state=ActorState.ACTING, applied_version=40, newest_version=40, space_fingerprint=SPACE.fingerprint,
    network_fingerprint="net", env_steps=2100, policy_actions=2100, transitions_sent=2100, transitions_acked=2100)
MANIFEST = DemonstrationManifest("demos-1", ["bag"], [300], [10], [10], ["0"], 300, 1.0, 0.0, 0.2, SPACE.fingerprint,
                                 True)
NAMES = {kind: f"/{kind}" for kind in MARKS}
PROCESSES = tuple(LocalProcess(100 + i, kind, "/", 5, "LOCALHOST", 100.0) for i, kind in enumerate(MARKS))
EMPTY = Machine(domain=5)
MACHINE = Machine(domain=5, disk_free=2**34, shm_free=2**26, socket_buffer=2**22, processes=PROCESSES)


def machine_without(kind: str) -> Machine:
    return replace(MACHINE, processes=tuple(p for p in PROCESSES if p.node != kind))


def wires(*, without: str = "", unplugged: str = "", mismatches: tuple[Mismatch, ...] = ()) -> Graph:
    """Make the graph of a whole system: without one kind of node, with one end missing or ends that do not fit."""
    ends = [(topic, sender, True) for topic, sender, _ in WIRES] + [(topic, to, False) for topic, _, to in WIRES]
    ends += [(topic, kind, True) for kind, topic in MARKS.items()]
    return Graph(dict.fromkeys(NAMES.values(), 0.0), tuple(
        Endpoint(topic, NAMES[kind], publishes) for topic, kind, publishes in dict.fromkeys(ends)
        if kind != without and (topic, publishes) != (unplugged, False)), mismatches=mismatches)


def evidence(learner: dict | None = None, actor: dict | None = None, earlier_learner: dict | None = None,
             earlier_actor: dict | None = None, manifest: DemonstrationManifest = MANIFEST, graph: Graph | None = None,
             machine: Machine = MACHINE, silent: str = "", late: float = 0.0, **changes) -> Evidence:
    """Make the evidence of 5 s of listening; ``silent`` names who said nothing in the last 6 of 11 s."""
    collector = Collector(5000)
    collector.evidence.machine = machine
    for i in range(11):
        at = NOW - 5.0 + 0.5 * i
        share = i / 10
        for kind in ("learner", "actor"):
            heard = at - 6.0 if kind == silent else at
            if kind == "learner":
                steady = replace(LEARNER, gradient_step=1900 + int(100 * share), version=38 + int(2 * share))
                report = replace(steady, **(learner or {}) | ((earlier_learner or {}) if i < 10 else {}))
                collector.hear_learner(report, heard, heard)
            else:
                steady = replace(ACTOR, env_steps=2000 + int(100 * share), transitions_sent=2000 + int(100 * share),
                                 transitions_acked=2000 + int(100 * share), applied_version=38 + int(2 * share))
                report = replace(steady, **(actor or {}) | ((earlier_actor or {}) if i < 10 else {}))
                collector.hear_actor(report, heard + late, heard)
    collector.hear_space(SPACE)
    collector.hear_manifest(manifest)
    found = collector.at(NOW)
    found.graph = graph or wires()
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def heard(*lives: tuple[ActorReport | LearnerReport, float, float]) -> dict[str, Track]:
    """Make the tracks of sessions that were heard twice a second, from and until so many s before now."""
    tracks = {}
    for report, first, last in lives:
        tracks[report.session] = track = Track()
        for i in range(int((first - last) / 0.5) + 1):
            at = NOW - first + 0.5 * i
            track.samples.append(Sample(at, at, report))
    return tracks


def twice(kind: str, name: str = "", without: tuple[str, ...] = (), **since: float) -> Graph:
    """Make a graph in which one kind of node is there twice, perhaps by another name or not on all topics."""
    first = [replace(end, gid="first") for end in wires().endpoints]
    second = [replace(end, node=name or end.node, gid="second") for end in first
              if end.node == NAMES[kind] and end.topic not in without]
    nodes = {**wires().nodes, name or NAMES[kind]: 0.0}
    return replace(wires(), nodes=nodes, endpoints=(*first, *second), since=since or dict.fromkeys(
        ("first", "second"), NOW - 1.0))


def verdict(found: Evidence) -> str:
    named = faults(diagnose(found))
    return named[0].check.name if named else ""


def process(kind: str, **changes) -> Machine:
    """Make a machine on which one process is different."""
    return replace(MACHINE, processes=tuple(replace(p, **changes) if p.node == kind else p for p in PROCESSES))
