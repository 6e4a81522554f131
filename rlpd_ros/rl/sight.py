# SPDX-License-Identifier: Apache-2.0
"""From observations, as they are stored or as an arm sends them, to what an ``Encoder`` takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlpd_ros.rl.config import FROZEN
from rlpd_ros.rl.encoders import (
    PAD,
    Encoder,
    Features,
    feature_bytes,
    frozen_features,
    pack,
    random_shift,
    stages_of,
)
from rlpd_ros.types import Observation, SpaceSpec

Params = Any
IMAGES_AT_ONCE = {"cpu": 8, "gpu": 512}  # that a loop over many sees: on a CPU, so that their maps fit its cache


def prepare(encoder: Encoder, backbone: Params, observations: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
    """Return a mini-batch's observations as ``encoder`` takes them.

    Stored features stay as they are. Images are shifted at random, each by itself (DrQ); a ``backbone`` then sees them.
    """
    prepared = dict(observations)
    for i, name in enumerate(encoder.cameras):
        stored = observations[name]
        if encoder.config.encoder == FROZEN and not backbone:
            continue
        leading, shape = stored.shape[:-3], stored.shape[-3:]
        images = stored.reshape(-1, *shape)
        offsets = jax.random.randint(jax.random.fold_in(key, i), (len(images), 2), 0, 2 * PAD + 1)
        images = random_shift(images, offsets)
        prepared[name] = images.reshape(*leading, *shape)
        if backbone:
            maps = jax.lax.map(lambda image: frozen_features(backbone, {"": image})[""].maps, images,
                               batch_size=IMAGES_AT_ONCE.get(jax.default_backend(), 64))
            prepared[name] = Features(maps.reshape(*leading, *maps.shape[1:]), jnp.ones(leading))
    return prepared


class FeatureReplay:
    """What a replay buffer keeps of an observation's images in place of them: frozen features for a few random shifts.

    ``shapes``: camera -> (shifts, bytes). The shifts follow from the observation, and each observation is computed by
    itself, so that a buffer that is filled anew from a log holds bit by bit what it held before.
    """

    def __init__(self, spec: SpaceSpec, backbone: Params, shifts: int) -> None:
        self.shapes = {f.name: (shifts, feature_bytes(f.shape, stages_of(backbone))) for f in spec.image_fields}
        self._backbone = jax.device_put(backbone)
        self._shifts = shifts
        self._compute = jax.jit(_packed_features)

    def __call__(self, observation: Observation) -> dict[str, jax.Array]:
        """Begin to compute the features of an observation: camera -> uint8 (shifts, bytes)."""
        images = {name: observation.images[name] for name in self.shapes}
        return self._compute(self._backbone, images, self._offsets(observation))

    def _offsets(self, observation: Observation) -> np.ndarray:
        """Return by how much each image is moved, (cameras, shifts, 2): uniform, but for a 256th."""
        shape = (len(self.shapes), self._shifts, 2)
        digest = hashlib.shake_128(observation.state.tobytes())
        for name in sorted(self.shapes):
            digest.update(np.ascontiguousarray(observation.images[name]).data)
        numbers = np.frombuffer(digest.digest(int(np.prod(shape))), np.uint8)
        return (numbers % (2 * PAD + 1)).astype(np.int32).reshape(shape)


def _packed_features(backbone: Params, images: Mapping[str, jax.Array], offsets: jax.Array) -> dict[str, jax.Array]:
    shifted = {name: random_shift(jnp.broadcast_to(image, (len(at), *image.shape)), at)
               for (name, image), at in zip(sorted(images.items()), offsets, strict=True)}
    return {name: pack(features.maps) for name, features in frozen_features(backbone, shifted).items()}
