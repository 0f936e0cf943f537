"""The rules of the common layers; `flax_attn.convert` lists them, with the settings that make their functions equal."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from flax import nnx

from ..blocks.multi_spectral import MultiSpectralAttention
from ..blocks.response_norm import GlobalResponseNorm
from ..layers import BatchNorm, RMSNorm
from .rules import Entry, rule

Order = Callable[[np.ndarray], np.ndarray]


def of_rank(rank: int, variable: nnx.Variable[Any]) -> nnx.Variable[Any]:
    """``variable``, which must have as many axes as the layer's own function gives it.

    Under ``nnx.vmap`` and ``nnx.scan`` it has one more, which a rule would take for an axis of the kernel.
    """
    if len(variable.shape) != rank:
        raise ValueError(
            f"its variables must be of one layer, with {rank} axes, got shape {variable.shape}; of layers stacked by "
            "nnx.vmap or nnx.scan convert one at a time (docs/checkpoints.md)"
        )
    return variable


def _optional(name: str, variable: nnx.Variable[Any] | None) -> Iterator[Entry]:
    if variable is not None:
        yield Entry(name, of_rank(1, variable))


@rule(nnx.Linear)
def _linear(layer: nnx.Linear) -> Iterator[Entry]:
    """Flax (in, out), PyTorch (out, in), or (out, in, 1, 1) of a 1x1 convolution."""
    kernel = of_rank(2, layer.kernel)
    yield Entry("weight", kernel, np.transpose, np.transpose, shapes=((*kernel.shape[::-1], 1, 1),))
    yield from _optional("bias", layer.bias)


def _flatten(kernel: np.ndarray, in_axes: int) -> np.ndarray:
    """Flax (*in, *out) to PyTorch (out, in), each flattened in C order."""
    rows = int(np.prod(kernel.shape[:in_axes]))
    return kernel.reshape(rows, kernel.size // rows).T


def flat_weight(name: str, layer: nnx.LinearGeneral) -> Entry:
    """The kernel of a LinearGeneral as the weight of a Linear."""
    in_axes = len(layer.in_features)
    kernel = of_rank(in_axes + len(layer.out_features), layer.kernel)
    shape = kernel.shape
    return Entry(name, kernel, lambda kernel: _flatten(kernel, in_axes), lambda weight: weight.T.reshape(shape))


@rule(nnx.LinearGeneral)
def _linear_general(layer: nnx.LinearGeneral) -> Iterator[Entry]:
    """As ``torch.nn.Linear(prod(in_features), prod(out_features))`` on an input with the contracted axes flattened.

    They are flattened in their order, and so is the result: ``LinearGeneral(d, (heads, k))`` is
    ``Linear(d, heads * k)`` with its output unflattened to (heads, k).
    """
    if layer.batch_axis:
        raise ValueError(f"batch_axis must be empty, as no PyTorch layer has one, got {dict(layer.batch_axis)}")
    yield flat_weight("weight", layer)
    if layer.bias is not None:
        shape = layer.bias.shape
        yield Entry("bias", of_rank(len(layer.out_features), layer.bias), np.ravel, lambda bias: bias.reshape(shape))


@rule(nnx.Conv)
def conv_entries(layer: nnx.Conv) -> Iterator[Entry]:
    """Flax (*kernel_size, in / groups, out), PyTorch (out, in / groups, *kernel_size), or (out, in) of a Linear."""
    kernel = of_rank(len(layer.kernel_size) + 2, layer.kernel)
    pointwise = set(layer.kernel_size) == {1} and layer.feature_group_count == 1
    linear = ((kernel.shape[-1], kernel.shape[-2]),) if pointwise else ()
    yield Entry("weight", kernel, _channels_first, _channels_last, shapes=linear)
    yield from _optional("bias", layer.bias)


def in_parts(name: str, layer: nnx.Conv, rows: Mapping[str, int]) -> Iterator[Entry]:
    """The entries of a convolution that may be given as several, with so many output channels each."""
    for entry in conv_entries(layer):
        parts = {f"{part}.{entry.name}": number for part, number in rows.items()}
        yield replace(entry, name=f"{name}.{entry.name}", parts=parts)


def reordered(entry: Entry, name: str, there: Order, back: Order) -> Entry:
    """The entry under another name, with PyTorch's array in an order that ``back`` undoes."""
    return replace(
        entry,
        name=name,
        to_torch=lambda array: there(entry.to_torch(array)),
        from_torch=lambda array: entry.from_torch(back(array)),
    )


def _channels_first(kernel: np.ndarray) -> np.ndarray:
    """Moves both channel axes to the front, the last one first."""
    rank = kernel.ndim - 2
    return np.transpose(kernel, (rank + 1, rank, *range(rank)))


def _channels_last(weight: np.ndarray) -> np.ndarray:
    return np.transpose(weight, (*range(2, weight.ndim), 1, 0))


@rule(nnx.ConvTranspose)
def _conv_transpose(layer: nnx.ConvTranspose) -> Iterator[Entry]:
    """PyTorch (in, out, *kernel_size); Flax (*kernel_size, out, in) with ``transpose_kernel=True``, else (.., in, out).

    PyTorch's layer is the gradient of a convolution: it applies the kernel flipped along its spatial axes. Flax does
    the same with ``transpose_kernel=True``; with its default, False, it applies the kernel unflipped, which is
    therefore stored flipped. So the functions are equal either way, given PyTorch's padding, which Flax counts from the
    other end, as zeros around the dilated input:

        padding=[(d * (k - 1) - p, d * (k - 1) - p + output_padding) for each axis]

    for kernel size k, dilation d and PyTorch's padding p. "VALID" is p = 0 where d * (k - 1) + 1 >= stride; "SAME", the
    default, is PyTorch's for no p in general. nnx.ConvTranspose has no groups: port a grouped one as an ``nnx.Conv``
    with ``input_dilation=stride``, this padding and ``feature_group_count``, in a class with a rule of its own.
    """
    kernel = of_rank(len(layer.kernel_size) + 2, layer.kernel)
    if layer.transpose_kernel:
        yield Entry("weight", kernel, _channels_first, _channels_last)
    else:
        yield Entry("weight", kernel, _turned_channels_first, _turned_channels_last)
    yield from _optional("bias", layer.bias)


def _turned_channels_first(kernel: np.ndarray) -> np.ndarray:
    rank = kernel.ndim - 2
    return np.transpose(np.flip(kernel, tuple(range(rank))), (rank, rank + 1, *range(rank)))


def _turned_channels_last(weight: np.ndarray) -> np.ndarray:
    rank = weight.ndim - 2
    return np.flip(np.transpose(weight, (*range(2, rank + 2), 0, 1)), tuple(range(rank)))


@rule(nnx.GroupNorm)
@rule(nnx.InstanceNorm)
def _norm(layer: nnx.GroupNorm | nnx.InstanceNorm) -> Iterator[Entry]:
    yield from _optional("weight", layer.scale)
    yield from _optional("bias", layer.bias)


@rule(nnx.LayerNorm)
@rule(GlobalResponseNorm)
def _channel_norm(layer: nnx.LayerNorm | GlobalResponseNorm) -> Iterator[Entry]:
    """A number per channel: (c,), in PyTorch also (c, 1, 1) of a norm over maps, or (1, 1, 1, c)."""
    for name, variable in (("weight", layer.scale), ("bias", layer.bias)):
        for entry in _optional(name, variable):
            (c,) = entry.shape
            yield replace(entry, shapes=((c, 1, 1), (1, 1, 1, c)))


@rule(RMSNorm)
@rule(nnx.RMSNorm)
def _rms_norm(layer: RMSNorm | nnx.RMSNorm) -> Iterator[Entry]:
    yield from _optional("weight", layer.scale)


@rule(BatchNorm)
@rule(nnx.BatchNorm)
def _batch_norm(layer: BatchNorm | nnx.BatchNorm) -> Iterator[Entry]:
    yield from _optional("weight", layer.scale)
    yield from _optional("bias", layer.bias)
    yield Entry("running_mean", of_rank(1, layer.mean))
    yield Entry("running_var", of_rank(1, layer.var))
    # PyTorch always counts batches; only a cumulative average needs their number, and Flax has no counter.
    if isinstance(layer, BatchNorm) and layer.momentum is None:
        yield Entry("num_batches_tracked", layer.num_batches_tracked, lambda count: count.astype(np.int64))
    else:
        yield Entry("num_batches_tracked", None, constant=np.zeros((), np.int64))


@rule(nnx.Embed)
def _embedding(layer: nnx.Embed) -> Iterator[Entry]:
    yield Entry("weight", of_rank(2, layer.embedding))


@rule(nnx.PReLU)
def _prelu(layer: nnx.PReLU) -> Iterator[Entry]:
    """Flax has one slope and no axes, PyTorch by default one slope on an axis of its own."""
    yield Entry(
        "weight", of_rank(0, layer.negative_slope), lambda slope: slope.reshape(1), lambda weight: weight.reshape(())
    )


@rule(MultiSpectralAttention)
def _multi_spectral(block: MultiSpectralAttention) -> Iterator[Entry]:
    """The functions of the transform are a buffer of a layer that holds nothing else, channels first."""
    weight = of_rank(3, block.dct_weight)
    yield Entry("dct_layer.weight", weight, lambda x: np.moveaxis(x, -1, 0), lambda x: np.moveaxis(x, 0, -1))
