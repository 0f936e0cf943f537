"""The originals of gates that are computed from the pooled map."""

from ..cases import MAP, Input
from .original import Original, with_momentum

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
    Original(
        "CBAM",
        {"gate_channels": 32, "no_spatial": False},
        "pytorchcv.models.cbamresnet:CbamBlock",
        {"channels": 32},
        names="pytorchcv.CbamBlock",
        build=with_momentum(0.01),
    ),
)
