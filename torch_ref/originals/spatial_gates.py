"""The originals of gates that also see the places of a map."""

from typing import Any

import torch

from ..cases import MAP, Input
from .original import Original

FIGHTINGCV = "fightingcv_attention.attention"
TIMM = "timm.layers.coord_attn"


def _with_the_missing_name(cls: Any, **args: Any) -> torch.nn.Module:
    """The authors' file of BAM stores a name that it defines nowhere, and uses it nowhere."""
    cls.__init__.__globals__["gate_activation"] = None
    module: torch.nn.Module = cls(**args)
    return module


ORIGINALS: tuple[Original, ...] = (
    Original(
        "BAM",
        {"gate_channel": 32},
        "pytorchcv.models.bamresnet:BamBlock",
        {"channels": 32},
        names="pytorchcv.BamBlock",
    ),
    Original(
        "BAM",
        {"gate_channel": 32},
        "Jongchan/attention-module/MODELS/bam.py:BAM",
        {"gate_channel": 32},
        (Input((3, 32, 5, 5), MAP),),  # they average the whole of a square map alone
        build=_with_the_missing_name,
    ),
    Original(
        "SCSE",
        {"in_channels": 32},
        "segmentation_models_pytorch.base.modules.py:SCSEModule",
        {"in_channels": 32},
    ),
    Original(
        "SCSE",
        {"in_channels": 32, "reduction": 2, "combine": "max"},
        "ai-med/squeeze_and_excitation/squeeze_and_excitation/squeeze_and_excitation.py:ChannelSpatialSELayer",
        {"num_channels": 32},
        names="squeeze_and_excitation.ChannelSpatialSELayer",
    ),
    Original(
        "CoordinateAttention",
        {"channels": 32},
        f"{FIGHTINGCV}.CoordAttention:CoordAtt",
        {"inp": 32, "oup": 32},
    ),
    Original(
        "CoordinateAttention",
        {"channels": 32, "rd_channels": 8, "bias": False},
        f"{TIMM}:CoordAttn",
        {"channels": 32},
    ),
    Original(
        "CoordinateAttention",
        {"channels": 32, "rd_channels": 11, "has_skip": True},
        f"{TIMM}:CoordAttn",
        {"channels": 32, "rd_channels": 11, "bias": True, "has_skip": True},
        only="with bias and skip",
    ),
    Original(
        "CoordinateAttention",
        {"channels": 32},
        "houqb/CoordAttention/coordatt.py:CoordAtt",
        {"inp": 32, "oup": 32},
    ),
    Original("TripletAttention", {}, f"{FIGHTINGCV}.TripletAttention:TripletAttention"),
    Original(
        "TripletAttention",
        {"no_spatial": True},
        f"{FIGHTINGCV}.TripletAttention:TripletAttention",
        {"no_spatial": True},
        only="without spatial gate",
    ),
    Original(
        "TripletAttention",
        {},
        "landskape-ai/triplet-attention/triplet_attention.py:TripletAttention",
        inputs=(Input((2, 11, 5, 7), MAP),),
    ),
    Original(
        "ShuffleAttention",
        {"channels": 32, "groups": 4},
        f"{FIGHTINGCV}.ShuffleAttention:ShuffleAttention",
        {"channel": 32, "G": 4},
    ),
    *(
        Original(name, {"channels": 32}, f"{FIGHTINGCV}.PolarizedSelfAttention:{name}", {"channel": 32})
        for name in ("ParallelPolarizedSelfAttention", "SequentialPolarizedSelfAttention")
    ),
    Original("EfficientLocalAttention", {"channels": 32}, f"{TIMM}:EfficientLocalAttn", {"channels": 32}),
    Original(
        "EfficientLocalAttention",
        {"channels": 32, "kernel_size": 3, "bias": True, "has_skip": True},
        f"{TIMM}:EfficientLocalAttn",
        {"channels": 32, "kernel_size": 3, "bias": True, "has_skip": True},
        only="with bias and skip",
    ),
    *(
        Original("StripAttention", args, f"{TIMM}:StripAttn", args, only=only)
        for args, only in (
            ({"channels": 32}, ""),
            ({"channels": 32, "kernel_size": 5, "bias": True, "has_skip": True}, "with bias and skip"),
            ({"channels": 32, "use_conv": False}, "without parameters"),
        )
    ),
    Original(
        "UFOAttention",
        {"d_model": 32, "d_k": 7, "d_v": 11, "h": 4},
        f"{FIGHTINGCV}.UFOAttention:UFOAttention",
        {"d_model": 32, "d_k": 7, "d_v": 11, "h": 4},
        (Input((3, 5, 32)), Input((3, 7, 32)), Input((3, 7, 32))),
        (None,),
    ),
)
