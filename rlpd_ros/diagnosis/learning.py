# SPDX-License-Identifier: Apache-2.0
"""Does the network change, for the better, and is there anything to learn from?"""

from __future__ import annotations

import math

from rlpd_ros.diagnosis.evidence import Evidence, Track
from rlpd_ros.diagnosis.finding import Outcome, Text, check, error, of_learner, ok, unknown, warn
from rlpd_ros.status import LearnerReport, LearnerState

UNIFORM = 0.95  # of the greatest entropy that actions in [-1, 1] can have
TRAINED = 500  # gradient steps after which a policy should have left its beginning
DIVERGED = 3.0  # times the highest value that any return can have
UNMOVED = 0.9  # of the distance to the demonstrations at the beginning
LITTLE = 1000  # gradient steps in which nobody expects a policy to come near its demonstrations
FAR = 0.5  # distance to the demonstrations, normalised units, that two unrelated policies have


@check("frozen", Text("The policy changes", "策略在变化"),
       Text("Versions rise, but each policy is the same as the one before", "版本号在增加，但每个策略都与前一个相同"),
       Text("Raise actor_lr (0 freezes the policy).", "增大 actor_lr（0 会冻结策略）。"))
@of_learner
def frozen(evidence: Evidence, track: Track[LearnerReport]) -> Outcome:
    learner = track.last
    if learner.parameter_change < 0 or learner.gradient_step <= learner.restored_gradient_step:
        return unknown("no two versions yet", "还没有两个版本")
    change = learner.parameter_change
    if change == 0.0:
        return error(f"version {learner.version} equals the one before it, at gradient step {learner.gradient_step}",
                     f"版本 {learner.version} 与前一个完全相同（梯度步 {learner.gradient_step}）", change=change)
    return ok(f"the last version changed by {change:.3g} (L2)", f"最近一个版本变化了 {change:.3g}（L2）", change=change)


@check("began_anew", Text("A resumed run goes on", "续训从原处继续"),
       Text("After a restart the arm moves as at the beginning", "重启之后机械臂的动作又回到最初"),
       Text("The checkpoints of the run are missing or were never made: restore the folder checkpoints/, or lower "
            "checkpoint_period so that less is lost.",
            "本次运行的检查点缺失或从未生成：恢复 checkpoints/ 文件夹，或减小 checkpoint_period 以减少损失。"))
@of_learner
def began_anew(evidence: Evidence, track: Track[LearnerReport]) -> Outcome:
    learner = track.last
    steps, stored = learner.restored_gradient_step, learner.restored_env_steps
    if not steps and stored > learner.training_starts:
        return warn(f"the learner found {stored} stored transitions but no checkpoint: it began with a new network",
                    f"学习器找到 {stored} 条已保存的转移但没有检查点：它从新网络开始", restored_env_steps=stored)
    return ok(f"began at gradient step {steps} with {stored} stored transitions", f"从梯度步 {steps}、{stored} 条已保存转移开始",
              restored_gradient_step=steps, restored_env_steps=stored)


@check("entropy", Text("The policy makes up its mind", "策略逐渐确定"),
       Text("The policy acts, yet it looks like random motion: its entropy stays at the maximum", "策略在控制，看起来却像随机：熵一直处于最大值"),
       Text("Lower init_temperature (0.01) and target_entropy_per_dim (-0.5); set temperature_lr above 0.",
            "降低 init_temperature（0.01）和 target_entropy_per_dim（-0.5）；temperature_lr 要大于 0。"))
@of_learner
def entropy(evidence: Evidence, track: Track[LearnerReport]) -> Outcome:
    learner, space = track.last, evidence.space
    if space is None or learner.gradient_step < TRAINED or not learner.entropy:
        return unknown("too early to tell", "尚早，无法判断")
    most = space.action_size * math.log(2.0)
    if learner.entropy > UNIFORM * most:
        return warn(f"the policy's entropy is {learner.entropy:.2f} nats, that of uniformly random actions {most:.2f}; temperature "
                    f"{learner.temperature:.3g}",
                    f"策略的熵为 {learner.entropy:.2f} nat，均匀随机动作为 {most:.2f}；温度 {learner.temperature:.3g}",
                    entropy=learner.entropy, uniform=most, temperature=learner.temperature)
    return ok(f"entropy {learner.entropy:.2f} of at most {most:.2f} nats", f"熵 {learner.entropy:.2f}，最大 {most:.2f} nat",
              entropy=learner.entropy)


@check("q_values", Text("Q values plausible", "Q 值合理"),
       Text("Q values grow and grow; the policy runs to its bounds", "Q 值不断增大，策略冲向边界"),
       Text("Lower critic_lr, tau or discount, keep critic_layer_norm on, use more critics (num_qs).",
            "降低 critic_lr、tau 或 discount，保持 critic_layer_norm 开启，增加评论家数量（num_qs）。"))
@of_learner
def q_values(evidence: Evidence, track: Track[LearnerReport]) -> Outcome:
    learner, manifest = track.last, evidence.manifest
    rewards = [learner.reward_seen, learner.reward_lowest]
    rewards += [manifest.highest_reward, manifest.lowest_reward] if manifest else []
    most = max(abs(reward) for reward in rewards)
    if not most or not 0 < learner.discount < 1 or not learner.gradient_step:
        return unknown("no reward to compare with", "没有可比较的奖励")
    bonus = learner.temperature * abs(learner.entropy)  # of each step, with backup_entropy
    limit = (most + bonus) / (1.0 - learner.discount)
    q_mean = max((sample.report.q_mean for sample in track.samples), key=abs)  # it may swing
    if abs(q_mean) > DIVERGED * limit:
        return error(f"the mean Q value is {q_mean:.3g}, no return can exceed {limit:.3g}: the critics diverge",
                     f"平均 Q 值为 {q_mean:.3g}，而回报不可能超过 {limit:.3g}：评论家发散", q_mean=q_mean, limit=limit)
    return ok(f"mean {learner.q_mean:.3g}, returns up to {limit:.3g}", f"平均 {learner.q_mean:.3g}，回报上限 {limit:.3g}",
              q_mean=learner.q_mean, limit=limit)


@check("reward", Text("The arm earns reward", "机械臂获得奖励"),
       Text("No reward was ever seen: success, if any, is in the demonstrations only", "从未见过奖励：成功只出现在示教中"),
       Text("Check the reward (the arm's driver, the gymnasium environment, the person who ends episodes); if that works, record more "
            "demonstrations or make the task easier at first.",
            "检查奖励来源（机械臂驱动、Gymnasium 环境、宣布片段结束的人）；若正常，则增加示教或先降低任务难度。"))
@of_learner
def reward(evidence: Evidence, track: Track[LearnerReport]) -> Outcome:
    learner = track.last
    if learner.reward_seen or learner.reward_lowest:
        return ok(f"rewards from {learner.reward_lowest:.3g} to {learner.reward_seen:.3g}",
                  f"奖励范围 {learner.reward_lowest:.3g} 到 {learner.reward_seen:.3g}")
    unpaid = sum(e.success and e.episode_return == 0.0 for e in evidence.episodes)
    if unpaid:
        return error(f"{unpaid} episodes succeeded, none of them was given a reward", f"{unpaid} 个片段成功却没有得到奖励", unpaid=unpaid)
    tried = learner.env_steps - learner.training_starts  # before, nothing was learned
    if tried >= evidence.patience:
        demos = evidence.manifest.highest_reward if evidence.manifest else 0.0
        where, zh = ("; the demonstrations have some", "；示教中有奖励") if demos else ("", "")
        return warn(f"no reward in {tried} environment steps of training{where}", f"{tried} 个训练环境步中没有奖励{zh}",
                    env_steps=learner.env_steps)
    return ok(f"none yet in {max(0, tried)} environment steps of training; {evidence.patience} may pass",
              f"{max(0, tried)} 个训练环境步中还没有；最多可等 {evidence.patience} 步", env_steps=learner.env_steps)


@check("imitation", Text("The policy learns from demonstrations", "策略从示教中学习"),
       Text("The policy ignores the demonstrations: its actions come no nearer to theirs", "策略忽视示教：它的动作没有向示教靠近"),
       Text("Check that demonstrations and arm mean the same by an action (scale, sign, frame), and that batches are half "
            "demonstrations (demo_buffer_size); lower the temperature.",
            "检查示教与机械臂对动作的定义（尺度、符号、坐标系）是否一致，批次中是否有一半示教（demo_buffer_size）；降低温度。"))
@of_learner
def imitation(evidence: Evidence, track: Track[LearnerReport]) -> Outcome:
    learner = track.last
    now, first = learner.demo_action_distance, learner.demo_action_distance_first
    trained = learner.gradient_step - learner.restored_gradient_step
    if not learner.demo_buffer_size or first < 0 or learner.state == LearnerState.FINISHED:
        return unknown("nothing to compare", "没有可比较的数据")
    if trained >= max(LITTLE, evidence.patience / 2) and now > UNMOVED * first and now > FAR and learner.success_rate <= 0:
        return warn(f"after {trained} gradient steps the policy's actions are {now:.2f} away from the demonstrations', as at the "
                    f"beginning ({first:.2f})",
                    f"{trained} 个梯度步之后，策略动作与示教仍相差 {now:.2f}，与开始时（{first:.2f}）一样", distance=now, first=first)
    return ok(f"distance {now:.2f}, at first {first:.2f}", f"距离 {now:.2f}，最初 {first:.2f}", distance=now, first=first)


CHECKS = (frozen, began_anew, q_values, entropy)
LATE_CHECKS = (imitation, reward)
