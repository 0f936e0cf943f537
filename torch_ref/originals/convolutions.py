"""The originals of attention over kernels, branches and frequencies."""

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
)
