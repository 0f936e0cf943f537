"""The rules of blocks with parameters of their own, outside of layers: PyTorch has them under the same names."""

from collections.abc import Iterator

from flax import nnx

from ..blocks.attention_pool import AttentionPool2d, RotaryAttentionPool2d
from ..blocks.differential import DifferentialAttention
from .rules import Entry, rule


@rule(AttentionPool2d)
@rule(DifferentialAttention)
@rule(RotaryAttentionPool2d)
def _own(block: nnx.Module) -> Iterator[Entry]:
    yield from (Entry(name, value) for name, value in vars(block).items() if isinstance(value, nnx.Param))
