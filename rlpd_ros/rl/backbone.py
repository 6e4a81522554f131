# SPDX-License-Identifier: Apache-2.0
"""The frozen network that sees: its weights, out of a file or random, and what they are known by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.rl.config import FROZEN, PolicyConfig
from rlpd_ros.rl.encoders import STAGES, ResNet10
from rlpd_ros.rl.pickled_arrays import read_pickled_arrays
from rlpd_ros.types import SpaceSpec
from rlpd_ros.untrusted import printable

MAX_BYTES = 2**28  # of a file with weights; those of the ResNet-10 take 20 MB
SEED = 0  # of random weights: the same everywhere, so that actor and learner agree


@dataclass(frozen=True)
class Backbone:
    """``params`` of a frozen ResNet10, NumPy arrays; ``digest``: of their content; ``origin``: for people."""

    params: Mapping[str, Any]
    digest: str
    origin: str


def backbone_of(spec: SpaceSpec, config: PolicyConfig) -> Backbone | None:
    """Return the frozen network that a policy needs, or None if it needs none.

    Raises ConfigError, or DataError for a file that does not hold its weights.
    """
    frozen = config.encoder == FROZEN
    if config.backbone and not frozen:
        raise ConfigError(f"parameter 'backbone': expected none with encoder {config.encoder}, which is trained from "
                          f"random weights, found '{config.backbone}'")
    return load_backbone(config.backbone, config.backbone_stages) if spec.image_fields and frozen else None


@cache
def load_backbone(path: str, stages: int = STAGES) -> Backbone:
    """Read weights of a ResNet10's first ``stages`` from safetensors or from HIL-SERL's pickle; "" makes random ones.

    Arrays are named as in that pickle, e.g. ResNetBlock_0/Conv_0/kernel; safetensors may have dots for the slashes.
    What else the file holds, such as a classifier, is ignored. Raises DataError naming the file and the array.
    """
    shapes = dict(_flat(jax.eval_shape(partial(_initialised, stages))))
    if path:
        found, origin = _read(Path(path)), path
    else:
        found = _random_weights({name: leaf.shape for name, leaf in shapes.items()})
        origin = "random weights (parameter backbone names no file)"
    digest, params = hashlib.sha256(), {}
    for name, expected in sorted(shapes.items()):
        array = found.get(name)
        if array is None:
            raise DataError(f"{path}: expected an array {name} of a ResNet-10, found only "
                            f"{printable(', '.join(sorted(found)) or 'none')}")
        if array.shape != expected.shape or array.dtype.kind != "f":
            raise DataError(f"{path}: {name}: expected {list(expected.shape)} of floats, found {array.dtype} "
                            f"{list(array.shape)}")
        array = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(array).all():
            raise DataError(f"{path}: {name}: expected finite values, found others")
        digest.update(name.encode() + array.tobytes())
        params[name] = array
    return Backbone(_nested(params), digest.hexdigest()[:16], origin)


def _initialised(stages: int) -> Any:
    return ResNet10(stages).init(jax.random.PRNGKey(0), np.zeros((1, 32, 32, 3), np.uint8))["params"]


def _random_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return He-uniform kernels (He et al. 2015, arXiv:1502.01852), scales of 1 and biases of 0.

    Out of integers and plain arithmetic: the same bits on every machine and with every version of JAX and NumPy.
    """
    integers, found = np.random.PCG64(SEED), {}
    for name, shape in sorted(shapes.items()):
        if name.endswith("kernel"):
            uniform = (integers.random_raw(prod(shape)) >> np.uint64(11)) * 2.0**-53
            found[name] = ((2 * uniform - 1) * np.sqrt(6 / prod(shape[:-1]))).astype(np.float32).reshape(shape)
        else:
            found[name] = np.full(shape, float(name.endswith("scale")), np.float32)
    return found


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot read the backbone: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{path}: expected at most {MAX_BYTES} bytes, found more")
    try:
        if data[:1] == b"\x80" and data[8:9] != b"{":  # where the header of safetensors begins, after its length
            return dict(_flat(read_pickled_arrays(data)))
        return {name.replace(".", "/"): array for name, array in load_safetensors(data).items()}
    except (DataError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: expected weights in safetensors, or arrays in a pickle like HIL-SERL's: "
                        f"{printable(error)}") from error


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _flat(value, f"{prefix}/{name}" if prefix else str(name))
    else:
        yield prefix, tree


def _nested(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, array in flat.items():
        *parents, name = path.split("/")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[name] = array
    return tree
