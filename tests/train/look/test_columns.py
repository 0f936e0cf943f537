"""The picture shows the arrays that its titles name."""

import numpy as np
import pytest

from flax_attn.testing import relative_error, tolerance
from train.config import PatchConfig
from train.look.observe import Observed
from train.look.picture import Caption, Column, columns, draw, in_turn, limits, look, query_cells
from train.tasks.patch import build_network

CLOSE = tolerance("output", "float32")
B, H, W, C = 2, 5, 7, 11
RNG = np.random.default_rng(0)
PEAK = (1, 5)  # of the class activation in the second image; the first has a patch
PATCH = np.s_[1:5, 2:6]  # its cells: their centres, 2 pixels behind their corners, lie in 4:20 and 9:25


def image_pair():
    x = RNG.uniform(-1, 0.9, (B, 20, 28, 3)).astype(np.float32)
    x[0, 4:20, 9:25] = 1
    return x


def seen(**recorded):
    activation = RNG.uniform(-1, 1, (B, H, W)).astype(np.float32)
    activation[1, 1, 5] = 2
    attended = RNG.standard_normal((B, H, W, C)).astype(np.float32)
    return Observed(np.zeros(B), attended, activation, {name.replace("__", "."): recorded[name] for name in recorded})


def by_title(shown):
    return {column.title.replace("\n", " "): column for column in shown}


def test_records_of_each_label_are_chosen_in_turn():
    assert in_turn(np.array([2, 2, 0, 1, 1, 0, 2, 2])).tolist() == [2, 3, 0, 5, 4, 1]


def test_the_cells_of_the_patch_are_asked_about_or_the_peak():
    shares, dots = query_cells(image_pair(), seen().activation)
    expected = np.zeros((B, H, W))
    expected[0][PATCH], expected[1][PEAK] = 1 / 16, 1
    assert np.array_equal(shares, expected)
    assert np.array_equal(dots, [(np.nan, np.nan), PEAK], equal_nan=True)


def test_every_network_shows_its_attended_map_and_its_class_activation():
    watched = seen()
    shown = by_title(columns(image_pair(), watched))
    assert len(shown) == 5
    for channel in (1, 2, 3):
        assert np.array_equal(shown[f"attended map channel {channel}"].values, watched.attended[..., channel])
    assert np.array_equal(shown["attended map mean of 11"].values, watched.attended.mean(-1))
    assert np.array_equal(shown["class activation (its mean is the logit)"].values, watched.activation)


def test_tokens_show_a_row_a_column_and_what_is_received():
    weights = RNG.uniform(size=(B, 3, H * W, H * W)).astype(np.float32)
    shown = by_title(columns(image_pair(), seen(attn1__weights=weights)))
    assert len(shown) == 8
    mean = weights.mean(1) * H * W
    looks, looked_at = (
        shown[title] for title in ("where the patch looks (or the dot)", "what looks at the patch (or at the dot)")
    )
    cells = np.arange(H * W).reshape(H, W)
    for image, places in enumerate([cells[PATCH].ravel(), [cells[PEAK]]]):
        assert relative_error(looks.values[image].ravel(), mean[image, places].mean(0)) <= CLOSE
        assert relative_error(looked_at.values[image].ravel(), mean[image][:, places].mean(1)) <= CLOSE
    received = shown["attention received (1: uniform)"]
    assert relative_error(received.values.reshape(B, -1), mean.mean(1)) <= CLOSE


def test_gates_show_their_values():
    channel = RNG.uniform(size=(B, 1, 1, C)).astype(np.float32)
    spatial = RNG.uniform(size=(B, H, W, 1)).astype(np.float32)
    shown = columns(image_pair(), seen(a__gate=channel, b__gate=spatial))
    assert [column.title for column in shown[5:]] == ["a.gate\ngate of 11 channels", "b.gate\nspatial gate"]
    assert [column.scale for column in shown[5:]] == ["bars", "range"]
    assert np.array_equal(shown[5].values, channel[:, 0, 0])
    assert np.array_equal(shown[6].values, spatial[..., 0])
    (alone,) = columns(image_pair(), seen(gate=np.concatenate([spatial, 1 - spatial], -1).repeat(6, -1)[..., :C]))[5:]
    assert alone.title == "spatial gate\nmean over channels"


def test_a_picture_of_many_large_images_is_computed_in_parts(images):
    network, x = build_network(PatchConfig(network="multi_head"), 20, 28), (images(5) / 128 - 1).astype(np.float32)
    x[1, 3:19, 2:18] = 1
    p, whole = look(network, x)
    again, parts = look(network, x, most_bytes=3 * 4 * 35 * 35 * 4)  # the weights of three
    assert relative_error(again, p) <= CLOSE
    assert [column.title for column in parts] == [column.title for column in whole]
    for part, column in zip(parts, whole, strict=True):
        if "mean of" in column.title:  # rounding alone, behind a LayerNorm
            assert max(np.abs(part.values).max(), np.abs(column.values).max()) < column.least
        else:
            assert relative_error(part.values, column.values) <= CLOSE
        assert relative_error(np.array(part.least), np.array(column.least)) <= CLOSE
        assert part.scale == column.scale
        assert (part.dots is None) == (column.dots is None)
        assert column.dots is None or np.array_equal(part.dots, column.dots, equal_nan=True)


def test_a_column_has_one_scale():
    values = np.zeros((B, H, W))
    values[0], values[1] = -3.0, 2.0
    assert limits(Column("", values, "signed")) == {"vmin": -3.0, "vmax": 3.0}
    assert limits(Column("", np.abs(values), "attention")) == {"vmin": 0.0, "vmax": 3.0}
    assert limits(Column("", values, "range")) == {"vmin": -3.0, "vmax": 2.0}
    assert limits(Column("", np.abs(values) / 3, "attention")) == {"vmin": 0.0, "vmax": 2.0}
    assert limits(Column("", values, "signed", least=5.0)) == {"vmin": -5.0, "vmax": 5.0}
    nothing = limits(Column("", np.zeros((B, H, W)), "range"))
    assert nothing["vmin"] < nothing["vmax"]


def test_rounding_is_no_map():
    watched = seen()
    attended = watched.attended - watched.attended.mean(-1, keepdims=True)  # as LayerNorm does
    shown = by_title(columns(image_pair(), watched._replace(attended=attended)))
    mean = shown["attended map mean of 11"]
    assert 0 < np.abs(mean.values).max() < 0.1 * limits(mean)["vmax"]


@pytest.fixture
def shown():
    weights = RNG.uniform(size=(B, 1, H * W, H * W)).astype(np.float32)
    channel = RNG.uniform(size=(B, 1, 1, C)).astype(np.float32)
    return columns(image_pair(), seen(a__weights=weights, b__gate=channel))


def test_the_figure_draws_the_columns_in_their_places(shown, tmp_path):
    x, captions = image_pair(), [Caption("first"), Caption("second", wrong=True)]
    figure = draw(tmp_path / "both.png", "both", x, captions, shown)
    axes = figure.axes
    assert [axes[len(shown) + 1].get_title(), axes[0].get_title()] == ["second", "first"]
    for number, column in enumerate(shown, start=1):
        for row in range(B):
            ax = axes[row * (len(shown) + 1) + number]
            assert ax.get_title() == (column.title if row == 0 else "")
            if column.scale == "bars":
                assert [bar.get_height() for bar in ax.patches] == column.values[row].tolist()
                continue
            assert np.array_equal(ax.images[0].get_array(), column.values[row])
            # Cells of 4 by 4 pixels, on the image's own coordinates; only the first image has a patch to outline.
            assert ax.images[0].get_extent() == [0, 28, 20, 0]
            assert [patch.get_bbox().bounds for patch in ax.patches] == ([(9, 4, 16, 16)] if row == 0 else [])
            dots = [tuple(line.get_xydata()[0]) for line in ax.lines]
            marked = column.dots is not None and row == 1  # the other one has a patch
            assert dots == ([(PEAK[1] * 4 + 2, PEAK[0] * 4 + 2)] if marked else [])
