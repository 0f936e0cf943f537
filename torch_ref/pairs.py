"""Builds the Flax and the PyTorch module of a case, and draws their inputs."""

import copy
import importlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx

from flax_attn.networks.patch import CHANNELS
from flax_attn.registry import find_block
from flax_attn.testing import Layouts, Report
from flax_attn.testing.tolerances import table

from .cases import CASES, GATES, Case, Input
from .maps import attention_maps

# For training: on a single, memorised batch, gradients are rounding errors, which Adam amplifies.
BATCHES = 8


@dataclass(frozen=True)
class Pair:
    """Both sides of a case. The PyTorch module has random weights and buffers, the Flax module its initial ones.

    Attributes:
        case: Case they belong to.
        flax_module: Flax module.
        torch_module: PyTorch reference.
        inputs: Inputs of one call.
        batches: Further inputs, for training.
        layouts: Layouts of inputs, outputs, maps and dropouts in Flax.
        package: Package of the Flax module; a copy of `flax_attn` uses its own harness.
    """

    case: Case
    flax_module: nnx.Module
    torch_module: torch.nn.Module
    inputs: tuple[np.ndarray | None, ...]
    batches: tuple[tuple[np.ndarray | None, ...], ...]
    layouts: Layouts
    package: str = "flax_attn"

    @property
    def zero_gradients(self) -> list[str]:
        """Names of parameters whose gradient is analytically zero."""
        return [name for name, _ in self.torch_module.named_parameters() if name.endswith(self.case.zero_gradients)]

    def compare(self, **options: Any) -> Report:
        """Compares both modules with `flax_attn.testing.compare`."""
        report: Report = importlib.import_module(f"{self.package}.testing").compare(
            self.flax_module,
            in_all_digits(self.torch_module),
            *all_digits_of(self.inputs),
            layouts=self.layouts,
            kwargs=self.case.kwargs,
            torch_maps=attention_maps,
            zero_gradients=self.zero_gradients,
            name=self.case.name,
            # Small modules, whose bounds nothing widens.
            tolerances=table(jax.default_backend(), self.case.name, options.get("precision", "highest")),
            batches=[all_digits_of(batch) for batch in self.batches],
            **options,
        )
        return report


def make_pair(case: Case, seed: int = 0, package: str = "flax_attn") -> Pair:
    """Builds both sides of a case and draws its weights and inputs."""
    rng = np.random.default_rng([seed + case.draw, zlib.crc32(case.name.encode())])
    torch_module = build_twin(case)
    randomise(torch_module, rng, case.gains)
    inputs, *batches = (tuple(draw(wanted, rng) for wanted in case.inputs) for _ in range(BATCHES))
    # The initial values do not matter, and the default generator is slow to compile for every shape.
    with jax.default_prng_impl("rbg"):
        flax_module = build(case, nnx.Rngs(seed), package)
    return Pair(
        case,
        flax_module,
        torch_module,
        inputs,
        tuple(batches),
        {
            "inputs": [wanted.layout for wanted in case.inputs],
            "outputs": case.outputs,
            "maps": GATES,
            "dropouts": case.dropouts,
        },
        package,
    )


def build(case: Case, rngs: nnx.Rngs, package: str = "flax_attn", **options: Any) -> nnx.Module:
    """Builds the Flax module of a case, with the options of `flax_attn.Options`."""
    args = dict(case.args)
    if "block" in args:
        args["block"] = importlib.import_module(package).create_block(args["block"], CHANNELS, rngs=rngs, **options)
    module: nnx.Module = find_class(package, case)(**args, rngs=rngs, **options)
    return module


def build_twin(case: Case) -> torch.nn.Module:
    """Builds the PyTorch module of a case."""
    args = dict(case.args)
    if "block" in args:
        args["block"] = create_twin(args["block"], CHANNELS)
    if "attention" in args:
        args["attention"] = partial(create_twin, args["attention"])
    module: torch.nn.Module = find_class("torch_ref", case)(**args)
    return module


def create_twin(name: str, channels: int, size: tuple[int, int] | None = None, **arguments: Any) -> torch.nn.Module:
    """Creates the PyTorch twin of `flax_attn.create_block` with the same arguments.

    Example:
        >>> type(create_twin("cbam", 32)).__module__
        'torch_ref.blocks.cbam'
    """
    entry = find_block(name)
    module = importlib.import_module(entry.block.__module__.replace("flax_attn", "torch_ref", 1))
    twin: torch.nn.Module = getattr(module, entry.block.__name__)(
        **{**entry.arguments_for(channels, size), **arguments}
    )
    return twin


def with_all_digits(array: np.ndarray) -> np.ndarray:
    """Casts float32 numbers to float64 and perturbs them by less than float32 resolves.

    This exposes intermediate rounding in float64 and changes nothing in float32. Equal values stay equal, zeros stay 0.
    """
    wide = array.astype(np.float64)
    return np.asarray(wide * (1 + 2.0**-28 * np.sin(1000 * wide)))  # of a single number too


def all_digits_of(inputs: Iterable[np.ndarray | None]) -> tuple[np.ndarray | None, ...]:
    """Applies `with_all_digits` to the float32 inputs."""
    return tuple(with_all_digits(x) if x is not None and x.dtype == np.float32 else x for x in inputs)


def in_all_digits(module: torch.nn.Module) -> torch.nn.Module:
    """A float64 copy with `with_all_digits` applied to parameters and buffers."""
    module = copy.deepcopy(module).double()
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(with_all_digits(tensor.numpy())))
    return module


def find_class(package: str, case: Case) -> Any:
    """Finds the class of a case in ``flax_attn``, a copy of it, or ``torch_ref``."""
    return getattr(importlib.import_module(f"{package}.{case.module}"), case.class_name)


def find_cases(names: Iterable[str]) -> list[Case]:
    """Finds the cases whose name or class is among ``names``; all cases if it is empty.

    Raises:
        ValueError: If a name is neither.
    """
    names = list(names)
    unknown = [name for name in names if not any(name in (case.name, case.class_name) for case in CASES)]
    if unknown:
        known = sorted({case.class_name for case in CASES})
        raise ValueError(f"NAME must be a class or a case among {', '.join(known)}, got {', '.join(unknown)}")
    return [case for case in CASES if not names or case.name in names or case.class_name in names]


def randomise(module: torch.nn.Module, rng: np.random.Generator, gains: Mapping[str, float]) -> None:
    """Randomises parameters and buffers, since a missing scale of 1 or mean of 0 would go unnoticed."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1:  # weights that preserve the variance of activations
                value = rng.standard_normal(tuple(parameter.shape)) / np.sqrt(parameter[0].numel())
            else:  # biases around 0, the scales of norms around 1
                value = name.endswith("weight") + rng.normal(0, 0.2, tuple(parameter.shape))
            gain = next((gain for end, gain in gains.items() if name.endswith(end)), 1.0)
            parameter.copy_(torch.from_numpy(np.asarray(value * gain)))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.from_numpy(rng.normal(0, 0.3, tuple(buffer.shape))))
            elif name.endswith("running_var"):
                buffer.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, tuple(buffer.shape))))


def draw(wanted: Input, rng: np.random.Generator) -> np.ndarray | None:
    """Draws an input."""
    if wanted.shape is None:
        return None
    if wanted.kind == "mask":
        mask = rng.random(wanted.shape) < 0.6
        mask[0, ..., 0, :] = False  # a query with all keys masked
        return mask
    if wanted.kind == "image":
        return ((rng.integers(0, 256, wanted.shape) - 128) / 128).astype(np.float32)
    values: np.ndarray = rng.standard_normal(wanted.shape).astype(np.float32)
    if wanted.kind == "ties":
        values = np.round(values * 2) / 2
    if wanted.kind in ("ties", "zeros"):
        patch = values[..., : wanted.shape[-2] // 2, : wanted.shape[-1] // 2]
        patch[...] = values.max() + 1 if wanted.kind == "ties" else 0
    return values
