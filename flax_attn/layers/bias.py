"""A bias that is added in float32 at least.

Its gradient is a sum over all places it is added to. In bfloat16 XLA rounds partial sums on the way, PyTorch sums in
float32: over 4,000 random places the error is 2e-2 against 1e-3.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.nnx.nn.dtypes import canonicalize_dtype, promote_dtype


def promote_all_but_bias(arrays: Any, /, **options: Any) -> Any:
    """Flax's ``promote_dtype`` for (x, kernel, bias), the bias no narrower than float32."""
    x, kernel, bias = arrays
    x, kernel = promote_dtype((x, kernel), **options)
    return x, kernel, None if bias is None else bias.astype(jnp.promote_types(x.dtype, jnp.float32))


def narrow(y: jax.Array, x: jax.Array, layer: Any) -> jax.Array:
    """The result ``y`` of a layer called with ``x``, in the dtype that Flax would give it."""
    return y.astype(canonicalize_dtype(x, layer.kernel[...], dtype=layer.dtype))
