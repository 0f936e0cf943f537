"""Faults of the blocks that attend between the places or the channels of a map."""

import jax
import jax.numpy as jnp

from .faults import Fault, softmax_over_queries
from .planting import arguments, built, wrap


def place_itself(counts):
    """The weights of a criss-cross in which the place itself counts in the column too, or in neither half."""

    def wrong(right, self, query, key):
        column, row = jnp.einsum("bhwd,bgwd->bhwg", query, key), jnp.einsum("bhwd,bhvd->bhwv", query, key)
        if not counts:
            column = jnp.where(jnp.eye(column.shape[1], dtype=bool)[None, :, None], -jnp.inf, column)
            row = jnp.where(jnp.eye(row.shape[2], dtype=bool)[None, None], -jnp.inf, row)
        return jax.nn.softmax(jnp.concatenate([column, row], axis=-1), axis=-1)

    return wrong


def mean_in_rows(right, x, count):
    return x.reshape(x.shape[0], count, -1, x.shape[3]).mean(axis=2, keepdims=True)


ATTEND = "ops.dot_product_attention"
TRANSFORM = "blocks.bilinear._BilinearTransform"

# fmt: off
FAULTS: tuple[Fault, ...] = (
    Fault("scores scaled by the width inside",
          built("NonLocalAttention", lambda block: setattr(block, "temperature", block.t.out_features**0.5)),
          "NonLocalAttention", found=("z", "output"), given=True),
    Fault("the smallest of each 2x2 places", wrap("ops.max_pool_2x2", lambda right, x: -right(-x)),
          "NonLocalAttention, sub-sampled", found=("z", "output"), given=True),
    Fault("a scale where DANet has none", arguments(ATTEND, temperature=2**0.5), "DANetPositionAttention"),
    Fault("no residual", wrap("DANetPositionAttention.__call__", lambda right, self, x: right(self, x) - x),
          "DANetPositionAttention"),
    Fault("the paper's sign of the energies", arguments(ATTEND, temperature=1.0), "DANetChannelAttention"),
    Fault("softmax over the attending channels", wrap("ops.attention.attention_weights", softmax_over_queries),
          "DANetChannelAttention"),
    Fault("the place itself twice", wrap("CrissCrossAttention._weights", place_itself(True)), "CrissCrossAttention"),
    Fault("the place itself not at all", wrap("CrissCrossAttention._weights", place_itself(False)),
          "CrissCrossAttention"),
    Fault("temperature from all heads", arguments(ATTEND, temperature=6**0.5), "AxialAttention",
          found=("axial_attentions.0.fn.to_out", "output"), given=True),
    Fault("keys and values swapped",
          wrap(ATTEND, lambda right, query, key, value, **options: right(query, value, key, **options)),
          "AxialAttention, one axis after the other", found=("axial_attentions.0.fn.to_out", "output"), given=True),
    Fault("softmax over the batch", wrap("ops.softmax", lambda right, scores, axis: right(scores, 0)),
          "DoubleAttention", found=("conv_reconstruct", "output"), given=True),
    Fault("both softmaxes over the places",
          wrap("ops.softmax", lambda right, scores, axis: right(scores, 1)),
          "DoubleAttention, without the last convolution"),
    Fault("columns of P sum to 1, and rows of Q",
          wrap(f"{TRANSFORM}._matrix", lambda right, self, scores, axis: right(self, scores, 5 - axis)),
          "BatNonLocal", found=("ba.conv2.conv", "output"), given=True),
    Fault("means of rows and columns", wrap("blocks.bilinear._largest_in_rows", mean_in_rows), "BatNonLocal",
          found=("ba.conv_p", "output"), given=True),
)
