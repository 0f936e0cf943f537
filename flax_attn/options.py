"""Keyword arguments shared by all blocks, networks and layers."""

from collections.abc import Mapping
from typing import TypedDict

from flax.typing import PrecisionLike
from jax.typing import DTypeLike


class Options(TypedDict, total=False):
    """Keyword arguments of all blocks, networks and layers, in addition to the required ``rngs``.

    ``rngs`` is an ``nnx.Rngs`` with the stream ``params`` for initial parameters and, for dropout rates above 0, the
    stream ``dropout``. All classes accept the same arguments and ignore those they do not need, but for
    `layers.Dropout`, which takes ``rngs`` alone, and the pools and GELU of `layers`, which take none.

    Attributes:
        dtype: Dtype of the computation; None, the default, promotes the dtypes of inputs and parameters.
        param_dtype: Dtype of the parameters, float32 by default.
        precision: Precision of matrix products and convolutions, as in ``jax.lax``; None uses JAX's default.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from flax_attn import CBAM
        >>> cbam = CBAM(32, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        >>> cbam(jnp.ones((2, 5, 7, 32))).dtype, cbam.channel_gate.mlp.layers[1].kernel.dtype
        (dtype(bfloat16), dtype('float32'))
        >>> CBAM(32, typo=1, rngs=nnx.Rngs(0))
        Traceback (most recent call last):
        ...
        TypeError: CBAM.__init__() got an unexpected keyword argument 'typo'
    """

    dtype: DTypeLike | None
    param_dtype: DTypeLike
    precision: PrecisionLike


def check_options(module: object, options: Mapping[str, object]) -> None:
    """Raises ``TypeError`` for an unknown option, naming the class of ``module``."""
    for name in options:
        if name not in Options.__annotations__:
            raise TypeError(f"{type(module).__name__}.__init__() got an unexpected keyword argument {name!r}")
