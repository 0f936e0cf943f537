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
)
