"""The originals of ResNets, small images, with few classes."""

from dataclasses import replace
from typing import Any

import torch

from ..cases import MAP, Input
from .original import Original, with_momentum

IMAGES: dict[str, Any] = {"inputs": (Input((2, 3, 64, 64), MAP),), "outputs": (None,)}

MORE_IMAGES = {**IMAGES, "inputs": (Input((5, 3, 64, 64), MAP),)}  # for gates with norms over them


def pytorchcv(cls: Any, **args: Any) -> torch.nn.Module:
    """One of pytorchcv's networks, whose last pool takes any map; with the momentum of CBAM's authors."""
    network = untouched(cls, **args)
    network.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    return network


def untouched(cls: Any, **args: Any) -> torch.nn.Module:
    """One of pytorchcv's networks, with the momentum of CBAM's authors."""
    network = with_momentum(0.1)(cls, **args)
    for name, module in network.named_modules():
        if name.endswith("sp_gate.conv.bn"):
            module.momentum = 0.01
    return network


SMALL: tuple[Original, ...] = (
    Original("ResNet", {"depth": 18, "num_classes": 5}, "torchvision.models:resnet18", {"num_classes": 5}, **IMAGES),
    Original("ResNet", {"depth": 50, "num_classes": 5}, "torchvision.models:resnet50", {"num_classes": 5}, **IMAGES),
    Original(
        "ResNet",
        {"depth": 18, "num_classes": 5},
        "pytorchcv.models.resnet:resnet18",
        {"num_classes": 5},
        names="pytorchcv.ResNet",
        build=pytorchcv,
        **IMAGES,
    ),
    Original(
        "ResNet",
        {"depth": 50, "num_classes": 5, "stride_in": "1x1"},
        "pytorchcv.models.resnet:resnet50",
        {"num_classes": 5},
        names="pytorchcv.ResNet",
        build=pytorchcv,
        **IMAGES,
    ),
    Original(
        "ResNet",
        {"depth": 18, "attention": "cbam_spatial", "num_classes": 5},
        "pytorchcv.models.cbamresnet:cbam_resnet18",
        {"num_classes": 5},
        names="pytorchcv.CbamResNet",
        build=pytorchcv,
        **IMAGES,
    ),
    Original(
        "ResNet",
        {"depth": 18, "attention": "squeeze_excite", "attention_args": {"rd_divisor": 1}, "num_classes": 5},
        "pytorchcv.models.seresnet:seresnet18",
        {"num_classes": 5},
        names="pytorchcv.SEResNet",
        build=pytorchcv,
        **IMAGES,
    ),
    Original(
        "ResNet",
        {"depth": 18, "attention": "squeeze_excite", "num_classes": 5},
        "timm.models:seresnet18",
        {"num_classes": 5},
        names="timm.ResNet",
        **IMAGES,
    ),
    Original(
        "ResNet",
        {"depth": 18, "attention": "bam", "place": "stages", "num_classes": 5},
        "pytorchcv.models.bamresnet:bam_resnet18",
        {"num_classes": 5},
        names="pytorchcv.BamResNet",
        build=pytorchcv,
        **MORE_IMAGES,
    ),
    Original(
        "ResNet",
        {
            "depth": 18,
            "attention": "selective_kernel",
            "attention_args": {"rd_ratio": 1 / 8, "rd_divisor": 16},
            "num_classes": 5,
        },
        "timm.models:skresnet18",
        {"num_classes": 5},
        names="timm.SKResNet",
        **MORE_IMAGES,
    ),
    Original(
        "ResNet",
        {"depth": 18, "attention": "eca", "num_classes": 5},
        "timm.models:resnet18",
        {"num_classes": 5, "block_args": {"attn_layer": "eca"}},
        names="timm.ResNet",
        only="eca",
        **IMAGES,
    ),
    Original(
        "ResNet",
        {"depth": 50, "attention": "cbam_spatial", "num_classes": 5},
        "pytorchcv.models.cbamresnet:cbam_resnet50",
        {"num_classes": 5},
        names="pytorchcv.CbamResNet",
        build=pytorchcv,
        **IMAGES,
    ),
    Original(
        "ResNet",
        {"depth": 50, "attention": "squeeze_excite", "attention_args": {"rd_divisor": 1}, "num_classes": 5},
        "pytorchcv.models.seresnet:seresnet50b",
        {"num_classes": 5},
        names="pytorchcv.SEResNet",
        build=pytorchcv,
        **IMAGES,
    ),
    Original(
        "ResNet",
        {"depth": 50, "attention": "selective_kernel", "num_classes": 5},
        "timm.models:skresnet50",
        {"num_classes": 5},
        names="timm.SKResNet",
        **MORE_IMAGES,
    ),
)
# With the last pool as it stands in the package, which wants larger images.
LARGE = ("pytorchcv.models.resnet:resnet18", "pytorchcv.models.cbamresnet:cbam_resnet18")
ORIGINALS = (
    *SMALL,
    *(
        replace(one, inputs=(Input((1, 3, 224, 224), MAP),), only="224x224", build=untouched)
        for one in SMALL
        if one.path in LARGE
    ),
)
