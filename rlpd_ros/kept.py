# SPDX-License-Identifier: Apache-2.0
"""What a learner's buffers keep of images, and so what its updates see."""

from __future__ import annotations

from typing import Any, NamedTuple

from rlpd_ros.data.frames import FeatureFunction
from rlpd_ros.rl.policy import Policy
from rlpd_ros.rl.sight import FeatureReplay
from rlpd_ros.settings import LearnerConfig
from rlpd_ros.types import SpaceSpec


class Kept(NamedTuple):
    """Features in place of images, of experience and of demonstrations; None: the images themselves.

    ``backbone``: parameters of the frozen network through which updates see those images, if there is one.
    """

    online: FeatureFunction | None = None
    demos: FeatureFunction | None = None
    backbone: Any = None

    @staticmethod
    def of(policy: Policy, spec: SpaceSpec, config: LearnerConfig) -> Kept:
        """Return what the configuration wants to be kept for a policy."""
        if policy.backbone is None:
            return IMAGES
        params = policy.backbone.params
        if not config.feature_replay:
            return Kept(backbone=params)
        return Kept(FeatureReplay(spec, params, config.feature_shifts),
                    FeatureReplay(spec, params, config.demo_feature_shifts))


IMAGES = Kept()
