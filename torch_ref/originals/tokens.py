"""The originals of attention between tokens, and what replaces it."""

from functools import partial
from typing import Any

import torch

from ..cases import Input
from .original import Original

of_tokens = partial(Original, inputs=(Input((2, 7, 32)),), outputs=(None,))
EVERY_OPTION: dict[str, Any] = {"qkv_bias": True, "qk_norm": True, "scale_norm": True, "gated": True}


def _on_itself(module: torch.nn.Module, tokens: torch.Tensor) -> Any:
    return module(tokens, tokens, tokens, need_weights=False)[0]


ORIGINALS: tuple[Original, ...] = (
    of_tokens("SelfAttention", {"dim": 32, "num_heads": 4}, "timm.layers:Attention", {"dim": 32, "num_heads": 4}),
    of_tokens(
        "SelfAttention",
        {"dim": 32, "num_heads": 4, **EVERY_OPTION},
        "timm.layers:Attention",
        {"dim": 32, "num_heads": 4, **EVERY_OPTION, "norm_layer": partial(torch.nn.LayerNorm, eps=1e-6)},
        only="every option",
    ),
    of_tokens(
        "SelfAttention",
        {"dim": 32, "num_heads": 4, "qkv_bias": True},
        "torch.nn:MultiheadAttention",
        {"embed_dim": 32, "num_heads": 4, "batch_first": True},
        names="torch.nn.MultiheadAttention",
        call=_on_itself,
    ),
)
