# SPDX-License-Identifier: Apache-2.0
"""What sees: convolutional networks from images to feature maps, and from those to what policy and critics work with.

ResNet: He et al. 2016, arXiv:1512.03385, with GroupNorm (Wu and He 2018, arXiv:1803.08494). Spatial learned embeddings
and sizes: HIL-SERL, Luo et al. 2024, arXiv:2410.21845. Random shifts: DrQ, Kostrikov et al. 2021, arXiv:2004.13649.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rlpd_ros.rl import native
from rlpd_ros.rl.config import FROZEN, PolicyConfig
from rlpd_ros.rl.layers import LayerNorm

STAGES = 4  # of the ResNet
FINEST = 16  # pixels from one place of frozen features to the next, at least: finer maps would take too much memory
PAD = 4  # pixels by which a random shift may move an image, each way
NATIVE_STAGES = 2  # for native code: later ones have small maps and large kernels, which XLA multiplies as well
SMALL = 64  # places of feature maps that are multiplied rather than convolved
STEEPNESS = 10.0  # of ``symlog``: what is below 0.1 is about linear
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, with which the file's weights were trained
_SCALE_BYTES = 4


class Features(NamedTuple):
    """Feature maps of one camera: ``maps`` (..., channels, places) of any type, times ``scale`` (...)."""

    maps: Any
    scale: Any


class ResNet10(nn.Module):
    """ResNet of four stages with one block each: uint8 images (n, h, w, 3) to maps (n, h / 32, w / 32, 512).

    The first s ``stages`` alone make maps (n, h / 2^(s + 1), w / 2^(s + 1), 2^(s + 5)). The names of the parameters are
    those of HIL-SERL's file.
    """

    stages: int = STAGES

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = (images / np.float32(255) - np.asarray(_MEAN, np.float32)) / np.asarray(_STD, np.float32)
        x = Convolution(64, 7, 2, [(3, 3), (3, 3)], name="conv_init")(x)
        x = nn.relu(_group_norm("norm_init")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage in range(self.stages):
            x = _stage(stage, name=_block(stage))(x)
        return x


class ResNetBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is projected where the shape changes."""

    filters: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(_group_norm("MyGroupNorm_0")(Convolution(self.filters, 3, self.stride, name="Conv_0")(x)))
        y = _group_norm("MyGroupNorm_1")(Convolution(self.filters, 3, 1, name="Conv_1")(y))
        if x.shape != y.shape:
            x = _group_norm("norm_proj")(Convolution(self.filters, 1, self.stride, name="conv_proj")(x))
        return nn.relu(x + y)


def _block(stage: int) -> str:
    return f"ResNetBlock_{stage}"


def _stage(stage: int, **settings: Any) -> ResNetBlock:
    return ResNetBlock(64 * 2**stage, 1 if stage == 0 else 2, **settings)


class SmallNetwork(nn.Module):
    """Four 3 x 3 convolutions with stride 2: uint8 images (n, h, w, 3) to maps (n, h / 16, w / 16, 256)."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images / np.float32(255) - np.float32(0.5)
        for i, filters in enumerate((32, 64, 128, 256)):
            x = nn.relu(nn.Conv(filters, (3, 3), 2, name=f"conv_{i}")(x))
        return x


class Convolution(nn.Module):
    """Convolution of images (n, h, w, channels) without bias, with the parameter of ``nn.Conv``.

    Small maps are taken apart into the squares that the kernel sees, for one product of matrices: on a CPU that takes
    half the time of a convolution where the kernel is larger than the images.
    """

    filters: int
    size: int
    stride: int
    padding: Any = "SAME"  # or pixels above and below, left and right

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, step = self.size, self.stride
        kernel = self.param("kernel", nn.initializers.kaiming_normal(), (size, size, x.shape[-1], self.filters))
        if prod(x.shape[1:3]) > SMALL:
            return jax.lax.conv_general_dilated(
                x, kernel, (step, step), self.padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        pads = jax.lax.padtype_to_pads(x.shape[1:3], (size, size), (step, step), self.padding)
        height, width = ((side + sum(pad) - size) // step + 1 for side, pad in zip(x.shape[1:3], pads, strict=True))
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        squares = jnp.concatenate([x[:, i:i + step * height:step, j:j + step * width:step]
                                   for i in range(size) for j in range(size)], axis=-1)
        return squares @ kernel.reshape(-1, self.filters)


def _group_norm(name: str) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups=4, epsilon=1e-5, name=name)


class Compression(nn.Module):
    """One camera's feature maps to ``bottleneck_dim`` numbers: spatial learned embeddings, dense, LayerNorm, tanh.

    Each channel is weighted by ``spatial_embeddings`` learned maps and summed over all places; a dense layer follows.
    Images are embedded channel by channel: those are products of matrices.
    """

    config: PolicyConfig

    @nn.compact
    def __call__(self, seen: Features | jax.Array) -> jax.Array:
        """``seen``: Features (...), or bytes (..., feature_bytes) that ``pack`` made of them."""
        c = self.config
        leading = seen.scale.shape if isinstance(seen, Features) else seen.shape[:-1]
        if leading and c.encoder == FROZEN and native.is_available() and not self.is_initializing():
            return _compress_natively(self.variables["params"], seen)
        maps, scale = seen if isinstance(seen, Features) else unpack(seen, c.backbone_stages)
        *_, channels, places = maps.shape
        count = prod(leading)
        embeddings = self.param("embeddings", nn.initializers.variance_scaling(
            1.0, "fan_in", "truncated_normal", in_axis=(0, 1), out_axis=2), (channels, places, c.spatial_embeddings))
        weights = self.param(
            "kernel", nn.initializers.lecun_normal(), (channels * c.spatial_embeddings, c.bottleneck_dim))
        bias = self.param("bias", nn.initializers.zeros, (c.bottleneck_dim,))
        by_channel = jnp.swapaxes(maps.reshape(count, channels, places), 0, 1).astype(jnp.float32)
        y = jnp.swapaxes(by_channel @ embeddings, 0, 1).reshape(count, -1) @ weights
        y = y.reshape(*leading, -1) * scale[..., None] + bias
        return jnp.tanh(LayerNorm(name="norm")(y))


def _compress_natively(params: Mapping[str, Any], seen: Features | jax.Array) -> jax.Array:
    maps = ((seen.maps * seen.scale[..., None, None]).reshape(*seen.scale.shape, -1)
            if isinstance(seen, Features) else seen)
    outputs = native.compress(maps.reshape(-1, maps.shape[-1]), (
        params["embeddings"], params["kernel"], params["bias"], params["norm"]["scale"], params["norm"]["bias"]))
    return outputs.reshape(*maps.shape[:-1], -1)


class Encoder(nn.Module):
    """Observations to the vector that policy and critics see: the scaled state, or with cameras all that is seen.

    Where the convolutional network is trained it is part of this one, and a camera's entry of the observations is its
    images (..., h, w, 3); otherwise it is their Features, as such or packed. Cameras share convolutions, not what comes
    after them.
    """

    config: PolicyConfig
    cameras: tuple[str, ...]
    center: tuple[float, ...]  # see ``state_scaling``
    scale: tuple[float, ...]
    unbounded: tuple[bool, ...]

    @nn.compact
    def __call__(self, observations: Mapping[str, Any]) -> jax.Array:
        state = (observations["state"] - np.asarray(self.center, np.float32)) * np.asarray(self.scale, np.float32)
        if any(self.unbounded):
            state = jnp.where(np.asarray(self.unbounded), symlog(state), state)
        if not self.cameras:
            return state
        features = {name: observations[name] for name in self.cameras}
        if self.config.encoder != FROZEN:
            network = (ResNet10 if self.config.encoder == "resnet10" else SmallNetwork)(name="convolutions")
            features = see(lambda images: _channels_first(network(images)), features)
        seen = [Compression(self.config, name=f"camera_{name}")(features[name]) for name in self.cameras]
        state = jnp.tanh(LayerNorm(name="state_norm")(nn.Dense(self.config.proprio_dim, name="state")(state)))
        return jnp.concatenate([*seen, state], axis=-1)


def symlog(x: jax.Array) -> jax.Array:
    """Return sign(x) log(1 + k |x|) / log(1 + k) with k = STEEPNESS: 0 and 1 stay, 10,000 becomes 5.

    So an element of unknown size neither drowns the others nor is lost among them. After Hafner et al. 2023,
    arXiv:2301.04104, equation 9, where k is 1: that leaves centimetres in m as small as they are.
    """
    return jnp.sign(x) * jnp.log1p(STEEPNESS * jnp.abs(x)) / np.log1p(STEEPNESS)


def stages_of(backbone: Mapping[str, Any]) -> int:
    """Return how many stages of a ResNet10 the parameters are of."""
    return sum(name.startswith("ResNetBlock") for name in backbone)


def feature_shape(image: tuple[int, ...], stages: int) -> tuple[int, int]:
    """Return (channels, places) of frozen features of an ``image`` (h, w, 3)."""
    stride = max(FINEST, 2 ** (stages + 1))
    return 2 ** (stages + 5), prod(-(-side // stride) for side in image[:2])


def frozen_features(backbone: Mapping[str, Any], images: Mapping[str, Any]) -> dict[str, Features]:
    """Return what the frozen stages of a ResNet10 see in images (..., h, w, 3): see ``feature_shape``."""
    stages = stages_of(backbone)
    side = max(1, FINEST // 2 ** (stages + 1))
    network = _frozen_natively if native.is_available() else _frozen
    return see(partial(network, backbone, stages, side), images)


def _frozen(backbone: Mapping[str, Any], stages: int, side: int, images: jax.Array) -> jax.Array:
    maps = ResNet10(stages).apply({"params": backbone}, images)
    return _channels_first(nn.avg_pool(maps, (side, side), (side, side), "SAME", count_include_pad=False))


def _frozen_natively(backbone: Mapping[str, Any], stages: int, side: int, images: jax.Array) -> jax.Array:
    late = range(NATIVE_STAGES, stages)
    early = {name: params for name, params in backbone.items() if name not in map(_block, late)}
    maps: Any = native.see(early, stages - len(late), images, side)
    if late:
        height, width = (-(-side // 2 ** (NATIVE_STAGES + 1)) for side in images.shape[1:3])
        maps = jnp.swapaxes(maps, 1, 2).reshape(len(images), height, width, -1)
        for stage in late:
            maps = _stage(stage).apply({"params": backbone[_block(stage)]}, maps)
        maps = _channels_first(maps)
    return maps


def see(network: Any, images: Mapping[str, Any]) -> dict[str, Features]:
    """Return the maps that ``network`` makes of images (..., h, w, 3): all cameras at once if they have one shape."""
    shapes = {name: image.shape for name, image in images.items()}
    flat = {name: image.reshape(-1, *image.shape[-3:]) for name, image in images.items()}
    if len(set(shapes.values())) == 1:
        maps = network(jnp.concatenate(list(flat.values())))
        seen = dict(zip(images, jnp.split(maps, len(images)), strict=True))
    else:
        seen = {name: network(image) for name, image in flat.items()}
    return {name: Features(seen[name].reshape(*shape[:-3], *seen[name].shape[1:]), jnp.ones(shape[:-3]))
            for name, shape in shapes.items()}


def _channels_first(maps: jax.Array) -> jax.Array:
    """Make (n, h, w, channels) to (n, channels, h * w)."""
    return jnp.swapaxes(maps.reshape(len(maps), -1, maps.shape[-1]), 1, 2)


def random_shift(images: jax.Array, offsets: jax.Array) -> jax.Array:
    """Return images (n, h, w, 3) moved by ``offsets`` (n, 2) minus PAD pixels; edges are continued (DrQ, section 4)."""
    padded = jnp.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)), "edge")
    shape = images.shape[1:]
    return jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), shape))(padded, offsets)


def pack(maps: jax.Array) -> jax.Array:
    """Return feature maps (n, channels, places), none below 0, as bytes (n, feature_bytes): see ``unpack``.

    Each image has a scale of its own, its largest feature, so a feature is off by at most 1/510 of that.
    """
    largest = jnp.maximum(maps.max((1, 2)), 1e-12)
    codes = jnp.round(maps * (255 / largest)[:, None, None]).astype(jnp.uint8)
    scale = jax.lax.bitcast_convert_type(largest / 255, jnp.uint8)
    return jnp.concatenate([codes.reshape(len(maps), -1), scale], axis=1)


def unpack(data: jax.Array, stages: int) -> Features:
    """Return what ``pack`` made bytes (..., feature_bytes) of: uint8 maps (..., *feature_shape) and a scale (...)."""
    codes = data[..., :-_SCALE_BYTES]
    scale = jax.lax.bitcast_convert_type(data[..., -_SCALE_BYTES:], jnp.float32)
    return Features(codes.reshape(*codes.shape[:-1], 2 ** (stages + 5), -1), scale)


def feature_bytes(image: tuple[int, ...], stages: int) -> int:
    """Return how many bytes ``pack`` makes of the frozen features of an ``image`` (h, w, 3)."""
    return prod(feature_shape(image, stages)) + _SCALE_BYTES
