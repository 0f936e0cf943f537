"""The originals of attention in windows, blocks and neighbourhoods."""

from typing import Any

import torch

from ..cases import MAP, Input
from .original import Original

SHIFTED: dict[str, Any] = {"dim": 6, "window_size": [2, 3], "shift_size": [1, 2], "num_heads": 3}
FOCAL: dict[str, Any] = {"dim": 6, "focal_window": 3, "focal_level": 2}
HALO: dict[str, Any] = {"dim": 16, "num_heads": 2, "block_size": 4, "halo_size": 2}
BOTTLENECK: dict[str, Any] = {"dim": 16, "feat_size": (5, 7), "num_heads": 2}
LAMBDA: dict[str, Any] = {"dim": 8, "num_heads": 2, "dim_head": 3}
SMALL_MAP = (Input((2, 8, 5, 7), MAP),)


def _call_with_size(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Of tokens and the map's size."""
    b, c, h, w = x.shape
    out: torch.Tensor = module(x.flatten(2).transpose(1, 2), (h, w))
    return out.transpose(1, 2).reshape(b, c, h, w)


def _call_with_sides(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Of tokens, the map's height and its width."""
    return _call_with_size(lambda tokens, size: module(tokens, *size), x)


ORIGINALS: tuple[Original, ...] = (
    Original(
        "WindowAttention",
        {"dim": 12, "num_heads": 4, "window_size": (3, 4)},
        "timm.models.swin_transformer:WindowAttention",
        {"dim": 12, "num_heads": 4, "window_size": (3, 4)},
        (Input((4, 12, 12)),),
        (None,),
    ),
    Original(
        "WindowAttention",
        {"dim": 10, "num_heads": 3, "head_dim": 5, "window_size": 2, "qkv_bias": False},
        "timm.models.swin_transformer:WindowAttention",
        {"dim": 10, "num_heads": 3, "head_dim": 5, "window_size": 2, "qkv_bias": False},
        (Input((6, 4, 10)),),
        (None,),
        only="head_dim",
    ),
    Original(
        "WindowAttention",
        {"dim": 12, "num_heads": 4, "window_size": (3, 4)},
        "microsoft/Swin-Transformer/models/swin_transformer.py:WindowAttention",
        {"dim": 12, "num_heads": 4, "window_size": (3, 4)},
        (Input((4, 12, 12)),),
        (None,),
    ),
    Original(
        "ShiftedWindowAttention",
        SHIFTED,
        "torchvision.models.swin_transformer:ShiftedWindowAttention",
        SHIFTED,
        (Input((2, 5, 7, 6)),),
        (None,),
    ),
    Original(
        "ShiftedWindowAttention",
        {**SHIFTED, "shift_size": [0, 0], "qkv_bias": False},
        "torchvision.models.swin_transformer:ShiftedWindowAttention",
        {**SHIFTED, "shift_size": [0, 0], "qkv_bias": False},
        (Input((2, 5, 7, 6)),),
        (None,),
        only="not shifted",
    ),
    *(
        Original(
            "SpatialReductionAttention",
            {"dim": 8, "num_heads": 2, **args},
            "timm.models.pvt_v2:Attention",
            {"dim": 8, "num_heads": 2, **args},
            SMALL_MAP,
            call=_call_with_size,
            only=only,
        )
        for args, only in (({"sr_ratio": 2}, ""), ({"linear_attn": True}, "linear"), ({"qkv_bias": False}, "of all"))
    ),
    Original(
        "SpatialReductionAttention",
        {"dim": 8, "num_heads": 2, "sr_ratio": 2},
        "timm.models.twins:GlobalSubSampleAttn",
        {"dim": 8, "num_heads": 2, "sr_ratio": 2},
        SMALL_MAP,
        call=_call_with_size,
    ),
    Original(
        "SpatialReductionAttention",
        {"dim": 8, "num_heads": 2, "sr_ratio": 2},
        "fightingcv_attention.backbone.PVT:Attention",
        {"dim": 8, "num_heads": 2, "sr_ratio": 2, "qkv_bias": True},
        SMALL_MAP,
        call=_call_with_sides,
    ),
    Original(
        "FocalModulation",
        FOCAL,
        "microsoft/FocalNet/classification/focalnet.py:FocalModulation",
        FOCAL,
        (Input((2, 5, 7, 6)),),
        (None,),
    ),
    Original("FocalModulation", FOCAL, "timm.models.focalnet:FocalModulation", FOCAL, (Input((2, 6, 5, 7), MAP),)),
    Original(
        "FocalModulation",
        {**FOCAL, "use_post_norm": True, "normalize_modulator": True},
        "timm.models.focalnet:FocalModulation",
        {**FOCAL, "use_post_norm": True, "normalize_modulator": True},
        (Input((2, 6, 5, 7), MAP),),
        only="normalised",
    ),
    *(
        Original(
            "OutlookAttention",
            {"dim": 8, "num_heads": 2, **args},
            "timm.models.volo:OutlookAttention",
            {"dim": 8, "num_heads": 2, **args},
            (Input((2, 5, 7, 8)),),
            (None,),
            only=only,
        )
        for args, only in (({}, ""), ({"kernel_size": 5, "padding": 2, "stride": 2, "qkv_bias": True}, "stride"))
    ),
    Original(
        "OutlookAttention",
        {"dim": 8, "num_heads": 2},
        "fightingcv_attention.attention.OutlookAttention:OutlookAttention",
        {"dim": 8, "num_heads": 2, "attn_drop": 0.0},
        (Input((2, 5, 7, 8)),),
        (None,),
        names="fightingcv_attention.OutlookAttention",
    ),
    *(
        Original(
            "HaloAttention",
            {**HALO, **args},
            "timm.layers.halo_attn:HaloAttn",
            {**HALO, **args},
            (Input((2, 16, 8, 12), MAP),),
            only=only,
        )
        for args, only in (
            ({}, ""),
            ({"stride": 2, "dim_out": 24, "qkv_bias": True}, "stride"),
            ({"stride": 2, "avg_down": True, "scale_pos_embed": True}, "average pool"),
        )
    ),
    Original(
        "HaloAttention",
        {**HALO, "dim_head": 8, "scale_pos_embed": True, "mask_padding": True, "out_proj": True},
        "halonet_pytorch:HaloAttention",
        {"dim": 16, "heads": 2, "dim_head": 8, "block_size": 4, "halo_size": 2},
        (Input((2, 16, 8, 12), MAP),),
        names="halonet_pytorch.HaloAttention",
    ),
    Original(
        "BottleneckAttention",
        BOTTLENECK,
        "timm.layers.bottleneck_attn:BottleneckAttn",
        BOTTLENECK,
        (Input((2, 16, 5, 7), MAP),),
    ),
    Original(
        "BottleneckAttention",
        {**BOTTLENECK, "stride": 2, "dim_out": 24, "qkv_bias": True},
        "timm.layers.bottleneck_attn:BottleneckAttn",
        {**BOTTLENECK, "stride": 2, "dim_out": 24, "qkv_bias": True},
        (Input((2, 16, 5, 7), MAP),),
        only="stride",
    ),
    Original(
        "BottleneckAttention",
        {**BOTTLENECK, "scale_pos_embed": True},
        "bottleneck_transformer_pytorch.bottleneck_transformer_pytorch:Attention",
        {"dim": 16, "fmap_size": (5, 7), "heads": 2, "dim_head": 8, "rel_pos_emb": True},
        (Input((2, 16, 5, 7), MAP),),
        names="bottleneck_transformer_pytorch.Attention",
    ),
    *(
        Original(
            "LambdaLayer",
            {**LAMBDA, **args},
            "timm.layers.lambda_layer:LambdaLayer",
            {**LAMBDA, **args},
            SMALL_MAP,
            only=only,
        )
        for args, only in (({"r": 3}, ""), ({"r": None, "feat_size": (5, 7), "stride": 2, "qkv_bias": True}, "of all"))
    ),
    *(
        Original(
            "LambdaLayer",
            {**LAMBDA, "dim_out": 6, "dim_u": u, **ours},
            "lambda_networks:LambdaLayer",
            {"dim": 8, "heads": 2, "dim_k": 3, "dim_out": 6, "dim_u": u, **theirs},
            (Input((2, 8, 5, 5), MAP),),
            names="lambda_networks.LambdaLayer",
            only=only,
        )
        for u, ours, theirs, only in (
            (2, {"r": 3}, {"r": 3}, ""),
            (1, {"r": None, "feat_size": (5, 5)}, {"n": 5}, "of all"),
            (2, {"r": None, "feat_size": (5, 5)}, {"n": 5}, "of all, depth"),
        )
    ),
)
