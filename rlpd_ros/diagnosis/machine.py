# SPDX-License-Identifier: Apache-2.0
"""Is there something wrong with the machines that the nodes run on?"""

from __future__ import annotations

from rlpd_ros.diagnosis.evidence import ALIVE, Evidence
from rlpd_ros.diagnosis.finding import NO_ACTOR, NO_GRAPH, Outcome, Text, check, error, ok, unknown, warn
from rlpd_ros.status import ActorState

CLOCK = 1.0  # s between two clocks that do no harm
LOW_DISK = 500 * 2**20  # bytes
OVERRUNS = 0.2  # share of late answers: each costs a step of time, and no more
RECENT = 10.0  # s that an actor is judged by
FEW = 20  # steps that a share is not judged by


@check("disk", Text("Transitions reach the disk", "转移数据可写入磁盘"),
       Text("The learner takes transitions but acknowledges none, so that in lockstep everything comes to a halt; or an actor "
            "has no room for what the learner has not acknowledged",
            "学习器收到转移数据却不确认，同步模式下一切停住；或执行器没有空间保存尚未确认的转移"),
       Text("Make space on the disk of the run directory (an actor's: of its spool_folder, or raise spool_limit): learner and "
            "actor go on by themselves. What the learner has not acknowledged is kept and sent again.",
            "清理运行目录所在磁盘的空间（执行器：spool_folder 所在磁盘，或增大 spool_limit）：学习器和执行器会自动继续，未确认的数据会保留并重发。"))
def disk(evidence: Evidence) -> Outcome:
    learner, free = evidence.learner, evidence.machine.disk_free
    if learner is not None and learner.store_error:
        return error(f"the learner cannot store transitions: {learner.store_error}", f"学习器无法保存转移数据：{learner.store_error}",
                     disk_free=-1 if free is None else free)
    for track in evidence.actor_tracks if _learner_lives(evidence) else ():  # without it they have nowhere to go
        report, before = track.last, track.since(evidence.now - RECENT)
        loses = report.transitions_lost > before.transitions_lost or (report.transitions_lost and not evidence.live)
        if report.spool_error or loses:
            why = report.spool_error or "its memory is full, and it has no spool"
            return error(f"the actor on {report.host} cannot keep transitions until the learner has them ({report.transitions_lost} "
                         f"lost): {why}",
                         f"{report.host} 上的执行器无法保存学习器尚未确认的转移（已丢失 {report.transitions_lost} 条）：{why}",
                         lost=report.transitions_lost)
    if free is None:
        return unknown("the run directory is not on this machine", "运行目录不在本机")
    if free < LOW_DISK:
        return warn(f"only {free / 2**20:.0f} MiB are free where the run is stored", f"运行目录所在磁盘只剩 {free / 2**20:.0f} MiB",
                    disk_free=free)
    return ok(f"{free / 2**30:.1f} GiB free", f"剩余 {free / 2**30:.1f} GiB", disk_free=free)


def _learner_lives(evidence: Evidence) -> bool:
    track = evidence.learner_track
    return not evidence.live or (track is not None and track.silence(evidence.now) < ALIVE)


@check("clock", Text("Clocks agree", "时钟一致"),
       Text("Ages of policies make no sense; recordings of two machines do not fit together", "策略的时间不合理；两台机器的记录对不上"),
       Text("Synchronise the machines' clocks (chrony or NTP).", "同步各机器的时钟（chrony 或 NTP）。"))
def clock(evidence: Evidence) -> Outcome:
    offsets = [(track.last.host, track.clock_offset()) for track in evidence.actor_tracks
               if len(track.samples) > 2 and evidence.now - track.heard_at < ALIVE]
    learner = evidence.learner_track
    if learner is not None and len(learner.samples) > 2 and evidence.now - learner.heard_at < ALIVE:
        offsets.append((learner.last.host, learner.clock_offset()))
    if not evidence.live or not offsets:
        return unknown("only fresh statuses show it", "需要最新的状态才能检查")
    host, offset = max(offsets, key=lambda item: abs(item[1]))
    if abs(offset) > CLOCK:
        side, zh_side = ("behind", "慢") if offset > 0 else ("ahead of", "快")
        return warn(f"the clock of {host} is {abs(offset):.1f} s {side} this machine's", f"{host} 的时钟比本机{zh_side} {abs(offset):.1f} 秒",
                    offset=offset)
    return ok(f"within {abs(offset):.2f} s", f"相差不超过 {abs(offset):.2f} 秒", offset=offset)


@check("buffers", Text("Buffers fit the messages", "缓冲区足够大"),
       Text("Small messages arrive, policies do not", "小消息能到，策略到不了"),
       Text("Start the nodes with config/fastdds.xml, which needs no /dev/shm, or enlarge that (docker run --shm-size=1g); "
            "between machines, enlarge the socket buffer: sysctl -w net.core.rmem_max=33554432.",
            "用不需要 /dev/shm 的 config/fastdds.xml 启动各节点，或增大 /dev/shm（docker run --shm-size=1g）；跨机器时增大套接字缓冲区：sysctl -w net.core.rmem_max=33554432。"))
def buffers(evidence: Evidence) -> Outcome:
    machine, learner = evidence.machine, evidence.learner
    if learner is None or not learner.policy_bytes:
        return unknown("the size of the policy is not known", "策略大小未知")
    size, shm, socket = learner.policy_bytes, machine.shm_free, machine.socket_buffer
    if shm is not None and shm < 2 * size and any(process.shared_memory for process in machine.processes):
        return error(f"/dev/shm has {shm / 2**20:.1f} MiB free, a policy has {size / 2**20:.1f} MiB",
                     f"/dev/shm 仅剩 {shm / 2**20:.1f} MiB，一个策略有 {size / 2**20:.1f} MiB", shm_free=shm, policy_bytes=size)
    hosts = {learner.host, *(track.last.host for track in evidence.actor_tracks)}
    if len(hosts) > 1 and socket is not None and socket < size:
        return warn(f"net.core.rmem_max is {socket / 2**20:.2f} MiB, a policy has {size / 2**20:.2f} MiB and goes over the "
                    "network",
                    f"net.core.rmem_max 为 {socket / 2**20:.2f} MiB，而 {size / 2**20:.2f} MiB 的策略要经过网络",
                    socket_buffer=socket, policy_bytes=size)
    return ok(f"a policy has {size / 2**20:.2f} MiB", f"一个策略有 {size / 2**20:.2f} MiB", policy_bytes=size)


@check("overruns", Text("Control keeps its rate", "控制周期达标"),
       Text("The arm stutters: it holds still where an action came too late", "机械臂一顿一顿：动作来得太晚时它会停住"),
       Text("Where none is executed, see the arm driver's output: it says why it refuses them. Else lower control_rate, or move the "
            "learner to another machine (nodes:=...), or give the actor its own core (taskset).",
            "若一个都没有执行，请看机械臂驱动的输出：其中说明拒绝的原因。否则降低 control_rate，或把学习器放到另一台机器（nodes:=...），"
            "或给执行器单独的核心（taskset）。"))
def overruns(evidence: Evidence) -> Outcome:
    if not evidence.actor_tracks:
        return NO_ACTOR
    share, late, steps = 0.0, 0, 0
    for track in evidence.actor_tracks:
        now, before = track.last, track.since(evidence.now - RECENT)
        if ActorState.EVALUATING in (now.state, before.state):
            continue  # its steps are not counted
        late, steps = now.overruns - before.overruns, now.env_steps - before.env_steps
        en, zh = evidence.name_of(now)
        if late >= FEW and not steps:
            return error(f"the arm has executed none of the last {late} actions of {en}: its driver refuses them, or each comes too "
                         f"late (it takes {now.inference_ms:.1f} ms)",
                         f"{zh}最近的 {late} 个动作机械臂一个都没有执行：驱动拒绝了它们，或每个都来得太晚（计算需 {now.inference_ms:.1f} ms）",
                         overruns=late, steps=0, inference_ms=now.inference_ms)
        share = late / max(1, late + steps)
        if late + steps >= FEW and share > OVERRUNS:
            return warn(f"{late} of the last {late + steps} control steps were answered too late ({share:.0%}); an action takes "
                        f"{now.inference_ms:.1f} ms",
                        f"最近 {late + steps} 个控制步中有 {late} 个应答太晚（{share:.0%}）；计算一次动作需 {now.inference_ms:.1f} ms",
                        overruns=late, steps=steps, inference_ms=now.inference_ms)
    if not evidence.live and not late + steps:
        return NO_GRAPH
    return ok(f"{late} late answers in {late + steps} steps", f"{late + steps} 步中有 {late} 次应答太晚", overruns=late, steps=steps)


CHECKS = (disk, clock, buffers, overruns)
