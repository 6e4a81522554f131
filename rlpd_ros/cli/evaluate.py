# SPDX-License-Identifier: Apache-2.0
"""``rlpd eval``: greedy episodes of a run's policy, in this process, without ROS."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path

from rlpd_ros.arm.factory import make_arm_alone
from rlpd_ros.arm.interruption import stopping_between_motions
from rlpd_ros.cli.video import EPISODES, Video
from rlpd_ros.errors import ConfigError
from rlpd_ros.exported_policy import load_policy
from rlpd_ros.graph import check_namespace
from rlpd_ros.metrics import wilson_interval
from rlpd_ros.preparation import read_configurations
from rlpd_ros.rl.compilation import keep_compiled
from rlpd_ros.rl.policy import Policy, verify
from rlpd_ros.runs import RunDirectory
from rlpd_ros.settings import ArmConfig, PolicyConfig


def main(options: argparse.Namespace) -> int:
    """Print the success rate with its 95 % confidence interval."""
    if options.episodes < 1:
        raise ConfigError(f"episodes: expected at least 1, found {options.episodes}")
    check_namespace("--namespace", options.namespace)
    keep_compiled()
    run = RunDirectory.open(options.run, to_go_on=False)
    configurations = read_configurations(run)
    configurations.add_override(f"arm_driver.seed={options.seed}")
    arm_config = configurations.get("arm_driver", ArmConfig, options.namespace)
    snapshot = load_policy(run.policy)
    video = Video(Path(options.video), arm_config.control_rate) if options.video else None
    with stopping_between_motions() as stop_if_asked, closing(make_arm_alone(arm_config)) as arm:
        policy = Policy(arm.spec, configurations.get("actor", PolicyConfig, options.namespace))
        params, _ = verify(snapshot, policy, arm.spec)
        successes, returns, steps = 0, [], 0
        for episode in range(options.episodes):
            stop_if_asked()
            observation, done, episode_return, text = arm.reset(), False, 0.0, f"episode {episode + 1}"
            film = video if episode < EPISODES else None
            while not done:
                if film is not None:
                    film.show(arm, observation, text)
                action = policy.mode(params, observation)
                stop_if_asked()
                result = arm.step(action)
                observation, done = result.observation, result.terminated or result.truncated
                episode_return += result.reward
                steps += 1
            if film is not None:
                film.show(arm, observation, f"{text}: {'success' if result.success else 'no success'}", last=True)
            successes += result.success
            returns.append(episode_return)
            if not options.json and sys.stdout.isatty():
                print(f"{episode + 1} of {options.episodes}: {successes} successful", end="\r", flush=True)

    low, high = wilson_interval(successes, options.episodes)
    figures = {
        "success_rate": successes / options.episodes, "low": low, "high": high, "successes": successes,
        "episodes": options.episodes, "mean_return": sum(returns) / options.episodes,
        "mean_steps": steps / options.episodes, "policy_version": snapshot.version,
        "gradient_step": snapshot.gradient_step, "seed": options.seed, "run": str(run.path)}
    if options.json:
        print(json.dumps(figures))
    else:
        print(f"success rate {figures['success_rate']:.1%} ({successes} of {options.episodes} greedy episodes; 95 % "
              f"confidence: {low:.1%} to {high:.1%}), mean return {figures['mean_return']:.3f}, mean length "
              f"{figures['mean_steps']:.1f} steps, policy version {snapshot.version}")
    if video is not None:
        video.write()
    return 0
