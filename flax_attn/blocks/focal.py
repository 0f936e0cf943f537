"""Focal modulation: each place of a map is scaled by what its growing neighbourhoods contain.

Yang, Li, Dai, Yuan & Gao, "Focal modulation networks", NeurIPS 2022, equations 4 to 6: a 1x1 convolution of x gives
queries q, a context c_0 and gates g_0 .. g_L, ``c_l = GELU(depthwise conv_l(c_(l-1)))`` with kernels of size
``focal_window + focal_factor * level``, and ``out = proj(q * h(sum_l g_l c_l + g_L GELU(mean of the last c)))``. The
gates are not squashed.

Differs from the authors' code as timm does: f and proj are convolutions, into which weights of linear layers also load,
and the norm, ``ln`` there, has eps 1e-6 and not 1e-5.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_rate, check_shape
from ..layers import GELU, Conv, Dropout, LayerNorm
from ..options import Options, check_options


class FocalModulation(nnx.Module):
    """Scales each place and channel by a gated sum of the map's contexts, from a small window to all of it (FocalNet).

    Args:
        dim: Number of channels.
        focal_window: Size of the first kernel, odd.
        focal_level: Number of convolutions; the mean over the map follows as a last level.
        focal_factor: By how much a kernel is larger than the one before, even.
        bias: Whether the first and the modulator's projection have a bias.
        use_post_norm: Whether to apply layer norm (eps 1e-6) before the last projection.
        normalize_modulator: Whether to divide the sum by the number of levels.
        proj_drop: Dropout rate of the output.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, the rate is outside [0, 1], or a kernel's size is even.

    Example:
        >>> modulation = FocalModulation(32, focal_window=3, focal_level=2, rngs=nnx.Rngs(0))
        >>> modulation(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(
        self,
        dim: int,
        focal_window: int,
        focal_level: int,
        focal_factor: int = 2,
        bias: bool = True,
        use_post_norm: bool = False,
        normalize_modulator: bool = False,
        proj_drop: float = 0.0,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(dim=dim, focal_window=focal_window, focal_level=focal_level)
        check_positive(0, focal_factor=focal_factor)
        check_rate("proj_drop", proj_drop)
        kernels = [focal_window + focal_factor * level for level in range(focal_level)]
        if any(kernel % 2 == 0 for kernel in kernels):
            raise ValueError(
                f"focal_window and focal_factor must give kernels of odd size, got {', '.join(map(str, kernels))}"
            )
        self.dim, self.focal_level, self.normalize_modulator = dim, focal_level, normalize_modulator
        self.f = Conv(dim, 2 * dim + focal_level + 1, 1, bias=bias, rngs=rngs, **options)
        self.h = Conv(dim, dim, 1, bias=bias, rngs=rngs, **options)
        self.act = GELU()
        self.proj = Conv(dim, dim, 1, rngs=rngs, **options)
        self.proj_drop = Dropout(proj_drop, rngs=rngs)
        self.focal_layers = nnx.List(
            nnx.Sequential(
                Conv(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=False, rngs=rngs, **options), GELU()
            )
            for kernel in kernels
        )
        self.norm = nnx.data(LayerNorm(dim, eps=1e-6, rngs=rngs, **options) if use_post_norm else None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to a map (b, h, w, dim)."""
        check_shape("x", x, "b h w dim", dim=self.dim)
        query, context, gates = jnp.split(self.f(x), (self.dim, 2 * self.dim), axis=-1)
        modulator = jnp.zeros_like(context)
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            modulator += ops.multiply(context, gates[..., level, None])
        whole = self.act(jnp.mean(context, axis=(1, 2), keepdims=True))
        modulator += ops.multiply(whole, gates[..., -1:])
        if self.normalize_modulator:
            modulator = modulator / (self.focal_level + 1)
        gate = self.h(modulator)
        ops.record(self, "gate", gate)
        out = query * gate
        return self.proj_drop(self.proj(out if self.norm is None else self.norm(out)))
