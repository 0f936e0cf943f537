"""The end of a run of a task with classes: predictions and gates of the test records, class by class."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from ..config import Config
from ..data.classes import LabelledImages
from ..data.labelled import Labelled
from ..devices import Layout
from ..plots import save
from ..runs import write_whole
from ..tasks import Task
from ..text import data_title
from .grid import ATTENTION, MOST_NAMES, Caption, Column, draw, in_turn
from .observe import Named, Split, over_batches, recorded_of
from .picture import draw_images, see

CONFUSION, NORMALISATION, MATRIX = "confusion.json", "normalisation.json", "confusion.png"
MOST_LINES = 12  # sensors in a legend
TOP = 5  # predictions among which the label counts, beside the first

Arrays = dict[str, np.ndarray]  # of all test records, by path


def finish_classes(
    folder: Path, config: Config, task: Task, network: Any, source: Labelled | LabelledImages
) -> list[str]:
    """Writes the confusion, the normalisation and ``attention.png``; returns a line about the classes."""
    record = isinstance(source, Labelled)  # else an image at a time: what blocks record of all takes too much memory
    logits, recorded = predict_all(task, network, source, config.batch_size, record=record)
    predicted, labels, data = logits.argmax(-1), source.labels[source.test.start :], data_title(config.data)
    if isinstance(source, LabelledImages):
        chosen = in_turn(labels)
        shown, truth = source.read(source.test.start + chosen), labels[chosen]
        captions = captions_of(source.names, truth, predicted[chosen])
        figure = draw_images(f"{config.title} on {data}: test images", shown, captions, see(network, shown))
    elif config.task == "channel":
        (gates,) = recorded.values()
        means = mean_gates(gates[:, 0, 0], labels, source.classes)
        figure = draw_gates(f"channel attention on {data}: the gates of the test arrays", means, source.names)
    else:
        title = f"spatial attention on {data}: test windows and the gates of each stage"
        figure = draw_windows(title, source, recorded, predicted)
    save(figure, folder / ATTENTION)
    table = np.zeros((source.classes, source.classes), int)  # class i (row) predicted as class j (column)
    np.add.at(table, (labels, predicted), 1)
    save(draw_confusion(f"{config.task} on {data}: the test {source.unit}", table, source.names), folder / MATRIX)
    return [save_confusion(folder, source, table, top_accuracy(logits, labels))]


@partial(jax.jit, static_argnames=("task", "record"))
def predict(model: Split, inputs: jax.Array, *, task: Task, record: bool) -> Named:
    """The logits (b, classes) of records in eval mode, as "", and what blocks record, by path, in float32."""
    nothing = jnp.zeros(len(inputs), jnp.int32)
    x, _ = task.draw(inputs, nothing, nothing, jax.random.key(0), training=False)
    network = nnx.merge(*model, copy=True)
    network.eval()
    return {"": task.answer(network, x).astype(jnp.float32), **(recorded_of(network, x) if record else {})}


def predict_all(
    task: Task, network: nnx.Module, source: Labelled | LabelledImages, batch_size: int, *, record: bool = True
) -> tuple[np.ndarray, Arrays]:
    """`predict` over all test records in file order."""

    def predict_batch(model: Split, indices: np.ndarray, layout: Layout) -> Any:
        return predict(model, layout.cut(source.read(indices)), task=task, record=record)

    found = over_batches(network, source.test, batch_size, predict_batch)
    return found.pop(""), found


def top_accuracy(logits: np.ndarray, labels: np.ndarray, most: int = TOP) -> float:
    """The share of records whose label is among the ``most`` largest logits; of equal ones the first count.

    Example:
        >>> top_accuracy(np.array([[3, 2, 1], [1, 3, 2]]), np.array([1, 0]), most=2)
        0.5
    """
    first = np.argsort(-logits, axis=-1, kind="stable")[:, :most]
    return float((first == labels[:, None]).any(-1).mean())


def captions_of(names: Sequence[str], labels: np.ndarray, predicted: np.ndarray) -> list[Caption]:
    """A caption per record with its class, and where another one is predicted that one, in red."""
    pairs = zip(labels, predicted, strict=True)
    wrong = [(label, ", predicted " + names[guess] if label != guess else "") for label, guess in pairs]
    return [Caption(f"class {names[label]}{text}", bool(text)) for label, text in wrong]


def save_confusion(folder: Path, source: Labelled | LabelledImages, table: np.ndarray, top: float) -> str:
    """Writes the confusion of the test records and how inputs were normalised; returns a line about the worst class."""
    accuracy = float(np.trace(table) / table.sum())
    each = [float(row[place] / row.sum()) if row.any() else None for place, row in enumerate(table)]
    found = {"classes": source.names, "accuracy": accuracy, f"top_{TOP}_accuracy": top, "accuracy_of_class": each}
    found |= {"confusion": table.tolist()}
    write_whole(folder / CONFUSION, json.dumps(found, indent=1) + "\n")
    shift, scale = (values.tolist() for values in source.normalisation)
    write_whole(folder / NORMALISATION, json.dumps({"shift": shift, "scale": scale}, indent=1) + "\n")
    share, worst = min((share, place) for place, share in enumerate(each) if share is not None)
    return f"test accuracy {accuracy:.3f}, top {TOP} {top:.3f}, lowest for class {source.names[worst]}: {share:.3f}"


def draw_confusion(title: str, table: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws how many records of each class (row) are predicted as each (column), coloured by their share of the row."""
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    side = min(2.5 + 0.4 * len(names), 14)
    shown = Column("", shares[None], names=names, axes=("predicted class", "class"))
    figure = draw(title, [Caption("share of each class")], [shown], (side + 1, side))
    ax = figure.axes[0]
    if len(names) <= MOST_NAMES:
        ax.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    return figure


def mean_gates(gates: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The mean gate (classes, c) over the records of each class, from gates (n, c); NaN for a class without any."""
    means = np.full((classes, gates.shape[-1]), np.nan)
    for label in np.unique(labels):
        means[label] = gates[labels == label].mean(0)
    return means


def draw_gates(title: str, means: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws the mean gates (classes, c), and their difference from the mean over the classes."""
    classes, channels = means.shape
    gate = partial(Column, names=names, axes=("channel", "class"))
    difference = (means - np.nanmean(means, 0))[None]
    shown = [gate("", means[None]), gate("difference from the mean over the classes", difference, signed=True)]
    caption = Caption("mean gate: 0 closes a channel, 1 lets it through")
    return draw(title, [caption], shown, (min(4 + 0.05 * channels, 10), min(2.5 + 0.25 * classes, 14)))


def draw_windows(title: str, source: Labelled, recorded: Arrays, predicted: np.ndarray) -> Figure:
    """Draws test windows of each class in turn, from the gates and predictions (n,) of all of them."""
    labels = source.labels[source.test.start :]
    chosen = in_turn(labels)
    captions = captions_of(source.names, labels[chosen], predicted[chosen])
    windows = source.records[source.test.start + chosen]
    _, series, sensors = windows.shape
    shown = [Column("", windows, "lines", axes=("time step", "signal"))]
    paths = sorted(recorded, key=lambda path: [int(part) for part in path.split(".") if part.isdecimal()])
    extent = (0, series, sensors - 0.5, -0.5)
    for stage, path in enumerate(paths, 1):
        gates = recorded[path][chosen, ..., 0].swapaxes(1, 2)
        head = f"gate of stage {stage}\n(0 closed, 1 open)"
        shown.append(Column(head, gates, extent=extent, axes=("time step", "sensor")))
    figure = draw(title, captions, shown, (2.6, 1.7))
    if sensors <= MOST_LINES:
        lines, numbers = figure.axes[0].lines, [str(sensor) for sensor in range(sensors)]
        figure.legend(lines, numbers, title="sensor", ncols=6, fontsize=8, title_fontsize=8, loc="outside lower left")
    return figure
