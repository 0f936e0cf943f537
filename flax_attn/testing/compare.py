"""compare and assert_parity."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from ..convert.rename import rename_all
from .flax_side import load_in_float64, run_flax
from .layouts import Layouts, one_each
from .report import ParityError, Report, Row
from .results import KeepMasks, Results, random_cotangents
from .tolerances import QUANTITIES, tolerance
from .torch_side import TorchMaps, run_torch, torch_output_shapes


def compare(
    flax_module: nnx.Module,
    torch_module: Any,
    *inputs: Any,
    layouts: Layouts | None = None,
    kwargs: Mapping[str, Any] | None = None,
    modes: Sequence[str] = ("train", "eval"),
    dtypes: Sequence[str] = ("float64", "float32"),
    load: bool = True,
    rename: Mapping[str, str] | None = None,
    torch_maps: TorchMaps | None = None,
    cotangents: Sequence[np.ndarray] | None = None,
    zero_gradients: Collection[str] | Mapping[str, Collection[str]] = (),
    seed: int = 0,
    name: str = "",
) -> Report:
    """Compares a Flax module with a PyTorch module in everything that can be seen from outside.

    Outputs, attention maps, the gradient of every parameter and every input, and every buffer after a training-mode
    call; dropout layers (`flax_attn.layers.Dropout` and ``torch.nn.Dropout`` of one path) drop the same elements.
    Both modules are copied first and never changed.

    Args:
        flax_module: the port.
        torch_module: the original, on the CPU. Its frozen parameters are compared as any other.
        *inputs: what the modules are called with, as numpy arrays in PyTorch's layout, or None. Floats are cast to the
            dtype at hand and differentiated, other dtypes (masks) are passed as they are.
        layouts: how the Flax side wants each input and gives each output, ``{"inputs": ["b c h w -> b h w c"], ...}``;
            see `Layouts`. None, or None in a place, means as in PyTorch.
        kwargs: keyword arguments of both calls.
        modes: "train", "eval" or both.
        dtypes: "float64", "float32" or both.
        load: whether the weights of ``torch_module`` are loaded into the copy of ``flax_module`` first.
        rename: the table that takes the names of ``torch_module`` to those of ``flax_module``, as for
            `flax_attn.from_torch`.
        torch_maps: a function ``(torch_module, *inputs, **kwargs) -> {path: tensor}`` that gives the attention maps of
            the PyTorch module; without one, maps are not compared.
        cotangents: what each output is multiplied with before the sum that is differentiated, in PyTorch's layout;
            fixed random numbers by default.
        zero_gradients: parameters and inputs (``input[1]``) whose gradient is zero by algebra, so that it has no
            relative error: its norm is then taken relative to that of all gradients. A mapping from modes to such
            names where it is so in one mode only, as a bias before a BatchNorm in training.
        seed: of cotangents and dropout.
        name: of the pair, for the report and the table of exceptions.

    Returns:
        The report. Its ``ok`` says whether all is well.

    Raises:
        ValueError: weights that do not fit, layouts that do not fit, outputs of different number or shape.
        ImportError: PyTorch is not installed.

    Example:
        >>> from flax_attn.layers import Linear
        >>> import torch
        >>> x = np.ones((2, 3), np.float32)
        >>> compare(Linear(3, 5, rngs=nnx.Rngs(0)), torch.nn.Linear(3, 5), x, modes=["eval"]).ok
        True
    """
    layouts = layouts or {}
    _require_torch()
    _check_arguments(flax_module, torch_module, modes, dtypes, inputs, layouts)
    zero = _by_mode(zero_gradients, torch_module, len(inputs), rename)
    if load:
        flax_module = load_in_float64(flax_module, torch_module.state_dict(), rename)
    shapes = torch_output_shapes(torch_module, inputs, kwargs or {})
    if cotangents is None:
        cotangents = random_cotangents(shapes, seed)
    if [array.shape for array in cotangents] != shapes:
        raise ValueError(
            f"cotangents must have the shapes of the outputs, {shapes}, got {[a.shape for a in cotangents]}"
        )
    rows: list[Row] = []
    for mode in modes:
        options: dict[str, Any] = {
            "kwargs": kwargs or {},
            "train": mode == "train",
            "layouts": layouts,
            "cotangents": cotangents,
        }
        torch_options: dict[str, Any] = {"maps": torch_maps, "rename": rename}
        masks = KeepMasks(seed)
        truth = run_torch(torch_module, inputs, dtype="float64", masks=masks, **torch_options, **options)
        for dtype in dtypes:
            ours = run_flax(flax_module, inputs, dtype=dtype, masks=masks, **options)
            theirs = truth
            if dtype != "float64":
                theirs = run_torch(torch_module, inputs, dtype=dtype, masks=KeepMasks(seed), **torch_options, **options)
            if torch_maps is None:
                ours.map = {}
            rows += _rows(ours, theirs, truth, mode, dtype, name, zero[mode])
    return Report(name or type(flax_module).__name__, rows)


def assert_parity(flax_module: nnx.Module, torch_module: Any, *inputs: Any, **options: Any) -> Report:
    """`compare`, raising the report where something differs.

    Raises:
        ParityError: a quantity is further off than its tolerance.
    """
    report = compare(flax_module, torch_module, *inputs, **options)
    if not report.ok:
        raise ParityError(report)
    return report


def relative_error(got: np.ndarray, reference: np.ndarray) -> float:
    """``norm(got - reference) / norm(reference)``; NaN where either is not finite, infinite where the shapes differ.

    Example:
        >>> relative_error(np.array([3.0, 4.5]), np.array([3.0, 4.0]))
        0.1
    """
    if got.shape != reference.shape:
        return float("inf")
    got, reference = got.astype(np.float64), reference.astype(np.float64)
    difference, norm = float(np.linalg.norm(got - reference)), float(np.linalg.norm(reference))
    if norm == 0:
        return 0.0 if difference == 0 else float("inf") if np.isfinite(difference) else float("nan")
    return difference / norm if np.isfinite(norm) else float("nan")


def _rows(
    ours: Results, theirs: Results, truth: Results, mode: str, dtype: str, name: str, zero: frozenset[str]
) -> list[Row]:
    rows = []
    everything = _norm_of_gradients(truth)
    for quantity in QUANTITIES:
        limit = tolerance(quantity, dtype, jax.default_backend(), name)
        mine, reference, other = ours.of(quantity), truth.of(quantity), theirs.of(quantity)
        for path in sorted(mine.keys() | reference.keys()):
            here = (quantity, path, mode, dtype)
            if path not in mine or path not in reference:
                side = "flax" if path not in mine else "torch"
                rows.append(Row(*here, float("inf"), 0.0, limit, f"missing in {side}"))
            elif "gradient" in quantity and path in zero:
                norms = [float(np.linalg.norm(side[path])) / everything for side in (mine, reference, other)]
                rows.append(Row(*here, max(norms[:2]), norms[2], limit, "zero by algebra"))
            else:
                error = relative_error(mine[path], reference[path])
                note = "" if np.any(reference[path]) else "zero in torch"
                rows.append(Row(*here, error, relative_error(other[path], reference[path]), limit, note))
    return rows


def _norm_of_gradients(results: Results) -> float:
    gradients = [*results.parameter_gradient.values(), *results.input_gradient.values()]
    return float(np.sqrt(sum(np.sum(np.square(gradient, dtype=np.float64)) for gradient in gradients))) or 1.0


def _by_mode(
    zero: Collection[str] | Mapping[str, Collection[str]],
    torch_module: Any,
    inputs: int,
    rename: Mapping[str, str] | None,
) -> dict[str, frozenset[str]]:
    """The gradients that are zero by algebra, for either mode."""
    named = rename_all([name for name, _ in torch_module.named_parameters()], rename)
    known = {*named.values(), *(f"input[{i}]" for i in range(inputs))}
    by_mode = {}
    for mode in ("train", "eval"):
        names = zero.get(mode, ()) if isinstance(zero, Mapping) else zero
        unknown = [names] if isinstance(names, str) else sorted(set(names) - known)
        if unknown:
            raise ValueError(f"zero_gradients must name parameters or inputs, 'input[0]' say, got {', '.join(unknown)}")
        by_mode[mode] = frozenset(names)
    return by_mode


def _check_arguments(
    flax_module: nnx.Module,
    torch_module: Any,
    modes: Sequence[str],
    dtypes: Sequence[str],
    inputs: Sequence[Any],
    layouts: Layouts,
) -> None:
    import torch

    for argument, module, kind in (
        ("flax_module", flax_module, nnx.Module),
        ("torch_module", torch_module, torch.nn.Module),
    ):
        if not isinstance(module, kind):
            raise ValueError(f"{argument} must be a {kind.__module__}.{kind.__name__}, got {type(module).__name__}")
    for argument, given, known in (
        ("modes", modes, ("train", "eval")),
        ("dtypes", dtypes, ("float64", "float32")),
    ):
        if isinstance(given, str) or not given or any(item not in known for item in given):
            raise ValueError(f"{argument} must be a sequence of {' and '.join(map(repr, known))}, got {given!r}")
    for i, array in enumerate(inputs):
        if array is not None and not isinstance(array, np.ndarray):
            raise ValueError(f"input[{i}] must be a numpy array or None, got {type(array).__name__}")
    one_each("inputs", layouts.get("inputs"), len(inputs))
    unknown = set(layouts) - {"inputs", "outputs", "maps", "dropouts"}
    if unknown:
        raise ValueError(f"layouts must have the keys inputs, outputs, maps and dropouts, got {sorted(unknown)}")


def _require_torch() -> None:
    try:
        import einops  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError("flax_attn.testing needs PyTorch and einops: pip install 'flax_attn[torch]'") from error
