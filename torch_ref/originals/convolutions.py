"""The originals of attention over kernels, branches and frequencies."""

from torch.nn import BatchNorm2d, SiLU

from ..cases import MAP, Input
from .original import Original

# Enough images that the means of BatchNorm over pooled maps, and so their gradients, are well conditioned.
MANY = (Input((11, 32, 5, 7), MAP),)

ORIGINALS: tuple[Original, ...] = (
    Original("SelectiveKernel", {"in_channels": 32}, "timm.layers:SelectiveKernel", {"in_channels": 32}),
    Original(
        "SelectiveKernel",
        {"in_channels": 32, "out_channels": 24, "kernel_size": (3, 7), "stride": 2, "keep_3x3": False},
        "timm.layers:SelectiveKernel",
        {"in_channels": 32, "out_channels": 24, "kernel_size": [3, 7], "stride": 2, "keep_3x3": False},
        only="full kernels",
    ),
    Original(
        "SelectiveKernel",
        {"in_channels": 32, "groups": 32, "rd_channels": 32, "split_input": False},
        "pytorchcv.models.sknet:SKConvBlock",
        {"in_channels": 32, "out_channels": 32, "stride": 1},
        names="pytorchcv.SKConvBlock",
    ),
    *(
        Original(
            "SplitAttention",
            {"in_channels": 32, **args},
            "timm.layers:SplitAttn",
            {"in_channels": 32, **args},
            only=only,
        )
        for only, args in {
            "": {},
            "groups": {"out_channels": 40, "groups": 2, "radix": 4, "stride": 2, "rd_channels": 6},
            "one map": {"groups": 2, "radix": 1, "bias": True, "padding": 2, "dilation": 2},
        }.items()
    ),
    Original(
        "SplitAttention",
        {"in_channels": 32, "norm": True},
        "timm.layers:SplitAttn",
        {"in_channels": 32, "norm_layer": BatchNorm2d},
        MANY,
        only="norm",
    ),
    Original(
        "SplitAttention",
        {"in_channels": 32, "norm": True},
        "pytorchcv.models.common.att:saconv3x3_block",
        {"in_channels": 32, "out_channels": 32},
        MANY,
        names="pytorchcv.saconv3x3_block",
    ),
    Original(
        "GlobalResponseNorm", {"dim": 32}, "timm.layers.grn:GlobalResponseNorm", {"dim": 32, "channels_last": False}
    ),
    # Its file imports MinkowskiEngine for another class: compare a copy without that.
    Original(
        "GlobalResponseNorm",
        {"dim": 32},
        "facebookresearch/ConvNeXt-V2/models/utils.py:GRN",
        {"dim": 32},
        (Input((3, 5, 7, 32)),),
        (None,),
        names="ConvNeXt-V2.GRN",
    ),
    Original(
        "LargeKernelAttention",
        {"dim": 32},
        "Visual-Attention-Network/VAN-Classification/models/van.py:LKA",
        {"dim": 32},
    ),
    Original(
        "VANAttention",
        {"d_model": 32},
        "Visual-Attention-Network/VAN-Classification/models/van.py:Attention",
        {"d_model": 32},
    ),
    Original(
        "PyramidSplitAttention",
        {"in_planes": 64, "planes": 128},
        "murufeng/EPSANet/models/epsanet.py:PSAModule",
        {"inplans": 64, "planes": 128},
        (Input((3, 64, 5, 7), MAP),),
    ),
    Original(
        "MultiSpectralAttention",
        {"channel": 32, "dct_h": 14, "dct_w": 14},
        "cfzd/FcaNet/model/layer.py:MultiSpectralAttentionLayer",
        {"channel": 32, "dct_h": 14, "dct_w": 14},
        (Input((3, 32, 15, 17), MAP),),
    ),
    Original(
        "ClassSpecificResidualAttention",
        {"input_dim": 32, "num_classes": 5, "temperature": 2},
        "Kevinz-code/CSRA/pipeline/csra.py:CSRA",
        {"input_dim": 32, "num_classes": 5, "T": 2, "lam": 0.1},
        outputs=(None,),
    ),
    Original(
        "ClassSpecificResidualAttention",
        {"input_dim": 32, "num_classes": 5, "temperature": 99, "lam": 0.2, "normalize": False},
        "fightingcv_attention.attention.ResidualAttention:ResidualAttention",
        {"channel": 32, "num_class": 5},
        outputs=(None,),
        names="fightingcv_attention.ResidualAttention",
    ),
    Original(
        "MultiHeadResidualAttention",
        {"num_heads": 4, "lam": 0.1, "input_dim": 32, "num_classes": 5},
        "Kevinz-code/CSRA/pipeline/csra.py:MHA",
        {"num_heads": 4, "lam": 0.1, "input_dim": 32, "num_classes": 5},
        outputs=(None,),
    ),
    Original(
        "ParNetAttention",
        {"channel": 32},
        "imankgoyal/NonDeepNetworks/imagenet/timm/models/simplenet_impl/repvgg.py:RepVGGBlock",
        {
            "in_channels": 32,
            "out_channels": 32,
            "kernel_size": 3,
            "padding": 1,
            "se_block": True,
            "activation": SiLU(),
        },
    ),
    Original(
        "ParNetAttention",
        {"channel": 32, "skip_norm": False, "bias": True},
        "fightingcv_attention.attention.ParNetAttention:ParNetAttention",
        {"channel": 32},
        names="fightingcv_attention.ParNetAttention",
    ),
)
