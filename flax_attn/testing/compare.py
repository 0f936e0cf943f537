"""Compares a pair of modules: `compare` and `assert_parity`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from .._check import check_choice, check_positive
from ..convert.rename import rename_all
from ..convert.walk import MisfitError
from .ambient import own_settings
from .comparison import Comparison
from .flax_side import load_in_float64
from .inputs import Signature, take_apart
from .layouts import Layouts, one_each
from .optimizers import OptimizerPair, choose
from .pairing import side_by_side
from .report import ParityError, Report, Row
from .results import Objective, random_cotangents
from .rounding import widened, widened_training
from .tolerances import DTYPES, QUANTITIES, TRAINED
from .torch_side import TorchMaps

MODES = ("train", "eval")
MOST_LINES = 7  # of a reason why two modules cannot be paired: the table beside it says more
PRECISIONS = ("highest", "high", "default")


@own_settings()
def compare(
    flax_module: nnx.Module,
    torch_module: Any,
    *inputs: Any,
    layouts: Layouts | None = None,
    kwargs: Mapping[str, Any] | None = None,
    flax_kwargs: Mapping[str, Any] | None = None,
    torch_kwargs: Mapping[str, Any] | None = None,
    modes: Sequence[str] = MODES,
    dtypes: Sequence[str] = ("float64", "float32"),
    steps: int = 0,
    optimizers: Sequence[str] | Mapping[str, OptimizerPair] = ("sgd", "adam", "adamw"),
    batches: Sequence[Sequence[Any]] = (),
    load: bool = True,
    rename: Mapping[str, str] | None = None,
    torch_maps: TorchMaps | None = None,
    cotangents: Sequence[np.ndarray] | None = None,
    zero_gradients: Collection[str] | Mapping[str, Collection[str]] = (),
    tolerances: Mapping[tuple[str, str], float] | None = None,
    precision: str = "highest",
    compiler_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    name: str = "",
) -> Report:
    """Compares a Flax module with a PyTorch module in everything observable.

    Outputs, attention maps, the gradients of every parameter and input, and every buffer after the call, in train and
    eval mode; with ``steps`` also the losses, parameters and buffers of training runs. Dropout layers with the same
    path (`flax_attn.layers.Dropout` or ``nnx.Dropout``, and ``torch.nn.Dropout``) drop the same elements. Both modules
    are copied and never changed. If they differ, the report names the first submodule that does.

    Args:
        flax_module: the port.
        torch_module: the original, on the CPU. Frozen parameters are compared like any other.
        *inputs: positional arguments of the call, in PyTorch's layout: arrays or tensors of any framework, None,
            numbers and text, and nested lists, tuples and mappings of them. Floats and complex numbers are rounded to
            the dtype compared and differentiated; other dtypes (masks) are passed unchanged.
        layouts: the layout of each input and output array on the Flax side, ``{"inputs": ["b c h w -> b h w c"],
            ...}``; see `Layouts`. None means as in PyTorch, for all or for one of them.
        kwargs: keyword arguments of both calls. Arrays in them become arrays of each framework, floats in the dtype
            compared; they are not differentiated.
        flax_kwargs: further ones for the Flax module only.
        torch_kwargs: further ones for the PyTorch module only.
        modes: "train", "eval" or both.
        dtypes: of "float64", "float32" and "bfloat16". Every error is against PyTorch's float64, computed from weights
            and inputs rounded to the dtype.
        steps: number of training steps with each optimizer, in train mode and float64.
        optimizers: "sgd" (with momentum), "adam", "adamw" (with weight decay), or `OptimizerPair` by name.
        batches: further inputs for training, used in turn with ``inputs``.
        load: whether to load the weights of ``torch_module`` into the copy of ``flax_module`` first.
        rename: the table that maps the names of ``torch_module`` to those of ``flax_module``, as for
            `flax_attn.from_torch`.
        torch_maps: a function ``(torch_module, *inputs, **kwargs) -> {path: tensor}`` that returns the attention maps
            of the PyTorch module; without it, maps are not compared.
        cotangents: the weights of each output in the sum that is differentiated, in PyTorch's layout; fixed random
            numbers by default.
        zero_gradients: parameters and inputs (``input[1]``) whose gradient is zero by algebra, so that it has no
            relative error: its norm is then taken relative to that of all gradients. Needed only where it does not
            vanish beside all other gradients in PyTorch's float64 already. A mapping from modes to such names if this
            holds in one mode only.
        tolerances: bounds of your own by (quantity, dtype), as in `flax_attn.testing.tolerances.TABLE`:
            ``{("output", "float32"): 1e-3}``. The others start from that table; where it does not suffice, as in deep
            networks, a result may be off by four times PyTorch's own error, or by four times what errors of a few units
            in the last place in all of its arithmetic change.
        precision: of matrix products on the Flax side: "highest", "high" or "default".
        compiler_options: of XLA, as for ``jax.jit``. ``{"xla_backend_optimization_level": 0}`` takes little more than
            half the time to compile, for programs that run once.
        seed: of cotangents and dropout.
        name: name of the pair, for the report and the table of exceptions.

    Returns:
        The report; its ``ok`` says whether every error is within its tolerance.

    Raises:
        ValueError: modules that cannot be paired, with both trees side by side; inputs that a module does not accept,
            layouts that do not fit, or outputs that differ in number or shape.
        ImportError: PyTorch is not installed.

    Example:
        >>> from flax_attn.layers import Linear
        >>> import torch
        >>> x = np.ones((2, 3), np.float32)
        >>> compare(Linear(3, 5, rngs=nnx.Rngs(0)), torch.nn.Linear(3, 5), x, modes=["eval"]).ok
        True
    """
    layouts = layouts or {}
    for argument, given in (("kwargs", kwargs), ("flax_kwargs", flax_kwargs), ("torch_kwargs", torch_kwargs)):
        if not isinstance(given or {}, Mapping):
            raise ValueError(f"{argument} must map names to values, got {given!r}")
    _check_modules(flax_module, torch_module)
    _check_choices(modes, dtypes, steps, precision, layouts)
    signature, arrays = take_apart(inputs)
    one_each("inputs", layouts.get("inputs"), len(arrays))
    all_batches = [arrays, *(_same_arrays(batch, place, signature) for place, batch in enumerate(batches))]
    _check_tolerances(tolerances or {})
    zero = _by_mode(zero_gradients, torch_module, signature.names, rename)
    if load:
        flax_module = _load(flax_module, torch_module, rename)
    comparison = Comparison(
        flax_module,
        torch_module,
        signature=signature,
        flax_kwargs={**(kwargs or {}), **(flax_kwargs or {})},
        torch_kwargs={**(kwargs or {}), **(torch_kwargs or {})},
        layouts=layouts,
        rename=rename,
        torch_maps=torch_maps,
        zero_gradients=zero,
        precision=precision,
        seed=seed,
        name=name,
        compiler_options=compiler_options,
        tolerances=tolerances or {},
    )
    objective = _objective(comparison, all_batches, modes, cotangents)
    if "train" in modes or steps:
        comparison.theirs("train", "float64", "float64").check_random_numbers(arrays)
    rows: list[Row] = []
    for dtype in dtypes:
        for mode in modes:
            rows += comparison.rows(arrays, objective, mode, dtype)
    rows = widened(comparison, rows, arrays, objective)
    if steps:
        for label, pair in choose(optimizers).items():
            run = (all_batches, objective, steps)
            trained = comparison.trained_rows(*run, label, pair)
            rows += widened_training(comparison, trained, *run, pair)
    finding, explanations = comparison.locate(arrays, objective, rows)
    return Report(name or type(flax_module).__name__, rows, finding, explanations)


def assert_parity(flax_module: nnx.Module, torch_module: Any, *inputs: Any, **options: Any) -> Report:
    """Calls `compare` and raises the report if something differs.

    Raises:
        ParityError: an error exceeds its tolerance.
    """
    report = compare(flax_module, torch_module, *inputs, **options)
    if not report.ok:
        raise ParityError(report)
    return report


def _load(flax_module: nnx.Module, torch_module: Any, rename: Mapping[str, str] | None) -> nnx.Module:
    state_dict = torch_module.state_dict()
    try:
        return load_in_float64(flax_module, state_dict, rename)
    except MisfitError as error:
        trees = side_by_side(flax_module, state_dict, rename)
        told = str(error).splitlines()
        if len(told) > MOST_LINES:
            told[MOST_LINES - 2 : -1] = [f"  ... and {len(told) - MOST_LINES + 1} more"]
        cause = "\n".join(told)
        raise ValueError(f"flax_module and torch_module cannot be paired: {cause}\n\n{trees}") from error


def _objective(
    comparison: Comparison,
    batches: Sequence[Sequence[Any]],
    modes: Sequence[str],
    cotangents: Sequence[np.ndarray] | None,
) -> Objective:
    side = comparison.theirs(modes[0], "float64", "float64")
    shapes = side.output_shapes(batches[0])
    others = {f"in {mode} mode": comparison.theirs(mode, "float64", "float64") for mode in modes[1:]}
    found = {where: other.output_shapes(batches[0]) for where, other in others.items()}
    found |= {f"for batches[{i}]": side.output_shapes(batch) for i, batch in enumerate(batches[1:])}
    for where, other_shapes in found.items():
        if other_shapes != shapes:
            raise ValueError(f"torch_module must return one set of shapes, {shapes}, got {other_shapes} {where}")
    wanted = list(shapes.values())
    if cotangents is None:
        cotangents = random_cotangents(wanted, comparison.seed)
    if [array.shape for array in cotangents] != wanted:
        raise ValueError(
            f"cotangents must have the shapes of the outputs, {wanted}, got {[a.shape for a in cotangents]}"
        )
    return Objective(cotangents, paths=tuple(shapes))


def _by_mode(
    zero: Collection[str] | Mapping[str, Collection[str]],
    torch_module: Any,
    inputs: Sequence[str],
    rename: Mapping[str, str] | None,
) -> dict[str, frozenset[str]]:
    """The gradients that are zero by algebra, by mode."""
    named = rename_all([name for name, _ in torch_module.named_parameters()], rename)
    known = {*named.values(), *inputs}
    by_mode = {}
    for mode in ("train", "eval"):
        names = zero.get(mode, ()) if isinstance(zero, Mapping) else zero
        unknown = [names] if isinstance(names, str) else sorted(set(names) - known)
        if unknown:
            raise ValueError(f"zero_gradients must name parameters or inputs, 'input[0]' say, got {', '.join(unknown)}")
        by_mode[mode] = frozenset(names)
    return by_mode


def _check_modules(flax_module: nnx.Module, torch_module: Any) -> None:
    import torch

    for argument, module, kind in (
        ("flax_module", flax_module, nnx.Module),
        ("torch_module", torch_module, torch.nn.Module),
    ):
        if not isinstance(module, kind):
            raise ValueError(f"{argument} must be a {kind.__module__}.{kind.__name__}, got {type(module).__name__}")
    lazy = [name for name, value in _named_tensors(torch_module) if torch.nn.parameter.is_lazy(value)]
    if lazy:
        raise ValueError(
            f"torch_module must have been called once, which gives its lazy layers their shapes, got uninitialised "
            f"{', '.join(lazy)}"
        )


def _named_tensors(module: Any) -> list[tuple[str, Any]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _check_choices(modes: Sequence[str], dtypes: Sequence[str], steps: int, precision: str, layouts: Layouts) -> None:
    for argument, given, known in (("modes", modes, MODES), ("dtypes", dtypes, DTYPES)):
        if isinstance(given, str) or not given or any(item not in known for item in given):
            raise ValueError(f"{argument} must be a sequence of {' and '.join(map(repr, known))}, got {given!r}")
    check_positive(minimum=0, steps=steps)
    check_choice("precision", precision, PRECISIONS)
    for place in ("maps", "dropouts"):
        if not isinstance(layouts.get(place, {}), Mapping):
            raise ValueError(f"layouts[{place!r}] must map paths to layouts, got {layouts.get(place)!r}")
    unknown = set(layouts) - {"inputs", "outputs", "maps", "dropouts"}
    if unknown:
        raise ValueError(f"layouts must have the keys inputs, outputs, maps and dropouts, got {sorted(unknown)}")


def _check_tolerances(tolerances: Any) -> None:
    known = [(quantity, dtype) for quantity in (*QUANTITIES, *TRAINED) for dtype in DTYPES]
    if not isinstance(tolerances, Mapping) or any(row not in known for row in tolerances):
        raise ValueError(f"tolerances must map (quantity, dtype) to numbers, as {known[0]}, got {tolerances!r}")
    if not all(isinstance(bound, int | float) and bound >= 0 for bound in tolerances.values()):
        raise ValueError(f"tolerances must be numbers >= 0, got {tolerances!r}")


def _same_arrays(batch: Sequence[Any], place: int, signature: Signature) -> list[Any]:
    """The arrays of a further batch, which must be arranged as the call's are."""
    other, arrays = take_apart(batch)
    if other != signature:
        raise ValueError(
            f"batches[{place}] must have the arrays and values of the call, {', '.join(signature.names)}, got "
            f"{', '.join(other.names)}"
        )
    return arrays
