"""What the picture shows: for each column a title and the arrays of its rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from flax_attn.networks.patch import PatchNetwork

from ..tasks.patch import WHITE, Patches
from .maps import detector_maps, gathered, is_over_places, kind_of, spread
from .observe import Observed, at_once, observe
from .places import centres_inside

_detector_maps = jax.jit(detector_maps, static_argnames=("size", "token_order"))

CHANNELS = (1, 2, 3)  # counted from zero, those that the tutorial shows


@dataclass(frozen=True)
class Column:
    """A column of the picture, on one scale.

    Attributes:
        title: one line or two.
        values: maps (rows, h, w); or, for bars, (rows, c).
        scale: signed: symmetric about zero; attention: from zero to 2, twice uniform attention, at least; range: from
            smallest to largest; bars: from 0 to 1.
        dots: a place (row and column of a cell) to mark in each row, (rows, 2), NaN in rows without one; or None.
        least: the end of a signed scale is at least this, so that rounding is not blown up into a map.
    """

    title: str
    values: np.ndarray
    scale: Literal["signed", "attention", "range", "bars"]
    dots: np.ndarray | None = None
    least: float = float(np.finfo(np.float32).tiny)


def look(network: PatchNetwork, x: np.ndarray) -> tuple[np.ndarray, list[Column]]:
    """Lets ``network`` judge images, so many at a time as what it records leaves memory for.

    Args:
        network: of the patch task; judged in eval mode and left as it is.
        x: images (b, h, w, 3).

    Returns:
        p (b,), and all columns beside the images.
    """
    most = at_once(network, *x.shape[1:3], len(x))
    p, shown = [], []
    for part in (x[start : start + most] for start in range(0, len(x), most)):
        seen = observe(network, part)
        p.append(np.asarray(seen.p))
        shown.append(columns(part, seen, network.token_order))
    return np.concatenate(p), [_joined(same) for same in zip(*shown, strict=True)]


def _joined(parts: Sequence[Column]) -> Column:
    """A column of more rows."""
    values, dots = np.concatenate([part.values for part in parts]), [part.dots for part in parts]
    least = max(part.least for part in parts)
    return replace(parts[0], values=values, dots=None if dots[0] is None else np.concatenate(dots), least=least)


def columns(x: np.ndarray, seen: Observed, token_order: str = "pixels") -> list[Column]:
    """All columns beside the images.

    Args:
        x: images (b, h, w, 3).
        seen: what the network made of them.
        token_order: of the network.
    """
    attended = np.asarray(seen.attended)
    shown = [Column(f"attended map\nchannel {channel}", attended[..., channel], "signed") for channel in CHANNELS]
    # After a LayerNorm that has not learned yet the mean is zero but for rounding.
    least = 100 * float(np.finfo(np.float32).eps * np.abs(attended).max())
    shown.append(Column(f"attended map\nmean of {attended.shape[-1]}", attended.mean(-1), "signed", least=least))
    shown.append(Column("class activation\n(its mean is the logit)", np.asarray(seen.activation), "signed"))
    shown += token_columns(seen, *asked_about(x, np.asarray(seen.activation)), token_order)
    return shown + gate_columns(seen, token_order)


def asked_about(x: np.ndarray, activation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells whose attention is shown: all of the patch; else the one at the peak of the class activation.

    Args:
        x: images (b, h, w, 3).
        activation: the class activation map, (b, h, w).

    Returns:
        How much each cell counts, (b, h, w), 1 in all; and the peaks (b, 2), NaN where there is a patch.
    """
    b, height, width = activation.shape
    peaks = np.stack(np.unravel_index(activation.reshape(b, -1).argmax(1), (height, width)), axis=1).astype(float)
    shares = np.zeros(activation.shape, np.float32)
    for share, peak, image in zip(shares, peaks, x, strict=True):
        patched = outline(image)
        if patched is None:
            share[tuple(peak.astype(int))] = 1
        else:
            top, left, _, _ = patched
            inside = centres_inside(Patches(*np.array([[1], [top], [left]])), height, width)[0]
            share[inside], peak[:] = 1 / inside.sum(), np.nan
    return shares, peaks


def outline(image: np.ndarray) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of the patch in an image (h, w, 3), if there is one."""
    patched = np.argwhere((image == WHITE).all(-1))  # no pixel of an image is as bright as a patch
    if not len(patched):
        return None
    (top, left), (bottom, right) = patched.min(0), patched.max(0) + 1
    return int(top), int(left), int(bottom - top), int(right - left)


def token_columns(seen: Observed, places: np.ndarray, dots: np.ndarray, token_order: str) -> list[Column]:
    """For all token weights: where these places look, what looks at them, and what every place receives.

    1 is uniform attention.
    """
    size = seen.attended.shape
    weights = {path: array for path, array in seen.recorded.items() if is_over_places(path, array, size)}
    shown = []
    for path, array in weights.items():
        prefix = _prefix(path, weights)
        if array.shape[2] == array.shape[3]:
            looks, looked_at = map(np.asarray, _at_places(array, places, size=size, token_order=token_order))
            shown.append(Column(f"{prefix}where the patch looks\n(or the dot)", looks, "attention", dots))
            shown.append(Column(f"{prefix}what looks at the patch\n(or at the dot)", looked_at, "attention", dots))
        every = np.asarray(_detector_maps({path: array}, size=size, token_order=token_order)[path])
        shown.append(Column(f"{prefix}attention received\n(1: uniform)", every, "attention"))
    return shown


@partial(jax.jit, static_argnames=("size", "token_order"))
def _at_places(
    weights: jax.Array, places: jax.Array, *, size: tuple[int, int, int, int], token_order: str
) -> tuple[jax.Array, jax.Array]:
    """Where the places, by their shares (b, h, w), look and what looks at them, (b, h, w) each, averaged over heads."""
    mean, held = jnp.mean(weights, axis=1) * weights.shape[-1], gathered(places, size, token_order)
    looks = jnp.einsum("bq,bqk->bk", held, mean, precision="highest")
    looked_at = jnp.einsum("bqk,bk->bq", mean, held, precision="highest")
    return spread(looks, size, token_order), spread(looked_at, size, token_order)


def gate_columns(seen: Observed, token_order: str) -> list[Column]:
    """Gates over places as maps, gates over channels as bars."""
    b, _, _, c = size = seen.attended.shape
    gates = {path: array for path, array in seen.recorded.items() if kind_of(path) == "gate"}
    maps = _detector_maps(gates, size=size, token_order=token_order)
    shown = []
    for path, array in gates.items():
        prefix = _prefix(path, gates)
        if path in maps:
            per = "\nmean over channels" if array.shape[-1] > 1 else ""
            shown.append(Column(f"{prefix}spatial gate{per}", np.asarray(maps[path]), "range"))
        elif array.ndim == 4 and array.shape[1:] == (1, 1, c):
            bars = np.broadcast_to(np.asarray(array)[:, 0, 0], (b, c))
            shown.append(Column(f"{prefix}gate of {c} channels", bars, "bars"))
    return shown


def _prefix(path: str, paths: dict[str, object]) -> str:
    return f"{path}\n" if len(paths) > 1 else ""
