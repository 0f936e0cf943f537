"""The biases of layers: added in at least float32, and asked for as in PyTorch.

The gradient of a bias is a sum over all positions. In bfloat16, XLA rounds the partial sums, PyTorch accumulates in
float32: over 4,000 random positions, the errors are 2e-2 and 1e-3.
"""

import warnings
from typing import Any

import jax
from flax.nnx.nn.dtypes import canonicalize_dtype, promote_dtype

from ..ops.dtype import score_dtype


def promote_all_but_bias(arrays: Any, /, **options: Any) -> Any:
    """Flax's ``promote_dtype`` for (x, kernel, bias), with the bias in at least float32."""
    x, kernel, bias = arrays
    x, kernel = promote_dtype((x, kernel), **options)
    return x, kernel, None if bias is None else bias.astype(score_dtype(x.dtype))


def narrow(y: jax.Array, x: jax.Array, layer: Any) -> jax.Array:
    """Casts the output ``y`` of a layer called with ``x`` to the dtype Flax would return."""
    return y.astype(canonicalize_dtype(x, layer.kernel[...], dtype=layer.dtype))


def renamed(bias: bool, use_bias: bool | None) -> bool:
    """``bias``, or ``use_bias`` where a caller still passes that, with a ``DeprecationWarning``."""
    if use_bias is None:
        return bias
    # Above are this function, the layer's __init__ and three calls of Flax's metaclass.
    warnings.warn("use_bias is now called bias, as in PyTorch, and goes in the next release", DeprecationWarning, 6)
    return use_bias
