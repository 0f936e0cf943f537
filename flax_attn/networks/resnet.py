"""ResNets that carry any attention block from map to map, and load the checkpoints that others published.

He, Zhang, Ren & Sun, "Deep residual learning for image recognition", CVPR 2016: ``relu(x + F(x))`` with F two 3x3
convolutions, or a 3x3 between two 1x1 ones. Layout, names and initial values are torchvision's. Where attention goes:

- "branch": on F's output behind its last norm, before the addition, ``relu(x + attention(F(x)))``, as
  squeeze-and-excitation, ECA and CBAM have it.
- "convolution": in place of a 3x3 convolution with its norm and ReLU, as in SKNet.
- "stages": behind each stage but the last, as BAM.

What loads in silence and computes another function: a checkpoint of a network that halves its maps in the first 1x1
convolution, as pytorchcv's ``resnet50`` (not ``resnet50b``) and Caffe's do, has the same names and shapes as
torchvision's; it needs ``stride_in="1x1"``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_choice, check_positive, check_shape
from ..layers import BatchNorm, Conv, Linear, MaxPool
from ..options import Options, check_options
from ..registry import BLOCKS, PLACES, find_block

Attention = Callable[..., nnx.Module]


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut, with attention on the branch or in place of the first convolution.

    Args:
        in_planes: Number of input channels.
        planes: Number of output channels.
        stride: Stride of the first convolution and of the shortcut.
        attention: Name of a block from map to map, or a function of the number of channels that makes one; None for
            none. In place of a convolution it also takes ``out_channels`` and ``stride``.
        place: "branch" or "convolution".
        stride_in: Only for `Bottleneck`.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, an attention block or its place is unknown, or the block cannot stand there.

    Example:
        >>> BasicBlock(8, 16, 2, "eca", rngs=nnx.Rngs(0))(jnp.ones((2, 7, 9, 8))).shape
        (2, 4, 5, 16)
    """

    expansion = 1

    def __init__(
        self,
        in_planes: int,
        planes: int,
        stride: int = 1,
        attention: str | Attention | None = None,
        place: str = "branch",
        stride_in: str = "3x3",
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_choice("place", place, ("branch", "convolution"))
        make = _maker(attention, place, {}, rngs, options)
        conv, norm = partial(_conv, rngs=rngs, **options), partial(BatchNorm, rngs=rngs, **options)
        self.in_planes, self.dtype = in_planes, options.get("dtype")
        if make is not None and place == "convolution":
            self.conv1, self.bn1 = make(in_planes, out_channels=planes, stride=stride), nnx.data(None)
        else:
            self.conv1, self.bn1 = conv(in_planes, planes, 3, stride), nnx.data(norm(planes))
        self.conv2, self.bn2 = conv(planes, planes, 3), norm(planes)
        self.attention = nnx.data(make(planes) if make is not None and place == "branch" else None)
        self.downsample = nnx.data(_shortcut(in_planes, planes, stride, rngs, options))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, h, w, in_planes) to (b, h / stride, w / stride, planes)."""
        check_shape("x", x, "b h w c", c=self.in_planes)
        x = ops.cast(x, self.dtype)
        out = _convolved(self.conv1, self.bn1, x)
        return _added(self, self.bn2(self.conv2(out)), x)


class Bottleneck(nnx.Module):
    """A 3x3 convolution between two 1x1 ones and a shortcut, with attention on the branch or in place of the 3x3.

    Args:
        in_planes: Number of input channels.
        planes: Number of channels of the 3x3 convolution; the block returns four times as many.
        stride: Stride of the block.
        attention: Name of a block from map to map, or a function of the number of channels that makes one; None for
            none. In place of a convolution it also takes ``out_channels`` and ``stride``.
        place: "branch" or "convolution".
        stride_in: Which convolution has the stride: "3x3", as in torchvision, or the first "1x1", as in the paper.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, an attention block, its place or ``stride_in`` is unknown, or the block cannot
            stand there.

    Example:
        >>> Bottleneck(8, 4, 2, "eca", rngs=nnx.Rngs(0))(jnp.ones((2, 7, 9, 8))).shape
        (2, 4, 5, 16)
    """

    expansion = 4

    def __init__(
        self,
        in_planes: int,
        planes: int,
        stride: int = 1,
        attention: str | Attention | None = None,
        place: str = "branch",
        stride_in: str = "3x3",
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_choice("stride_in", stride_in, ("3x3", "1x1"))
        check_choice("place", place, ("branch", "convolution"))
        make = _maker(attention, place, {}, rngs, options)
        conv, norm = partial(_conv, rngs=rngs, **options), partial(BatchNorm, rngs=rngs, **options)
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.in_planes, self.dtype = in_planes, options.get("dtype")
        self.conv1, self.bn1 = conv(in_planes, planes, 1, first), norm(planes)
        if make is not None and place == "convolution":
            self.conv2, self.bn2 = make(planes, out_channels=planes, stride=second), nnx.data(None)
        else:
            self.conv2, self.bn2 = conv(planes, planes, 3, second), nnx.data(norm(planes))
        self.conv3, self.bn3 = conv(planes, 4 * planes, 1), norm(4 * planes)
        self.attention = nnx.data(make(4 * planes) if make is not None and place == "branch" else None)
        self.downsample = nnx.data(_shortcut(in_planes, 4 * planes, stride, rngs, options))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, h, w, in_planes) to (b, h / stride, w / stride, 4 planes)."""
        check_shape("x", x, "b h w c", c=self.in_planes)
        x = ops.cast(x, self.dtype)
        out = _convolved(self.conv2, self.bn2, ops.relu(self.bn1(self.conv1(x))))
        return _added(self, self.bn3(self.conv3(out)), x)


DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nnx.Module):
    """Classifies images by a ResNet with attention or none: a 7x7 stem, four stages, mean pooling and a linear layer.

    Args:
        depth: 18, 34, 50, 101 or 152.
        attention: Name of a block of kind "gate" (`flax_attn.registry.Entry`), which maps (b, h, w, c) to the same
            shape, or a function of the number of channels that makes such a block; None for none.
        num_classes: Number of classes.
        place: Where attention goes, "branch", "convolution" or "stages"; None for where the block's paper has it.
        stride_in: Which convolution of a bottleneck halves the maps: "3x3", as in torchvision, or the first "1x1".
        in_channels: Number of channels of the images.
        attention_args: Further arguments of the block, for all stages or one mapping for each of the four. A block
            whose parameters depend on the size of its map needs ``feat_size`` for each stage: for images (h, w) those
            are h / 4, h / 8, h / 16 and h / 32 rounded up, and so for w.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If the depth, the block, its place or ``stride_in`` is unknown, the block is of another kind,
            cannot stand there or lacks the size of its map, there are not four mappings of arguments, or there are
            some, or a place, without a block.

    Example:
        >>> network = nnx.eval_shape(lambda: ResNet(50, "eca", rngs=nnx.Rngs(0)))
        >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
        25557118
    """

    def __init__(
        self,
        depth: int,
        attention: str | Attention | None = None,
        num_classes: int = 1000,
        place: str | None = None,
        stride_in: str = "3x3",
        in_channels: int = 3,
        attention_args: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_choice("depth", depth, tuple(DEPTHS))
        check_positive(num_classes=num_classes, in_channels=in_channels)
        if attention is None and (attention_args or place is not None):
            given = f"place={place!r}" if place is not None else f"attention_args={attention_args}"
            raise ValueError(f"attention must be given for {given} to matter, got None")
        if place is None:
            place = find_block(attention).place if isinstance(attention, str) else "branch"
        check_choice("place", place, PLACES)
        block, lengths = DEPTHS[depth]
        self.in_channels = in_channels
        self.conv1 = _conv(in_channels, 64, 7, 2, rngs=rngs, **options)
        self.bn1 = BatchNorm(64, rngs=rngs, **options)
        self.maxpool = MaxPool(3, 2, 1)
        width = 64
        for stage, (length, args) in enumerate(zip(lengths, _per_stage(attention_args), strict=True), 1):
            planes = 32 * 2**stage
            make = _maker(attention, place, args, rngs, options)
            inside, where = (None, "branch") if place == "stages" else (make, place)
            blocks = []
            for number in range(length):
                stride = 2 if stage > 1 and number == 0 else 1
                blocks.append(block(width, planes, stride, inside, where, stride_in, rngs=rngs, **options))
                width = block.expansion * planes
            setattr(self, f"layer{stage}", nnx.Sequential(*blocks))
            between = make(width) if make is not None and place == "stages" and stage < len(lengths) else None
            setattr(self, f"attention{stage}", nnx.data(between))
        self.fc = Linear(width, num_classes, rngs=rngs, **options)
        init = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # as torchvision's
        for _, conv in nnx.iter_modules(self):
            if isinstance(conv, Conv) and len(conv.kernel_size) == 2:
                conv.kernel[...] = init(rngs.params(), conv.kernel.shape, conv.kernel.dtype)

    def features(self, x: jax.Array) -> jax.Array:
        """The last map, (b, h / 32, w / 32, c), of images (b, h, w, in_channels)."""
        check_shape("x", x, "b h w c", c=self.in_channels)
        x = self.maxpool(ops.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            between = getattr(self, f"attention{stage}")
            x = x if between is None else _attended(between, x)
        return x

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (b, h, w, in_channels) to logits (b, num_classes)."""
        return self.fc(jnp.mean(self.features(x), axis=(1, 2)))


# Kernels of the authors' published weights, stage by stage; for 50 they are not those of the paper's formula.
_ECA_KERNELS = {18: (3, 5, 7, 7), 34: (3, 3, 5, 7), 50: (3, 5, 5, 7), 101: (3, 3, 5, 7), 152: (3, 3, 5, 7)}


def _published() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for depth in DEPTHS:
        eca = [{"channels": None, "kernel_size": size} for size in _ECA_KERNELS[depth]]
        found[f"resnet{depth}"] = {"depth": depth}
        found[f"seresnet{depth}"] = {
            "depth": depth,
            "attention": "squeeze_excite",
            "attention_args": {"rd_divisor": 1},
        }
        found[f"cbam_resnet{depth}"] = {"depth": depth, "attention": "cbam_spatial"}
        found[f"bam_resnet{depth}"] = {"depth": depth, "attention": "bam"}
        found[f"eca_resnet{depth}"] = {"depth": depth, "attention": "eca", "attention_args": eca}
        few = {"rd_ratio": 1 / 8, "rd_divisor": 16} if depth < 50 else {}
        found[f"skresnet{depth}"] = {"depth": depth, "attention": "selective_kernel", "attention_args": few}
    return found


RESNETS: Mapping[str, Mapping[str, Any]] = _published()
"""The arguments of the published networks, by name: `create_resnet`."""


def create_resnet(name: str, num_classes: int = 1000, *, rngs: nnx.Rngs, **arguments: Any) -> ResNet:
    """Creates a published ResNet by name, such as ``seresnet50``.

    Args:
        name: One of `RESNETS`: ``resnet``, ``seresnet``, ``cbam_resnet``, ``bam_resnet``, ``eca_resnet`` and
            ``skresnet``, each with 18, 34, 50, 101 or 152.
        num_classes: Number of classes.
        rngs: As for `ResNet`.
        **arguments: Of `ResNet`, in place of the published ones, and options (`flax_attn.Options`).

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> network = nnx.eval_shape(lambda: create_resnet("cbam_resnet18", 10, rngs=nnx.Rngs(0)))
        >>> type(network.layer1.layers[0].attention).__name__
        'CBAM'
    """
    check_choice("name", name, tuple(RESNETS))
    return ResNet(**{**RESNETS[name], "num_classes": num_classes, **arguments}, rngs=rngs)


def _conv(channels: int, planes: int, size: int, stride: int = 1, **more: Any) -> Conv:
    return Conv(channels, planes, size, stride, size // 2, bias=False, **more)


def _shortcut(in_planes: int, planes: int, stride: int, rngs: nnx.Rngs, options: Options) -> nnx.Sequential | None:
    if stride == 1 and in_planes == planes:
        return None
    conv = _conv(in_planes, planes, 1, stride, rngs=rngs, **options)
    return nnx.Sequential(conv, BatchNorm(planes, rngs=rngs, **options))


def _maker(
    attention: str | Attention | None, place: str, args: Mapping[str, Any], rngs: nnx.Rngs, options: Options
) -> Attention | None:
    """A function of the number of channels, and further arguments, that makes the attention block."""
    if not isinstance(attention, str):
        return None if attention is None else partial(attention, **args)
    entry = find_block(attention)
    if entry.kind != "gate":
        raise ValueError(
            f"attention must be a block of kind 'gate', from map to map, got {attention!r} of kind {entry.kind!r}"
        )
    if place == "convolution" and entry.place != place:
        known = ", ".join(repr(one.name) for one in BLOCKS if one.place == place)
        raise ValueError(f"attention in place of a convolution must be one of {known}, got {attention!r}")

    size = args.get("feat_size")
    if entry.needs_size and size is None:
        raise ValueError(
            f"attention_args of a ResNet must have feat_size, the map's height and width, for {attention!r}, "
            f"got {dict(args)}"
        )

    def make(channels: int, **more: Any) -> nnx.Module:
        return entry.block(**{**entry.arguments_for(channels, size), **more, **args, **options, "rngs": rngs})

    return make


def _per_stage(args: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    if isinstance(args, Mapping):
        return [args] * 4
    if not args:
        return [{}] * 4
    if len(args) != 4:
        raise ValueError(f"attention_args must be one mapping or one for each of 4 stages, got {len(args)}")
    return args


def _convolved(conv: Any, norm: Any, x: jax.Array) -> jax.Array:
    """A convolution with norm and ReLU, or attention in their place, which has its own."""
    out: jax.Array = conv(x) if norm is None else ops.relu(norm(conv(x)))
    return out


def _attended(attention: Any, x: jax.Array) -> jax.Array:
    """Applies attention, which must keep the shape: a smaller one would be broadcast in silence."""
    out: jax.Array = attention(x)
    check_shape("the attention's output", out, "b h w c", **dict(zip("bhwc", x.shape, strict=True)))
    return out


def _added(block: BasicBlock | Bottleneck, out: jax.Array, x: jax.Array) -> jax.Array:
    """Applies the attention of a block to its branch and adds the shortcut."""
    if block.attention is not None:
        out = _attended(block.attention, out)
    total: jax.Array = ops.relu(ops.add(out, x if block.downsample is None else block.downsample(x)))
    return total
