"""Non-local block: each place of a map attends to all places.

Wang, Girshick, Gupta & He, "Non-local neural networks", CVPR 2018, equations 1, 4 and 6, the embedded Gaussian:
``x_n + BN(W_z sum_m softmax_m(scale * theta_n . phi_m) g_m)`` with theta, phi and g 1x1 convolutions of x.

Differs from

- the paper, which has half of the channels inside and no scale, ``rd_ratio=1/2, scale=1.0``. The defaults are those of
  timm's ``NonLocalAttn``: 1/8, and 1 / sqrt(in_channels). ``sub_sample`` is the paper's section 3.3.
- timm: its ``use_scale=False`` is ``scale=1.0``.
- BA-Transform: half of the channels, and ``scale=(in_channels // 2) ** -0.5``.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape, is_below, is_number
from ..layers import BatchNorm, Conv
from ..layers.initializers import reset_kaiming
from ..options import Options, check_options


class NonLocalAttention(nnx.Module):
    """Adds to each place of a map a weighted mean over all places (non-local block).

    It starts as the identity, as the scale of its BatchNorm is 0.

    Args:
        in_channels: Number of channels.
        rd_ratio: Share of the channels inside.
        rd_channels: Number of channels inside; None for the multiple of ``rd_divisor`` nearest to the share.
        rd_divisor: What the number of channels inside is a multiple of.
        scale: Factor of the scores; None for 1 / sqrt(in_channels).
        sub_sample: Whether keys and values are max-pooled over 2x2 places, for a quarter of the cost.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a number of channels, the divisor or the ratio is too small, the scale is not above 0, or with
            ``sub_sample`` a map is lower or narrower than 2.

    Example:
        >>> NonLocalAttention(32, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(
        self,
        in_channels: int,
        rd_ratio: float = 1 / 8,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        scale: float | None = None,
        sub_sample: bool = False,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(in_channels=in_channels)
        if scale is not None and not (is_number(scale) and scale > 0):
            raise ValueError(f"scale must be a finite number above 0, got {scale!r}")
        hidden = ops.reduced_width(in_channels, rd_ratio, rd_channels, rd_divisor, 0.9)
        self.in_channels, self.sub_sample = in_channels, sub_sample
        self.temperature = in_channels**0.5 if scale is None else 1 / scale
        self.dtype, self.precision = options.get("dtype"), options.get("precision")
        self.t = Conv(in_channels, hidden, 1, rngs=rngs, **options)
        self.p = Conv(in_channels, hidden, 1, rngs=rngs, **options)
        self.g = Conv(in_channels, hidden, 1, rngs=rngs, **options)
        self.z = Conv(hidden, in_channels, 1, rngs=rngs, **options)
        self.norm = BatchNorm(in_channels, rngs=rngs, **options)
        for conv in (self.t, self.p, self.g, self.z):
            reset_kaiming(conv, rngs)
        self.norm.scale[...] = jnp.zeros_like(self.norm.scale[...])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attends within a map (b, h, w, in_channels)."""
        check_shape("x", x, "b h w c", c=self.in_channels)
        if self.sub_sample and any(is_below(size, 2) for size in x.shape[1:3]):
            raise ValueError(f"x must be a map of at least 2x2 places with sub_sample=True, got {x.shape}")
        x = ops.cast(x, self.dtype)
        query, key, value = self.t(x), self.p(x), self.g(x)
        if self.sub_sample:
            key, value = ops.max_pool_2x2(key), ops.max_pool_2x2(value)
        out, weights = ops.dot_product_attention(
            *(ops.map_to_tokens(one)[:, :, None] for one in (query, key, value)),
            temperature=self.temperature,
            need_weights=ops.is_recording(self),
            precision=self.precision,
        )
        if weights is not None:
            ops.record(self, "weights", weights)
        return ops.add(x, self.norm(self.z(out.reshape(query.shape))))
