"""How a trained network judges the test records of a task with classes, class by class."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..data.batches import eval_batches
from ..data.labelled import Labelled
from ..devices import Layout
from ..runs import write_whole
from ..tasks import Task
from .witness import witness

CONFUSION, NORMALISATION = "confusion.json", "normalisation.json"
Recorded = dict[str, jax.Array]


@partial(jax.jit, static_argnames="task")
def watch(
    graph: nnx.GraphDef[nnx.Module], state: nnx.State, inputs: jax.Array, *, task: Task
) -> tuple[jax.Array, Recorded]:
    """Lets a network judge records in eval mode.

    Args:
        graph: of the network.
        state: of the network.
        inputs: (b, ...), as the source has them.
        task: the network's.

    Returns:
        The logits (b, classes) and all that blocks recorded, by path, in float32.
    """
    network = nnx.merge(graph, state, copy=True)
    nothing = jnp.zeros(len(inputs), jnp.int32)
    x, _ = task.draw(inputs, nothing, nothing, jax.random.key(0))
    results, recorded = witness(network, lambda network, x: {"answer": task.answer(network, x)}, x)
    return results["answer"], recorded


def watch_all(
    task: Task, network: nnx.Module, source: Labelled, batch_size: int, *, gates: bool
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """`watch` over the test records, in file order.

    Args:
        task: the network's.
        network: left as it is.
        source: whose test records are judged.
        batch_size: records at a time.
        gates: whether what blocks record is kept.

    Returns:
        The logits (n, classes), and what was recorded (n, ...), or nothing.
    """
    layout = Layout(batch_size)
    graph, state = nnx.split(network)
    state = layout.copy(state)
    parts: dict[str, list[np.ndarray]] = {}
    for indices, real in eval_batches(source.test, batch_size):
        logits, recorded = watch(graph, state, layout.cut(source.records[indices]), task=task)
        for name, array in {"": logits, **(recorded if gates else {})}.items():
            parts.setdefault(name, []).append(np.asarray(array)[real])
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return whole.pop(""), whole


def confusion(y: np.ndarray, judged: np.ndarray, classes: int) -> np.ndarray:
    """How many records of class i (row) are taken for class j (column).

    Example:
        >>> confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), 3)
        array([[1, 1, 0],
               [0, 1, 0],
               [0, 1, 0]])
    """
    table = np.zeros((classes, classes), int)
    np.add.at(table, (y, judged), 1)
    return table


def save_confusion(folder: Path, source: Labelled, judged: np.ndarray) -> str:
    """Writes how the test records are judged, and how the inputs were normalised.

    Args:
        folder: of the run.
        source: the records.
        judged: (n,), the classes that the network takes the test records for.

    Returns:
        A line about the class that it knows least.
    """
    table = confusion(source.labels[source.test.start :], judged, source.classes)
    each = [
        int(right) / int(count) if count else None for right, count in zip(np.diag(table), table.sum(1), strict=True)
    ]
    found = {
        "classes": list(source.names),
        "accuracy": float(np.trace(table) / table.sum()),
        "accuracy_of_class": each,
        "confusion": table.tolist(),
    }
    write_whole(folder / CONFUSION, json.dumps(found, indent=1) + "\n")
    shift, scale = (values.tolist() for values in source.normalisation)
    write_whole(folder / NORMALISATION, json.dumps({"shift": shift, "scale": scale}, indent=1) + "\n")
    share, worst = min((share, place) for place, share in enumerate(each) if share is not None)
    return (
        f"class {source.names[worst]} is known least: {share:.3f} of its test {source.unit} are judged rightly, of all "
        f"{found['accuracy']:.3f}"
    )
