"""The global context block: one attention-weighted mean of all pixels, which scales or shifts every pixel.

Cao, Xu, Lin, Wei & Hu, "GCNet: non-local networks meet squeeze-excitation networks and beyond", ICCV workshops 2019:
``context = sum_j softmax_j(conv_attn(x_j)) x_j``, then ``x * sigmoid(mlp_scale(context))``, ``x + mlp_add(context)`` or
both, with ``mlp(c) = fc2(relu(norm(fc1(c))))``. With both, the scale comes first, and both are of the same context.

Differs from the authors' code, and mmcv's ``ContextBlock``: by default it scales, as timm's, where theirs adds, and the
norm's eps is timm's 1e-6, where theirs is 1e-5. Their checkpoints want ``fuse_add=True, fuse_scale=False, eps=1e-5``,
and ``rename=NAMES["mmcv.ContextBlock"]``.
"""

from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_shape
from ..layers import Conv, LayerNorm
from ..options import Options, check_options


class GlobalContext(nnx.Module):
    """Scales, or shifts, each channel by an MLP of the attention-weighted mean of all pixels (GC block).

    Args:
        channels: Number of channels.
        use_attn: Whether the mean is weighted, by a softmax over all pixels.
        fuse_add: Whether to add an MLP of the mean to every pixel. Its last weights start at 0.
        fuse_scale: Whether to scale every pixel by a sigmoid of an MLP of the mean.
        rd_ratio: Number of hidden channels over ``channels``, rounded to a multiple of ``rd_divisor``.
        rd_channels: Number of hidden channels, in place of ``rd_ratio``.
        rd_divisor: What the number of hidden channels is a multiple of, and at least.
        eps: Added to the variance in the MLPs' layer norm.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a number of channels is below 1, ``rd_ratio`` is not above 0, or nothing is fused.

    Example:
        >>> GlobalContext(16, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 16))).shape
        (2, 5, 7, 16)
    """

    def __init__(
        self,
        channels: int,
        use_attn: bool = True,
        fuse_add: bool = False,
        fuse_scale: bool = True,
        rd_ratio: float = 1 / 8,
        rd_channels: int | None = None,
        rd_divisor: int = 1,
        eps: float = 1e-6,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        hidden = ops.reduced_width(channels, rd_ratio, rd_channels, rd_divisor)
        if not (fuse_add or fuse_scale):
            raise ValueError("fuse_add or fuse_scale must be True, got False for both")
        self.channels, self.dtype = channels, options.get("dtype")
        conv = partial(Conv, kernel_size=1, rngs=rngs, **options)

        def mlp() -> nnx.Dict[Any]:
            norm = LayerNorm(hidden, eps, rngs=rngs, **options)
            return nnx.Dict(fc1=conv(channels, hidden), norm=norm, fc2=conv(hidden, channels))

        self.conv_attn = nnx.data(conv(channels, 1) if use_attn else None)
        self.mlp_add = nnx.data(mlp() if fuse_add else None)
        self.mlp_scale = nnx.data(mlp() if fuse_scale else None)
        if self.conv_attn is not None:
            init = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")
            kernel = self.conv_attn.kernel
            kernel[...] = init(rngs.params(), kernel.shape, kernel.dtype)
        if self.mlp_add is not None:
            kernel = self.mlp_add["fc2"].kernel
            kernel[...] = jnp.zeros_like(kernel[...])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to a map (b, h, w, channels)."""
        check_shape("x", x, "b h w c", c=self.channels)
        x = ops.cast(x, self.dtype)
        context = self._context(x)
        if self.mlp_scale is not None:
            gate = ops.sigmoid(_apply(self.mlp_scale, context))
            ops.record(self, "gate", gate)
            x = ops.multiply(x, gate)
        return x if self.mlp_add is None else ops.add(x, _apply(self.mlp_add, context))

    def _context(self, x: jax.Array) -> jax.Array:
        """The mean of a map (b, h, w, c) over its pixels, (b, 1, 1, c)."""
        if self.conv_attn is None:
            return ops.global_pool(x, "avg")[:, None, None]
        scores = self.conv_attn(x)
        weights = jax.nn.softmax(scores.astype(ops.score_dtype(scores.dtype)), axis=(1, 2))
        ops.record(self, "weights", jnp.reshape(weights, (x.shape[0], 1, 1, -1)).astype(scores.dtype))
        return jnp.sum(ops.multiply(x, weights), axis=(1, 2), keepdims=True).astype(scores.dtype)


def _apply(mlp: nnx.Dict[Any], context: jax.Array) -> jax.Array:
    hidden: jax.Array = mlp["fc2"](ops.relu(mlp["norm"](mlp["fc1"](context))))
    return hidden
