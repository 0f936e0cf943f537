"""What a case is: a class, the arguments of its constructor, and the inputs of a call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAP = "b c h w -> b h w c"
SEQUENCE = "b c n -> b n c"
HEADS = "b heads n d -> b n heads d"
# Layouts of what is recorded, by its name.
GATES = {
    **dict.fromkeys(("gate", "channel_gate", "spatial_gate", "height_gate", "width_gate"), MAP),
    "z1": SEQUENCE,
}


@dataclass(frozen=True)
class Input:
    """An input of a case, in PyTorch's layout.

    Attributes:
        shape: Shape of the input; None passes None.
        layout: Axes in PyTorch and Flax, such as `MAP`; None if they are the same.
        kind: "normal"; "ties", rounded to few values and with a constant patch; "zeros", with a patch of zeros, which
            a convolution turns into exact ties; "mask", zeros and ones with one row of zeros; "image", as in the patch
            task.
    """

    shape: tuple[int, ...] | None = None
    layout: str | None = None
    kind: str = "normal"


@dataclass(frozen=True)
class Case:
    """A class, its arguments and its inputs.

    Attributes:
        name: Unique name, "class name" or "class name, variant".
        module: Module on both sides, such as "blocks.cbam".
        inputs: Positional arguments of the call.
        outputs: Layout of each returned array.
        args: Arguments of the constructor; ``block`` is a name in `flax_attn.list_blocks`.
        kwargs: Keyword arguments of the call.
        zero_gradients: Suffixes of the names of parameters whose gradient is analytically zero.
        dropouts: Layouts of what dropouts get, by their path.
        gains: Factors for random weights, by suffix of the parameter name.
        draw: Index of the random draw of weights and inputs. In some draws, a scalar gradient is zero up to rounding,
            or a value is so close to the kink of a ReLU or to a tie in a max pool that rounding decides its gradient;
            ``draw`` selects one without either (tests/test_kinks.py).
    """

    name: str
    module: str
    inputs: tuple[Input, ...]
    outputs: tuple[str | None, ...]
    args: Mapping[str, Any] = field(default_factory=dict)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    zero_gradients: tuple[str, ...] = ()
    dropouts: Mapping[str, str] = field(default_factory=dict)
    gains: Mapping[str, float] = field(default_factory=dict)
    draw: int = 0

    @property
    def class_name(self) -> str:
        """Name of the class on both sides."""
        return self.name.split(",")[0]


def a_map(*shape: int, kind: str = "normal") -> Input:
    """A map, (b, c, h, w)."""
    return Input(shape, MAP, kind)
