"""The originals of attention between tokens, and what replaces it."""

from functools import partial
from typing import Any

import torch

from ..cases import MAP, Input
from .original import Original

of_tokens = partial(Original, inputs=(Input((2, 7, 32)),), outputs=(None,))
of_pool = partial(Original, outputs=(None,))
POOL: dict[str, Any] = {"in_features": 32, "num_heads": 4, "out_features": 20}
ALL_PLACES: dict[str, Any] = {"qkv_separate": True, "class_token": True, "pool_type": ""}
AT_POOL, ROTARY_POOL = (f"timm.layers.attention_pool2d:{name}" for name in ("AttentionPool2d", "RotAttentionPool2d"))
STRIDES: dict[str, Any] = {"query_strides": 2, "kv_stride": 2, "use_bias": True, "dim_out": 20}
EVERY_OPTION: dict[str, Any] = {"qkv_bias": True, "qk_norm": True, "scale_norm": True, "gated": True}
LAMBDAS: dict[str, Any] = {"qkv_bias": True, "qk_norm": True, "scale_norm": True, "depth": 5, "dual_lambda": True}


def _on_itself(module: torch.nn.Module, tokens: torch.Tensor) -> Any:
    return module(tokens, tokens, tokens, need_weights=False)[0]


def _on_one_row(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Calls a module of tokens with a map of one row."""
    out: torch.Tensor = module(x[:, :, 0].transpose(1, 2)).transpose(1, 2)[:, :, None]
    return out


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
    of_tokens(
        "ExternalAttention",
        {"d_model": 32, "memories": 8},
        "fightingcv_attention.attention.ExternalAttention:ExternalAttention",
        {"d_model": 32, "S": 8},
    ),
    of_tokens(
        "MultiHeadExternalAttention",
        {"dim": 32, "num_heads": 4},
        "MenghaoGuo/EANet/multi_head_attention_torch.py:Attention",
        {"dim": 32, "num_heads": 4},
    ),
    of_tokens(
        "DifferentialAttention",
        {"dim": 32, "num_heads": 2},
        "timm.layers:DiffAttention",
        {"dim": 32, "num_heads": 2},
    ),
    of_tokens(
        "DifferentialAttention",
        {"dim": 32, "num_heads": 2, **LAMBDAS},
        "timm.layers:DiffAttention",
        {"dim": 32, "num_heads": 2, **LAMBDAS},
        only="every option",
    ),
    Original(
        "SeparableSelfAttention",
        {"embed_dim": 32},
        "timm.models.mobilevit:LinearSelfAttention",
        {"embed_dim": 32},
    ),
    Original(
        "SeparableSelfAttention",
        {"embed_dim": 32, "relu": False},
        "fightingcv_attention.attention.MobileViTv2Attention:MobileViTv2Attention",
        {"d_model": 32},
        (Input((2, 32, 1, 7), MAP),),
        names="fightingcv_attention.MobileViTv2Attention",
        call=_on_one_row,
    ),
    Original(
        "MultiQueryAttention2d",
        {"dim": 32, "num_heads": 4},
        "timm.layers.attention2d:MultiQueryAttention2d",
        {"dim": 32, "num_heads": 4},
    ),
    Original(
        "MultiQueryAttention2d",
        {"dim": 32, "num_heads": 4, **STRIDES},
        "timm.layers.attention2d:MultiQueryAttention2d",
        {"dim": 32, "num_heads": 4, **STRIDES},
        only="strides",
    ),
    of_pool("AttentionPool2d", {**POOL, "feat_size": (5, 7)}, AT_POOL, {**POOL, "feat_size": (5, 7)}),
    of_pool(
        "AttentionPool2d",
        {**POOL, "feat_size": (5, 7), **ALL_PLACES},
        AT_POOL,
        {**POOL, "feat_size": (5, 7), **ALL_PLACES},
        outputs=(MAP,),
        only="map",
    ),
    of_pool(
        "AttentionPool2d",
        {**POOL, "feat_size": (4, 3)},
        AT_POOL,
        {**POOL, "feat_size": (4, 3)},
        only="another size",
    ),
    Original(
        "AttentionPool2d",
        {"in_features": 32, "feat_size": 7, "num_heads": 4, "out_features": 20, "qkv_separate": True},
        "openai/CLIP/clip/model.py:AttentionPool2d",
        {"spacial_dim": 7, "embed_dim": 32, "num_heads": 4, "output_dim": 20},
        (Input((3, 32, 7, 7), MAP),),
        (None,),
        names="openai.AttentionPool2d",
    ),
    of_pool("RotaryAttentionPool2d", POOL, ROTARY_POOL, POOL),
    of_pool(
        "RotaryAttentionPool2d",
        {**POOL, "ref_feat_size": (4, 6), "pool_type": ""},
        ROTARY_POOL,
        {**POOL, "ref_feat_size": (4, 6), "pool_type": ""},
        outputs=(MAP,),
        only="map",
    ),
)
