"""Split attention: a convolution to several maps, weighted by channel according to their sum.

Zhang, Wu, Zhang, Zhu, Lin, Zhang, Sun, He, Mueller, Manmatha, Li & Smola, "ResNeSt: split-attention networks", CVPR
workshops 2022: ``y = ReLU(BN(conv(x)))``, R maps with the output's channels; ``z = ReLU(BN(W1 mean(sum_r y_r) + b1))``;
``sum_r a_r y_r`` with ``a = softmax over r of W2 z + b2`` in each channel, or their sigmoid if R is 1.

Differs from the paper, as timm's ``SplitAttn`` does, whose defaults these are: there is no BatchNorm unless
``norm`` is True, as it is in ResNeSt.
"""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_reach, check_shape, is_number
from ..layers import BatchNorm, Conv
from ..options import Options, check_options


class SplitAttention(nnx.Module):
    """Adds the maps of a convolution, weighted per channel by a softmax over the maps (ResNeSt).

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels; None for as many as of the input.
        kernel_size: Size of the kernel.
        stride: Stride of the convolution.
        padding: Zero padding on each side of both axes; None for ``kernel_size // 2``.
        dilation: Dilation of the convolution.
        groups: Number of channel groups of each map, and of the layers that compute the weights.
        bias: Whether the convolution has a bias.
        radix: Number of maps, R.
        rd_ratio: The hidden width is ``rd_ratio * radix * in_channels``, at least 32, in multiples of ``rd_divisor``.
        rd_channels: The hidden width is ``rd_channels * radix``; None for that of ``rd_ratio``.
        rd_divisor: What divides the hidden width.
        norm: Whether BatchNorm follows the convolution and the first layer of the weights.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1 or ``rd_ratio`` not above 0, or the groups do not divide the channels or
            the hidden width.

    Example:
        >>> SplitAttention(8, 6, norm=True, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 8))).shape
        (2, 5, 7, 6)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        radix: int = 2,
        rd_ratio: float = 0.25,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        norm: bool = False,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        out_channels = in_channels if out_channels is None else out_channels
        check_positive(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, dilation=dilation)
        check_positive(groups=groups, radix=radix, rd_divisor=rd_divisor)
        if not is_number(rd_ratio) or rd_ratio <= 0:
            raise ValueError(f"rd_ratio must be a finite number above 0, got {rd_ratio!r}")
        if rd_channels is None:
            hidden = max(32, ops.make_divisible(in_channels * radix * rd_ratio, rd_divisor))
        else:
            check_positive(rd_channels=rd_channels)
            hidden = rd_channels * radix
        if in_channels % (groups * radix) or out_channels % groups or hidden % groups:
            raise ValueError(
                f"groups must divide out_channels={out_channels} and the {hidden} hidden channels, and groups * radix "
                f"in_channels={in_channels}, got groups={groups} and radix={radix}"
            )
        conv, batch_norm = partial(Conv, rngs=rngs, **options), partial(BatchNorm, rngs=rngs, **options)
        self.in_channels, self.out_channels, self.radix, self.groups = in_channels, out_channels, radix, groups
        self.padding = kernel_size // 2 if padding is None else padding
        self.reach = (dilation * (kernel_size - 1) + 1,) * 2
        self.conv = conv(
            in_channels, out_channels * radix, kernel_size, stride, self.padding, dilation, groups * radix, bias
        )
        self.bn0 = nnx.data(batch_norm(out_channels * radix) if norm else None)
        self.fc1 = conv(out_channels, hidden, 1, groups=groups)
        self.bn1 = nnx.data(batch_norm(hidden) if norm else None)
        self.fc2 = conv(hidden, out_channels * radix, 1, groups=groups)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, h, w, in_channels) to (b, h', w', out_channels)."""
        check_shape("x", x, "b h w c", c=self.in_channels)
        check_reach("x", x, self.reach, self.padding)
        maps = _normed(self.bn0, self.conv(x))
        b, h, w, _ = maps.shape
        maps = jnp.reshape(maps, (b, h, w, self.radix, -1))
        pooled = jnp.mean(jnp.sum(maps, axis=3), axis=(1, 2), keepdims=True)
        scores = self.fc2(_normed(self.bn1, self.fc1(pooled)))
        # From (groups, radix, channels of a group) to (radix, all channels), the order of the maps.
        scores = jnp.reshape(
            jnp.swapaxes(jnp.reshape(scores, (b, self.groups, self.radix, -1)), 1, 2), (b, self.radix, -1)
        )
        weights = ops.sigmoid(scores) if self.radix == 1 else ops.softmax(scores, axis=1)
        ops.record(self, "weights", weights)
        return jnp.sum(ops.multiply(maps, weights[:, None, None]), axis=3)


def _normed(norm: BatchNorm | None, x: jax.Array) -> jax.Array:
    return ops.relu(x if norm is None else norm(x))
