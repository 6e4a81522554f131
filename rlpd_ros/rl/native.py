# SPDX-License-Identifier: Apache-2.0
"""Batches through dense networks, cameras' feature maps to vectors, and Adam, in native code (native/), on CPUs: where
XLA makes many small operations of them. Everything else has to do without: see ``takes``.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rlpd_ros

SWITCH = "RLPD_NATIVE"  # environment variable: 0 for none of this, avx2 or baseline for the code of older processors
_LIBRARY = "librlpd_native.so"
_OPERATIONS = ("rlpd_forward", "rlpd_backward", "rlpd_adam", "rlpd_compress", "rlpd_compress_backward",
               "rlpd_see")
_ACTIVATIONS = ("tanh", "relu", "silu")  # as in native/kernels.h

Layers = list[tuple[jax.Array, ...]]  # kernel, bias, with LayerNorm scale and shift: the ensemble's axis first


class Form(NamedTuple):
    """What there is to know of a network besides its parameters; all hidden layers have the same."""

    activation: str
    layer_norm: bool

    def attributes(self) -> dict[str, Any]:
        return {"activation": np.int32(_ACTIVATIONS.index(self.activation)), "norm": self.layer_norm}


@cache
def is_available() -> bool:
    """Return whether the library was built, is wanted, and JAX computes on CPUs."""
    path = _library()
    if os.environ.get(SWITCH) == "0" or path is None or jax.default_backend() != "cpu":
        return False
    try:
        library = ctypes.CDLL(str(path))
        for name in _OPERATIONS:
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    except (OSError, RuntimeError) as reason:
        warnings.warn(f"{path}: built for another machine or JAX: learning will be slower; build again ({reason})",
                      stacklevel=2)
        return False
    return True


def _library() -> Path | None:
    """Return where the library is: beside the generated messages, also for modules that come from the sources."""
    paths = [Path(folder, _LIBRARY) for folder in rlpd_ros.__path__]
    return next((path for path in paths if path.exists()), None)


def takes(x: jax.Array) -> bool:
    """Return whether ``x`` is for native code: a batch. A single row is faster without, and every actor computes it."""
    return x.ndim > 1 and x.dtype == jnp.float32 and is_available()


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def networks(form: Form, layers: Layers, x: jax.Array) -> jax.Array:
    """Return the outputs (members, rows, n) of an ensemble of networks whose last layer is linear. ``x``: (rows, n)."""
    return _forward(form, layers, x, with_residuals=False)[0]


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Wanted:
    params: bool
    inputs: bool


def _networks_forward(form: Form, layers: Any, x: Any) -> tuple[jax.Array, tuple]:
    wanted = _Wanted(any(leaf.perturbed for layer in layers for leaf in layer), x.perturbed)
    layers, x = [tuple(leaf.value for leaf in layer) for layer in layers], x.value
    outputs, *residuals = _forward(form, layers, x, with_residuals=True)
    return outputs, (wanted, layers, x, residuals)


def _networks_backward(form: Form, kept: tuple, grad: jax.Array) -> tuple[Layers | None, jax.Array | None]:
    wanted, layers, x, residuals = kept
    inputs = jax.ShapeDtypeStruct((len(grad), *x.shape), x.dtype)
    results, structure = jax.tree.flatten((layers if wanted.params else None, inputs if wanted.inputs else None))
    params, step = jax.tree.leaves(layers), 3 if form.layer_norm else 2
    normals = residuals[::step]  # are overwritten
    aliases = {1 + len(params) + i * step: len(results) + i for i in range(len(normals))}
    gradients = _call("rlpd_backward", [*results, *normals], [x, *params, *residuals, grad], aliases,
                      **form.attributes(), params_wanted=wanted.params, inputs_wanted=wanted.inputs)
    of_params, of_inputs = jax.tree.unflatten(structure, gradients[:len(results)])
    return of_params, of_inputs if of_inputs is None else sum(of_inputs)


networks.defvjp(_networks_forward, _networks_backward, symbolic_zeros=True)


def _forward(form: Form, layers: Layers, x: jax.Array, with_residuals: bool) -> list[jax.Array]:
    members, rows = len(layers[0][0]), len(x)
    shapes: list[tuple[int, ...]] = [(members, rows, layers[-1][1].shape[-1])]
    for kernel, *_ in layers[:-1] if with_residuals else ():
        shapes += [(members, rows, kernel.shape[-1])] * 2 + [(members, rows)] * form.layer_norm
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return _call("rlpd_forward", results, [x, *jax.tree.leaves(layers)], {}, **form.attributes())


@jax.custom_vjp
def compress(maps: jax.Array, params: tuple[jax.Array, ...]) -> jax.Array:
    """Return what ``Compression`` makes of a camera's feature maps: (rows, n).

    ``maps``: float32 (rows, channels * places), or bytes (rows, feature_bytes) as ``pack`` makes them; there is no
    gradient of them. ``params``: embeddings, kernel, bias, and scale and shift of LayerNorm.
    """
    return _compress(maps, params, with_residuals=False)[0]


def _compress_forward(maps: Any, params: Any) -> tuple[jax.Array, tuple]:
    assert not maps.perturbed, "there is no gradient of feature maps"
    maps, params = maps.value, tuple(leaf.value for leaf in params)
    outputs, *residuals = _compress(maps, params, with_residuals=True)
    return outputs, (maps, params, [*residuals, outputs])


def _compress_backward(kept: tuple, grad: jax.Array) -> tuple[None, tuple[jax.Array, ...]]:
    maps, params, residuals = kept
    y, normal, *_ = residuals
    aliases = {1 + len(params) + 1: len(params)}  # the normalised inputs of tanh are overwritten
    gradients = _call("rlpd_compress_backward", [*params, normal, y], [maps, *params, *residuals, grad], aliases)
    return None, tuple(gradients[:len(params)])


compress.defvjp(_compress_forward, _compress_backward, symbolic_zeros=True)


def _compress(maps: jax.Array, params: tuple[jax.Array, ...], with_residuals: bool) -> list[jax.Array]:
    inputs, n = params[1].shape
    shapes: list[tuple[int, ...]] = [(len(maps), n), (inputs, len(maps)), (len(maps), n), (len(maps),)]
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes[:None if with_residuals else 1]]
    return _call("rlpd_compress", results, [maps, *params], {})


def see(backbone: Any, stages: int, images: jax.Array, averaged: int) -> jax.Array:
    """Return the maps (..., channels, places) that a frozen ResNet10 of so many ``stages`` makes of uint8 images.

    ``images``: (..., h, w, 1 or 3). ``averaged``: side of the squares of places that become one. There is no gradient.
    """
    stride = averaged * 2 ** (stages + 1)
    places = prod(-(-side // stride) for side in images.shape[-3:-1])
    result = jax.ShapeDtypeStruct((*images.shape[:-3], 2 ** (stages + 5), places), jnp.float32)
    call = jax.ffi.ffi_call("rlpd_see", result, vmap_method="expand_dims")
    return call(images, *jax.tree.leaves(backbone), averaged=np.int32(averaged))


def adam(grads: Any, params: Any, opt_state: Any, learning_rate: float, target: Any = None, tau: float = 0.0
         ) -> tuple[Any, Any, Any]:
    """Return parameters, state and target after one step of ``optax.adam``.

    The target goes by ``tau`` of the way to the parameters. To be called only if ``is_available``, as ``networks``.
    """
    moments, *rest = opt_state
    count = moments.count + 1
    corrections = 1 / (1 - jnp.array([0.9, 0.999], jnp.float32) ** count)
    trees = [params, moments.mu, moments.nu, *([target] if tau else [])]
    columns = [jax.tree.leaves(tree) for tree in trees]
    arguments: list[jax.Array] = [corrections]
    results: list[jax.Array] = []
    aliases: dict[int, int] = {}
    for grad, *arrays in zip(jax.tree.leaves(grads), *columns, strict=True):
        arguments.append(grad)
        for array in arrays:
            aliases[len(arguments)] = len(results)
            arguments.append(array)
            results.append(array)
    outputs = _call("rlpd_adam", results, arguments, aliases, learning_rate=np.float32(learning_rate),
                    tau=np.float32(tau))
    params, mu, nu, *targets = (
        jax.tree.unflatten(jax.tree.structure(params), outputs[i::len(trees)]) for i in range(len(trees)))
    return params, (moments._replace(count=count, mu=mu, nu=nu), *rest), targets[0] if targets else target


def _call(name: str, results: list[Any], arguments: list[jax.Array], aliases: dict[int, int], **attributes: Any
          ) -> list[jax.Array]:
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in results]
    call = jax.ffi.ffi_call(name, shapes, vmap_method="sequential", input_output_aliases=aliases)
    return list(call(*arguments, **attributes))
