"""Networks as people port them, in PyTorch and in Flax: a ResNet-50 with CBAM, and a small one with everything.

`Choices` are what a port may get wrong; the defaults are right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx
from torch import nn

import flax_attn
from flax_attn import ops
from flax_attn.layers import BatchNorm, Conv, Linear
from torch_ref.blocks.cbam import CBAM

MAP = "b c h w -> b h w c"
RESNET50 = (3, 4, 6, 3)


@dataclass(frozen=True)
class Choices:
    """What a port decides: by default as PyTorch does."""

    norm: Callable[..., Any] = BatchNorm
    group_eps: float = 1e-5
    padding: Any = 1  # of the convolutions at stride 2
    pool_padding: Any = ((1, 1), (1, 1))
    rate: float = 0.3
    gelu: Callable[..., Any] = ops.gelu if hasattr(ops, "gelu") else lambda x: nnx.gelu(x, approximate=False)
    heads: int = 2
    norm_first: bool = False
    relu: Callable[..., Any] = ops.relu  # between the last block and the head
    flatten: str = "c h w"
    project: Callable[..., Any] = Linear  # a square layer
    swap: bool = False  # query and key
    bias: bool = True  # of the first convolution


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with scales, means and variances as after some training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() < 2:
                unit = torch.rand(tensor.shape, generator=generator)
                positive = name.endswith(("weight", "running_var"))
                tensor.copy_(0.5 + unit if positive else unit - 0.5)
    return module


# ResNet-50 with CBAM, named as torchvision's


class TorchBottleneck(nn.Module):
    def __init__(self, planes_in, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.relu = nn.ReLU(inplace=True)
        self.cbam = CBAM(4 * planes, no_spatial=False)
        self.downsample = None
        if stride > 1 or planes_in != 4 * planes:
            convolution = nn.Conv2d(planes_in, 4 * planes, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(4 * planes))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.cbam(self.bn3(self.conv3(y)))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class TorchResNet(nn.Module):
    def __init__(self, depths=RESNET50, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        planes_in = 64
        for i, depth in enumerate(depths):
            blocks = []
            for j in range(depth):
                planes = 64 * 2**i
                blocks.append(TorchBottleneck(planes_in, planes, 2 if i and not j else 1))
                planes_in = 4 * planes
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(planes_in, classes)
        self.layers = len(depths)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(self.layers):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def max_pool(x, padding):
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


class FlaxBottleneck(nnx.Module):
    def __init__(self, planes_in, planes, stride, choices, rngs):
        def conv(*args, **options):
            return Conv(*args, use_bias=False, rngs=rngs, **options)

        self.conv1 = conv(planes_in, planes, (1, 1))
        self.bn1 = choices.norm(planes, rngs=rngs)
        if isinstance(choices.padding, str) and stride > 1:
            options = {"padding": choices.padding, "strides": stride, "use_bias": False}
            self.conv2 = nnx.Conv(planes, planes, (3, 3), rngs=rngs, **options)
        else:
            self.conv2 = conv(planes, planes, (3, 3), stride=stride, padding=1)
        self.bn2 = choices.norm(planes, rngs=rngs)
        self.conv3 = conv(planes, 4 * planes, (1, 1))
        self.bn3 = choices.norm(4 * planes, rngs=rngs)
        self.cbam = flax_attn.CBAM(4 * planes, no_spatial=False, rngs=rngs)
        self.downsample = nnx.data(None)
        if stride > 1 or planes_in != 4 * planes:
            convolution = conv(planes_in, 4 * planes, (1, 1), stride=stride)
            self.downsample = nnx.Sequential(convolution, choices.norm(4 * planes, rngs=rngs))

    def __call__(self, x):
        y = ops.relu(self.bn1(self.conv1(x)))
        y = ops.relu(self.bn2(self.conv2(y)))
        y = self.cbam(self.bn3(self.conv3(y)))
        return ops.relu(y + (x if self.downsample is None else self.downsample(x)))


class FlaxResNet(nnx.Module):
    def __init__(self, depths=RESNET50, classes=10, choices=None):
        rngs, self.choices = nnx.Rngs(0), choices or Choices()
        self.conv1 = Conv(3, 64, (7, 7), stride=2, padding=3, use_bias=False, rngs=rngs)
        self.bn1 = self.choices.norm(64, rngs=rngs)
        planes_in = 64
        for i, depth in enumerate(depths):
            blocks = []
            for j in range(depth):
                planes = 64 * 2**i
                blocks.append(FlaxBottleneck(planes_in, planes, 2 if i and not j else 1, self.choices, rngs))
                planes_in = 4 * planes
            setattr(self, f"layer{i + 1}", nnx.Sequential(*blocks))
        self.fc = Linear(planes_in, classes, rngs=rngs)
        self.layers = len(depths)

    def __call__(self, x):
        x = max_pool(ops.relu(self.bn1(self.conv1(x))), self.choices.pool_padding)
        for i in range(self.layers):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(x.mean((1, 2)))


def resnet(depths=RESNET50, choices=None, batch=2, size=64):
    """The pair, its inputs, and the options of `compare`."""
    torch.manual_seed(0)
    with jax.default_prng_impl("rbg"):
        ours = FlaxResNet(depths, choices=choices)
    x = np.random.default_rng(0).standard_normal((batch, 3, size, size))
    return ours, TorchResNet(depths), x, {"layouts": {"inputs": [MAP]}}
