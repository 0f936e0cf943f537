"""The entries of a PyTorch state_dict that a layer contributes, and the registry of rules that list them.

There is one rule per layer type. It also applies to subclasses, so `flax_attn.layers.Linear` needs none of its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flax import nnx

Held = nnx.Variable[Any] | tuple[nnx.Variable[Any], ...] | list[nnx.Variable[Any]] | None


@dataclass(frozen=True)
class Entry:
    """One entry of a state_dict.

    The two transforms only rearrange elements and are inverse to each other. (Gradients are converted by the same
    transforms, so a rule that changed values would be wrong even with an inverse.)

    Attributes:
        name: its path below the layer's, for instance "weight" or "out_proj.weight".
        variable: the Flax variable that holds it; a tuple or list where one array in PyTorch is several in Flax; None
            for an entry that Flax does not have.
        to_torch: converts Flax's layout to PyTorch's; called with one array per variable.
        from_torch: converts PyTorch's layout to Flax's; returns one array, or one per variable if there are several.
        constant: the value written if ``variable`` is None; such an entry is ignored on loading.
        instead: entries of the same variables that a state_dict may hold in place of this one. A table of names that
            names them, `flax_attn.convert.NAMES`, also has them written.
        parts: names and numbers of rows of entries that a state_dict may hold in place of this one, which are its rows
            in this order: those of queries, keys and values, say. Written as ``instead`` is.
        shapes: further shapes, in PyTorch's layout, that the same array may have: a 1x1 convolution also takes the
            weight of a linear layer, which is the same function.

    Example:
        >>> layer = nnx.Linear(3, 5, rngs=nnx.Rngs(0))
        >>> Entry("weight", layer.kernel, np.transpose, np.transpose).is_parameter
        True
    """

    name: str
    variable: Held
    to_torch: Callable[..., Any] = np.asarray
    from_torch: Callable[[np.ndarray], Any] = np.asarray
    constant: np.ndarray | None = None
    instead: tuple["Entry", ...] = ()
    parts: Mapping[str, int] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def variables(self) -> tuple[nnx.Variable[Any], ...]:
        """The variables that hold the entry: none, one or several."""
        if self.variable is None:
            return ()
        return tuple(self.variable) if isinstance(self.variable, tuple | list) else (self.variable,)

    @property
    def is_parameter(self) -> bool:
        """Whether the entry is a parameter, not a buffer or a constant."""
        return bool(self.variables) and all(isinstance(variable, nnx.Param) for variable in self.variables)

    @property
    def shape(self) -> tuple[int, ...]:
        """The entry's shape in PyTorch's layout, for messages."""
        if not self.variables:
            return np.asarray(self.constant).shape
        return self.join([np.empty(variable.shape, np.bool_) for variable in self.variables]).shape

    def join(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Converts one array per variable, in Flax's layout, to the entry in PyTorch's."""
        return np.asarray(self.to_torch(*arrays))

    def split(self, array: np.ndarray) -> list[np.ndarray]:
        """Converts the entry in PyTorch's layout to one array per variable, in Flax's."""
        parts = self.from_torch(array)
        return [np.asarray(part) for part in (parts if isinstance(self.variable, tuple | list) else (parts,))]


Rule = Callable[[Any], Iterable[Entry]]
RULES: dict[type[nnx.Module], Rule] = {}


def rule(layer_type: type[nnx.Module], *, replace: bool = False) -> Callable[[Rule], Rule]:
    """Registers the decorated function as the conversion rule of ``layer_type`` and of its subclasses.

    The rule takes the layer and yields an `Entry` for each of its own parameters and buffers. Modules inside the layer
    follow their own rules, under the names of their attributes, unless the layer's rule lists one of their variables
    itself. A subclass may have its own rule.

    Args:
        layer_type: a subclass of ``flax.nnx.Module``.
        replace: whether to replace an existing rule of ``layer_type``, as when a notebook cell is run again.

    Raises:
        ValueError: ``layer_type`` is not a subclass of ``flax.nnx.Module``, or has a rule and ``replace`` is False. A
            rule that yields anything but entries of the layer's own variables raises when it is used, in
            `flax_attn.from_torch` or `flax_attn.to_torch`, with the layer and its path.

    Example:
        A layer with a transposed kernel and a learned scale, whose PyTorch twin calls them ``weight`` and ``gamma``:

        >>> class ScaledLinear(nnx.Module):
        ...     def __init__(self, rngs):
        ...         self.kernel = nnx.Param(rngs.params.normal((3, 5)))
        ...         self.scale = nnx.Param(np.ones(5, "float32"))
        ...     def __call__(self, x):
        ...         return x @ self.kernel * self.scale
        >>> @rule(ScaledLinear)
        ... def scaled_linear(layer):
        ...     yield Entry("weight", layer.kernel, np.transpose, np.transpose)
        ...     yield Entry("gamma", layer.scale)
        >>> from flax_attn import to_torch
        >>> {name: array.shape for name, array in to_torch(ScaledLinear(nnx.Rngs(0))).items()}
        {'weight': (5, 3), 'gamma': (5,)}
    """
    if not (isinstance(layer_type, type) and issubclass(layer_type, nnx.Module)):
        raise ValueError(f"layer_type must be a subclass of flax.nnx.Module, got {layer_type!r}")

    def register(function: Rule) -> Rule:
        known = RULES.get(layer_type, function)
        if known is not function and not replace:
            raise ValueError(
                f"layer_type must have no conversion rule yet, got {layer_type.__qualname__}, which has "
                f"{known.__module__}.{known.__qualname__}; pass replace=True to put another in its place"
            )
        RULES[layer_type] = function
        return function

    return register


def find_rule(module: object) -> Rule | None:
    """The rule of the module's type, or of its nearest base class with one."""
    return next((RULES[base] for base in type(module).__mro__ if base in RULES), None)
