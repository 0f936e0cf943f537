"""Cases and input values for the property tests: at most four cases per class, and values from plain to extreme.

The cases are those of `cases.CASES`, without the long sequence and with smaller images for the networks, because each
property is checked many times. Masks come in all broadcastable shapes.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from .cases import CASES, MAP, Case, Input
from .pairs import draw

Values = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape)


def _levels(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Few distinct values, to repeat every maximum, including zeros of both signs."""
    return np.round(rng.standard_normal(shape))


def _constant(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """One value per example of the batch."""
    return np.broadcast_to(rng.standard_normal((shape[0],) + (1,) * (len(shape) - 1)), shape)


def _spike(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros except for one value."""
    values = np.zeros(shape)
    values.flat[rng.integers(values.size)] = rng.standard_normal()
    return values


def _lowest(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Scattered negative infinities, and one channel with nothing else."""
    values = np.where(rng.random(shape) < 0.2, -np.inf, rng.standard_normal(shape))
    values[0, rng.integers(shape[1])] = -np.inf
    return values


def _row_of_zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A mask with a query that has no key."""
    mask = draw(Input(shape, kind="mask"), rng)
    assert mask is not None
    return mask


VALUES: dict[str, Values] = {
    "normal": _normal,
    "levels": _levels,
    "constant": _constant,
    "zeros": lambda rng, shape: np.zeros(shape),
    "spike": _spike,
    "tiny": lambda rng, shape: 1e-6 * rng.standard_normal(shape),
    "large": lambda rng, shape: 1e4 * rng.standard_normal(shape),
    "large levels": lambda rng, shape: 1e4 * _levels(rng, shape),
    "huge constant": lambda rng, shape: 1e4 * _constant(rng, shape),
}
LOWEST: dict[str, Values] = {"lowest": _lowest}
IMAGES: dict[str, Values] = {
    "pixels": lambda rng, shape: (rng.integers(0, 256, shape) - 128) / 128,
    "black and white": lambda rng, shape: rng.integers(0, 2, shape) * 2.0 - 1,
}
MASKS: dict[str, Values] = {
    "a row of zeros": _row_of_zeros,
    "half": lambda rng, shape: rng.random(shape) < 0.5,
    "all ones": lambda rng, shape: np.ones(shape, bool),
    "all zeros": lambda rng, shape: np.zeros(shape, bool),
}
FAMILIES = {"image": {**IMAGES, **VALUES}, "mask": MASKS, "lowest": {**VALUES, **LOWEST}}


def family(wanted: Input) -> dict[str, Values]:
    """The kinds of values for an input, plain ones first."""
    return FAMILIES.get(wanted.kind, VALUES)


def coarse(module: torch.nn.Module) -> torch.nn.Module:
    """A copy with parameters rounded to multiples of 1/4, which makes zero sums and ties exact."""
    module = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.round(parameter * 4) / 4)
    return module


def _masked(case: Case, *shape: int) -> Case:
    """A case with a mask of another shape."""
    return replace(case, name=f"{case.name}, mask {shape}", inputs=(*case.inputs[:3], Input(shape, kind="mask")))


def _sets() -> dict[str, tuple[Case, ...]]:
    by_name = {case.name: case for case in CASES}
    sets: dict[str, tuple[Case, ...]] = {}
    for case in CASES:
        if case.inputs[0].kind == "image":
            args = {**case.args, "height": 3, "width": 4} if "height" in case.args else case.args
            case = replace(case, args=args, inputs=(Input((2, 3, 14, 19), MAP, "image"),))
        sets[case.class_name] = (*sets.get(case.class_name, ()), case)

    plain = by_name["ScaledDotProductAttention"]
    masked = by_name["ScaledDotProductAttention, mask and dropout"]
    sets[plain.name] = (plain, masked, _masked(masked, 2, 3, 5, 11), _masked(plain, 1, 1, 1, 11))

    plain, masked = by_name["MultiHeadAttention"], by_name["MultiHeadAttention, mask"]
    bare = by_name["MultiHeadAttention, without residual and norm"]
    sets[plain.name] = (plain, masked, _masked(plain, 1, 1, 7), _masked(bare, 2, 5, 1))

    plain, masked = by_name["AdditiveAttention"], by_name["AdditiveAttention, mask"]
    sets[plain.name] = (plain, masked, _masked(plain, 2, 1, 7), _masked(plain, 1, 5, 1))

    # The mean of an infinity is infinite, and so is all that follows: compare the pools that support it on their own.
    gate = by_name["ChannelGate"]
    lse = replace(gate, inputs=(replace(gate.inputs[0], kind="lowest"),), args={**gate.args, "pool_types": ("lse",)})
    sets[gate.name] = (gate, replace(lse, name="ChannelGate, lse"))

    sensor = by_name["SpatialAttentionNeuralNetwork"]
    sets[sensor.name] = tuple(
        replace(sensor, name=f"{sensor.name}, {modal}", args={"train_shape": (100, 17, 3), "category": 5}, inputs=(w,))
        for modal, w in ((modal, Input((2, 1, 17, modal), MAP)) for modal in (3, 2))
    )
    return sets


SETS = _sets()
