"""The keyword arguments that every block, network and layer takes, said once."""

from collections.abc import Mapping
from typing import TypedDict

from flax.typing import PrecisionLike
from jax.typing import DTypeLike


class Options(TypedDict, total=False):
    """Keyword arguments of every block, network and layer, beside the required ``rngs``.

    ``rngs``, an ``nnx.Rngs``, gives the ``params`` stream, from which parameters are drawn, and the ``dropout`` stream
    where a rate is above 0. A class without parameters, products or random numbers takes the same arguments and ignores
    what it has no use for, so that one can stand in for another.

    Attributes:
        dtype: of the computation; by default, None, the widest of inputs and parameters.
        param_dtype: of the parameters; float32 by default.
        precision: of matrix products and convolutions, as in ``jax.lax``; None leaves it to JAX.

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
    """Raises ``TypeError`` for a keyword that is no option, in the name of the class that was called."""
    for name in options:
        if name not in Options.__annotations__:
            raise TypeError(f"{type(module).__name__}.__init__() got an unexpected keyword argument {name!r}")
