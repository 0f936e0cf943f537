"""The end of a run of the channel or the sensor task: predictions and gates of the test records, class by class."""

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
from matplotlib.ticker import MaxNLocator

from ..config import Config
from ..data.labelled import Labelled
from ..devices import Layout
from ..plots import new_figure
from ..runs import write_whole
from ..tasks import Task
from ..text import data_title
from .observe import Named, Split, call_recorded, over_batches
from .picture import ATTENTION, BAR, SAVED, Caption, in_turn

CONFUSION, NORMALISATION = "confusion.json", "normalisation.json"
MOST_NAMES, MOST_LINES = 40, 12  # classes with a label, sensors in a legend
EPS = float(np.finfo(np.float32).eps)
TABLE: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest"}

Arrays = dict[str, np.ndarray]  # of all test records, by path


def finish_classes(folder: Path, config: Config, task: Task, network: nnx.Module, source: Labelled) -> list[str]:
    """Writes ``confusion.json``, ``normalisation.json`` and ``attention.png``; returns a line about the classes."""
    logits, recorded = predict_all(task, network, source, config.batch_size)
    predicted, labels, data = logits.argmax(-1), source.labels[source.test.start :], data_title(config.data)
    if config.task == "channel":
        (gates,) = recorded.values()
        means = mean_gates(gates[:, 0, 0], labels, source.classes)
        title = f"channel attention on {data}: the gates of the test arrays"
        draw_gates(folder / ATTENTION, title, means, source.names)
    else:
        title = f"spatial attention on {data}: test windows and the gates of each stage"
        draw_chosen(folder / ATTENTION, title, source, recorded, predicted)
    return [save_confusion(folder, source, predicted)]


@partial(jax.jit, static_argnames="task")
def predict(model: Split, inputs: jax.Array, *, task: Task) -> tuple[jax.Array, Named]:
    """The logits (b, classes) of records in eval mode, and what blocks record, by path, in float32."""
    nothing = jnp.zeros(len(inputs), jnp.int32)
    x, _ = task.draw(inputs, nothing, nothing, jax.random.key(0))
    return call_recorded(nnx.merge(*model, copy=True), lambda network: task.answer(network, x))


def predict_all(task: Task, network: nnx.Module, source: Labelled, batch_size: int) -> tuple[np.ndarray, Arrays]:
    """`predict` over all test records in file order."""

    def predict_batch(model: Split, indices: np.ndarray, layout: Layout) -> Named:
        logits, recorded = predict(model, layout.cut(source.records[indices]), task=task)
        return {"": logits, **recorded}

    found = over_batches(network, source.test, batch_size, predict_batch)
    return found.pop(""), found


def save_confusion(folder: Path, source: Labelled, predicted: np.ndarray) -> str:
    """Writes the confusion of the test records and how inputs were normalised; returns a line about the worst class."""
    table = np.zeros((source.classes, source.classes), int)  # class i (row) predicted as class j (column)
    np.add.at(table, (source.labels[source.test.start :], predicted), 1)
    accuracy, confusion = float(np.trace(table) / table.sum()), table.tolist()
    each = [row[place] / sum(row) if any(row) else None for place, row in enumerate(confusion)]
    found = {"classes": list(source.names), "accuracy": accuracy, "accuracy_of_class": each, "confusion": confusion}
    write_whole(folder / CONFUSION, json.dumps(found, indent=1) + "\n")
    shift, scale = (values.tolist() for values in source.normalisation)
    write_whole(folder / NORMALISATION, json.dumps({"shift": shift, "scale": scale}, indent=1) + "\n")
    share, worst = min((share, place) for place, share in enumerate(each) if share is not None)
    return f"test accuracy {accuracy:.3f}, lowest for class {source.names[worst]}: {share:.3f}"


def mean_gates(gates: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The mean gate (classes, c) over the records of each class, from gates (n, c); NaN for a class without any."""
    means = np.full((classes, gates.shape[-1]), np.nan)
    for label in np.unique(labels):
        means[label] = gates[labels == label].mean(0)
    return means


def draw_gates(path: Path, title: str, means: np.ndarray, names: tuple[str, ...]) -> Figure:
    """Draws the mean gates (classes, c), and their difference from the mean over the classes."""
    classes, channels = means.shape
    figure = new_figure(title, min(5 + 0.1 * channels, 16), min(4 + 0.5 * classes, 16))
    difference = means - np.nanmean(means, 0)
    most = float(np.nanmax(np.abs(difference))) or 1.0
    above, below = figure.subplots(2, 1, sharex=True)
    shown = {
        above: above.imshow(means, cmap="viridis", vmin=0, vmax=1, **TABLE),
        below: below.imshow(difference, cmap="RdBu_r", vmin=-most, vmax=most, **TABLE),
    }
    above.set_title("mean gate: 0 closes a channel, 1 lets it through", fontsize=10)
    below.set_title("difference from the mean over the classes", fontsize=10)
    below.set_xlabel("channel")
    for ax, image in shown.items():
        ax.set_ylabel("class")
        ax.xaxis.set_major_locator(MaxNLocator(16, integer=True))
        if classes <= MOST_NAMES:
            ax.set_yticks(range(classes), names)
        figure.colorbar(image, ax=ax, pad=0.01)
    figure.savefig(path, **SAVED)
    return figure


def draw_chosen(path: Path, title: str, source: Labelled, recorded: Arrays, predicted: np.ndarray) -> Figure:
    """Draws test windows of each class in turn, from the gates and predictions (n,) of all of them."""
    labels = source.labels[source.test.start :]
    chosen = in_turn(labels)
    stages = sorted(recorded, key=lambda path: [int(part) for part in path.split(".") if part.isdecimal()])
    captions = []
    for label, guess in zip(labels[chosen], predicted[chosen], strict=True):
        wrong = bool(label != guess)
        text = f"class {source.names[label]}" + (f", predicted {source.names[guess]}" if wrong else "")
        captions.append(Caption(text, wrong))
    gates = [recorded[stage][chosen, ..., 0] for stage in stages]
    return draw_windows(path, title, source.records[source.test.start + chosen], gates, captions)


def draw_windows(
    path: Path, title: str, windows: np.ndarray, gates: Sequence[np.ndarray], captions: Sequence[Caption]
) -> Figure:
    """Draws a row per window (rows, series, sensors): the signal, and the gate of each stage (rows, steps, sensors)."""
    count, series, sensors = windows.shape
    figure = new_figure(title, 4 + 2.6 * len(gates), 1.7 * count + 1.2)
    grid = figure.subplots(count, 1 + len(gates), squeeze=False, sharex=True, width_ratios=[1.5, *[1] * len(gates)])
    for ax, window, caption in zip(grid[:, 0], windows, captions, strict=True):
        ax.plot(np.arange(series) + 0.5, window, linewidth=0.9)
        caption.draw(ax)
        ax.set(xlim=(0, series), ylabel="signal")
    if sensors <= MOST_LINES:
        lines, numbers = grid[0, 0].lines, [str(sensor) for sensor in range(sensors)]
        figure.legend(lines, numbers, title="sensor", ncols=6, fontsize=8, title_fontsize=8, loc="outside lower left")
    for stage, (axes, gate) in enumerate(zip(grid.T[1:], gates, strict=True), start=1):
        axes[0].set_title(f"gate of stage {stage}", fontsize=10)
        low, high = gate.min(), max(gate.max(), gate.min() + EPS)
        for ax, values in zip(axes, gate, strict=True):
            extent = (0, series, sensors - 0.5, -0.5)
            shown = ax.imshow(values.T, vmin=low, vmax=high, extent=extent, **TABLE)
            ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        bar = figure.colorbar(shown, ax=list(axes), **BAR)
        bar.ax.locator_params(nbins=4)
        bar.set_label("0 closed, 1 open", fontsize=8)
    for ax in grid[-1]:
        ax.set_xlabel("time step")
    for ax in grid[:, 1]:
        ax.set_ylabel("sensor")
    figure.savefig(path, **SAVED)
    return figure
