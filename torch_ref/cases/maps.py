"""The cases of attention between the places or the channels of a map."""

from .case import MAP, Case, a_map

# Before a norm, biases have no gradient but for rounding, with which Adam moves them, and the running mean with them.
# Below a small scale of the norm it is less, and little beside a large mean.
STEADY_MEAN = {"z.bias": 10.0, "norm.weight": 0.1}

# Nearly uniform matrices make all blocks nearly equal, and the next norm takes small differences of large sums.
LIVELY_MATRICES = {"conv_p.weight": 10.0, "conv_q.weight": 10.0}

CASES: tuple[Case, ...] = (
    Case(
        "NonLocalAttention",
        "blocks.non_local",
        (a_map(2, 11, 5, 7),),
        (MAP,),
        {"in_channels": 11, "rd_channels": 3},
        gains=STEADY_MEAN,
    ),
    Case(
        "NonLocalAttention, sub-sampled",
        "blocks.non_local",
        (a_map(2, 7, 5, 4),),
        (MAP,),
        {"in_channels": 7, "rd_channels": 3, "scale": 1.0, "sub_sample": True},
        gains=STEADY_MEAN,
    ),
    Case("DANetPositionAttention", "blocks.danet", (a_map(2, 17, 5, 7),), (MAP,), {"in_dim": 17}),
    Case("DANetChannelAttention", "blocks.danet", (a_map(2, 5, 7, 3),), (MAP,), {"in_dim": 5}, draw=2),
    Case("CrissCrossAttention", "blocks.criss_cross", (a_map(2, 17, 5, 7),), (MAP,), {"in_dim": 17}),
    Case(
        "AxialAttention",
        "blocks.axial",
        (a_map(2, 6, 5, 7),),
        (MAP,),
        {"dim": 6, "heads": 3},
    ),
    Case(
        "AxialAttention, one axis after the other",
        "blocks.axial",
        (a_map(2, 7, 5, 3),),
        (MAP,),
        {"dim": 7, "heads": 2, "dim_heads": 5, "sum_axial_out": False},
    ),
    Case(
        "DoubleAttention",
        "blocks.double",
        (a_map(2, 11, 5, 7),),
        (MAP,),
        {"in_channels": 11, "c_m": 7, "c_n": 3},
    ),
    Case(
        "DoubleAttention, without the last convolution",
        "blocks.double",
        (a_map(2, 5, 7, 3),),
        (MAP,),
        {"in_channels": 5, "c_m": 3, "c_n": 2, "reconstruct": False},
    ),
    Case(
        "BatNonLocal",
        "blocks.bilinear",
        (a_map(3, 7, 6, 9),),
        (MAP,),
        {"in_channels": 7, "block_size": 3, "rd_channels": 4},
        gains=LIVELY_MATRICES,
    ),
)
