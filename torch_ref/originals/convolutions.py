"""The originals of attention over kernels, branches and frequencies."""

from torch.nn import BatchNorm2d

from ..cases import MAP, Input
from .original import Original

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
        only="norm",
    ),
    Original(
        "SplitAttention",
        {"in_channels": 32, "norm": True},
        "pytorchcv.models.common.att:saconv3x3_block",
        {"in_channels": 32, "out_channels": 32},
        names="pytorchcv.SAConvBlock",
    ),
    Original(
        "GlobalResponseNorm", {"dim": 32}, "timm.layers.grn:GlobalResponseNorm", {"dim": 32, "channels_last": False}
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
)
