# SPDX-License-Identifier: Apache-2.0
"""Is each node there only once?"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from rlpd_ros.diagnosis.evidence import ALIVE, Endpoint, Evidence, Graph, Report, Track
from rlpd_ros.diagnosis.finding import NO_GRAPH, Outcome, Text, check, error, ok
from rlpd_ros.types import session_kind

TOGETHER = 1.0  # s for which two sessions must have been heard side by side
LINGER = 25.0  # s after which a dead node has left every graph: its lease (20 s by default) has run out


@check("duplicates", Text("Each node only once", "每个节点只有一个"),
       Text("The arm jerks from one policy to another, or learning goes to and fro: a node is there twice",
            "机械臂在两个策略之间来回跳动，或学习时好时坏：同一种节点有两个"),
       Text("Stop the one that does not belong to this run: `kill PID` where it runs; `pgrep -af rlpd_ros` on each machine lists "
            "all (nodes of a launch that was killed go on without it). To keep both, give one a ROS_DOMAIN_ID or a namespace "
            "of its own.",
            "停止不属于本次运行的那个：在它所在的机器上 `kill PID`；在各台机器上用 `pgrep -af rlpd_ros` 列出所有节点（launch 被强制结束后，"
            "其节点会继续运行）。若两个都要保留，请给其中一个单独的 ROS_DOMAIN_ID 或命名空间。"))
def duplicates(evidence: Evidence) -> Outcome:
    graph = evidence.graph or Graph()
    for outcome in (_learners(evidence, graph), _actors(evidence, graph), _arm_drivers(evidence, graph)):
        if outcome is not None:
            return outcome
    return ok("one learner, and one actor and one driver per arm", "一个学习器，每个机械臂一个执行器和一个驱动") if evidence.graph else NO_GRAPH


def _learners(evidence: Evidence, graph: Graph) -> Outcome | None:
    """Judge them by their statuses, or by their processes here: one that compiles is silent."""
    namespace = evidence.machine.namespace
    names = [f"{report.session} ({report.host})" for report in _side_by_side(evidence.learners.values(), evidence.now)]
    if not names:
        ends = dict(_crowds(graph, "learner_status")).get(namespace, [])
        all_alive = len(evidence.machine.nodes("learner", namespace)) >= len(ends)
        names = [end.node for end in ends] if all_alive else []
    if not names:
        return None
    en, zh = _processes_here(evidence, "learner", namespace)
    return error(f"{len(names)} learners live at the same time: {', '.join(names)}{en}",
                 f"同时有 {len(names)} 个学习器：{', '.join(names)}{zh}", learners=len(names))


def _actors(evidence: Evidence, graph: Graph) -> Outcome | None:
    """Judge the actors that command the same arm by their statuses: in the graph one that was killed lingers."""
    living = _side_by_side(evidence.actors.values(), evidence.now)
    for namespace, ends in _crowds(graph, "action"):
        kinds = {session_kind(end.node) for end in ends}
        here = [report for report in living if report.session.rpartition("-")[0] in kinds]
        if len(here) > 1:
            who = ", ".join(f"{report.session} ({report.host})" for report in here)
            en, zh = _processes_here(evidence, "actor", namespace)
            return error(f"{len(here)} actors command the arm in namespace {namespace}: {who}{en}",
                         f"命名空间 {namespace} 中有 {len(here)} 个执行器控制同一机械臂：{who}{zh}", actors=len(here))
    return None


def _arm_drivers(evidence: Evidence, graph: Graph) -> Outcome | None:
    """Judge the drivers, which tell nothing of themselves, by their processes here, or by how long they are there."""
    for namespace, ends in _crowds(graph, "observation"):
        here = evidence.machine.nodes("arm_driver", namespace)
        all_alive = len(here) >= len(graph.publishers("space_spec").get(namespace, ()))
        together = evidence.now - sorted(graph.since.get(end.gid, evidence.now) for end in ends)[1]
        if all_alive or together > LINGER:
            names = ", ".join(end.node for end in ends)
            en, zh = _processes_here(evidence, "arm_driver", namespace)
            return error(f"{len(ends)} arm drivers observe in namespace {namespace}: {names}{en}",
                         f"命名空间 {namespace} 中有 {len(ends)} 个机械臂驱动：{names}{zh}", arm_drivers=len(ends))
    return None


def _crowds(graph: Graph, topic: str) -> list[tuple[str, list[Endpoint]]]:
    return [(namespace, ends) for namespace, ends in graph.publishers(topic).items() if len(ends) > 1]


def _side_by_side(tracks: Iterable[Track[Report]], now: float) -> list[Report]:
    """Return what those sessions say that live and were heard at the same time as another.

    Of a node that was started again the sessions come one after the other.
    """
    living = [track for track in tracks if now - track.heard_at < ALIVE]
    found = [{id(a): a, id(b): b} for a, b in combinations(living, 2)
             if min(a.heard_at, b.heard_at) - max(a.fresh[0].at, b.fresh[0].at) >= TOGETHER]
    return [track.last for track in {key: track for pair in found for key, track in pair.items()}.values()]


def _processes_here(evidence: Evidence, node: str, namespace: str) -> Text:
    here = evidence.machine.nodes(node, namespace)
    if not here:
        return Text("", "")
    oldest_first = sorted(here, key=lambda process: -process.age)
    en = ", ".join(f"process {p.pid} since {p.age:.0f} s" for p in oldest_first)
    zh = "，".join(f"进程 {p.pid}（已运行 {p.age:.0f} 秒）" for p in oldest_first)
    return Text(f"; on this machine {en}", f"；本机上有{zh}")


CHECKS = (duplicates,)
