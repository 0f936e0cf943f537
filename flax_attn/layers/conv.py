"""``nnx.Conv`` with PyTorch's arguments and initialisation."""

import math
from typing import Any, Unpack

import jax
from flax import nnx

from .._check import check_positive
from ..options import Options, check_options
from .bias import narrow, promote_all_but_bias
from .initializers import uniform_fan_in

IntOrPair = int | tuple[int, ...]


class Conv(nnx.Conv):
    """Convolution of channels-last arrays, (b, *spatial, in) -> (b, *spatial, out), with PyTorch's arguments.

    The length of ``kernel_size`` sets the number of spatial axes. ``padding`` is the number of zeros on each side of an
    axis, so even kernels pad as in PyTorch, not as "SAME" does.

    Differs from ``nnx.Conv``: kernel and bias are drawn from U(+-1/sqrt(fan_in)) with
    fan_in = in_features / groups * prod(kernel_size), and the bias is added in at least float32
    (`flax_attn.layers.bias`).

    Args:
        rngs, **options: see `flax_attn.Options`.

    Example:
        >>> import jax.numpy as jnp
        >>> Conv(3, 5, (3, 3), stride=2, padding=1, rngs=nnx.Rngs(0))(jnp.ones((2, 7, 9, 3))).shape
        (2, 4, 5, 5)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: tuple[int, ...],
        *,
        stride: IntOrPair = 1,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        use_bias: bool = True,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(in_features=in_features, out_features=out_features, groups=groups)
        if in_features % groups or out_features % groups:
            raise ValueError(f"groups must divide {in_features} and {out_features} channels, got {groups}")
        init = uniform_fan_in(in_features // groups * math.prod(kernel_size))
        pads = (padding,) * len(kernel_size) if isinstance(padding, int) else padding
        super().__init__(
            in_features,
            out_features,
            kernel_size,
            strides=stride,
            padding=[(pad, pad) for pad in pads],
            kernel_dilation=dilation,
            feature_group_count=groups,
            use_bias=use_bias,
            kernel_init=init,
            bias_init=init,
            promote_dtype=promote_all_but_bias,
            rngs=rngs,
            **options,
        )

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Applies the layer to an array (b, *spatial, in_features)."""
        with jax.numpy_dtype_promotion("standard"):  # for the bias, where the setting is "strict"
            return narrow(super().__call__(inputs, out_sharding), inputs, self)
