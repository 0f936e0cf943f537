"""BAM: a channel branch and a spatial branch side by side, in one gate.

Park, Woo, Lee & Kweon, "BAM: bottleneck attention module", BMVC 2018: ``x * (1 + sigmoid(channel . spatial))``, where
``channel`` is an MLP with BatchNorm of the average-pooled map and ``spatial`` is a 1x1 convolution that reduces the
channels, dilated 3x3 convolutions (each with BatchNorm and ReLU), and a 1x1 convolution to one channel.

The paper adds the branches; the authors' code and weights multiply them, and so does this block unless
``combine="sum"``.

Differs from the authors' code: the channel branch averages the whole map. Theirs averages windows as high and as wide
as the map is high, which leaves out the right-hand part of a wider map and fails for a narrower one.

Differs from fightingcv's ``BAMBlock``, whose dilated convolutions are padded by 1 alone. They shrink the map, and it
raises an error unless a single place is left, which then gates the whole map.
"""

from functools import partial
from typing import Any, Unpack

import jax
from flax import nnx

from .. import ops
from .._check import check_choice, check_positive, check_ratio, check_shape
from ..layers import BatchNorm, Conv, Linear
from ..options import Options, check_options


class BAM(nnx.Module):
    """Scales each element by one plus a gate from a channel branch and a branch of dilated convolutions (BAM).

    In a ResNet, the authors place it between the stages.

    Args:
        gate_channel: Number of channels.
        reduction_ratio: Both branches have gate_channel // reduction_ratio hidden channels.
        num_layers: Number of hidden layers of the channel branch.
        dilation_conv_num: Number of dilated convolutions of the spatial branch.
        dilation_val: Their dilation, which is also their padding.
        combine: "product" of the branches, as in the authors' code, or their "sum", as in the paper.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If the ratio leaves no hidden channel, a number is below 1, ``combine`` is unknown, or in train mode
            the batch has a single map.

    Example:
        >>> import jax.numpy as jnp
        >>> BAM(32, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(
        self,
        gate_channel: int,
        reduction_ratio: int = 16,
        num_layers: int = 1,
        dilation_conv_num: int = 2,
        dilation_val: int = 4,
        combine: str = "product",
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(gate_channel=gate_channel, num_layers=num_layers, dilation_val=dilation_val)
        check_positive(minimum=0, dilation_conv_num=dilation_conv_num)
        check_ratio("reduction_ratio", reduction_ratio, gate_channel)
        check_choice("combine", combine, ("product", "sum"))
        hidden = gate_channel // reduction_ratio
        linear = partial(Linear, rngs=rngs, **options)
        conv = partial(Conv, rngs=rngs, **options)
        norm = partial(BatchNorm, rngs=rngs, **options)

        channel: dict[str, Any] = {}
        for i in range(num_layers):
            channel[f"gate_c_fc_{i}"] = linear(hidden if i else gate_channel, hidden)
            channel[f"gate_c_bn_{i + 1}"] = norm(hidden)
        channel["gate_c_fc_final"] = linear(hidden, gate_channel)

        spatial: dict[str, Any] = {
            "gate_s_conv_reduce0": conv(gate_channel, hidden, 1),
            "gate_s_bn_reduce0": norm(hidden),
        }
        for i in range(dilation_conv_num):
            spatial[f"gate_s_conv_di_{i}"] = conv(hidden, hidden, 3, padding=dilation_val, dilation=dilation_val)
            spatial[f"gate_s_bn_di_{i}"] = norm(hidden)
        spatial["gate_s_conv_final"] = conv(hidden, 1, 1)

        self.gate_channel, self.combine, self.dtype = gate_channel, combine, options.get("dtype")
        self.num_layers, self.dilation_conv_num = num_layers, dilation_conv_num
        self.channel_att = nnx.Dict(gate_c=nnx.Dict(**channel))
        self.spatial_att = nnx.Dict(gate_s=nnx.Dict(**spatial))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate (b, h, w, gate_channel), between 1 and 2, to a map of the same shape."""
        check_shape("x", x, "b h w c", c=self.gate_channel)
        x = ops.cast(x, self.dtype)
        combined = ops.multiply if self.combine == "product" else ops.add
        gate = 1 + ops.sigmoid(combined(self._channel(x), self._spatial(x)))
        ops.record(self, "gate", gate)
        return x * gate

    def _channel(self, x: jax.Array) -> jax.Array:
        layers: Any = self.channel_att["gate_c"]
        pooled = ops.global_pool(x, "avg")
        for i in range(self.num_layers):
            pooled = ops.relu(layers[f"gate_c_bn_{i + 1}"](layers[f"gate_c_fc_{i}"](pooled)))
        attended: jax.Array = layers["gate_c_fc_final"](pooled)
        return attended[:, None, None]

    def _spatial(self, x: jax.Array) -> jax.Array:
        layers: Any = self.spatial_att["gate_s"]
        for name in ("reduce0", *(f"di_{i}" for i in range(self.dilation_conv_num))):
            x = ops.relu(layers[f"gate_s_bn_{name}"](layers[f"gate_s_conv_{name}"](x)))
        attended: jax.Array = layers["gate_s_conv_final"](x)
        return attended
