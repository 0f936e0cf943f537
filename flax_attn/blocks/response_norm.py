"""Global response normalisation: channels scaled by how strongly they respond, compared with one another.

Woo, Debnath, Hu, Chen, Liu, Kweon & Xie, "ConvNeXt V2: co-designing and scaling ConvNets with masked autoencoders",
CVPR 2023: ``x + scale * x * g / (mean over channels of g + eps) + bias`` with ``g`` the norm of a channel over the map.

Differs from plain code in JAX: the gradient of the norm of a channel that is 0 everywhere is 0, as in PyTorch.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape, is_number
from ..ops.dtype import promoted
from ..options import Options, check_options


class GlobalResponseNorm(nnx.Module):
    """Scales each channel by its norm relative to the mean norm of the channels, from an identity on (GRN).

    Args:
        dim: Number of channels.
        eps: Added to the mean norm.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``dim`` is below 1, or ``eps`` is negative.

    Example:
        >>> x = jnp.arange(24.0).reshape(1, 2, 3, 4)
        >>> bool(jnp.all(GlobalResponseNorm(4, rngs=nnx.Rngs(0))(x) == x))
        True
    """

    def __init__(self, dim: int, eps: float = 1e-6, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(dim=dim)
        if not is_number(eps) or eps < 0:
            raise ValueError(f"eps must be a number of at least 0, got {eps!r}")
        del rngs  # unused: both start at 0
        param_dtype = options.get("param_dtype", jnp.float32)
        self.scale, self.bias = nnx.Param(jnp.zeros(dim, param_dtype)), nnx.Param(jnp.zeros(dim, param_dtype))
        self.dim, self.eps, self.dtype = dim, eps, options.get("dtype")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises a map (b, h, w, dim)."""
        check_shape("x", x, "b h w c", c=self.dim)
        x = ops.cast(x, self.dtype)
        dtype = self.dtype or promoted(x.dtype, self.scale.dtype)
        wide = x.astype(ops.score_dtype(dtype))
        norm = ops.safe_norm(wide, (1, 2), keepdims=True)
        gate = norm / (jnp.mean(norm, axis=-1, keepdims=True) + self.eps)
        ops.record(self, "gate", gate.astype(dtype))
        scaled = ops.add(ops.multiply(wide * gate, self.scale[...]), self.bias[...])
        return (wide + scaled).astype(dtype)
