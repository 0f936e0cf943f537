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
    Case("EfficientChannelAttention", "blocks.eca", (a_map(3, 11, 5, 7),), (MAP,)),
    Case(
        "EfficientChannelAttention, circular",
        "blocks.eca",
        (a_map(3, 128, 2, 3),),
        (MAP,),
        {"channels": 128, "circular": True},
    ),
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
    Case(
        "GlobalContext",
        "blocks.global_context",
        (a_map(3, 11, 5, 7),),
        (MAP,),
        {"channels": 11, "rd_channels": 5},
        zero_gradients=("conv_attn.bias",),
    ),
    Case(
        "GlobalContext, scale and add",
        "blocks.global_context",
        (a_map(3, 11, 5, 7),),
        (MAP,),
        {"channels": 11, "fuse_add": True, "rd_channels": 5, "eps": 0.1},
        zero_gradients=("conv_attn.bias",),
    ),
    Case(
        "GlobalContext, add without attention",
        "blocks.global_context",
        (a_map(3, 11, 5, 7),),
        (MAP,),
        {"channels": 11, "use_attn": False, "fuse_add": True, "fuse_scale": False, "rd_channels": 5},
    ),
    Case("GatherExcite", "blocks.gather_excite", (a_map(3, 11, 5, 7),), (MAP,), {"channels": 11, "rd_channels": 3}),
    Case(
        "GatherExcite, windows",
        "blocks.gather_excite",
        (a_map(3, 5, 7, 11),),
        (MAP,),
        {"channels": 5, "extent": 4, "rd_channels": 3},
    ),
    Case(
        "GatherExcite, convolutions",
        "blocks.gather_excite",
        (a_map(3, 5, 7, 11),),
        (MAP,),
        {"channels": 5, "extra_params": True, "extent": 4, "use_mlp": False},
    ),
)
