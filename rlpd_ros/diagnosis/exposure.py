# SPDX-License-Identifier: Apache-2.0
"""Who can send to this graph, and does anyone send what does not belong in it?"""

from __future__ import annotations

from rlpd_ros.diagnosis.evidence import Evidence
from rlpd_ros.diagnosis.finding import Outcome, Text, check, ok, unknown, warn

RECENT = 10.0  # s in which a refusal is of interest
LOCAL = ("LOCALHOST", "OFF")  # discovery ranges that do not leave the machine


@check("refused_messages", Text("Messages make sense", "消息都合理"),
       Text("A node says that it refuses messages", "节点报告拒绝了消息"),
       Text("Another program publishes on these topics, or another version of this package: find it with `ros2 topic info -v "
            "/<topic>`, and give it another namespace or ROS_DOMAIN_ID. If it is the arm driver, correct what the text names.",
            "有别的程序（或本软件包的其他版本）在这些话题上发布：用 `ros2 topic info -v /<话题>` 找到它，换用其他命名空间或 ROS_DOMAIN_ID。"
            "若是机械臂驱动，请按提示修正。"))
def refused_messages(evidence: Evidence) -> Outcome:
    tracks = [track for track in (evidence.learner_track, *evidence.actor_tracks) if track is not None]
    for track in tracks:
        now, before = track.last, track.since(evidence.now - RECENT)
        if now.messages_refused > before.messages_refused:
            count = now.messages_refused - before.messages_refused
            return warn(f"{now.session} refused {count} messages just now: {now.last_refusal}",
                        f"{now.session} 刚刚拒绝了 {count} 条消息：{now.last_refusal}", refused=count)
    if not tracks:
        return unknown("no node heard", "没有收到任何节点的状态")
    total = sum(track.last.messages_refused for track in tracks)
    return ok(f"{total} messages refused so far, none just now", f"至今拒绝 {total} 条消息，最近没有", refused=total)


@check("exposure", Text("Protected from other machines", "不受其他机器影响"),
       Text("Nothing is wrong yet; but everyone on the network can move the arm", "目前没有问题；但网络上任何人都能让机械臂运动"),
       Text("Keep the graph on this machine (ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST, on Humble ROS_LOCALHOST_ONLY=1) or switch "
            "DDS security on: docs/security.md.",
            "将系统限制在本机（ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST，Humble 上为 ROS_LOCALHOST_ONLY=1），或启用 DDS 安全机制：docs/security.md。"))
def exposure(evidence: Evidence) -> Outcome:
    machine = evidence.machine
    ours = [p for p in machine.processes if p in machine.here(p.node)]
    if not evidence.live or not ours:
        return unknown("no node runs on this machine", "本机没有运行节点")
    open_to_all = [p for p in ours if p.discovery not in LOCAL and not p.secured]
    if open_to_all and machine.networked:
        p = open_to_all[0]
        return warn(f"the {p.node} (process {p.pid}) can be reached by any machine on the network (discovery range "
                    f"{p.discovery}, domain {p.domain}), without DDS security",
                    f"{p.node}（进程 {p.pid}）可被网络上任何机器访问（发现范围 {p.discovery}，域 {p.domain}），且未启用 DDS 安全机制",
                    pid=p.pid, discovery=p.discovery)
    return ok("no other machine can send, or DDS security keeps strangers out", "其他机器无法发送，或已由 DDS 安全机制阻挡")


CHECKS = (refused_messages, exposure)
