# SPDX-License-Identifier: Apache-2.0
"""Does the learner train, and does what it trains on arrive?"""

from __future__ import annotations

from rlpd_ros.diagnosis.evidence import ALIVE, Evidence, Track, compiling
from rlpd_ros.diagnosis.finding import NO_ACTOR, NO_GRAPH, Outcome, Text, check, error, of_learner, ok, unknown, warn
from rlpd_ros.status import ActorReport, ActorState, LearnerReport, LearnerState

WINDOW = 2.5  # s over which transitions must make their way
LONG = 3600.0  # s of filling that nobody waits for
STALE = 10.0  # s without new data while the learner trains
FORGOTTEN = 600.0  # s after which a person has perhaps forgotten that the arm waits
RATIO = 4.0  # between the measured and the set update-to-data ratio
FRESH = 2.0  # s within which a status is new
REJECTED = 0.5  # share of new transitions that are refused


@check("failed", Text("Learning is finite", "学习数值有限"),
       Text("The learner has stopped: losses or actions are not finite", "学习器已停止：损失或动作不是有限数"),
       Text("Look for huge or undefined observations and rewards, or lower the learning rates; then go on from the last "
            "checkpoint with rlpd train --resume RUN.",
            "检查是否有过大或未定义的观测与奖励，或降低学习率；然后用 rlpd train --resume RUN 从最近的检查点继续。"))
@of_learner
def failed(evidence: Evidence, track: Track[LearnerReport]) -> Outcome:
    learner = track.last
    if learner.state == LearnerState.FAILED:
        return error(f"learning has failed: {learner.text}", f"学习失败：{learner.text}", gradient_step=learner.gradient_step)
    return ok(f"gradient step {learner.gradient_step}", f"梯度步 {learner.gradient_step}", gradient_step=learner.gradient_step)


@check("training_starts", Text("Training starts", "训练开始"),
       Text("The online buffer fills and fills; the learner's step stays at 0", "在线缓冲区一直在填充，学习器步数停在 0"),
       Text("Lower training_starts (100 is usual with demonstrations); it must be below replay_buffer_capacity and "
            "max_env_steps.",
            "降低 training_starts（有示教时通常为 100）；它必须小于 replay_buffer_capacity 和 max_env_steps。"))
@of_learner
def training_starts(evidence: Evidence, track: Track[LearnerReport]) -> Outcome:
    learner = track.last
    if learner.state != LearnerState.FILLING:
        return ok(f"at gradient step {learner.gradient_step}", f"梯度步 {learner.gradient_step}")
    size, starts = learner.online_buffer_size, learner.training_starts
    limits = {"replay_buffer_capacity": learner.replay_buffer_capacity, "max_env_steps": learner.max_env_steps}
    for name, limit in limits.items():
        if limit and starts > limit:
            return error(f"training_starts {starts} cannot be reached: {name} is {limit}",
                         f"training_starts {starts} 永远达不到：{name} 为 {limit}", training_starts=starts, **{name: limit})
    rate = (size - track.samples[0].report.online_buffer_size) / max(1e-9, track.span())
    left = (starts - size) / rate if rate > 0 else 0.0
    if track.span() >= FRESH and left > LONG:
        return warn(f"{size} of {starts} transitions: at {rate:.1f} a second training starts in {left / 3600:.1f} h",
                    f"{size} / {starts} 条转移：按每秒 {rate:.1f} 条，{left / 3600:.1f} 小时后才开始训练",
                    online_buffer_size=size, training_starts=starts, seconds_left=left)
    return ok(f"filling: {size} of {starts}", f"填充中：{size} / {starts}", online_buffer_size=size, training_starts=starts)


@check("transitions", Text("Transitions reach the learner", "转移数据到达学习器"),
       Text("The arm moves, but the online buffer does not grow", "机械臂在动，在线缓冲区却不增长"),
       Text("Compare transitions_sent, _acked (actor_status) with _received, _stored, _rejected (learner_status); the text of "
            "transitions_ack says why one is refused. Check the network between the machines.",
            "比较 actor_status 的 transitions_sent、_acked 与 learner_status 的 _received、_stored、_rejected；transitions_ack 的 text "
            "说明拒绝原因。检查机器之间的网络。"))
@of_learner
def transitions(evidence: Evidence, track: Track[LearnerReport]) -> Outcome:
    if not evidence.actor_tracks:
        return NO_ACTOR
    learner = track.last
    numbers = {"received": learner.transitions_received, "stored": learner.transitions_stored,
               "rejected": learner.transitions_rejected, "duplicate": learner.transitions_duplicate, "gaps": learner.gaps}
    for actor in evidence.actor_tracks:
        if not evidence.live or not _watched(evidence, track, actor):
            continue
        now, before = actor.last, actor.since(evidence.now - WINDOW)
        told = (f"sent {now.transitions_sent}, received {numbers['received']}, stored {numbers['stored']}, refused "
                f"{numbers['rejected']}, acknowledged {now.transitions_acked}")
        zh_told = (f"发送 {now.transitions_sent}，收到 {numbers['received']}，保存 {numbers['stored']}，拒绝 {numbers['rejected']}，"
                  f"确认 {now.transitions_acked}")
        waits = before.transitions_unacked and now.transitions_unacked >= before.transitions_unacked  # of earlier lives too
        if waits and now.transitions_acked <= before.transitions_acked:
            return error(f"nothing acknowledged for {WINDOW:.0f} s: {told}", f"{WINDOW:.0f} 秒内没有任何确认：{zh_told}",
                         sent=now.transitions_sent, acknowledged=now.transitions_acked, **numbers)
        steps = now.env_steps - before.env_steps
        if steps >= 10 and now.transitions_sent == before.transitions_sent:
            return error(f"{steps} steps were taken and no transition was sent: {told}", f"执行了 {steps} 步却没有发送转移：{zh_told}",
                         steps=steps, sent=now.transitions_sent, **numbers)
    earlier = track.since(evidence.now - WINDOW)
    new = learner.transitions_stored - earlier.transitions_stored
    bad = learner.transitions_rejected - earlier.transitions_rejected
    if bad and bad > REJECTED * (bad + new):
        return error(f"{bad} of the last {bad + new} transitions were refused", f"最近 {bad + new} 条转移中有 {bad} 条被拒绝", **numbers)
    if not evidence.live and not learner.transitions_received:
        return NO_GRAPH
    return ok(", ".join(f"{name} {value}" for name, value in numbers.items()),
              f"收到 {numbers['received']}，保存 {numbers['stored']}，拒绝 {numbers['rejected']}", **numbers)


def _watched(evidence: Evidence, learner: Track[LearnerReport], actor: Track[ActorReport]) -> bool:
    """Tell whether both sides have been heard long enough, and the learner neither compiles nor reads its log back."""
    receives = learner.since(evidence.now - WINDOW).state != LearnerState.WAITING_FOR_SPACE
    if compiling(learner.last) or not receives or learner.last.state in (LearnerState.FINISHED, LearnerState.FAILED):
        return False
    heard = [sample for sample in learner.fresh if evidence.now - sample.at < WINDOW + 1.0]
    settled = min(learner.span(), actor.span()) >= WINDOW - 0.5
    awake = len(heard) >= 4 and evidence.now - learner.heard_at < FRESH
    return settled and awake and evidence.now - actor.heard_at < ALIVE


@check("stale_data", Text("Training on new data", "训练数据是新的"),
       Text("The learner's step rises, but on old data only", "学习器步数在增长，但只用旧数据"),
       Text("See what the actor waits for (actor_status.text): a person, who goes on with the key or button that stopped it, or the "
            "arm?",
            "查看执行器在等什么（actor_status.text）：是等人（用停止它的键或按钮继续），还是等机械臂？"))
@of_learner
def stale_data(evidence: Evidence, track: Track[LearnerReport]) -> Outcome:
    learner, before = track.last, track.since(evidence.now - WINDOW)
    rising = learner.gradient_step > before.gradient_step
    lockstep = evidence.space is not None and evidence.space.lockstep
    behind = learner.env_steps > learner.gradient_step + learner.training_starts  # so that the actor has to wait for it
    doing = {track.last.state for track in evidence.actor_tracks}
    person = evidence.live and doing == {ActorState.WAITING_FOR_PERSON}
    if person and learner.data_age > FORGOTTEN:
        return warn(f"a person has held the arm still for {learner.data_age / 60:.0f} min: nothing is learned meanwhile",
                    f"机械臂已被人停住 {learner.data_age / 60:.0f} 分钟，期间没有学习", data_age=learner.data_age)
    waits = person or (lockstep and behind) or doing == {ActorState.WAITING_FOR_BUDGET} or evidence.pausing
    if evidence.live and rising and not waits and learner.data_age > STALE:
        return warn(f"no new transition for {learner.data_age:.0f} s while the learner went from step {before.gradient_step} to "
                    f"{learner.gradient_step}",
                    f"{learner.data_age:.0f} 秒没有新的转移，学习器却从第 {before.gradient_step} 步走到第 {learner.gradient_step} 步",
                    data_age=learner.data_age, gradient_step=learner.gradient_step)
    if not evidence.live and learner.data_age < 0:
        return NO_GRAPH
    return ok(f"newest transition {learner.data_age:.1f} s old", f"最新转移在 {learner.data_age:.1f} 秒前", data_age=learner.data_age)


@check("utd", Text("Update-to-data ratio as set", "更新数据比符合设定"),
       Text("Learning takes far more robot time than expected", "学习所需的机器人时间远超预期"),
       Text("The learner is too slow for the control rate: lower control_rate or utd_ratio, use a smaller network or a faster "
            "machine.",
            "学习器跟不上控制频率：降低 control_rate 或 utd_ratio，使用更小的网络或更快的机器。"))
@of_learner
def utd(evidence: Evidence, track: Track[LearnerReport]) -> Outcome:
    learner = track.last
    if not learner.utd_measured or not learner.utd_set:
        return unknown("not measured yet", "尚未测量")
    values = {"measured": learner.utd_measured, "set": learner.utd_set}
    text = f"{learner.utd_measured:.2g} critic steps per environment step, {learner.utd_set:.2g} set"
    zh = f"每个环境步 {learner.utd_measured:.2g} 次评论家更新，设定为 {learner.utd_set:.2g}"
    lockstep = evidence.space is not None and evidence.space.lockstep
    catching_up = learner.env_steps < 2 * learner.training_starts + 100
    too_many = lockstep and not catching_up and learner.utd_measured > RATIO * learner.utd_set
    if learner.utd_measured < learner.utd_set / RATIO or too_many:
        return warn(text, zh, **values)
    return ok(text, zh, **values)


CHECKS = (failed, training_starts, transitions, stale_data)
LATE_CHECKS = (utd,)
