"""Gather-excite: a gate per channel and neighbourhood.

Hu, Shen, Albanie, Sun & Vedaldi, "Gather-excite: exploiting feature context in convolutional neural networks", NeurIPS
2018: ``x * sigmoid(resize(mlp(gather(x))))``. Without parameters ``gather`` is the mean over windows of 2e - 1 pixels
with stride e, the extent, or for e = 0 over the whole map. With parameters it is log2(e) depthwise 3x3 convolutions of
stride 2, each followed by BatchNorm and, but for the last, a ReLU. ``mlp`` is that of squeeze-and-excitation, which the
block is for e = 0. The gate is resized to the map by PyTorch's nearest neighbours.

Differs from timm's, which cannot be built with an MLP or with parameters (1.0.31 raises ``TypeError``): a global gather
with parameters is left out, as it would depend on the size of the map, and with parameters the extent has to be a power
of two.
"""

from functools import partial
from typing import Unpack

import jax
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..layers import AvgPool, BatchNorm, Conv
from ..options import Options, check_options


class GatherExcite(nnx.Module):
    """Scales each element by a gate from the mean or convolution of its neighbourhood, through an MLP (GE).

    Args:
        channels: Number of channels.
        extra_params: Whether convolutions gather, in place of a mean.
        extent: Stride of the neighbourhoods, even; a power of two with ``extra_params``. 0 for the mean of the map.
        use_mlp: Whether an MLP over the channels follows.
        rd_ratio: Number of hidden channels over ``channels``, rounded to a multiple of ``rd_divisor``.
        rd_channels: Number of hidden channels, in place of ``rd_ratio``.
        rd_divisor: What the number of hidden channels is a multiple of, and at least.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a number of channels is below 1, ``rd_ratio`` is not above 0, or the extent is another.

    Example:
        >>> import jax.numpy as jnp
        >>> GatherExcite(32, extent=4, rngs=nnx.Rngs(0))(jnp.ones((2, 12, 8, 32))).shape
        (2, 12, 8, 32)
    """

    def __init__(
        self,
        channels: int,
        extra_params: bool = False,
        extent: int = 0,
        use_mlp: bool = True,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 1,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        hidden = ops.reduced_width(channels, rd_ratio, rd_channels, rd_divisor)
        check_positive(minimum=0, extent=extent)
        if extra_params and (extent < 2 or extent & (extent - 1)):
            raise ValueError(f"extent must be a power of two from 2 on with extra_params, got {extent}")
        if extent % 2:
            raise ValueError(f"extent must be even, got {extent}")
        self.channels, self.extent, self.dtype = channels, extent, options.get("dtype")
        self.convolutions = extent.bit_length() - 1 if extra_params else 0
        conv = partial(Conv, rngs=rngs, **options)
        depthwise = partial(conv, channels, channels, 3, 2, 1, groups=channels, bias=False)
        layers: nnx.Dict[nnx.Module] = nnx.Dict()
        for i in range(1, self.convolutions + 1):
            layers[f"conv{i}"] = depthwise()
            layers[f"norm{i}"] = BatchNorm(channels, rngs=rngs, **options)
        self.gather = nnx.data(layers if extra_params else None)
        mlp = nnx.Dict(fc1=conv(channels, hidden, 1), fc2=conv(hidden, channels, 1)) if use_mlp else None
        self.mlp = nnx.data(mlp)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate (b, h, w, channels) to a map (b, h, w, channels)."""
        check_shape("x", x, "b h w c", c=self.channels)
        x = ops.cast(x, self.dtype)
        gathered = self._gather(x)
        if self.mlp is not None:
            gathered = self.mlp["fc2"](ops.relu(self.mlp["fc1"](gathered)))
        gate = ops.resize_nearest(ops.sigmoid(gathered), x.shape[1:3])
        ops.record(self, "gate", gate)
        return ops.multiply(x, gate)

    def _gather(self, x: jax.Array) -> jax.Array:
        """From (b, h, w, c) to the neighbourhoods (b, h', w', c)."""
        if self.gather is None and self.extent == 0:
            return ops.global_pool(x, "avg")[:, None, None]
        if self.gather is None:
            e = self.extent
            pooled: jax.Array = AvgPool(2 * e - 1, e, e - 1, count_include_pad=False)(x)
            return pooled
        for i in range(1, self.convolutions + 1):
            x = ops.relu(x) if i > 1 else x
            x = self.gather[f"norm{i}"](self.gather[f"conv{i}"](x))
        return x
