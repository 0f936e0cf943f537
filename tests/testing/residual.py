"""Networks as people port them, in PyTorch and in Flax: a ResNet-50 with CBAM, and a small one with everything.

`Choices` are what a port may get wrong; the defaults are right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

import flax_attn
from flax_attn import ops
from flax_attn.layers import BatchNorm, Conv, Dropout, LayerNorm, Linear
from torch_ref.blocks.cbam import CBAM

MAP = "b c h w -> b h w c"
RESNET50 = (3, 4, 6, 3)
SHORT = (1, 2, 1, 1)  # each stage once, and a block without downsampling
# Programs that run once: nearly all their time goes into compilation.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def attend(query, key, value, *, mask=None, **_):
    """Flax's own computes the softmax in float32."""
    root = query.shape[-1] ** 0.5
    return ops.dot_product_attention(query, key, value, temperature=root, mask=mask, need_weights=False)[0]


def exact_gelu(x):
    return nnx.gelu(x, approximate=False)


def flatten(x):
    """As PyTorch flattens b c h w."""
    return jnp.moveaxis(x, -1, 1).reshape(len(x), -1)


@dataclass(frozen=True)
class Choices:
    """What a port decides: by default as PyTorch does."""

    norm: Callable[..., Any] = BatchNorm
    group_eps: float = 1e-5
    padding: Any = 1  # of the convolutions at stride 2
    pool_padding: Any = ((1, 1), (1, 1))
    rate: float = 0.3
    gelu: Callable[..., Any] = exact_gelu
    heads: int = 2
    norm_first: bool = False
    relu: Callable[..., Any] = ops.relu  # behind the first norm
    flatten: Callable[..., Any] = flatten
    project: Callable[..., Any] = Linear  # a square layer
    swap: bool = False  # query and key
    square: Callable[..., Any] = Conv  # the one convolution of a ResNet with a 1x1 kernel and equal sizes


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
            kind = choices.square if args[0] == args[1] and args[2] == (1, 1) else Conv
            return kind(*args, bias=False, rngs=rngs, **options)

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
        self.conv1 = Conv(3, 64, (7, 7), stride=2, padding=3, bias=False, rngs=rngs)
        self.bn1 = self.choices.norm(64, rngs=rngs)
        planes_in = 64
        for i, depth in enumerate(depths):
            blocks = []
            for j in range(depth):
                planes = 64 * 2**i
                blocks.append(FlaxBottleneck(planes_in, planes, 2 if i and not j else 1, self.choices, rngs))
                planes_in = 4 * planes
            setattr(self, f"layer{i + 1}", nnx.Sequential(*blocks))
        self.fc = self.choices.project(planes_in, classes, rngs=rngs)
        self.layers = len(depths)

    def __call__(self, x):
        x = max_pool(self.choices.relu(self.bn1(self.conv1(x))), self.choices.pool_padding)
        for i in range(self.layers):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(x.mean((1, 2)))


def resnet(depths=RESNET50, choices=None, batch=2, size=64):
    """The pair, its inputs, and the options of `compare`."""
    torch.manual_seed(0)
    with jax.default_prng_impl("rbg"):
        ours = FlaxResNet(depths, choices=choices)
    x = np.random.default_rng(0).standard_normal((batch, 3, size, size))
    return ours, drawn(TorchResNet(depths)), x, {"layouts": {"inputs": [MAP]}, "compiler_options": QUICK}


# A bottleneck with GroupNorm, a transformer layer, dropout and a head


class TorchSmall(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.bn = nn.BatchNorm2d(8)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.reduce = nn.Conv2d(8, 4, 1, bias=False)
        self.groups = nn.GroupNorm(2, 4)
        self.expand = nn.Conv2d(4, 8, 1)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, activation="gelu", batch_first=True)
        self.layer.dropout.p = 0.3
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.project = nn.Linear(8, 8)
        self.fc = nn.Linear(8 * 16, 5)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn(self.conv(x))))
        x = x + self.expand(torch.relu(self.groups(self.reduce(x))))
        b, c, h, w = x.shape
        x = self.layer(x.flatten(2).transpose(1, 2))
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 8**0.5
        x = x + torch.tanh(self.project(torch.softmax(scores, -1) @ self.value(x)))
        return self.fc(x.transpose(1, 2).reshape(b, c, h, w).flatten(1))


class FlaxLayer(nnx.Module):
    def __init__(self, choices, rngs):
        self.self_attn = nnx.MultiHeadAttention(choices.heads, 8, attention_fn=attend, decode=False, rngs=rngs)
        self.linear1, self.linear2 = Linear(8, 12, rngs=rngs), Linear(12, 8, rngs=rngs)
        self.dropout = Dropout(choices.rate, rngs=rngs)
        self.norm1, self.norm2 = LayerNorm(8, rngs=rngs), LayerNorm(8, rngs=rngs)
        self.gelu, self.pre_norm = choices.gelu, choices.norm_first

    def __call__(self, x):
        if self.pre_norm:
            x = x + self.self_attn(self.norm1(x))
            return x + self.feed(self.norm2(x))
        x = self.norm1(x + self.self_attn(x))
        return self.norm2(x + self.feed(x))

    def feed(self, x):
        return self.linear2(self.dropout(self.gelu(self.linear1(x))))


class FlaxSmall(nnx.Module):
    def __init__(self, choices=None):
        rngs, self.choices = nnx.Rngs(0), choices or Choices()
        if self.choices.padding == 1:
            self.conv = Conv(3, 8, (3, 3), stride=2, padding=1, rngs=rngs)
        else:
            self.conv = nnx.Conv(3, 8, (3, 3), strides=2, padding=self.choices.padding, rngs=rngs)
        self.bn = self.choices.norm(8, rngs=rngs)
        self.reduce = Conv(8, 4, (1, 1), bias=False, rngs=rngs)
        self.groups = nnx.GroupNorm(4, 2, epsilon=self.choices.group_eps, use_fast_variance=False, rngs=rngs)
        self.expand = Conv(4, 8, (1, 1), rngs=rngs)
        self.layer = FlaxLayer(self.choices, rngs)
        self.query, self.key, self.value = (Linear(8, 8, rngs=rngs) for _ in range(3))
        self.project = self.choices.project(8, 8, rngs=rngs)
        self.fc = Linear(8 * 16, 5, rngs=rngs)

    def __call__(self, x):
        x = max_pool(self.choices.relu(self.bn(self.conv(x))), self.choices.pool_padding)
        x = x + self.expand(ops.relu(self.groups(self.reduce(x))))
        b, h, w, c = x.shape
        x = self.layer(x.reshape(b, h * w, c))
        query, key = (self.key(x), self.query(x)) if self.choices.swap else (self.query(x), self.key(x))
        scores = query @ key.mT / 8**0.5
        x = x + jnp.tanh(self.project(nnx.softmax(scores, axis=-1) @ self.value(x)))
        return self.fc(self.choices.flatten(x.reshape(b, h, w, c)))


def small(choices=None):
    """The pair, its inputs, and the options of `compare`."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((3, 3, 16, 16))
    return FlaxSmall(choices), drawn(TorchSmall()), x, {"layouts": {"inputs": [MAP]}}
