"""``nnx.Embed`` with PyTorch's initialisation."""

from typing import Unpack

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal

from ..options import Options, check_options


class Embedding(nnx.Embed):
    """Embedding table (num_embeddings, features), initialised from N(0, 1) as in PyTorch.

    Args:
        rngs, **options: see `flax_attn.Options`.

    Example:
        >>> Embedding(7, 3, rngs=nnx.Rngs(0))(jnp.array([0, 6])).shape
        (2, 3)
    """

    def __init__(self, num_embeddings: int, features: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        super().__init__(
            num_embeddings,
            features,
            dtype=options.get("dtype"),
            param_dtype=options.get("param_dtype", jnp.float32),
            embedding_init=normal(1.0),
            rngs=rngs,
        )
        # nnx.Embed sets this to param_dtype, which would round a float64 table on lookup.
        self.dtype = options.get("dtype")
