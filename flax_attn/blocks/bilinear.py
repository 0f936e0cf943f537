"""Bilinear attentional transform: two small attention matrices mix the rows and the columns of a map's blocks.

Chi, Yuan, Mu & Wang, "Non-local neural networks with grouped bilinear attentional transforms", CVPR 2020. The map is a
grid of s x s blocks, and P and Q are s x s matrices for each group of channels: sigmoids of convolutions of the largest
values in each row and each column of blocks, where rows of P and columns of Q sum to 1. ``Y = P X Q`` mixes blocks, and
places keep their offset within a block; ``x + dropout(relu(BN(W Y)))`` in all.

Differs from BA-Transform's own code, which takes 4 for s and for the groups, half of the channels, biases below the
norms, and the size of Q from the height, so that it fails where width and height differ. This is timm's
``BatNonLocalAttn``, but for sigmoids that all round to 0, whose sum it divides by.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_rate, check_shape
from ..layers import BatchNorm, Conv, Dropout
from ..options import Options, check_options


class BatNonLocal(nnx.Module):
    """Mixes the rows and the columns of a map's blocks by two attention matrices (bilinear attentional transform).

    `attention_maps` gives ``row_weights`` and ``column_weights`` (b, groups, block_size, block_size).

    Args:
        in_channels: Number of channels.
        block_size: Number of blocks along each axis, which must divide the height and the width of the map.
        groups: Number of groups of channels with matrices of their own.
        rd_ratio: Share of the channels inside.
        rd_channels: Number of channels inside; None for the multiple of ``rd_divisor`` nearest to the share.
        rd_divisor: What the number of channels inside is a multiple of.
        drop_rate: Rate at which whole channels of the result are dropped.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a number is too small, ``groups`` does not divide the channels inside, the rate is outside
            [0, 1], or ``block_size`` does not divide the height and width of a map.

    Example:
        >>> BatNonLocal(32, block_size=4, rngs=nnx.Rngs(0))(jnp.ones((2, 8, 12, 32))).shape
        (2, 8, 12, 32)
    """

    def __init__(
        self,
        in_channels: int,
        block_size: int = 7,
        groups: int = 2,
        rd_ratio: float = 0.25,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        drop_rate: float = 0.2,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(in_channels=in_channels, block_size=block_size, groups=groups)
        check_rate("drop_rate", drop_rate)
        hidden = ops.reduced_width(in_channels, rd_ratio, rd_channels, rd_divisor, 0.9)
        if hidden % groups:
            raise ValueError(f"groups must divide the {hidden} channels inside, got {groups}")
        self.in_channels, self.block_size, self.dtype = in_channels, block_size, options.get("dtype")
        self.conv1 = _ConvNormRelu(in_channels, hidden, rngs=rngs, **options)
        self.ba = _BilinearTransform(hidden, block_size, groups, rngs=rngs, **options)
        self.conv2 = _ConvNormRelu(hidden, in_channels, rngs=rngs, **options)
        self.dropout = Dropout(drop_rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attends within a map (b, h, w, in_channels)."""
        check_shape("x", x, "b h w c", c=self.in_channels)
        if x.shape[1] % self.block_size or x.shape[2] % self.block_size:
            raise ValueError(
                f"x must have a height and a width that block_size={self.block_size} divides, got {x.shape}"
            )
        x = ops.cast(x, self.dtype)
        out, rows, columns = self.ba(self.conv1(x))
        ops.record(self, "row_weights", rows)
        ops.record(self, "column_weights", jnp.swapaxes(columns, 2, 3))
        out = self.conv2(out)
        # Whole channels are dropped, by a mask of the shape of PyTorch's Dropout2d.
        kept = self.dropout(jnp.ones((x.shape[0], self.in_channels, 1, 1), out.dtype))
        return ops.add(x, ops.multiply(out, kept.reshape(-1, 1, 1, self.in_channels)))


class _BilinearTransform(nnx.Module):
    def __init__(
        self, channels: int, block_size: int, groups: int, *, rngs: nnx.Rngs, **options: Unpack[Options]
    ) -> None:
        self.block_size, self.groups, self.precision = block_size, groups, options.get("precision")
        count = block_size * block_size * groups
        self.conv1 = _ConvNormRelu(channels, groups, rngs=rngs, **options)
        self.conv_p = Conv(groups, count, (block_size, 1), rngs=rngs, **options)
        self.conv_q = Conv(groups, count, (1, block_size), rngs=rngs, **options)
        self.conv2 = _ConvNormRelu(channels, channels, rngs=rngs, **options)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the mixed map, P and Q (b, groups, s, s)."""
        b, height, width, c = x.shape
        s, pooled = self.block_size, self.conv1(x)
        rows = self._matrix(self.conv_p(_largest_in_rows(pooled, s)), 3)
        columns = self._matrix(self.conv_q(jnp.swapaxes(_largest_in_rows(jnp.swapaxes(pooled, 1, 2), s), 1, 2)), 2)
        blocks = x.reshape(b, s, height // s, s, width // s, self.groups, c // self.groups)
        mixed = jnp.einsum("bjukvgc,bgkl->bjulvgc", blocks, columns, precision=self.precision)
        mixed = jnp.einsum("bgij,bjulvgc->biulvgc", rows, mixed, precision=self.precision)
        return self.conv2(mixed.reshape(x.shape)), rows, columns

    def _matrix(self, scores: jax.Array, axis: int) -> jax.Array:
        """Sigmoids (b, groups, s, s) of scores (b, 1, 1, groups * s * s), over their sum along an axis."""
        scores = scores.reshape(-1, self.groups, self.block_size, self.block_size)
        # In this form of sigmoids over their sum, sigmoids that are all 0 by rounding give no NaN.
        logarithms = jax.nn.log_sigmoid(scores.astype(ops.score_dtype(scores.dtype)))
        return jax.nn.softmax(logarithms, axis=axis).astype(scores.dtype)


def _largest_in_rows(x: jax.Array, count: int) -> jax.Array:
    """The largest value in each of ``count`` rows of blocks of (b, h, w, c), (b, count, 1, c)."""
    b, _, _, c = x.shape
    return ops.max_first(x.reshape(b, count, -1, c), 2)


class _ConvNormRelu(nnx.Module):
    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        self.conv = Conv(in_channels, out_channels, 1, bias=False, rngs=rngs, **options)
        self.bn = BatchNorm(out_channels, rngs=rngs, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.relu(self.bn(self.conv(x)))
