"""The cases of attention over kernels, branches and frequencies."""

from .case import MAP, Case, a_map

CASES: tuple[Case, ...] = (
    Case("SelectiveKernel", "blocks.selective_kernel", (a_map(3, 6, 5, 7),), (MAP,), {"in_channels": 6}),
    Case(
        "SelectiveKernel, of the paper",
        "blocks.selective_kernel",
        (a_map(3, 6, 5, 7),),
        (MAP,),
        {"in_channels": 6, "out_channels": 10, "groups": 2, "rd_channels": 11, "split_input": False},
    ),
    Case(
        "SelectiveKernel, full kernels",
        "blocks.selective_kernel",
        (a_map(7, 9, 5, 8),),
        (MAP,),
        {"in_channels": 9, "out_channels": 5, "kernel_size": (3, 5, 7), "dilation": 2, "keep_3x3": False},
    ),
    Case("SplitAttention", "blocks.split_attention", (a_map(3, 6, 5, 7),), (MAP,), {"in_channels": 6}),
    Case(
        "SplitAttention, norm and groups",
        "blocks.split_attention",
        (a_map(7, 12, 5, 8),),
        (MAP,),
        {"in_channels": 12, "out_channels": 10, "groups": 2, "radix": 3, "rd_channels": 4, "norm": True},
    ),
    Case(
        "SplitAttention, one map",
        "blocks.split_attention",
        (a_map(3, 6, 11, 8),),
        (MAP,),
        {"in_channels": 6, "kernel_size": 5, "padding": 4, "dilation": 2, "groups": 2, "bias": True, "radix": 1},
    ),
    Case("GlobalResponseNorm", "blocks.response_norm", (a_map(3, 5, 7, 11),), (MAP,), {"dim": 5}),
    Case("LargeKernelAttention", "blocks.large_kernel", (a_map(2, 3, 11, 7),), (MAP,), {"dim": 3}),
    Case("VANAttention", "blocks.large_kernel", (a_map(2, 3, 7, 11),), (MAP,), {"d_model": 3}),
    Case(
        "PyramidSplitAttention",
        "blocks.pyramid_split",
        (a_map(3, 6, 7, 5),),
        (MAP,),
        {"in_planes": 6, "planes": 24, "conv_groups": (1, 2, 3, 6), "reduction": 2},
    ),
    Case(
        "MultiSpectralAttention",
        "blocks.multi_spectral",
        (a_map(3, 32, 8, 11),),
        (MAP,),
        {"channel": 32, "dct_h": 7, "dct_w": 7},
    ),
    Case(
        "MultiSpectralAttention, no pooling",
        "blocks.multi_spectral",
        (a_map(3, 12, 14, 7),),
        (MAP,),
        {"channel": 12, "dct_h": 14, "dct_w": 7, "reduction": 3, "freq_sel_method": "bot4"},
    ),
    Case(
        "ClassSpecificResidualAttention",
        "blocks.csra",
        (a_map(3, 5, 7, 11),),
        (None,),
        {"input_dim": 5, "num_classes": 13, "temperature": 2.5},
    ),
    Case(
        "ClassSpecificResidualAttention, maximum",
        "blocks.csra",
        (a_map(3, 5, 7, 11, kind="ties"),),
        (None,),
        {"input_dim": 5, "num_classes": 13, "temperature": 99, "lam": 0.3, "normalize": False},
    ),
    Case(
        "MultiHeadResidualAttention",
        "blocks.csra",
        (a_map(3, 5, 7, 11),),
        (None,),
        {"num_heads": 4, "lam": 0.3, "input_dim": 5, "num_classes": 13},
    ),
    Case("ParNetAttention", "blocks.parnet", (a_map(3, 5, 7, 11),), (MAP,), {"channel": 5}),
    Case(
        "ParNetAttention, plain skip",
        "blocks.parnet",
        (a_map(3, 5, 7, 11),),
        (MAP,),
        {"channel": 5, "skip_norm": False, "bias": True},
    ),
)
