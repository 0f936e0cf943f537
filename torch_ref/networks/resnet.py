"""ResNets with attention, in torchvision's layout and with its names (He et al. 2016)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Attention = Callable[..., nn.Module]  # of the channels, and in place of a convolution of out_channels and stride


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; attention on the branch, or in place of the first convolution."""

    def __init__(
        self,
        in_planes: int,
        planes: int,
        stride: int = 1,
        attention: Attention | None = None,
        place: str = "branch",
        stride_in: str = "3x3",
    ) -> None:
        super().__init__()
        if place == "convolution" and attention is not None:
            self.conv1, self.bn1 = attention(in_planes, out_channels=planes, stride=stride), None
        else:
            self.conv1, self.bn1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.attention = attention(planes) if attention is not None and place == "branch" else None
        self.downsample = shortcut(in_planes, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = convolved(self.conv1, self.bn1, x)
        out = self.bn2(self.conv2(out))
        return added(self, out, x)


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones, and a shortcut; attention on the branch, or in its place."""

    def __init__(
        self,
        in_planes: int,
        planes: int,
        stride: int = 1,
        attention: Attention | None = None,
        place: str = "branch",
        stride_in: str = "3x3",
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(in_planes, planes, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        if place == "convolution" and attention is not None:
            self.conv2, self.bn2 = attention(planes, out_channels=planes, stride=second), None
        else:
            self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, second, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.attention = attention(4 * planes) if attention is not None and place == "branch" else None
        self.downsample = shortcut(in_planes, 4 * planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(convolved(self.conv2, self.bn2, out)))
        return added(self, out, x)


def shortcut(in_planes: int, planes: int, stride: int) -> nn.Module | None:
    """A 1x1 convolution where the branch changes the shape."""
    if stride == 1 and in_planes == planes:
        return None
    return nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))


def convolved(conv: nn.Module, norm: nn.Module | None, x: Tensor) -> Tensor:
    """A convolution with norm and ReLU, or attention in their place, which has its own."""
    return conv(x) if norm is None else torch.relu(norm(conv(x)))


def added(block: Any, out: Tensor, x: Tensor) -> Tensor:
    """Applies the attention of a block to its branch and adds the shortcut."""
    out = out if block.attention is None else block.attention(out)
    return torch.relu(out + (x if block.downsample is None else block.downsample(x)))


DEPTHS: dict[int, tuple[type[nn.Module], int, tuple[int, ...]]] = {
    18: (BasicBlock, 1, (2, 2, 2, 2)),
    34: (BasicBlock, 1, (3, 4, 6, 3)),
    50: (Bottleneck, 4, (3, 4, 6, 3)),
    101: (Bottleneck, 4, (3, 4, 23, 3)),
    152: (Bottleneck, 4, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """Classifies images (b, 3, h, w): a 7x7 stem, four stages, global average pooling and a linear layer."""

    def __init__(
        self,
        depth: int,
        attention: Attention | None = None,
        num_classes: int = 1000,
        place: str | None = None,
        stride_in: str = "3x3",
        in_channels: int = 3,
        attention_args: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__()
        block, expansion, lengths = DEPTHS[depth]
        place = "branch" if place is None else place
        every = attention_args if isinstance(attention_args, Mapping) else {}
        args_of = [every] * 4 if isinstance(attention_args, Mapping) or not attention_args else attention_args
        self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        width = 64
        for stage, (length, args) in enumerate(zip(lengths, args_of, strict=True), 1):
            planes = 32 * 2**stage
            given = None if attention is None else partial(attention, **args)
            blocks = []
            for number in range(length):
                stride = 2 if stage > 1 and number == 0 else 1
                inside = None if place == "stages" else given
                blocks.append(block(width, planes, stride, inside, place, stride_in))
                width = expansion * planes
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            between = given(width) if given is not None and place == "stages" and stage < 4 else None
            setattr(self, f"attention{stage}", between)
        self.fc = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> Tensor:
        """The last map, (b, c, h / 32, w / 32)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            between = getattr(self, f"attention{stage}")
            x = x if between is None else between(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
