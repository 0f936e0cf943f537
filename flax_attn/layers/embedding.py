"""Embedding: ``nnx.Embed`` that starts from PyTorch's distribution."""

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal
from jax.typing import DTypeLike


class Embedding(nnx.Embed):
    """A table (num_embeddings, features) looked up by whole numbers, drawn from N(0, 1) as in PyTorch.

    Example:
        >>> Embedding(7, 3, rngs=nnx.Rngs(0))(jnp.array([0, 6])).shape
        (2, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(
            num_embeddings,
            features,
            dtype=dtype,
            param_dtype=param_dtype,
            embedding_init=normal(1.0),
            rngs=rngs,
        )
        # nnx.Embed would settle on param_dtype here and round a float64 table on lookup.
        self.dtype = dtype
