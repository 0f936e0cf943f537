"""The cases of attention between the places or the channels of a map."""

from .case import MAP, Case, a_map

CASES: tuple[Case, ...] = (
    Case(
        "NonLocalAttention",
        "blocks.non_local",
        (a_map(2, 11, 5, 7),),
        (MAP,),
        {"in_channels": 11, "rd_channels": 3},
        zero_gradients=("p.bias",),
    ),
    Case(
        "NonLocalAttention, sub-sampled",
        "blocks.non_local",
        (a_map(2, 7, 5, 4),),
        (MAP,),
        {"in_channels": 7, "rd_channels": 3, "scale": 1.0, "sub_sample": True},
    ),
)
