# SPDX-License-Identifier: Apache-2.0
"""Do all nodes run, find each other, and get each other's messages?"""

from __future__ import annotations

from rlpd_ros.diagnosis.evidence import ALIVE, FORGET, Endpoint, Evidence, Graph, LocalProcess, Track, compiling
from rlpd_ros.diagnosis.finding import NO_ACTOR, NO_GRAPH, Outcome, Text, check, error, of_graph, ok, unknown
from rlpd_ros.status import HOST, ActorReport, ActorState, LearnerReport, LearnerState
from rlpd_ros.types import session_kind

MARKS = {"learner": "learner_status", "actor": "actor_status", "arm_driver": "space_spec", "demo_loader": "demo_manifest"}
"""Kind of node -> the topic by whose publisher it is known, whatever its name."""

WIRES = (
    ("policy_params", "learner", "actor"), ("space_spec", "arm_driver", "actor"), ("space_spec", "arm_driver", "learner"),
    ("transitions", "actor", "learner"), ("transitions_ack", "learner", "actor"), ("actor_status", "actor", "learner"),
    ("episode", "actor", "learner"), ("demo_manifest", "demo_loader", "learner"),
    ("demo_transitions", "demo_loader", "learner"), ("observation", "arm_driver", "actor"),
    ("action", "actor", "arm_driver"))
"""Topic, who publishes it, who subscribes to it."""

SETTLED = 1.0  # s after which all endpoints of a node have been discovered
STARTING = 40.0  # s that a node may take from its start until it is heard: imports, compilation
RESETTING = 120.0  # s that an arm may take to reset, perhaps with a person's help
COMPILING = 120.0  # s that a node may take to compile, or to compute features
UNHEARD = 1.7  # s after which a node that is there must have been heard for the first time
SILENT = 4.0  # s without a status, of which there are two a second


def needed(evidence: Evidence) -> list[str]:
    """Return the kinds of nodes without which nothing can go on."""
    if _plays(evidence.graph):
        return ["actor", "arm_driver"]
    learner = evidence.learner
    waits = learner is not None and learner.state == LearnerState.WAITING_FOR_DEMONSTRATIONS
    loader = waits and learner is not None and not learner.demo_expected and not learner.demo_error
    return ["learner", "actor", "arm_driver", *(["demo_loader"] if loader else [])]


def _plays(graph: Graph | None) -> bool:
    """Tell whether a finished policy is played: then no actor listens for a learner."""
    if graph is None:
        return False
    listen = {node for topic in ("policy_params", "transitions_ack") for node in graph.nodes_that_subscribe(topic)}
    actors = graph.nodes_that_publish(MARKS["actor"])
    return bool(actors) and not actors & listen


def missing(evidence: Evidence, graph: Graph) -> list[tuple[str, str]]:
    """Return the nodes that are needed and not there, by kind and namespace; one that is just starting is not missing.

    Where one of several arms has its driver or its actor it needs both.
    """
    main = evidence.machine.namespace
    absent = [(kind, main) for kind in needed(evidence) if not graph.nodes_that_publish(MARKS[kind])]
    if not absent:
        for namespace in sorted(_arms(evidence, graph) - {main}):
            absent += [(kind, namespace) for kind in ("actor", "arm_driver")
                       if namespace not in graph.publishers(MARKS[kind]) and graph.elsewhere.get(kind) != namespace]
    return [(kind, namespace) for kind, namespace in absent
            if not any(p.age < STARTING for p in evidence.machine.nodes(kind, namespace))]


def _arms(evidence: Evidence, graph: Graph) -> set[str]:
    """Return the namespaces of the arms: of what is connected, and where that is in several, of what is lost below.

    Nobody who comes after an arm's actor has died finds more than its driver. One that has no arms may be another run's.
    """
    main = evidence.machine.namespace
    connected = {end.namespace for end in graph.endpoints if end.topic in (MARKS["actor"], MARKS["arm_driver"])
                 and end.publishes}
    lost = {namespace for kind, namespace in graph.elsewhere.items() if kind in ("actor", "arm_driver")
            and namespace != graph.elsewhere.get("learner") and namespace.startswith(f"{main.rstrip('/')}/")}
    return connected | lost if connected - {main} else connected


@check("domain", Text("Same domain and discovery range", "相同的域与发现范围"),
       Text("All nodes run, yet actor and learner do not see each other", "节点都在运行，但执行器与学习器互相看不见"),
       Text("Give all nodes the same ROS_DOMAIN_ID, namespace and ROS_AUTOMATIC_DISCOVERY_RANGE (not OFF), then restart "
            "those that differ.",
            "让所有节点使用相同的 ROS_DOMAIN_ID、命名空间和 ROS_AUTOMATIC_DISCOVERY_RANGE（不要设为 OFF），然后重启不一致的节点。"))
@of_graph
def domain(evidence: Evidence, graph: Graph) -> Outcome:
    machine = evidence.machine
    present = {kind for kind in MARKS if graph.nodes_that_publish(MARKS[kind])}
    for kind in needed(evidence):
        if kind in present or _was_heard(evidence, kind):  # then it has been where the others are
            continue
        here = f"domain {machine.domain}, namespace {machine.namespace}"
        zh_here = f"域 {machine.domain}、命名空间 {machine.namespace}"
        hidden = [p for p in machine.here(kind) if p.discovery == "OFF"]
        if hidden:
            return error(f"{kind} (process {hidden[0].pid}) runs with ROS_AUTOMATIC_DISCOVERY_RANGE=OFF: nobody finds it",
                         f"{kind}（进程 {hidden[0].pid}）的 ROS_AUTOMATIC_DISCOVERY_RANGE=OFF：其他节点无法发现它",
                         pid=hidden[0].pid)
        other = [p for p in machine.processes if p.node == kind and p not in machine.here(kind)
                 and not present & _partners(evidence, p)]
        if other and not machine.here(kind):
            p = other[0]
            return error(f"the {kind} (process {p.pid}) is on domain {p.domain}, namespace {p.namespace}; the others are on "
                         f"{here}",
                         f"{kind}（进程 {p.pid}）在域 {p.domain}、命名空间 {p.namespace}；其他节点在{zh_here}",
                         pid=p.pid, domain=p.domain, namespace=p.namespace)
        namespace = graph.elsewhere.get(kind)
        partners = {other for other, where in graph.elsewhere.items() if where == namespace}
        if namespace and not machine.here(kind) and not present & partners:
            return error(f"the {kind} is in namespace {graph.elsewhere[kind]}; the others are in {machine.namespace}",
                         f"{kind} 在命名空间 {graph.elsewhere[kind]}；其他节点在 {machine.namespace}",
                         namespace=graph.elsewhere[kind])
    return ok(f"domain {machine.domain}, namespace {machine.namespace}", f"域 {machine.domain}，命名空间 {machine.namespace}",
              domain=machine.domain)


def _was_heard(evidence: Evidence, kind: str) -> bool:
    actors = [track.last for track in evidence.actor_tracks]
    return bool(actors) if kind == "actor" else kind == "learner" and (
        evidence.learner is not None or any(actor.applied_version for actor in actors))


def _partners(evidence: Evidence, process: LocalProcess) -> set[str]:
    """Return the kinds of nodes that are where ``process`` is. A run that has all of its own is another run."""
    return {p.node for p in evidence.machine.processes
            if (p.domain, p.namespace) == (process.domain, process.namespace)}


@check("qos", Text("Compatible quality of service", "服务质量（QoS）兼容"),
       Text("Publisher and subscriber are there, yet no message arrives", "发布者和订阅者都在，却收不到消息"),
       Text("Remove the qos_overrides of that topic, or give both sides profiles that fit: the publisher must offer at "
            "least what the subscriber asks for.",
            "删除该话题的 qos_overrides，或让两侧配置相容：发布者提供的不能低于订阅者要求的。"))
def qos(evidence: Evidence) -> Outcome:
    graph = evidence.graph
    if graph is None:
        return _refused_connections(evidence)
    if graph.mismatches:
        m = graph.mismatches[0]
        return error(f"{m.topic}: what {m.publisher} offers is less than {m.subscriber} asks for: the middleware delivers "
                     f"nothing: {m.reason}",
                     f"{m.topic}：{m.publisher} 提供的低于 {m.subscriber} 要求的，中间件不会投递任何消息：{m.reason}",
                     topic=m.topic, publisher=m.publisher, subscriber=m.subscriber)
    return ok(f"{len(graph.endpoints)} endpoints fit", f"{len(graph.endpoints)} 个端点相容", endpoints=len(graph.endpoints))


def _refused_connections(evidence: Evidence) -> Outcome:
    """Judge by what actor and learner were told by the middleware: without a graph it is all there is."""
    reports: list[ActorReport | LearnerReport] = [track.last for track in evidence.actor_tracks]
    reports += [evidence.learner] if evidence.learner else []
    for report in reports:
        if report.incompatible_qos:
            who, what = report.session, report.incompatible_qos
            return error(f"the middleware refused to connect {who}: {what}", f"中间件拒绝连接 {who}：{what}", session=who)
    return ok("no refusal reported", "没有被拒绝的连接") if reports else unknown("nobody was heard", "没有收到任何状态")


@check("connections", Text("Topics connected", "话题已连接"),
       Text("A node says that it waits for something which another one sends", "一个节点在等待另一个节点已经发出的东西"),
       Text("Look for a remap or a misspelt topic: `ros2 topic info -v /<topic>` and `ros2 node info /<node>` show both "
            "ends; start the node again without it.",
            "检查重映射或话题拼写：用 `ros2 topic info -v /<话题>` 和 `ros2 node info /<节点>` 查看两端，去掉后重启该节点。"))
@of_graph
def connections(evidence: Evidence, graph: Graph) -> Outcome:
    nodes = {kind: {n for n in graph.nodes_that_publish(mark) - graph.leaving
                    if evidence.now - graph.nodes.get(n, evidence.now) >= SETTLED} for kind, mark in MARKS.items()}
    several = len(nodes["arm_driver"]) > 1 or len(nodes["actor"]) > 1
    for topic, sender, receiver in WIRES:
        if not nodes[sender] or not nodes[receiver] or (several and topic in ("observation", "action")):
            continue
        deaf = sorted(nodes[receiver] - graph.nodes_that_subscribe(topic))
        mute = sorted(nodes[sender] - graph.nodes_that_publish(topic))
        if deaf or mute:
            who, does, zh_does = (deaf[0], "does not subscribe to", "没有订阅") if deaf else (
                mute[0], "does not publish", "没有发布")
            return error(f"{who} {does} {topic}: it has been remapped, or is another program", f"{who} {zh_does} {topic}：被重映射，或是别的程序",
                         topic=topic, node=who)
    return ok(f"all topics between {sum(map(len, nodes.values()))} nodes are connected",
              f"{sum(map(len, nodes.values()))} 个节点之间的话题均已连接")


@check("restarts", Text("Nodes stay alive", "节点保持运行"),
       Text("A node dies and is started again and again", "某个节点反复崩溃重启"),
       Text("Read the last lines of logs/<node>.log in the run directory (ros2 launch: ~/.ros/log/latest/launch.log): it ends with "
            "the exception. Correct that, or report it.",
            "查看运行目录中 logs/<节点>.log（ros2 launch：~/.ros/log/latest/launch.log）的最后几行：结尾就是异常信息。修正它，或提交问题报告。"))
def restarts(evidence: Evidence) -> Outcome:
    if not evidence.live:
        return NO_GRAPH
    if evidence.ended:
        return ok("training is over", "训练已结束")
    for often, restarts, within, zh_within in ((2, evidence.restarts, "minute", "一分钟"),
                                               (5, evidence.slow_restarts, "ten minutes", "十分钟")):
        node, count = max(restarts.items(), key=lambda item: item[1], default=("", 0))
        if count >= often:
            return error(f"the {node} died and was started again {count} times within the last {within}",
                         f"{node} 在最近{zh_within}内崩溃并重启了 {count} 次", **restarts)
    return ok("no node restarts again and again", "没有节点反复重启", **evidence.restarts)


@check("nodes", Text("All nodes there", "所有节点都在"),
       Text("The arm holds still, or the learner stands still, and nothing happens", "机械臂静止或学习器停住，什么都不发生"),
       Text("Start the missing node (rlpd train and the launch file start all); if it ended, its last lines in "
            "logs/<node>.log say why (ros2 launch: ~/.ros/log/latest/launch.log).",
            "启动缺少的节点（rlpd train 和 launch 文件会启动全部节点）；若它已退出，logs/<节点>.log（ros2 launch：~/.ros/log/latest/launch.log）"
            "的最后几行说明原因。"))
def nodes(evidence: Evidence) -> Outcome:
    if evidence.errors:
        node, line = next(iter(evidence.errors.items()))
        return error(f"the {node} ended: {line}", f"{node} 已退出：{line}", node=node)
    return _present(evidence)


@of_graph
def _present(evidence: Evidence, graph: Graph) -> Outcome:
    if evidence.ended:
        return ok("training is over", "训练已结束")
    absent = missing(evidence, graph) + dead(evidence)
    if absent:
        kind, namespace = absent[0]
        en, zh = _was_there(evidence, kind, namespace)
        where, zh_where = ("the graph", "图") if namespace == evidence.machine.namespace else (
            f"namespace {namespace}", f"命名空间 {namespace} ")
        return error(f"no {kind} in {where}: {en}", f"{zh_where}中没有 {kind}：{zh}",
                     missing=", ".join(kind for kind, _ in absent))
    return ok(f"{', '.join(needed(evidence))}: there or starting", f"{'、'.join(needed(evidence))}：都在或正在启动")


def dead(evidence: Evidence) -> list[tuple[str, str]]:
    """Return the nodes, by kind and namespace, whose process on this machine is gone while the graph may still show them."""
    machine, gone = evidence.machine, []
    tracks: list[tuple[str, str, Track[LearnerReport] | Track[ActorReport]]] = [
        ("actor", _namespace_of(track.last), track) for track in evidence.newest_actors]
    if evidence.learner_track is not None:
        tracks.insert(0, ("learner", machine.namespace, evidence.learner_track))
    for kind, namespace, track in tracks:
        silence = track.silence(evidence.now)
        ours = track.last.host == HOST and machine.processes
        # of a container that shares the host's name the processes are not seen here
        silent_for_a_reason = isinstance(track.last, LearnerReport) and compiling(track.last) and silence < COMPILING
        if ours and ALIVE < silence < FORGET and not silent_for_a_reason and not machine.nodes(kind, namespace):
            gone.append((kind, namespace))
    return gone


def _namespace_of(actor: ActorReport) -> str:
    """Return the namespace of an actor's node, of which its session is named (see ``session_kind``)."""
    return "/" + "/".join(actor.session.rpartition("-")[0].split(".")[:-1])


def _was_there(evidence: Evidence, kind: str, namespace: str) -> tuple[str, str]:
    actor = next((track.last for track in evidence.actor_tracks), None)
    if kind == "learner" and actor is not None and actor.applied_version:
        return (f"it has died since it sent version {actor.applied_version}, {actor.policy_age:.0f} s ago",
                f"它在 {actor.policy_age:.0f} 秒前发出版本 {actor.applied_version} 之后退出了")
    learner = evidence.learner
    lives = [track.last for track in evidence.newest_actors if _namespace_of(track.last) == namespace]
    steps = lives[0].env_steps if lives else learner.env_steps if learner and namespace == evidence.machine.namespace else 0
    if kind == "actor" and steps:
        return (f"it has died after {steps} environment steps", f"它在 {steps} 个环境步之后退出了")
    return "it was not started, or runs where it cannot be discovered", "它没有启动，或在无法被发现的地方运行"


@check("blocked", Text("Nodes responsive", "节点有响应"),
       Text("A node is there but says nothing any more; its subscriptions are alive, its loop is not",
            "节点还在但不再发声：订阅存在，循环已停"),
       Text("A callback of that node blocks (a driver, a debugger, a full pipe): see where with `py-spy dump --pid PID`, "
            "and restart it.",
            "该节点的某个回调被阻塞（驱动、调试器、管道已满）：用 `py-spy dump --pid PID` 查看位置，然后重启它。"))
@of_graph
def blocked(evidence: Evidence, graph: Graph) -> Outcome:
    namespaces = {evidence.machine.namespace, *_arms(evidence, graph)}
    stopped = [p for p in evidence.machine.processes if p.stopped and p.domain == evidence.machine.domain
               and p.namespace in namespaces]
    if stopped:
        return error(f"the {stopped[0].node} (process {stopped[0].pid}) is stopped by a signal or a debugger",
                     f"{stopped[0].node}（进程 {stopped[0].pid}）被信号或调试器暂停", pid=stopped[0].pid)
    if evidence.ended:
        return ok("training is over", "训练已结束")
    gone = dead(evidence)  # the graph does not know it yet
    for kind in ("actor", "learner"):
        for namespace, ends in graph.publishers(MARKS[kind]).items():
            silences = [_silence(evidence, kind, namespace, track) for track in _tracks_of(evidence, kind, ends)]
            silence = max(silences) if silences else _unheard(evidence, graph, kind, ends)
            if silence > SILENT and (kind, namespace) not in gone:
                en, zh = (kind, kind) if namespace == evidence.machine.namespace else (
                    f"{kind} in namespace {namespace}", f"命名空间 {namespace} 中的 {kind} ")
                return error(f"the {en} is in the graph but has said nothing for {silence:.1f} s, of two statuses a second: "
                             "its loop is blocked",
                             f"{zh} 在图中，但已 {silence:.1f} 秒没有状态（正常每秒两次）：它的循环被阻塞", silence=silence)
    return ok("actor and learner answer", "执行器与学习器都有响应")


def _tracks_of(evidence: Evidence, kind: str, ends: list[Endpoint]) -> list[Track]:
    """Return what the nodes with these endpoints have said."""
    if kind == "learner":
        return [evidence.learner_track] if evidence.learner_track else []
    names = {session_kind(end.node) for end in ends}
    return [track for track in evidence.newest_actors if track.last.session.rpartition("-")[0] in names]


def _unheard(evidence: Evidence, graph: Graph, kind: str, ends: list[Endpoint]) -> float:
    """Return for how long a node that has never been heard should have been, in s, SILENT before that."""
    there = evidence.now - max(graph.nodes.get(end.node, evidence.now) for end in ends)
    ours = evidence.machine.nodes(kind, ends[0].namespace)
    starting = _busy(evidence, ours) and (any(p.age < STARTING for p in ours) if ours else there < STARTING)
    return 0.0 if starting or there < UNHEARD else SILENT + there


def _silence(evidence: Evidence, kind: str, namespace: str, track: Track) -> float:
    """Return for how long a node has been silent without a good reason, in s."""
    ours = evidence.machine.nodes(kind, namespace)
    silence, state = track.silence(evidence.now), track.last.state
    if kind == "learner":
        computes = compiling(track.last) or state in (
            LearnerState.WAITING_FOR_SPACE, LearnerState.WAITING_FOR_DEMONSTRATIONS, LearnerState.FILLING)
        at_rest = state in (LearnerState.FINISHED, LearnerState.FAILED)
    else:
        computes = state == ActorState.WAITING_FOR_SPACE or any(p.age < STARTING for p in ours)
        at_rest = False
    reason = at_rest or (computes and _busy(evidence, ours))
    return 0.0 if reason and silence < COMPILING else silence


def _busy(evidence: Evidence, ours: list[LocalProcess]) -> bool:
    """Tell whether a node may be computing: one of these processes does, or it is elsewhere."""
    return not ours or any(p.pid not in evidence.idle for p in ours)


@check("arm", Text("The arm answers", "机械臂有响应"),
       Text("The actor waits for observations", "执行器在等待观测"),
       Text("Look at the arm driver's output: is the arm switched on, unlocked and its cable plugged? If the arm stands still, "
            "restart the driver.",
            "查看机械臂驱动节点的输出：机械臂是否上电、解锁、接好线缆？若机械臂静止不动，重启驱动节点。"))
def arm(evidence: Evidence) -> Outcome:
    tracks = evidence.actor_tracks
    for track in tracks:
        before = track.since(evidence.now - 2.5)
        speaks = evidence.live and track.span() >= 2.0 and evidence.now - track.heard_at < ALIVE
        if speaks and _lacks_arm(track.last) and _lacks_arm(before) and not _may_take_long(evidence, track):
            en, zh = evidence.name_of(track.last)
            return error(f"{en} gets no observations: {track.last.text}", f"{zh}收不到观测：{track.last.text}")
    return ok("the actor gets observations", "执行器收到观测") if tracks else NO_ACTOR


def _lacks_arm(actor: ActorReport) -> bool:
    return actor.resetting or actor.state in (ActorState.WAITING_FOR_ARM, ActorState.WAITING_FOR_SPACE)


def _may_take_long(evidence: Evidence, track: Track[ActorReport]) -> bool:
    """Tell whether there is a good reason for an actor to have no observation yet: a reset, or a start."""
    actor, machine = track.last, evidence.machine
    silence = actor.observation_age + evidence.now - track.heard_at
    if actor.resetting:
        return silence < RESETTING
    drivers = [p for p in machine.processes if (p.node, p.domain) == ("arm_driver", machine.domain)]
    unseen = [p for p in drivers if p.age < silence or not actor.env_steps]  # a driver begins with a reset
    if not drivers and not actor.env_steps and actor.state == ActorState.WAITING_FOR_ARM:  # it is elsewhere
        return silence < RESETTING
    return any(p.age < RESETTING for p in unseen) or (
        not actor.env_steps and any(p.age < STARTING for p in machine.here("actor")))


CHECKS = (domain, qos, connections, restarts, nodes, blocked, arm)
