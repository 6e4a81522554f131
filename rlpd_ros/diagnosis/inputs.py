# SPDX-License-Identifier: Apache-2.0
"""Do arm, actor, learner and demonstrations speak of the same thing, and are the demonstrations there?"""

from __future__ import annotations

from rlpd_ros.diagnosis.evidence import ALIVE, Evidence, Track
from rlpd_ros.diagnosis.finding import NO_LEARNER, Outcome, Text, check, error, of_learner, ok, unknown, warn
from rlpd_ros.status import LearnerReport, LearnerState

SATURATED = 0.95  # share of demonstration action components at a bound
LOADING = 5.0  # s without progress after which loading counts as stuck


@check("spaces", Text("Same observation and action space", "观测与动作空间一致"),
       Text("The policy is refused, or the arm moves senselessly after another arm or camera was put in",
            "策略被拒绝，或更换机械臂、相机之后动作毫无意义"),
       Text("Give arm driver and run the same fields, order, units, frame and rate, or start a new run for the new space.",
            "让机械臂驱动与本次运行使用相同的字段、顺序、单位、坐标系和频率，或为新的空间开始新的运行。"))
def spaces(evidence: Evidence) -> Outcome:
    learner, specs = evidence.learner, list(evidence.spaces.values())
    if learner is not None and learner.space_difference:
        return error(f"the arm's space is not the one of this run: {learner.space_difference}",
                     f"机械臂的空间与本次运行不同：{learner.space_difference}")
    if len(specs) > 1:
        lines = "; ".join(specs[0].difference(specs[-1], "first", "newest"))
        return error(f"the arms describe different spaces: {lines}", f"机械臂描述的空间不一致：{lines}")
    known = {"learner": learner.space_fingerprint if learner else "", "arm": specs[0].fingerprint if specs else ""}
    known |= {track.last.session: track.last.space_fingerprint for track in evidence.actor_tracks}
    different = {fingerprint for fingerprint in known.values() if fingerprint}
    if len(different) > 1:
        said = ", ".join(f"{who} {fingerprint}" for who, fingerprint in known.items() if fingerprint)
        return error(f"the space's fingerprint differs: {said}", f"空间指纹不同：{said}", **known)
    if not different:
        return unknown("no space heard", "没有收到空间描述")
    return ok(f"space {different.pop()} everywhere", "各处空间一致", **known)


@check("network", Text("Same policy network", "策略网络一致"),
       Text("The actor refuses every policy: the network fingerprint differs", "执行器拒绝所有策略：网络指纹不同"),
       Text("Give actor and learner the same policy parameters (hidden_dims, activation, layer_norm, "
            "normalize_observations ...): best both the same parameter file.",
            "让执行器与学习器使用相同的策略参数（hidden_dims、activation、layer_norm、normalize_observations 等），最好用同一个参数文件。"))
@of_learner
def network(evidence: Evidence, learner_track: Track[LearnerReport]) -> Outcome:
    learner = learner_track.last
    if not learner.network_fingerprint:
        return NO_LEARNER
    for track in evidence.actor_tracks:
        actor = track.last
        if actor.network_fingerprint not in ("", learner.network_fingerprint):
            why = actor.refusal or f"learner {learner.network_fingerprint}, actor {actor.network_fingerprint}"
            return error(f"the actor has another network than the learner: {why}", f"执行器与学习器的网络不同：{why}",
                         actor=actor.network_fingerprint, learner=learner.network_fingerprint)
    return ok(f"network {learner.network_fingerprint}", f"网络 {learner.network_fingerprint}")


@check("demonstrations", Text("Demonstrations loaded", "示教数据已加载"),
       Text("Training does not start: the learner waits for demonstrations", "训练不开始：学习器在等待示教数据"),
       Text("Correct demo_path (a rosbag2 bag of transitions, or a folder of them, of this arm); `rlpd record BAG` makes "
            "one; `--demos none` trains without.",
            "改正 demo_path（本机械臂的 rosbag2 转移数据包，或其所在文件夹）；`rlpd record BAG` 可录制；`--demos none` 则不用示教训练。"))
def demonstrations(evidence: Evidence) -> Outcome:
    learner, manifest = evidence.learner, evidence.manifest
    fault = (learner.demo_error if learner else "") or (manifest.error if manifest else "")
    if fault:
        return error(f"the demo loader found a fault: {fault}", f"示教加载节点发现错误：{fault}")
    return _stored(evidence)


@of_learner
def _stored(evidence: Evidence, track: Track[LearnerReport]) -> Outcome:
    learner = track.last
    if learner.state != LearnerState.WAITING_FOR_DEMONSTRATIONS:
        gaps = evidence.manifest is not None and evidence.manifest.total and not evidence.manifest.complete
        return ok(f"{learner.demo_buffer_size} transitions in the demo buffer"
                  f"{'; their bags lack records, see what the demo loader says of them' if gaps else ''}",
                  f"示教缓冲区有 {learner.demo_buffer_size} 条转移"
                  f"{'；数据包中缺少记录，详见示教加载节点的输出' if gaps else ''}",
                  demo_buffer_size=learner.demo_buffer_size)
    before = track.since(evidence.now - LOADING)
    stuck = (before.demo_buffer_size, before.state, before.text) == (
        learner.demo_buffer_size, learner.state, learner.text)  # the text counts what is done with what is here
    if stuck and track.span() >= 2.0 and evidence.now - track.heard_at < ALIVE and learner.demo_expected:
        return error(f"the loader counts {learner.demo_expected} transitions, the learner stored {learner.demo_buffer_size}: "
                     f"{learner.text}",
                     f"加载节点计数 {learner.demo_expected} 条，学习器保存 {learner.demo_buffer_size} 条：{learner.text}",
                     expected=learner.demo_expected, stored=learner.demo_buffer_size)
    return ok(f"loading: {learner.demo_buffer_size} of {learner.demo_expected}",
              f"加载中：{learner.demo_buffer_size} / {learner.demo_expected}")


@check("demo_rewards", Text("Demonstrations hold reward", "示教数据含奖励"),
       Text("Demonstrations are loaded, yet they teach nothing: none of them earned a reward", "示教已加载却学不到东西：其中没有任何奖励"),
       Text("Record demonstrations that succeed, with the reward of the task: every successful one must end in a reward.",
            "重新录制成功的示教并带上任务奖励：每次成功的示教都应以奖励结束。"))
def demo_rewards(evidence: Evidence) -> Outcome:
    manifest = evidence.manifest
    if manifest is None or not manifest.total:
        return unknown("no demonstrations heard", "没有收到示教清单")
    if manifest.highest_reward == manifest.lowest_reward == 0.0:
        return error(f"the reward is zero in all {manifest.total} demonstration transitions ({sum(manifest.successes)} of "
                     f"{sum(manifest.episodes)} episodes marked successful)",
                     f"全部 {manifest.total} 条示教转移的奖励都是零（{sum(manifest.episodes)} 个片段中 {sum(manifest.successes)} 个标为成功）",
                     total=manifest.total)
    return ok(f"rewards from {manifest.lowest_reward:.3g} to {manifest.highest_reward:.3g}",
              f"奖励范围 {manifest.lowest_reward:.3g} 到 {manifest.highest_reward:.3g}")


@check("demo_actions", Text("Demonstration actions within the space", "示教动作在空间之内"),
       Text("The policy imitates jerks: nearly all demonstration actions lie at their bounds", "策略只会猛动：示教动作几乎都在边界上"),
       Text("The action scale of the recording is too small for what the demonstrator did: enlarge translation_scale (or "
            "the driver's action bounds) and record again.",
            "录制时的动作尺度太小：增大 translation_scale（或驱动的动作边界）后重新录制。"))
def demo_actions(evidence: Evidence) -> Outcome:
    manifest = evidence.manifest
    if manifest is None or not manifest.total:
        return unknown("no demonstrations heard", "没有收到示教清单")
    share = manifest.saturated_share
    if share > SATURATED:
        return warn(f"{share:.0%} of the demonstrations' action components are clipped at a bound", f"{share:.0%} 的示教动作分量被截断在边界上",
                    saturated_share=share)
    return ok(f"{share:.0%} at a bound", f"{share:.0%} 在边界上", saturated_share=share)


@check("cameras", Text("Cameras see what happens", "相机看得到现场"),
       Text("The arm holds still: an image that belongs to what the arm observes is missing", "机械臂静止：缺少与机械臂状态同时的图像"),
       Text("See that the camera's driver runs and stamps its images by the same clock (`ros2 topic hz TOPIC`, chrony); correct "
            "camera_topics or camera_crops, or raise camera_max_difference. If many get lost, choose its /compressed topic, or give them "
            "room: sysctl -w net.core.rmem_max=33554432.",
            "检查相机驱动是否运行、图像时间戳是否用同一时钟（`ros2 topic hz TOPIC`、chrony）；改正 camera_topics 或 camera_crops，或增大 camera_max_difference。若图像大量丢失，改用 /compressed 话题，"
            "或增大接收缓冲区：sysctl -w net.core.rmem_max=33554432。"))
def cameras(evidence: Evidence) -> Outcome:
    recent = {name: sight for name, sight in evidence.cameras.items() if evidence.now - sight.at < ALIVE}
    for name, sight in sorted(recent.items(), key=lambda item: not item[1].blind):
        if sight.faulty:
            judge = error if sight.blind else warn
            return judge(f"{name}: {sight.text}", f"{name}：{sight.text}", camera=name)
    if not recent:
        return ok("no camera topics", "没有相机话题")
    return ok(f"images from {', '.join(sorted(recent))}", f"有图像：{'、'.join(sorted(recent))}")


CHECKS = (spaces, network, demonstrations, demo_rewards, demo_actions, cameras)
