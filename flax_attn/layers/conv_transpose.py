"""``nnx.ConvTranspose`` with PyTorch's arguments and initialisation."""

import math
from typing import Unpack

import jax
from flax import nnx

from .._check import check_positive
from ..options import Options, check_options
from .axes import IntOrAxes, kernel_axes, per_axis
from .bias import narrow, promote_all_but_bias
from .initializers import uniform_fan_in


class ConvTranspose(nnx.ConvTranspose):
    """Transposed convolution of channels-last arrays, (b, *spatial, in) -> (b, *spatial', out).

    An axis of length l becomes (l - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1 long.

    Differs from ``nnx.ConvTranspose``: padding is counted from the output, as in PyTorch; kernel and bias are drawn
    from U(+-1/sqrt(fan_in)) with PyTorch's fan_in, out_features * prod(kernel_size); and the bias is added in at least
    float32 (`flax_attn.layers.bias`).

    Args:
        in_features: Number of input channels.
        out_features: Number of output channels.
        kernel_size: One number for two spatial axes, as in ``torch.nn.ConvTranspose2d``, or a tuple of one to three.
        stride: One number, or one per spatial axis, as are ``padding``, ``output_padding`` and ``dilation``.
        padding: Number of positions removed on each side of the output.
        output_padding: Number of positions added behind the output, less than ``stride`` or ``dilation``.
        groups: Only 1, as in Flax; `flax_attn.convert.layers` says how to port a grouped one.
        bias: Whether to add a bias.
        dilation: Distance between the kernel's elements.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is too small, there are not as many as axes, or an argument is not supported.

    Example:
        >>> import jax.numpy as jnp
        >>> ConvTranspose(3, 5, 3, 2, 1, 1, rngs=nnx.Rngs(0))(jnp.ones((2, 4, 7, 3))).shape
        (2, 8, 14, 5)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: IntOrAxes,
        stride: IntOrAxes = 1,
        padding: IntOrAxes = 0,
        output_padding: IntOrAxes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntOrAxes = 1,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(in_features=in_features, out_features=out_features)
        if groups != 1:
            raise ValueError(f"groups must be 1, as Flax's transposed convolution has none, got {groups!r}")
        kernel = kernel_axes(kernel_size)
        steps, dilations = (per_axis(*named, len(kernel)) for named in (("stride", stride), ("dilation", dilation)))
        pads = per_axis("padding", padding, len(kernel), minimum=0)
        added = per_axis("output_padding", output_padding, len(kernel), minimum=0)
        if any(more >= max(*both) for more, *both in zip(added, steps, dilations, strict=True)):
            raise ValueError(f"output_padding must be less than stride or dilation, got {output_padding!r}")
        reach = [apart * (size - 1) for apart, size in zip(dilations, kernel, strict=True)]
        init = uniform_fan_in(out_features * math.prod(kernel))
        super().__init__(
            in_features,
            out_features,
            kernel,
            steps,
            padding=[(r - pad, r - pad + more) for r, pad, more in zip(reach, pads, added, strict=True)],
            kernel_dilation=dilations,
            use_bias=bias,
            kernel_init=init,
            bias_init=init,
            transpose_kernel=True,
            promote_dtype=promote_all_but_bias,
            rngs=rngs,
            **options,
        )

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Applies the layer to an array (b, *spatial, in_features)."""
        with jax.numpy_dtype_promotion("standard"):  # for the bias, where the setting is "strict"
            return narrow(super().__call__(inputs), inputs, self)
