# SPDX-License-Identifier: Apache-2.0
"""Does the policy that is learned reach the arm, and is it the policy that acts?"""

from __future__ import annotations

from rlpd_ros.diagnosis.evidence import ALIVE, Evidence, Track
from rlpd_ros.diagnosis.finding import NO_ACTOR, Check, Outcome, Text, check, error, of_learner, ok, warn
from rlpd_ros.status import ActorReport, ActorState, LearnerReport, LearnerState

KEEPS_ITS_VERSION = (ActorState.EVALUATING, ActorState.WAITING_FOR_PERSON, ActorState.WAITING_FOR_SPACE)
"""What an actor does, perhaps in the middle of an evaluation, without taking new policies."""

DELIVERY = 2.0  # s in which a published policy must have been applied
RANDOM_LONG = 10_000  # random steps that nobody waits for
TRAINED = 1000  # gradient steps after which acting at random wastes what has been learned
SATURATED = 0.97  # share of action components at a bound
ENOUGH = 500  # policy actions that a share is judged by


def _refusal(name: str, mark: str, title: Text, symptom: Text, remedy: Text) -> Check:
    """Make the check for one kind of refusal, known by the word with which the actor explains it."""

    @check(name, title, symptom, remedy)
    def refused(evidence: Evidence) -> Outcome:
        for track in evidence.actor_tracks:
            if kind_of(track.last) == mark:
                actor = track.last
                en, zh = evidence.name_of(actor)
                return error(f"{en} refuses version {actor.refused_version}, acts on {actor.applied_version or 'none'}: "
                             f"{actor.refusal}",
                             f"{zh}拒绝版本 {actor.refused_version}，当前使用 {actor.applied_version or '无'}：{actor.refusal}",
                             refused=actor.refused_version, applied=actor.applied_version)
        return ok("no policy refused", "没有策略被拒绝") if evidence.actor_tracks else NO_ACTOR

    return refused


def kind_of(actor: ActorReport) -> str:
    """Return why the actor refuses the last policy: "checksum", "probe", "other", or "" if it does not."""
    if not actor.refusal:
        return ""
    return next((mark for mark in ("checksum", "probe") if f": {mark}: " in actor.refusal), "other")


checksum = _refusal(
    "checksum", "checksum", Text("Policies arrive undamaged", "策略完整到达"),
    Text("The actor refuses policies: the checksum differs", "执行器拒绝策略：校验和不同"),
    Text("Something changes the bytes on their way: look for a bridge, a re-publisher or another program on policy_params, "
         "and for bad memory.",
         "传输途中字节被改动：检查 policy_params 上的桥接、转发或其他程序，以及内存故障。"))
probe = _refusal(
    "probe", "probe", Text("Actor computes what the learner computes", "执行器与学习器计算结果一致"),
    Text("The actor refuses policies: it cannot reproduce the learner's action for the probe",
         "执行器拒绝策略：无法复现学习器对探针观测的动作"),
    Text("Run the same version of this package and of JAX on both machines; no other program may publish policy_params.",
         "两台机器使用相同版本的本软件包和 JAX；不要让其他程序发布 policy_params。"))
refused = _refusal(
    "refused", "other", Text("Policies accepted", "策略被接受"),
    Text("The actor refuses policies", "执行器拒绝策略"),
    Text("The refusal holds both values: give learner and actor the same arm and the same version of this package.",
         "拒绝信息中给出了两侧的值：让学习器与执行器使用相同的机械臂和相同的软件版本。"))


@check("policy_lag", Text("Policies reach the actor", "策略到达执行器"),
       Text("The learner has trained for thousands of steps and the arm still moves as at the beginning",
            "学习器已训练数千步，机械臂的动作却和开始时一样"),
       Text("See `ros2 topic echo /policy_version`; restart the actor: it gets the newest policy at once. If it lags again, "
            "its machine is overloaded.",
            "查看 `ros2 topic echo /policy_version`；重启执行器，它会立刻收到最新策略。若仍落后，说明该机器过载。"))
@of_learner
def policy_lag(evidence: Evidence, learner: Track[LearnerReport]) -> Outcome:
    if not evidence.actor_tracks:
        return NO_ACTOR
    if learner.last.state == LearnerState.FINISHED:
        return ok("training is over", "训练已结束")
    lag = 0
    for track in evidence.actor_tracks:
        actor = track.last
        due = learner.since(track.heard_at - DELIVERY).version if learner.span() >= DELIVERY else 0
        if not evidence.live:  # the tables do not hold every application
            due = learner.last.version - max(20, learner.last.version // 5) if actor.applied_version else learner.last.version - 2
        lag = max(lag, learner.last.version - actor.applied_version)
        if actor.state in KEEPS_ITS_VERSION or due <= actor.applied_version or (
                track.span() < DELIVERY and evidence.live and evidence.now - track.heard_at < ALIVE):
            continue
        never = not actor.applied_version
        who, zh_who = evidence.name_of(actor)
        en = "has applied none" if never else f"acts on version {actor.applied_version}"
        zh = "从未使用过任何策略" if never else f"仍在使用版本 {actor.applied_version}"
        return error(f"the learner is at version {learner.last.version}, {who} {en}: {lag} behind, "
                     f"{actor.policy_age:.0f} s old", f"学习器已到版本 {learner.last.version}，{zh_who}{zh}：落后 {lag} 个版本，"
                     f"已有 {actor.policy_age:.0f} 秒",
                     published=learner.last.version, applied=actor.applied_version, lag=lag, policy_age=actor.policy_age)
    return ok(f"learner at version {learner.last.version}, {lag} ahead of the actor",
              f"学习器版本 {learner.last.version}，领先执行器 {lag} 个", published=learner.last.version, lag=lag)


@check("random_actions", Text("The policy acts", "由策略控制"),
       Text("The arm moves at random although the learner trains", "学习器在训练，机械臂却仍在随机运动"),
       Text("Lower random_steps of the actor: with demonstrations 0 is best.", "降低执行器的 random_steps：有示教时 0 最好。"))
def random_actions(evidence: Evidence) -> Outcome:
    learner = evidence.learner
    if not evidence.actor_tracks:
        return NO_ACTOR
    for track in evidence.actor_tracks:
        actor = track.last
        done = max(actor.env_steps, learner.env_steps if learner else 0)  # a run has its random steps once
        planned = learner.max_env_steps if learner and learner.max_env_steps else RANDOM_LONG
        useless = actor.random_steps >= min(planned, RANDOM_LONG) or (learner and learner.gradient_step >= TRAINED)
        if done < actor.random_steps and actor.random_share and useless:
            return warn(f"{done} of {actor.random_steps} random_steps done: {actor.random_share:.0%} of the last 1,000 "
                        f"actions were random; the learner has done {learner.gradient_step if learner else 0} steps",
                        f"random_steps 已执行 {done} / {actor.random_steps}：最近 1000 个动作中 {actor.random_share:.0%} 是"
                        f"随机的；学习器已训练 {learner.gradient_step if learner else 0} 步",
                        random_share=actor.random_share, random_steps=actor.random_steps, env_steps=done)
    share = max(track.last.random_share for track in evidence.actor_tracks)
    return ok(f"{share:.0%} of the last 1,000 actions were random", f"最近 1000 个动作中 {share:.0%} 是随机的", random_share=share)


@check("saturated", Text("Actions within their bounds", "动作未饱和"),
       Text("The arm always moves at full speed in some direction", "机械臂总以最大速度朝某个方向运动"),
       Text("Check the bounds of observations and actions and the action scale; raise init_temperature or lower actor_lr.",
            "检查观测和动作的边界及动作尺度；增大 init_temperature 或降低 actor_lr。"))
def saturated(evidence: Evidence) -> Outcome:
    if not evidence.actor_tracks:
        return NO_ACTOR
    for track in evidence.actor_tracks:
        actor = track.last
        if actor.policy_actions >= ENOUGH and actor.saturated_share > SATURATED:
            return warn(f"{actor.saturated_share:.0%} of the action components of the last 1,000 policy actions are at a bound",
                        f"最近 1000 个策略动作中 {actor.saturated_share:.0%} 的分量处于边界", saturated_share=actor.saturated_share)
    share = max(track.last.saturated_share for track in evidence.actor_tracks)
    return ok(f"{share:.0%} of the action components at a bound", f"{share:.0%} 的动作分量处于边界", saturated_share=share)


CHECKS = (checksum, probe, refused, policy_lag, random_actions)
LATE_CHECKS = (saturated,)
