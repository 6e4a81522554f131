# SPDX-License-Identifier: Apache-2.0
"""Learning from two cameras of 128 x 128: updates from kept features and from images, acting, memory, bytes."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import jax
import numpy as np

from rlpd_ros.bench.learning import action_times
from rlpd_ros.bench.machine import speed_of_light
from rlpd_ros.bench.processes import begin, result
from rlpd_ros.bench.timing import Effort, high, low, percentiles, rates
from rlpd_ros.bench.workload import ACTIONS, BATCH, STATES, observation, space
from rlpd_ros.data.replay_buffer import ReplayBuffer, symmetric_batches
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.backbone import load_backbone
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.encoders import STAGES, feature_shape
from rlpd_ros.rl.policy import Policy
from rlpd_ros.rl.sight import FeatureReplay
from rlpd_ros.settings import LearnerConfig
from rlpd_ros.tables import Row
from rlpd_ros.types import Observation, Source, SpaceSpec, Transition

CAMERAS = 2
IMAGE = space(1).image_fields[0].shape
SIZE = 2_000  # transitions in each buffer
RESNET_FLOPS = (228e6, 346e6, 463e6, 580e6)  # of the convolutions for one image, up to each stage
PEER = {"replay": 20.0, "recompute": 0.4}  # critic steps per second that are asked for


class _Kept:
    """Features of one observation, for all: what they are does not change how long anything takes."""

    def __init__(self, replay: FeatureReplay) -> None:
        seen = observation(space(CAMERAS), np.random.default_rng(0))
        self.shapes: Mapping[str, tuple[int, int]] = replay.shapes
        self._features = {name: np.asarray(data) for name, data in replay(seen).items()}

    def __call__(self, observation: Observation) -> dict[str, Any]:
        return self._features


def pixels(effort: Effort) -> Iterator[Row]:
    """Yield all that learning from images adds."""
    config, spec = PolicyConfig(), space(CAMERAS)
    yield from _critic_steps(effort, config)
    yield from _critic_steps(effort, replace(config, backbone_stages=STAGES), f", all {STAGES} stages")
    replay, online, demos = _kept(spec, config)
    matmul, copy, rng = speed_of_light("matmul"), speed_of_light("copy"), np.random.default_rng(0)
    yield high("pixels, features replayed: batches of 256", rates(
        lambda: symmetric_batches(online, demos, 1, BATCH, rng), effort), "1/s", 400,
        copy / (BATCH * 2 * CAMERAS * prod(feature_shape(IMAGE, config.backbone_stages))))
    yield low("pixels: memory per 1,000 transitions", [1e-6 * ReplayBuffer(spec, 1000, replay).nbytes], "MB", 60)
    seen = [observation(spec, rng) for _ in range(16)]
    each = [1e3 / rate for rate in rates(lambda: jax.block_until_ready(replay(seen[int(rng.integers(16))])), effort)]
    yield low("pixels: features of an observation, once", each, "ms",
              limit=1e3 * CAMERAS * LearnerConfig().feature_shifts * _flops_to_see(config) / matmul)
    yield low("pixels: bytes per publication", [1e-6 * Policy(spec, config).data_size], "MB", 10)
    drawn, _ = result(begin(action_times, max(20, effort.samples // 5), CAMERAS))
    yield from percentiles("pixels: act", np.array(drawn), (8.0, None), 1e3 * CAMERAS * _flops_to_see(config) / matmul)


def _critic_steps(effort: Effort, config: PolicyConfig, what: str = "") -> Iterator[Row]:
    matmul, spec = speed_of_light("matmul"), space(CAMERAS)
    _, online, demos = _kept(spec, config)
    yield high(f"pixels, features replayed{what}: critic steps", _update_rates(effort, online, demos, config), "1/s",
               PEER["replay"], matmul / _flops_of_critic_step(config))
    online, demos = (_filled(ReplayBuffer(spec, BATCH), BATCH) for _ in range(2))
    brief = Effort(min(2, effort.repetitions), effort.seconds, effort.samples)
    backbone = load_backbone("", config.backbone_stages).params
    yield high(f"pixels, features recomputed{what}: critic steps",
               _update_rates(brief, online, demos, config, backbone), "1/s", PEER["recompute"],
               matmul / (_flops_of_critic_step(config) + 2 * CAMERAS * BATCH * _flops_to_see(config)))


def _kept(spec: SpaceSpec, config: PolicyConfig) -> tuple[FeatureReplay, ReplayBuffer, ReplayBuffer]:
    """Return what keeps features, and two full buffers of such."""
    replay = FeatureReplay(spec, load_backbone("", config.backbone_stages).params, LearnerConfig().feature_shifts)
    online, demos = (_filled(ReplayBuffer(spec, SIZE, _Kept(replay)), SIZE) for _ in range(2))
    return replay, online, demos


def _filled(buffer: ReplayBuffer, size: int) -> ReplayBuffer:
    rng, now = np.random.default_rng(0), observation(buffer.spec, np.random.default_rng(1))
    images = now.images
    for i in range(size):
        following = Observation(rng.uniform(-1, 1, STATES).astype(np.float32), images)
        buffer.insert(Transition(now, rng.uniform(-1, 1, ACTIONS).astype(np.float32), float(i), following, False,
                                 Source.POLICY))
        now = following
        buffer.prepare(8)
    return buffer


def _update_rates(effort: Effort, online: ReplayBuffer, demos: ReplayBuffer, policy: PolicyConfig,
                  backbone: Any = None) -> list[float]:
    config, rng = AgentConfig(), np.random.default_rng(0)
    agent = Agent.create(online.spec, policy, config, 0, backbone)
    info: dict[str, jax.Array] = {}
    before: dict[str, jax.Array] = {}

    def step() -> None:  # as the learner does
        nonlocal agent, info, before
        batch = symmetric_batches(online, demos, config.utd_ratio, BATCH, rng)
        for value in before.values():
            value.block_until_ready()
        before = info
        agent, info = agent.update(batch, BATCH // 2)

    measured = [config.utd_ratio * rate for rate in rates(step, effort)]
    gc.collect()
    return measured


def _flops_to_see(config: PolicyConfig) -> float:
    return RESNET_FLOPS[config.backbone_stages - 1]


def _flops_of_critic_step(config: PolicyConfig) -> float:
    """Return the arithmetic that a critic step needs at least: see ``Compression``; three ways forward, one back."""
    channels, places = feature_shape(IMAGE, config.backbone_stages)
    dense = 2 * BATCH * CAMERAS * channels * config.spatial_embeddings * config.bottleneck_dim
    embed = 2 * BATCH * CAMERAS * channels * places * config.spatial_embeddings
    return (3 + 1 / AgentConfig().utd_ratio) * (dense + embed) + 2 * dense + embed
