# SPDX-License-Identifier: Apache-2.0
"""What networks are made of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

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
        for i, size in enumerate(self.hidden_dims):
            x = nn.Dense(size, kernel_init=_INIT, name=f"hidden_{i}")(x)
            if self.layer_norm:
                x = LayerNorm(name=f"norm_{i}")(x)
            x = ACTIVATIONS[self.activation](x)
        return tuple(nn.Dense(size, kernel_init=_INIT, name=name)(x) for name, size in self.outputs)
