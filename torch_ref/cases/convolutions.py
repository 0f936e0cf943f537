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
)
