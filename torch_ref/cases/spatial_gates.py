"""The cases of gates that also see the places of a map."""

from .case import MAP, Case, Input, a_map

# Where a map is zero, the first norm of BAM's spatial branch sees its convolution's bias everywhere. PyTorch multiplies
# it by 1 / sqrt(eps) before it takes it away, and what rounding leaves of that the next norm enlarges as much again.
SMALL_BIAS = {"gate_s_conv_reduce0.bias": 0.1}

CASES: tuple[Case, ...] = (
    Case(
        "BAM",
        "blocks.bam",
        (a_map(3, 17, 7, 11),),
        (MAP,),
        {"gate_channel": 17, "reduction_ratio": 5},
        gains=SMALL_BIAS,
        draw=4,
    ),
    Case(
        "BAM, sum",
        "blocks.bam",
        (a_map(3, 13, 5, 7),),
        (MAP,),
        {
            "gate_channel": 13,
            "reduction_ratio": 6,
            "num_layers": 2,
            "dilation_conv_num": 1,
            "dilation_val": 2,
            "combine": "sum",
        },
        gains=SMALL_BIAS,
        draw=7,
    ),
    Case("SCSE", "blocks.scse", (a_map(2, 11, 5, 7),), (MAP,), {"in_channels": 11, "reduction": 3}),
    Case(
        "SCSE, maximum",
        "blocks.scse",
        (a_map(2, 11, 5, 7, kind="zeros"),),
        (MAP,),
        {"in_channels": 11, "reduction": 2, "combine": "max"},
        draw=1,
    ),
    Case("CoordinateAttention", "blocks.coordinate", (a_map(3, 13, 5, 7),), (MAP,), {"channels": 13}),
    Case(
        "CoordinateAttention, without bias",
        "blocks.coordinate",
        (a_map(3, 13, 7, 5),),
        (MAP,),
        {"channels": 13, "rd_channels": 3, "bias": False, "has_skip": True},
    ),
    Case("TripletAttention", "blocks.triplet", (a_map(2, 5, 11, 7, kind="ties"),), (MAP,)),
    Case(
        "TripletAttention, without spatial gate",
        "blocks.triplet",
        (a_map(2, 7, 5, 11),),
        (MAP,),
        {"no_spatial": True},
    ),
    Case("ShuffleAttention", "blocks.shuffle", (a_map(2, 30, 5, 7),), (MAP,), {"channels": 30, "groups": 3}),
    Case(
        "ParallelPolarizedSelfAttention",
        "blocks.polarized",
        (a_map(2, 13, 5, 7),),
        (MAP,),
        {"channels": 13},
        zero_gradients=("ch_wq.bias",),  # the same for all places, which a softmax over them cancels
    ),
    Case(
        "SequentialPolarizedSelfAttention",
        "blocks.polarized",
        (a_map(2, 13, 5, 7),),
        (MAP,),
        {"channels": 13},
        zero_gradients=("ch_wq.bias",),  # the same for all places, which a softmax over them cancels
    ),
    Case("EfficientLocalAttention", "blocks.local", (a_map(2, 3, 11, 13),), (MAP,), {"channels": 3}),
    Case(
        "EfficientLocalAttention, with bias",
        "blocks.local",
        (a_map(2, 3, 5, 7),),
        (MAP,),
        {"channels": 3, "kernel_size": 3, "bias": True, "has_skip": True},
    ),
    Case("StripAttention", "blocks.strip", (a_map(2, 3, 5, 7),), (MAP,), {"channels": 3}),
    Case(
        "StripAttention, with bias",
        "blocks.strip",
        (a_map(2, 3, 7, 11),),
        (MAP,),
        {"channels": 3, "kernel_size": 5, "bias": True, "has_skip": True},
    ),
    Case(
        "StripAttention, without parameters",
        "blocks.strip",
        (a_map(2, 3, 7, 5),),
        (MAP,),
        {"channels": 3, "use_conv": False},
    ),
    Case(
        "UFOAttention",
        "blocks.ufo",
        (Input((2, 5, 12)), Input((2, 7, 12)), Input((2, 7, 12))),
        (None,),
        {"d_model": 12, "d_k": 5, "d_v": 11, "h": 3},
    ),
)
