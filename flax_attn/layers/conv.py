"""``nnx.Conv`` with PyTorch's arguments and initialisation."""

import math
from typing import Any, Unpack

import jax
from flax import nnx

from .. import ops
from .._check import check_positive
from ..options import Options, check_options
from .axes import IntOrAxes, kernel_axes, per_axis
from .bias import narrow, promote_all_but_bias, renamed
from .initializers import uniform_fan_in


class Conv(nnx.Conv):
    """Convolution of channels-last arrays, (b, *spatial, in) -> (b, *spatial, out), with PyTorch's arguments.

    Differs from ``nnx.Conv``: kernel and bias are drawn from U(+-1/sqrt(fan_in)) with
    fan_in = in_features / groups * prod(kernel_size), and the bias is added in at least float32
    (`flax_attn.layers.bias`). On CPUs ``jax.jvp`` does not go through convolutions of stride 1 with few images, few
    channels or a 1x1 kernel (`flax_attn.ops.conv`); gradients do.

    Args:
        in_features: Number of input channels.
        out_features: Number of output channels.
        kernel_size: One number for two spatial axes, as in ``torch.nn.Conv2d``, or a tuple of one to three.
        stride: One number, or one per spatial axis, as are ``padding`` and ``dilation``.
        padding: Number of zeros on each side of an axis, so even kernels pad as in PyTorch, not as "SAME" does.
        dilation: Distance between the kernel's elements.
        groups: Number of channel groups; must divide the numbers of channels.
        bias: Whether to add a bias.
        use_bias: Deprecated name of ``bias``.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is too small, there are not as many as axes, or ``groups`` does not divide the channels.

    Example:
        >>> import jax.numpy as jnp
        >>> Conv(3, 5, 3, 2, 1, rngs=nnx.Rngs(0))(jnp.ones((2, 7, 9, 3))).shape
        (2, 4, 5, 5)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: IntOrAxes,
        stride: IntOrAxes = 1,
        padding: IntOrAxes = 0,
        dilation: IntOrAxes = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        use_bias: bool | None = None,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(in_features=in_features, out_features=out_features, groups=groups)
        if in_features % groups or out_features % groups:
            raise ValueError(f"groups must divide {in_features} and {out_features} channels, got {groups}")
        kernel = kernel_axes(kernel_size)
        rank = len(kernel)
        init = uniform_fan_in(in_features // groups * math.prod(kernel))
        super().__init__(
            in_features,
            out_features,
            kernel,
            strides=per_axis("stride", stride, rank),
            padding=[(pad, pad) for pad in per_axis("padding", padding, rank, minimum=0)],
            kernel_dilation=per_axis("dilation", dilation, rank),
            feature_group_count=groups,
            use_bias=renamed(bias, use_bias),
            kernel_init=init,
            bias_init=init,
            conv_general_dilated=ops.conv_general_dilated,
            promote_dtype=promote_all_but_bias,
            rngs=rngs,
            **options,
        )

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Applies the layer to an array (b, *spatial, in_features)."""
        with jax.numpy_dtype_promotion("standard"):  # for the bias, where the setting is "strict"
            return narrow(super().__call__(inputs, out_sharding), inputs, self)
