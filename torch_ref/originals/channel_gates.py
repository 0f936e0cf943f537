"""The originals of gates that are computed from the pooled map."""

from typing import Any

import torch

from ..cases import MAP, Input
from .original import Original, with_momentum


def with_mlp(cls: Any, **args: Any) -> torch.nn.Module:
    """Timm's class raises TypeError when it builds its MLP, from keywords that it passes by position."""
    from timm.layers.mlp import ConvMlp

    module: torch.nn.Module = cls(**args)
    module.mlp = ConvMlp(32, 2, act_layer=torch.nn.ReLU)
    return module


def without_bias(cls: Any, **args: Any) -> torch.nn.Module:
    """Fightingcv's convolution has a bias, which neither the paper nor its authors' code has."""
    module: Any = cls(**args)
    module.conv.bias = None
    built: torch.nn.Module = module
    return built


def with_its_own_hard_sigmoid(cls: Any, **args: Any) -> torch.nn.Module:
    """Timm's hard sigmoid in place of PyTorch's, whose gradient is rounded to float32."""
    from timm.layers import HardSigmoid

    module: torch.nn.Module = cls(**args, gate_layer=HardSigmoid)
    return module


WIDE = (Input((3, 256, 2, 3), MAP),)

ORIGINALS: tuple[Original, ...] = (
    Original("SqueezeExcite", {"channels": 32}, "timm.layers:SEModule", {"channels": 32}),
    Original(
        "SqueezeExcite",
        {"channels": 32, "rd_channels": 3},
        "torchvision.ops:SqueezeExcitation",
        {"input_channels": 32, "squeeze_channels": 3},
    ),
    Original(
        "SqueezeExcite",
        {"channels": 32, "rd_channels": 2},
        "pytorchcv.models.common.att:SEBlock",
        {"channels": 32},
        names="pytorchcv.SEBlock",
    ),
    Original(
        "SqueezeExcite",
        {"channels": 32, "rd_channels": 2, "bias": False},
        "fightingcv_attention.attention.SEAttention.py:SEAttention",
        {"channel": 32},
        names="fightingcv_attention.SEAttention",
    ),
    # Its file imports another one of its repository: compare a copy without that line.
    Original(
        "SqueezeExcite",
        {"channels": 32, "rd_channels": 2},
        "implus/PytorchInsight/classification/models/imagenet/resnet_se.py:SELayer",
        {"channel": 32},
        names="fightingcv_attention.SEAttention",
    ),
    Original("EffectiveSqueezeExcite", {"channels": 32}, "timm.layers:EffectiveSEModule", {"channels": 32}),
    Original(
        "EffectiveSqueezeExcite",
        {"channels": 32},
        "timm.layers:EffectiveSEModule",
        {"channels": 32},
        build=with_its_own_hard_sigmoid,
        only="timm's hard sigmoid",
    ),
    Original("EfficientChannelAttention", {"channels": 256}, "timm.layers:EcaModule", {"channels": 256}, WIDE),
    Original(
        "EfficientChannelAttention",
        {"channels": 256, "circular": True},
        "timm.layers:CecaModule",
        {"channels": 256},
        WIDE,
    ),
    Original(
        "EfficientChannelAttention",
        {"kernel_size": 5},
        "fightingcv_attention.attention.ECAAttention.py:ECAAttention",
        {"kernel_size": 5},
        build=without_bias,
    ),
    Original(
        "EfficientChannelAttention",
        {"kernel_size": 5},
        "BangguWu/ECANet/models/eca_module.py:eca_layer",
        {"channel": 32, "k_size": 5},
    ),
    Original("SimAM", {}, "fightingcv_attention.attention.SimAM.py:SimAM"),
    Original(
        "SimAM", {"e_lambda": 0.1}, "ZjjConan/SimAM/networks/attentions/simam_module.py:simam_module", {"e_lambda": 0.1}
    ),
    Original(
        "SpatialGroupEnhance",
        {"groups": 4},
        "fightingcv_attention.attention.SGE.py:SpatialGroupEnhance",
        {"groups": 4},
    ),
    # Its file imports another one of its repository: compare a copy without that line.
    Original(
        "SpatialGroupEnhance",
        {"groups": 4},
        "implus/PytorchInsight/classification/models/imagenet/resnet_sge.py:SpatialGroupEnhance",
        {"groups": 4},
    ),
    *(
        Original("GatedChannelTransformation", args, "z-x-yang/GCT/PyTorch/GCT.py:GCT", args, only=only)
        for only, args in (
            ("l2", {"num_channels": 32}),
            ("l1", {"num_channels": 32, "mode": "l1"}),
            ("l1 after a ReLU", {"num_channels": 32, "mode": "l1", "after_relu": True}),
        )
    ),
    *(
        Original("GlobalContext", args, "timm.layers.global_context:GlobalContext", args, only=only)
        for only, args in (
            ("scale", {"channels": 32}),
            ("add", {"channels": 32, "fuse_add": True, "fuse_scale": False}),
            ("both without attention", {"channels": 32, "use_attn": False, "fuse_add": True}),
        )
    ),
    # Its file imports two initialisers of mmcv, in a version before 2.
    *(
        Original(
            "GlobalContext",
            {"channels": 32, "rd_channels": 8, "eps": 1e-5, "fuse_add": add, "fuse_scale": scale},
            "xvjiarui/GCNet/mmdet/ops/gcb/context_block.py:ContextBlock",
            {"inplanes": 32, "ratio": 1 / 4, "fusion_types": types},
            names="mmcv.ContextBlock",
            only=" and ".join(types),
        )
        for add, scale, types in (
            (True, False, ("channel_add",)),
            (True, True, ("channel_add", "channel_mul")),
        )
    ),
    *(
        Original(
            "GatherExcite",
            {"channels": 32, "use_mlp": False, "extent": extent},
            "timm.layers.gather_excite:GatherExcite",
            {"channels": 32, "use_mlp": False, "extent": extent},
            only=f"extent {extent}",
        )
        for extent in (0, 2, 4)
    ),
    Original(
        "GatherExcite",
        {"channels": 32, "extent": 2},
        "timm.layers.gather_excite:GatherExcite",
        {"channels": 32, "use_mlp": False, "extent": 2},
        build=with_mlp,
        only="with its MLP",
    ),
    *(
        Original(
            "CBAM",
            {"gate_channels": 32, "no_spatial": False, "mlp_bias": bias},
            "timm.layers.cbam:CbamModule",
            {"channels": 32, "mlp_bias": bias},
            names="timm.CbamModule",
            build=with_momentum(0.01),
            only="" if bias else "without biases",
        )
        for bias in (False, True)
    ),
    Original(
        "CBAM",
        {"gate_channels": 32, "no_spatial": False},
        "Jongchan/attention-module/MODELS/cbam.py:CBAM",
        {"gate_channels": 32},
        names="Jongchan.CBAM",
    ),
    Original(
        "CBAM",
        {"gate_channels": 32, "no_spatial": False},
        "pytorchcv.models.cbamresnet:CbamBlock",
        {"channels": 32},
        names="pytorchcv.CbamBlock",
        build=with_momentum(0.01),
    ),
)
