"""The results of one framework, with names and layouts shared by both."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass
class Results:
    """Arrays by path, per quantity: parameters and buffers in PyTorch's layout, everything else in Flax's."""

    output: Arrays = field(default_factory=dict)
    map: Arrays = field(default_factory=dict)
    parameter_gradient: Arrays = field(default_factory=dict)
    input_gradient: Arrays = field(default_factory=dict)
    buffer: Arrays = field(default_factory=dict)
    loss: Arrays = field(default_factory=dict)
    trained_parameter: Arrays = field(default_factory=dict)
    trained_buffer: Arrays = field(default_factory=dict)

    def of(self, quantity: str) -> Arrays:
        """The arrays of a quantity by its name in the tolerance table."""
        arrays: Arrays = getattr(self, quantity.replace(" ", "_"))
        return arrays


@dataclass(frozen=True)
class Objective:
    """The loss ``sum(cotangent * output + curvature / 2 * output**2)`` over all outputs; complex ones: `real_form`.

    Without curvature its gradient with respect to the outputs is the cotangents themselves: fixed random numbers, since
    a plain sum through a softmax or a norm has gradient zero and tests nothing. With curvature it is, up to a constant,
    the squared distance to ``-cotangent / curvature``, which can be minimised.

    Attributes:
        cotangents: one per output, in PyTorch's layout.
        curvature: 0 for a comparison of gradients.
        paths: those of the outputs; both sides must return arrays at these.
    """

    cotangents: Sequence[np.ndarray]
    curvature: float = 0.0
    paths: Sequence[str] = ("output",)

    def trainable(self) -> "Objective":
        """The mean squared distance to the negated cotangents."""
        size = sum(array.size for array in self.cotangents)
        return Objective([array / size for array in self.cotangents], 1.0 / size, self.paths)


def leaves(output: Any, path: str = "output") -> list[tuple[str, Any]]:
    """The arrays in nested tuples, lists, mappings and dataclasses, with their paths; None is left out.

    Mappings are ordered by their sorted keys, as in JAX, whatever their insertion order.

    Example:
        >>> [path for path, _ in leaves((1, {"map": 2, "gate": 3}, None))]
        ['output[0]', 'output[1].gate', 'output[1].map']
    """
    if output is None:
        return []
    if isinstance(output, Mapping):
        return [leaf for key in sorted(output, key=str) for leaf in leaves(output[key], f"{path}.{key}")]
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return leaves({each.name: getattr(output, each.name) for each in dataclasses.fields(output)}, path)
    if isinstance(output, Sequence) and not isinstance(output, str):
        return [leaf for index, value in enumerate(output) for leaf in leaves(value, f"{path}[{index}]")]
    return [(path, output)]


def output_leaves(output: Any) -> list[tuple[str, Any]]:
    """`leaves`, where a single output array is called "output", also in a tuple beside None."""
    found = leaves(output)
    return [("output", found[0][1])] if len(found) == 1 else found


def is_float(array: Any) -> bool:
    """Whether an array holds real floating-point numbers."""
    return hasattr(array, "dtype") and bool(jnp.issubdtype(array.dtype, jnp.floating))


def is_inexact(array: Any) -> bool:
    """Whether an input takes part in differentiation and changes its dtype: real or complex floating-point numbers."""
    return hasattr(array, "dtype") and bool(jnp.issubdtype(array.dtype, jnp.inexact))


def of_kind(array: Any, dtype: str) -> str:
    """The dtype that ``array`` has in a comparison in ``dtype``: complex numbers stay complex, of at least 2 x float32.

    Example:
        >>> of_kind(np.ones(2, np.complex64), "float64"), of_kind(np.ones(2, np.float32), "bfloat16")
        ('complex128', 'bfloat16')
    """
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return "complex128" if dtype == "float64" else "complex64"
    return dtype


def real_form(output: Any) -> Any:
    """The real part minus the imaginary part of a complex output, to which its real cotangent applies.

    Both parts reach the gradient, with different signs. The gradient with respect to a complex number z is dL/dRe(z) +
    i dL/dIm(z), as in PyTorch; JAX's is the conjugate.
    """
    return output.real - output.imag


def random_cotangents(shapes: Sequence[tuple[int, ...]], seed: int) -> list[np.ndarray]:
    """One fixed random array per output; not from ``default_rng(seed)``, from which inputs are often drawn."""
    rng = np.random.default_rng([seed, zlib.crc32(b"cotangents")])
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
