# SPDX-License-Identifier: Apache-2.0
"""What networks are made of."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rlpd_ros.rl import native

Params = Any  # a pytree of arrays: nested dictionaries, as Flax makes them
ACTIVATIONS = {"tanh": jnp.tanh, "relu": nn.relu, "silu": nn.silu}
_INIT = nn.initializers.xavier_uniform()
_EPSILON = 1e-6  # Flax's default, with which both papers' code was run


@jax.custom_vjp
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Normalise ``x`` (..., n) over its last axis, then scale and shift (Ba et al. 2016, equation 4).

    The gradient is written out because the automatic one makes more passes over memory, which is what bounds small
    networks on a CPU: a tenth of a critic step with ten critics.
    """
    return _layer_norm_forward(x, scale, bias)[0]


def _layer_norm_forward(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    inverse_std = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + _EPSILON)
    normal = centred * inverse_std
    return normal * scale + bias, (normal, inverse_std, scale)


def _layer_norm_backward(residuals, grad):
    # With h the normalised input and g' = g * scale: dx = (g' - mean(g') - h * mean(g' * h)) / std.
    normal, inverse_std, scale = residuals
    scaled = grad * scale
    grad_x = inverse_std * (
        scaled - scaled.mean(-1, keepdims=True) - normal * (scaled * normal).mean(-1, keepdims=True))
    leading = tuple(range(grad.ndim - 1))
    return grad_x, (grad * normal).sum(leading), grad.sum(leading)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class LayerNorm(nn.Module):
    """``layer_norm`` with learned scale and bias."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return layer_norm(x, scale, bias)


class MLP(nn.Module):
    """Hidden layers, each dense, LayerNorm (optional), nonlinearity; then one linear layer per output."""

    hidden_dims: tuple[int, ...]
    activation: str
    layer_norm: bool
    outputs: tuple[tuple[str, int], ...]  # name and size

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        if native.takes(x) and not self.is_initializing():
            alone = jax.tree.map(lambda leaf: leaf[None], self.variables["params"])
            return tuple(output[0] for output in _native_ensemble(self, alone, x))
        for i, size in enumerate(self.hidden_dims):
            x = nn.Dense(size, kernel_init=_INIT, name=f"hidden_{i}")(x)
            if self.layer_norm:
                x = LayerNorm(name=f"norm_{i}")(x)
            x = ACTIVATIONS[self.activation](x)
        return tuple(nn.Dense(size, kernel_init=_INIT, name=name)(x) for name, size in self.outputs)


def ensemble(mlp: MLP, params: Params, x: jax.Array) -> tuple[jax.Array, ...]:
    """Return each output (members, ..., size) of networks whose parameters are stacked, for the same ``x`` (..., n).

    Without native code unrolled rather than vmapped: on a CPU the activations of one critic stay in its core's cache
    and different critics run on different cores, which makes a step with ten critics a fifth faster than one batched
    matrix multiply.
    """
    if native.takes(x):
        return _native_ensemble(mlp, params, x)
    outputs = [_member_outputs(mlp, member, x) for member in members(params)]
    return tuple(jnp.stack(output) for output in zip(*outputs, strict=True))


@partial(jax.jit, static_argnames="mlp")  # so that JAX traces one member and not each of them
def _member_outputs(mlp: MLP, params: Params, x: jax.Array) -> tuple[jax.Array, ...]:
    outputs: Any = mlp.apply({"params": params}, x)
    return outputs


def _native_ensemble(mlp: MLP, params: Params, x: jax.Array) -> tuple[jax.Array, ...]:
    layers = []
    for i in range(len(mlp.hidden_dims)):
        dense, norm = params[f"hidden_{i}"], params.get(f"norm_{i}", {})
        layers.append((dense["kernel"], dense["bias"], *(norm[name] for name in ("scale", "bias") if norm)))
    heads, sizes = [params[name] for name, _ in mlp.outputs], [size for _, size in mlp.outputs]
    layers.append(tuple(jnp.concatenate([head[name] for head in heads], axis=-1) for name in ("kernel", "bias")))
    outputs = native.networks(native.Form(mlp.activation, mlp.layer_norm), layers, x.reshape(-1, x.shape[-1]))
    return tuple(jnp.split(outputs.reshape(len(outputs), *x.shape[:-1], -1), np.cumsum(sizes)[:-1], axis=-1))


@jax.custom_vjp
def members(params: Params) -> list[Params]:
    """Split stacked ensemble parameters (members, ...) into one tree per member.

    The gradient is written out because the automatic one adds as many mostly empty arrays as there are members.
    """
    size = len(jax.tree.leaves(params)[0])
    return [jax.tree.map(lambda x, i=i: x[i], params) for i in range(size)]


def _stack(_: None, trees: list[Params]) -> tuple[Params]:
    return (jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees),)


members.defvjp(lambda params: (members(params), None), _stack)
