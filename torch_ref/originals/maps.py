"""The originals of attention between the places or the channels of a map."""

from .original import Original

ORIGINALS: tuple[Original, ...] = (
    Original("NonLocalAttention", {"in_channels": 32}, "timm.layers:NonLocalAttn", {"in_channels": 32}),
    Original(
        "NonLocalAttention",
        {"in_channels": 32, "scale": 1.0},
        "timm.layers:NonLocalAttn",
        {"in_channels": 32, "use_scale": False},
        only="unscaled",
    ),
    *(
        Original(
            "NonLocalAttention",
            {"in_channels": 32, "rd_ratio": 1 / 2, "scale": 1.0, "sub_sample": sub_sample},
            "AlexHex7/Non-local_pytorch/lib/non_local_embedded_gaussian.py:NONLocalBlock2D",
            {"in_channels": 32, "sub_sample": sub_sample},
            names=f"AlexHex7.NONLocalBlock2D{'' if sub_sample else ', sub_sample=False'}",
            only="" if sub_sample else "all places",
        )
        for sub_sample in (False, True)
    ),
    Original(
        "NonLocalAttention",
        {"in_channels": 32, "rd_ratio": 1 / 2, "scale": 16**-0.5},
        "BA-Transform/BAT-Image-Classification/model_zoo/non_local.py:NonLocal",
        {"inplanes": 32},
        names="BA-Transform.NonLocal",
    ),
)
