"""What is shown of networks that tell classes apart is what they make of each test record by itself."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flax_attn import attention_maps
from flax_attn.testing import relative_error, tolerance
from train.config import ChannelConfig, SensorConfig
from train.data.labelled import Labelled
from train.look import finish
from train.look.classes import (
    draw_confusion,
    draw_gates,
    draw_windows,
    mean_gates,
    predict_all,
    save_confusion,
    top_accuracy,
)
from train.look.grid import limits
from train.tasks import task_of
from train.tasks.labelled import ARRAYS, WINDOWS

CLOSE = tolerance("output", "float32")
COUNT, TEST = 23, 5  # in batches of three: the last one is filled up
RNG = np.random.default_rng(0)
LABELS = np.array([*np.arange(18) % 3, 2, 0, 0, 1, 2])
NAMES = ("lie", "sit", "run")


def labelled(task):
    kind, shape = {"channel": (ARRAYS, (5, 7, 11)), "sensor": (WINDOWS, (19, 3))}[task]
    return Labelled("mine", kind, RNG.normal(2, 3, (COUNT, *shape)), LABELS, NAMES)


@pytest.fixture(scope="module", params=["channel", "sensor"])
def watched(request):
    """A task, its records, its network, and what that makes of each test record alone: logits and recorded arrays."""
    config = ChannelConfig(batch_size=3, ratio=2) if request.param == "channel" else SensorConfig(batch_size=3)
    task, source = task_of(config), labelled(request.param)
    network = task.build(config, source)
    for norm in [module for _, module in nnx.iter_modules(network) if hasattr(module, "use_running_average")]:
        norm.mean[...] = jnp.asarray(RNG.normal(0, 0.1, norm.mean.shape), jnp.float32)  # as training leaves it
    alone = task.build(config, source)
    nnx.update(alone, nnx.state(network))
    alone.eval()
    expected = []
    for index in source.test:
        x = jnp.asarray(source.records[index][None])
        x = x[..., None] if request.param == "sensor" else x
        expected.append((np.asarray(task.answer(alone, x))[0], attention_maps(alone, x)))
    return config, task, source, network, expected


def test_each_test_record_is_watched_once_and_alone(watched):
    config, task, source, network, expected = watched
    logits, recorded = predict_all(task, network, source, config.batch_size)
    assert relative_error(logits, np.stack([answer for answer, _ in expected])) <= CLOSE
    assert recorded.keys() == expected[0][1].keys()
    for path, arrays in recorded.items():
        assert relative_error(arrays, np.concatenate([maps[path] for _, maps in expected])) <= CLOSE


def test_the_pictures_show_what_was_recorded(watched, tmp_path):
    show = {"channel": a_class_shows_the_mean_gate_of_its_records, "sensor": a_row_is_a_window_and_its_gates}
    show[watched[0].task](watched, tmp_path)


def a_class_shows_the_mean_gate_of_its_records(watched, tmp_path):
    config, task, source, network, expected = watched
    _, recorded = predict_all(task, network, source, config.batch_size)
    (gates,) = recorded.values()
    means = mean_gates(gates[:, 0, 0], LABELS[18:], 3)
    each = np.stack([np.asarray(next(iter(maps.values()))).ravel() for _, maps in expected])
    assert each.shape == (TEST, 11)
    assert relative_error(means, np.stack([each[LABELS[18:] == label].mean(0) for label in range(3)])) <= CLOSE
    above, below = draw_gates("title", means, NAMES).axes[:2]
    assert np.array_equal(above.images[0].get_array(), means)
    assert np.array_equal(below.images[0].get_array(), means - means.mean(0))
    assert [label.get_text() for label in above.get_yticklabels()] == list(NAMES)


def a_row_is_a_window_and_its_gates(watched, tmp_path):
    config, task, source, network, expected = watched
    _, recorded = predict_all(task, network, source, config.batch_size)
    predicted = np.array([logits.argmax() for logits, _ in expected])
    axes = draw_windows("title", source, recorded, predicted).axes
    for row, place in enumerate([1, 3, 0, 2, 4]):  # the first of each class, then the second
        signal, *stages = axes[row * 5 : row * 5 + 5]
        shown = np.stack([line.get_ydata() for line in signal.lines], 1)
        np.testing.assert_array_equal(shown, source.records[18 + place])
        gates = sorted(expected[place][1].values(), key=lambda gate: -gate.shape[1])
        assert [gate.shape[1:3] for gate in gates] == [(10, 3), (5, 3), (3, 3), (2, 3)]
        for ax, gate in zip(stages, gates, strict=True):
            assert relative_error(np.asarray(ax.images[0].get_array()).T, np.asarray(gate)[0, ..., 0]) <= CLOSE
            assert ax.images[0].get_clim() == limits(np.asarray(ax.images[0].get_array()), signed=False)
        label, answer = LABELS[18 + place], predicted[place]
        wrong = "" if label == answer else f", predicted {NAMES[answer]}"
        assert signal.get_title() == f"class {NAMES[label]}{wrong}"


def test_a_run_ends_with_predictions_normalisation_and_a_picture(watched, tmp_path):
    config, task, source, network, expected = watched
    (line,) = finish(tmp_path, config, task, network, source)
    table = np.zeros((3, 3), int)
    np.add.at(table, (LABELS[18:], [logits.argmax() for logits, _ in expected]), 1)
    assert json.loads((tmp_path / "confusion.json").read_text())["confusion"] == table.tolist()
    found = json.loads((tmp_path / "normalisation.json").read_text())
    assert np.array_equal(np.float32(found["shift"]), source.normalisation[0])
    assert np.array_equal(np.float32(found["scale"]), source.normalisation[1])
    assert f"{np.trace(table) / TEST:.3f}" in line
    for picture in ("attention.png", "confusion.png"):
        assert (tmp_path / picture).stat().st_size > 5_000


def test_the_class_that_is_known_least_is_told_with_its_share(tmp_path):
    line = save_confusion(tmp_path, labelled("sensor"), np.array([[1, 1, 0], [0, 1, 0], [0, 0, 2]]), 0.9)
    assert line == "test accuracy 0.800, top 5 0.900, lowest for class lie: 0.500"
    found = json.loads((tmp_path / "confusion.json").read_text())
    assert found["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 2]]
    assert found["top_5_accuracy"] == 0.9
    assert found["accuracy_of_class"] == [0.5, 1.0, 1.0]


def test_a_label_counts_among_the_first_five():
    logits = np.array([[7, 6, 5, 4, 3, 2, 1], [7, 7, 7, 7, 7, 7, 0], [1, 2, 3, 4, 5, 6, 7.0]])
    for labels, expected in (([4, 4, 2], 1), ([5, 4, 2], 2 / 3), ([5, 5, 1], 0), ([0, 0, 6], 1)):
        assert top_accuracy(logits, np.array(labels)) == expected
    assert top_accuracy(logits[:, :3], np.array([2, 1, 0])) == 1  # of three classes all are among them


def test_the_confusion_is_drawn_by_shares():
    (ax, _) = draw_confusion("title", np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]]), NAMES).axes
    assert ax.images[0].get_array().tolist() == [[0.75, 0.25, 0], [0, 0, 0], [0.5, 0, 0.5]]
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert [label.get_text() for label in labels] == list(NAMES)
