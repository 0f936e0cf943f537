"""The cases of gates that are computed from the pooled map."""

from .case import MAP, Case, a_map

CASES: tuple[Case, ...] = (
    Case("SqueezeExcite", "blocks.squeeze_excite", (a_map(3, 13, 5, 7),), (MAP,), {"channels": 13}),
    Case(
        "SqueezeExcite, narrow and without bias",
        "blocks.squeeze_excite",
        (a_map(3, 11, 5, 7),),
        (MAP,),
        {"channels": 11, "rd_channels": 3, "bias": False},
    ),
    Case("EffectiveSqueezeExcite", "blocks.squeeze_excite", (a_map(3, 11, 5, 7),), (MAP,), {"channels": 11}),
    Case("SimAM", "blocks.simam", (a_map(3, 5, 7, 11),), (MAP,)),
    Case("SpatialGroupEnhance", "blocks.spatial_group", (a_map(3, 10, 7, 11),), (MAP,), {"groups": 2}, draw=1),
    Case("GatedChannelTransformation", "blocks.gct", (a_map(3, 11, 5, 7),), (MAP,), {"num_channels": 11}),
    Case(
        "GatedChannelTransformation, l1",
        "blocks.gct",
        (a_map(3, 11, 5, 7),),
        (MAP,),
        {"num_channels": 11, "mode": "l1"},
    ),
    Case(
        "GatedChannelTransformation, l1 after a ReLU",
        "blocks.gct",
        (a_map(3, 11, 5, 7),),
        (MAP,),
        {"num_channels": 11, "mode": "l1", "after_relu": True},
    ),
)
