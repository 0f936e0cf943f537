"""The settings of layers, in words and conventions that Flax and PyTorch share."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

# What the attribute is called in either library, or in a module of one's own.
NAMES = {
    "eps": ("eps", "epsilon"),
    "rate": ("rate", "p"),
    "heads": ("num_heads", "n_head", "n_heads", "heads", "nhead"),
    "groups": ("num_groups", "feature_group_count", "groups"),
    "stride": ("strides", "stride"),
    "dilation": ("kernel_dilation", "dilation"),
    "negative slope": ("negative_slope",),
    "approximate": ("approximate",),
    "norm_first": ("norm_first",),
}
WORDS = {"none": False, "tanh": True}  # of torch.nn.GELU


class Setting(NamedTuple):
    """A value to compare, and the words for it."""

    value: Any
    told: str


def settings_of(layer: Any) -> dict[str, Setting]:
    """The settings of a layer of either library.

    Example:
        >>> from flax_attn.layers import LayerNorm
        >>> settings_of(LayerNorm(3, eps=1e-6, rngs=nnx.Rngs(0)))["eps"].told
        '1e-06'
    """
    found = {}
    for name, attributes in NAMES.items():
        value = next((value for each in attributes if (value := _plain(getattr(layer, each, None))) is not None), None)
        if value is not None:
            found[name] = Setting(value, str(value))
    momentum = getattr(layer, "momentum", None)
    if isinstance(momentum, float):
        # nnx has the share that is kept, PyTorch and flax_attn that of the new batch.
        new = round(1 - momentum, 9) if isinstance(layer, nnx.BatchNorm) else momentum
        told = f"{new} (nnx writes {momentum}, the share that is kept)" if new != momentum else str(new)
        found["momentum"] = Setting(new, told)
    return found


def padding_of(layer: Any, size: Sequence[int]) -> Setting | None:
    """The padding of a convolution or a pooling as pairs, for an input of a spatial size; None for other layers."""
    padding, kernel = getattr(layer, "padding", None), getattr(layer, "kernel_size", None)
    if padding is None or kernel is None or not size or _is_transposed(layer):
        return None
    kernel, dilation = _each(kernel, size), _each(_first(layer, NAMES["dilation"]), size)
    stride = _each(_first(layer, NAMES["stride"]), size)
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            return Setting(padding, padding)
        reach = [step * (width - 1) + 1 for step, width in zip(dilation, kernel, strict=True)]
        pads = [same_padding(*each) for each in zip(size, reach, stride, strict=True)]
        pads = pads if padding.upper() == "SAME" else [(0, 0)] * len(size)
        return Setting(pads, f"{padding.upper()}, here {_told(pads)},")
    pairs = [pair if isinstance(pair, Sequence) else (pair, pair) for pair in _each(padding, size)]
    return Setting([tuple(pair) for pair in pairs], _told(pairs))


def mistaken_paddings(layer: Any, size: Sequence[int]) -> Iterator[tuple[str, list[tuple[int, int]], float]]:
    """Names, widths and values of what is put around a pooling's input by mistake."""
    kernel, stride = ([each] * 2 if isinstance(each, int) else each for each in (layer.kernel_size, layer.stride))
    same = [same_padding(*each) for each in zip(size, kernel, stride, strict=True)]
    yield "SAME", same, -np.inf
    yield "VALID", [(0, 0)] * 2, -np.inf
    own = padding_of(layer, size)
    if own:
        yield "of zeros", own.value, 0.0


def same_padding(size: int, reach: int, stride: int) -> tuple[int, int]:
    """What "SAME" adds before and behind an axis.

    Example:
        >>> same_padding(16, 3, 2), same_padding(15, 3, 2)
        ((0, 1), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _is_transposed(layer: Any) -> bool:
    return getattr(layer, "transposed", False) or hasattr(layer, "transpose_kernel")


def _first(layer: Any, attributes: Sequence[str]) -> Any:
    return next((value for name in attributes if (value := getattr(layer, name, None)) is not None), 1)


def _each(value: Any, size: Sequence[int]) -> list[Any]:
    values = list(value) if isinstance(value, Sequence) else [value]
    return values * len(size) if len(values) == 1 else values


def _told(pads: Sequence[Any]) -> str:
    """One number or pair where all are equal."""
    short = [pair[0] if pair[0] == pair[1] else tuple(pair) for pair in pads]
    return str(short[0] if len(set(short)) == 1 else tuple(short))


def _plain(value: Any) -> Any:
    """A number, or None for what is none; a tuple of equal ones as one."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(set(value)) == 1:
        value = value[0]
    value = WORDS.get(value, value) if isinstance(value, str) else value
    return value if isinstance(value, int | float | np.number) else None
