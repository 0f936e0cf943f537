"""Faults planted in attention between tokens, and in what replaces it."""

import jax

from .faults import Fault
from .planting import after, arguments, built, wrap


def not_divided(right, block, scores, eps):
    return jax.nn.softmax(scores, axis=1)


def over_memories(right, block, scores, eps):
    return jax.nn.softmax(scores, axis=-1)


def rows_and_columns_swapped(right, self, x):
    return right(self, x.swapaxes(1, 2)).swapaxes(1, 2)


def columns_first(angles):
    return angles[:, [2, 3, 0, 1]]


def linear_values(block):
    block.relu = False


def first_layer(block):
    block.lambda_init = 0.2


NORMALISED = "blocks.external._normalised"
POOL, ROTARY = "blocks.attention_pool.AttentionPool2d", "blocks.attention_pool.RotaryAttentionPool2d"
DIFFERENTIAL = "blocks.differential.DifferentialAttention"
NO_TEMPERATURE = arguments("ops.dot_product_attention", temperature=1.0)

# Each shows in what is found behind the block's own arithmetic, whose input is wrong already.
# fmt: off
FAULTS: tuple[Fault, ...] = (
    Fault("ViT: no temperature", NO_TEMPERATURE, "SelfAttention",
          found=("proj", "output"), given=True),
    Fault("ViT: norms with eps 1e-5", arguments("layers.LayerNorm", eps=1e-5), "SelfAttention, every option",
          found=("q_norm", "output")),
    Fault("external: normalised once", wrap(NORMALISED, not_divided), "ExternalAttention",
          found=("mv", "output"), given=True),
    Fault("external: softmax over the memories", wrap(NORMALISED, over_memories), "ExternalAttention",
          found=("mv", "output"), given=True),
    Fault("external heads: normalised once", wrap(NORMALISED, not_divided), "MultiHeadExternalAttention",
          found=("attn_drop", "output"), given=True),
    Fault("external heads: softmax over the memories", wrap(NORMALISED, over_memories), "MultiHeadExternalAttention",
          found=("attn_drop", "output"), given=True),
    Fault("differential: the depth forgotten", built(DIFFERENTIAL, first_layer), "DifferentialAttention, every option",
          found=("sub_norm", "output"), given=True),
    Fault("differential: both softmaxes alike",
          wrap(f"{DIFFERENTIAL}._difference", lambda right, self, first, second: first - second),
          "DifferentialAttention",
          found=("sub_norm", "output"), given=True),
    Fault("separable: values without ReLU", built("SeparableSelfAttention", linear_values), "SeparableSelfAttention",
          found=("out_proj", "output"), given=True),
    Fault("separable: softmax over the pixels",
          wrap("SeparableSelfAttention.__call__", rows_and_columns_swapped), "SeparableSelfAttention",
          found=("attn_drop", "output"), given=True),
    Fault("multi-query: no temperature", NO_TEMPERATURE, "MultiQueryAttention2d",
          found=("output.proj", "output"), given=True),
    Fault("multi-query: ReLU behind the projections",
          after("blocks.multi_query._Projection.__call__", jax.nn.relu), "MultiQueryAttention2d, strides",
          found=("query", "output")),
    Fault("pool: no temperature", NO_TEMPERATURE, "AttentionPool2d",
          found=("drop", "output"), given=True),
    Fault("pool: the first token of zeros",
          after(f"{POOL}._tokens", lambda tokens: tokens.at[:, 0].set(0)), "AttentionPool2d",
          found=("qkv", "output"), given=True),
    Fault("rotary pool: nothing is turned", wrap("ops.rotate", lambda right, x, angles: x), "RotaryAttentionPool2d",
          found=("drop", "output"), given=True),
    Fault("rotary pool: columns first", after("ops.rotary_angles", columns_first), "RotaryAttentionPool2d",
          found=("drop", "output"), given=True),
)
