"""``nnx.Embed`` with PyTorch's initialisation and ``padding_idx``."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal

from .._check import check_positive
from ..options import Options, check_options


class Embedding(nnx.Embed):
    """Embedding table (num_embeddings, features), initialised from N(0, 1) as in PyTorch.

    Args:
        num_embeddings: Number of rows.
        features: Size of a row, PyTorch's ``embedding_dim``.
        padding_idx: A row that starts as zeros and is not trained, counted from the end if negative.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, or there is no row ``padding_idx``.

    Example:
        >>> Embedding(7, 3, rngs=nnx.Rngs(0))(jnp.array([0, 6])).shape
        (2, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        padding_idx: int | None = None,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(num_embeddings=num_embeddings, features=features)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx must be a row of {num_embeddings}, got {padding_idx}")
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
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        if self.padding_idx is not None:
            self.embedding[...] = self.embedding[...].at[self.padding_idx].set(0)

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Looks up the rows of an array of integers of any shape, (...) -> (..., features)."""
        rows: jax.Array = super().__call__(inputs, out_sharding)
        if self.padding_idx is None:
            return rows
        return jnp.where((inputs == self.padding_idx)[..., None], jax.lax.stop_gradient(rows), rows)
