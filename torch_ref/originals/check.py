"""Loads an original's weights into our block and compares both in float64, in eval and in train mode."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import flax_attn
from flax_attn.convert import NAMES
from flax_attn.convert.walk import entries
from flax_attn.networks.resnet import ResNet
from flax_attn.testing import tolerances
from flax_attn.testing.layouts import to_flax
from flax_attn.testing.results import leaves

from ..pairs import draw, randomise, with_all_digits
from .original import Original


def differences(original: Original, file: str | Path | None = None) -> dict[str, float]:
    """The relative errors of ours against an original, by mode and what is compared, as in "train: input[0] gradient".

    Outputs, the gradients of every input and parameter for fixed random cotangents, and after a call in train mode the
    running statistics. An error is relative to the array, or where that is zero but for rounding to all of its kind.

    Raises:
        ImportError: The original is not installed, or not in the file.
        ValueError: The original's entries do not fit ours.
    """
    rng = np.random.default_rng(zlib.crc32(original.name.encode()))
    theirs = original.load(file).double()
    randomise(theirs, rng, {})
    inputs = [
        with_all_digits(array) for array in (draw(wanted, rng) for wanted in original.inputs) if array is not None
    ]
    with jax.enable_x64(True), jax.default_prng_impl("rbg"):
        ours = class_of(original)(**original.args, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        flax_attn.from_torch(ours, theirs.state_dict(), rename=table_of(original))
        return {
            f"{mode}: {name}": error
            for mode in ("eval", "train")
            for name, error in compared(original, ours, theirs, inputs, mode, rng).items()
        }


def class_of(original: Original) -> Any:
    """Our class: a block, or the ResNet."""
    return ResNet if original.block == "ResNet" else getattr(flax_attn, original.block)


def table_of(original: Original) -> Mapping[str, str] | None:
    """The public table of the original's names."""
    return NAMES[original.names] if original.names else None


def bound(original: Original, name: str) -> float:
    """The largest error that one of `differences` may have: that of float64, or a larger one with a reason."""
    larger, _ = tolerances.ORIGINALS.get(original.name, ({}, ""))
    return larger.get(quantity(name), tolerances.tolerance(quantity(name), "float64"))


def quantity(name: str) -> str:
    """The row of the table of tolerances that one of `differences` belongs to.

    Example:
        >>> [quantity(f"eval: {what}") for what in ("input[0] gradient", "fc.weight gradient", "bn.running_var")]
        ['input gradient', 'parameter gradient', 'buffer']
    """
    _, _, what = name.partition(": ")
    if what.endswith(" gradient"):
        return "input gradient" if what.startswith("input[") else "parameter gradient"
    return "output" if what.startswith("output[") else "buffer"


def compared(
    original: Original, ours: Any, theirs: Any, inputs: list[np.ndarray], mode: str, rng: np.random.Generator
) -> dict[str, float]:
    """The relative errors in one mode."""
    theirs.train(mode == "train")
    ours.train() if mode == "train" else ours.eval()
    tensors = [torch.from_numpy(array).requires_grad_() for array in inputs]
    expected = [leaf for _, leaf in leaves(original.call(theirs, *tensors))]
    cotangents = [rng.standard_normal(tuple(leaf.shape)) for leaf in expected]
    theirs.zero_grad()
    sum((leaf * torch.from_numpy(one)).sum() for leaf, one in zip(expected, cotangents, strict=True)).backward()

    layouts = original.outputs
    given = [
        jnp.asarray(to_flax(array, wanted.layout, "input"))
        for array, wanted in zip(inputs, original.inputs, strict=True)
    ]
    weights = [jnp.asarray(to_flax(one, to, "output")) for one, to in zip(cotangents, layouts, strict=True)]
    outputs, gradients, slopes, after = differentiated(ours, given, weights)

    inputs_like = [wanted.layout for wanted in original.inputs]
    errors = {}
    for what, got, want, likes in (
        ("output[{}]", outputs, expected, layouts),
        ("input[{}] gradient", slopes, [x.grad for x in tensors], inputs_like),
    ):
        for i, (array, tensor, layout) in enumerate(zip(got, want, likes, strict=True)):
            name = what.format(i)
            errors[name] = relative(np.asarray(array), np.asarray(to_flax(tensor.detach().numpy(), layout, name)))
    parameters = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in theirs.named_parameters()}
    of_parameters = by_name(original, {**theirs.state_dict(), **parameters}, gradients, parameters=True)
    errors |= {f"{name} gradient": error for name, error in of_parameters.items()}
    if mode == "train":
        errors |= by_name(original, theirs.state_dict(), after, parameters=False)
    return errors


def by_name(
    original: Original, theirs: dict[str, torch.Tensor], ours: nnx.Module, *, parameters: bool
) -> dict[str, float]:
    """The relative errors of the parameters of ``ours``, or of its buffers, by our names."""
    loaded = flax_attn.from_torch(nnx.clone(ours), theirs, rename=table_of(original))
    names = [name for name, entry in entries(ours).items() if entry.variables and entry.is_parameter == parameters]
    got, want = flax_attn.to_torch(ours), flax_attn.to_torch(loaded)
    total = np.sqrt(sum(np.sum(np.square(want[name])) for name in names))
    return {name: relative(got[name], want[name], tolerances.ZERO * total) for name in names}


def differentiated(module: Any, inputs: list[jax.Array], cotangents: list[jax.Array]) -> Any:
    """Outputs, the module with its parameters' gradients in their place, the inputs' gradients, the module after."""
    graphdef, *(params, rest) = nnx.split(module, nnx.Param, ...)

    def loss(params: Any, inputs: list[jax.Array]) -> Any:
        copy = nnx.merge(graphdef, params, rest, copy=True)
        outputs = [leaf for _, leaf in leaves(copy(*inputs))]
        total = sum(jnp.sum(leaf * one) for leaf, one in zip(outputs, cotangents, strict=True))
        return total, (outputs, nnx.state(copy, nnx.Not(nnx.Param)))

    # Compiled without an optimiser, as each of these programs runs once.
    quick = {"xla_backend_optimization_level": "0"}
    run = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True), compiler_options=quick)
    (gradients, slopes), (outputs, others) = run(params, inputs)
    return (
        outputs,
        nnx.merge(graphdef, gradients, rest, copy=True),
        slopes,
        nnx.merge(graphdef, params, others, copy=True),
    )


def relative(got: np.ndarray, want: np.ndarray, zero: float = 0.0) -> float:
    """The norm of the difference over that of ``want``, or over 1 where that is at most ``zero``."""
    size = float(np.linalg.norm(want))
    return float(np.linalg.norm(got - want)) / (size if size > zero else 1.0)
