# SPDX-License-Identifier: Apache-2.0
"""How devices share an update: critics by member of the ensemble, all else by row of the mini-batch.

So the gradients of critics, which are most of what is computed, need not be exchanged: only Q values are. On a CPU that
is how a second core comes to work: each device is a core.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlpd_ros.errors import ConfigError
from rlpd_ros.rl.compilation import usable_devices

_AXIS = "devices"
_MEMBERS, _COPIES = PartitionSpec(_AXIS), PartitionSpec()


def find_devices(wanted: int, **multiples: int) -> list[jax.Device]:
    """Return ``wanted`` devices; with 0, on a CPU as many as there are cores and fit, elsewhere one.

    On a CPU each core can be a device if JAX has not computed anything yet. ``multiples``: what must be divisible by
    their number, by name. Raises ConfigError if that is not so, if there are too few, or as ``usable_devices`` does.
    """
    for name, size in multiples.items():
        if wanted and size % wanted:
            raise ConfigError(f"parameter 'devices': expected a divisor of {name} = {size}, found {wanted}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):  # JAX has computed: the devices stay as they are
        jax.config.update("jax_num_cpu_devices", wanted or math.gcd(cores, *multiples.values()))
    devices = usable_devices()
    if wanted > len(devices):
        raise ConfigError(f"parameter 'devices': expected at most {len(devices)} ({devices[0].device_kind}), "
                          f"found {wanted}")
    fitting = math.gcd(len(devices), *multiples.values()) if devices[0].platform == "cpu" else 1
    return devices[:wanted or fitting]


@dataclass(frozen=True)
class Shares:
    """What a device does of an update. One device does everything, and nothing here does anything then.

    All but ``deal`` and ``place`` is for a function that ``deal`` calls.
    """

    devices: tuple[jax.Device, ...] = ()

    @property
    def count(self) -> int:
        """Return how many devices there are."""
        return max(1, len(self.devices))

    @property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (_AXIS,))

    def place(self, tree: Any, is_dealt: Any) -> Any:
        """Put arrays onto the devices: where ``is_dealt``, a tree of booleans, parts of the first axis, else copies."""
        if self.count == 1:
            return tree
        return jax.device_put(tree, jax.tree.map(lambda dealt: NamedSharding(self._mesh, _spec(dealt)), is_dealt))

    def deal(self, work: Callable[..., tuple[Any, Any]], tree: Any, is_dealt: Any, shared: Any) -> tuple[Any, Any]:
        """Return ``work(tree, shared)``, done by all devices: a tree as the first one, and something all agree on."""
        if self.count == 1:
            return work(tree, shared)
        specs = jax.tree.map(_spec, is_dealt)
        return jax.shard_map(work, mesh=self._mesh, in_specs=(specs, _COPIES), out_specs=(specs, _COPIES),
                             check_vma=False)(tree, shared)

    def rows(self, tree: Any, axis: int = 0) -> Any:
        """Return this device's part of the rows, which lie along ``axis``."""
        if self.count == 1:
            return tree

        def part(x: jax.Array) -> jax.Array:
            size = x.shape[axis] // self.count
            return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(_AXIS) * size, size, axis)

        return jax.tree.map(part, tree)

    def gather(self, tree: Any, axis: int = 0) -> Any:
        """Return everyone's parts, joined along ``axis``."""
        return tree if self.count == 1 else jax.lax.all_gather(tree, _AXIS, axis=axis, tiled=True)

    def to_rows(self, qs: jax.Array) -> jax.Array:
        """Return Q (num_qs, own rows) of Q (own members, batch)."""
        return qs if self.count == 1 else jax.lax.all_to_all(qs, _AXIS, 1, 0, tiled=True)

    def total(self, tree: Any) -> Any:
        """Return the sum over the devices."""
        return tree if self.count == 1 else jax.lax.psum(tree, _AXIS)

    def chosen(self, stacked: Any, members: jax.Array) -> Any:
        """Return the ``members`` of an ensemble that is dealt to the devices, on each of them."""
        if self.count == 1:
            return jax.tree.map(lambda x: x[members], stacked)
        own = len(jax.tree.leaves(stacked)[0])
        place = members - jax.lax.axis_index(_AXIS) * own
        is_mine = (place >= 0) & (place < own)

        def pick(x: jax.Array) -> jax.Array:
            return jnp.where(is_mine.reshape(-1, *[1] * (x.ndim - 1)), x[place.clip(0, own - 1)], 0)

        return jax.lax.psum(jax.tree.map(pick, stacked), _AXIS)


def _spec(dealt: bool) -> PartitionSpec:
    return _MEMBERS if dealt else _COPIES
