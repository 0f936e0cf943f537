"""A picture of each block: a generated image with a patch, and what the block records in a network that was trained."""

import math
from io import BytesIO
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from ..data.source import PATCH
from ..data.synthetic import synthetic_images
from ..look.grid import Caption, Column
from ..look.maps import Size, detector_maps, kind_of
from ..look.observe import load_run, observe
from ..look.picture import CHANNELS, draw_images, look
from ..tasks.patch import Patches, painted
from .runs import ROWS

IMAGE, CORNER = 24, (44, 16)  # of the generated ones, smooth and so small in a file; and of its patch
COLUMNS, DPI, COLOURS = 5, 75, 128  # for a file of 20 kB


def write_pictures(runs: Path, folder: Path) -> list[Path]:
    """Draws the block of each row whose run of seed 0 under per_image has finished; returns the pictures' paths."""
    paths = {row: runs / f"per_image/{row}/ours/seed-0" for row in ROWS if row != "cnn"}
    blocks = {ROWS[row]["network"]: run for row, run in paths.items() if (run / "model.safetensors").is_file()}
    folder.mkdir(parents=True, exist_ok=True)
    return [draw_block(name, run, folder / f"{name}.png") for name, run in blocks.items()]


def draw_block(name: str, run: Path, path: Path) -> Path:
    """Draws what a block records, and beside it, where there is room, channels of the attended map."""
    _, network, (height, width) = load_run(run)
    image = synthetic_images(IMAGE + 1, size=max(height, width))[IMAGE:, :height, :width]
    row, column = (min(start, side - PATCH) for start, side in zip(CORNER, (height, width), strict=True))
    x = np.asarray(painted(image, Patches(*np.array([[1], [row], [column]], np.int32))))
    looked, seen = look(network, x), observe(nnx.split(network), jnp.asarray(x))
    size, end = seen.attended.shape, 2 + CHANNELS
    shown = [*looked.columns[:2], *looked.columns[end:]]
    drawn = detector_maps(seen.recorded, size)
    for record, values in seen.recorded.items():
        if kind_of(record) == "weights" and record not in drawn:
            shown.append(weights(record.rpartition(".")[2], np.asarray(values), size, looked.places))
    columns = [*shown, *looked.columns[2:end]][:COLUMNS]
    caption = Caption(f"{name}\npatch, p = {looked.answer[0]:.3f}")
    buffer = BytesIO()
    figure = draw_images("", x, [caption], looked._replace(columns=columns))
    figure.savefig(buffer, dpi=DPI, bbox_inches="tight")
    palette = Image.Quantize.MAXCOVERAGE  # keeps the few pixels of outlines in their colour
    Image.open(buffer).convert("RGB").quantize(COLOURS, palette, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def weights(name: str, values: np.ndarray, size: Size, places: np.ndarray) -> Column:
    """Weights that belong to windows, lines, branches or channels, as a matrix; of places those of the patch alone."""
    _, h, w, _ = size
    queries, keys = values.shape[-2:]
    axes = ("channel", "branch") if values.ndim == 3 else ("key", "query")
    if len(values) == 1 and queries % (h * w) == 0:
        title = f"{name}\nof the patch"
        table = np.einsum("p,pqk->qk", places.ravel(), values.mean(1).reshape(h * w, -1, keys))
        side = math.isqrt(h * w // keys)
        if len(table) == 1 and keys * side**2 == h * w:  # a smaller map
            table, axes = table.reshape(h // side, w // side), ("column", "row")
    else:
        title = f"{name}\n(mean)" if len(values) > 1 else name
        table = values.reshape(-1, queries, keys).mean(0)
    return Column(title, table[None], axes=axes, names=("",) if len(table) == 1 else ())
