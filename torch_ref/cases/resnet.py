"""The cases of ResNets and of their blocks."""

from .case import MAP, Case, a_map

CASES: tuple[Case, ...] = (
    Case(
        "BasicBlock",
        "networks.resnet",
        (a_map(3, 5, 7, 11),),
        (MAP,),
        {"in_planes": 5, "planes": 8, "stride": 2, "attention": "eca"},
    ),
    Case("BasicBlock, plain", "networks.resnet", (a_map(3, 5, 7, 11),), (MAP,), {"in_planes": 5, "planes": 5}),
    Case(
        "Bottleneck",
        "networks.resnet",
        (a_map(3, 5, 7, 11),),
        (MAP,),
        {"in_planes": 5, "planes": 3, "stride": 2, "attention": "eca"},
    ),
    Case(
        "Bottleneck, stride in the first",
        "networks.resnet",
        (a_map(3, 5, 7, 11),),
        (MAP,),
        {"in_planes": 5, "planes": 3, "stride": 2, "stride_in": "1x1"},
        draw=1,
    ),
    Case(
        "ResNet",
        "networks.resnet",
        (a_map(3, 3, 37, 70),),
        (None,),
        {"depth": 18, "attention": "eca", "num_classes": 5},
    ),
)
