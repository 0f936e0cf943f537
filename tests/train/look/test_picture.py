"""The picture shows the arrays that its titles name."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flax_attn import attention_maps
from flax_attn.networks.resnet import ResNet
from flax_attn.testing import relative_error, tolerance
from train.config import PatchConfig
from train.look.grid import Caption, Column, in_turn, limits
from train.look.observe import observe
from train.look.picture import Looked, columns, draw_images, look, query_cells, recorded_maps, see
from train.plots import save
from train.tasks.classes import normalised
from train.tasks.patch import build_network

CLOSE = tolerance("output", "float32")
B, H, W, C = 2, 5, 7, 11
RNG = np.random.default_rng(0)
PEAK = (1, 5)  # of the class activation in the second image; the first has a patch
PATCH = np.s_[1:5, 2:6]  # its cells: their centres, 2 pixels behind their corners, lie in 4:20 and 9:25


def image_pair():
    x = np.random.default_rng(1).uniform(-1, 0.9, (B, 20, 28, 3)).astype(np.float32)
    x[0, 4:20, 9:25] = 1
    return x


ATTENDED = RNG.standard_normal((B, H, W, C)).astype(np.float32)
ACTIVATION = RNG.uniform(-1, 1, (B, H, W)).astype(np.float32)
ACTIVATION[1][PEAK] = 2
KERNEL = np.ones(C, np.float32)
KERNEL[[9, 4, 6]] = -7, 5, 3  # times maps of equal size


def shown(**recorded):
    """The columns after the image, for records by path, whose dots are written as two underscores."""
    named = {name.replace("__", "."): recorded[name] for name in recorded}
    maps = recorded_maps(named, ATTENDED.shape, query_cells(image_pair(), ACTIVATION), "pixels")
    found = {title: np.asarray(values) for title, values in maps.items()}
    return columns(image_pair(), ATTENDED, ACTIVATION, KERNEL, found)[1:]


def by_title(columns):
    return {column.title.replace("\n", " "): column for column in columns}


def test_records_of_each_label_are_chosen_in_turn():
    assert in_turn(np.array([2, 2, 0, 1, 1, 0, 2, 2])).tolist() == [2, 3, 0, 5, 4, 1]


def test_the_cells_of_the_patch_are_asked_about_or_the_peak():
    expected = np.zeros((B, H, W))
    expected[0][PATCH], expected[1][PEAK] = 1 / 16, 1
    assert np.array_equal(query_cells(image_pair(), ACTIVATION), expected)


def test_every_network_shows_its_class_activation_on_the_image_and_the_channels_that_make_it():
    found = by_title(shown())
    heat = found["class activation (its mean is the logit)"]
    assert np.array_equal(heat.values, ACTIVATION)
    assert np.array_equal(heat.under, np.clip(image_pair() / 2 + 0.5, 0, 1))
    titles = [f"attended map channel {channel}" for channel in (9, 4, 6)]
    assert list(found)[1:] == titles
    for title, channel in zip(titles, (9, 4, 6), strict=True):
        assert np.array_equal(found[title].values, ATTENDED[..., channel])


def test_tokens_show_a_row_a_column_and_what_is_received():
    weights = RNG.uniform(size=(B, 3, H * W, H * W)).astype(np.float32)
    found = by_title(shown(attn1__weights=weights)[4:])
    assert len(found) == 3
    mean = weights.mean(1) * H * W
    looks, looked_at = (
        found[title] for title in ("where the patch looks (or the dot)", "what looks at the patch (or at the dot)")
    )
    cells = np.arange(H * W).reshape(H, W)
    for image, places in enumerate([cells[PATCH].ravel(), [cells[PEAK]]]):
        assert relative_error(looks.values[image].ravel(), mean[image, places].mean(0)) <= CLOSE
        assert relative_error(looked_at.values[image].ravel(), mean[image][:, places].mean(1)) <= CLOSE
    received = found["attention received (1: uniform)"]
    assert relative_error(received.values.reshape(B, -1), mean.mean(1)) <= CLOSE


def test_gates_show_their_values():
    channel = RNG.uniform(size=(B, 1, 1, C)).astype(np.float32)
    spatial = RNG.uniform(size=(B, H, W, 1)).astype(np.float32)
    bars, gate = shown(a__gate=channel, b__gate=spatial)[4:]
    assert [bars.title, gate.title] == ["a.gate\ngate of 11 channels", "b.gate\nspatial gate"]
    assert (bars.kind, bars.axes, gate.kind) == ("bars", ("channel", "gate"), "map")
    assert np.array_equal(bars.values, channel[:, 0, 0])
    assert np.array_equal(gate.values, spatial[..., 0])
    (alone,) = shown(gate=np.concatenate([spatial, 1 - spatial], -1).repeat(6, -1)[..., :C])[4:]
    assert alone.title == "spatial gate\nmean over channels"


def test_images_are_looked_at_one_by_one_and_shown_together(images):
    network, x = build_network(PatchConfig(network="multi_head"), 20, 28), (images(5) / 128 - 1).astype(np.float32)
    x[1, 3:19, 2:18] = 1
    seen, looked = observe(nnx.split(network), jnp.asarray(x)), look(network, x)
    assert relative_error(looked.answer, np.asarray(seen.answer)) <= CLOSE
    assert relative_error(looked.columns[1].values, np.asarray(seen.activation)) <= CLOSE
    contribution = np.abs(np.asarray(seen.attended) * np.asarray(network.final.kernel)[:, 0]).mean((0, 1, 2))
    channels = [int(column.title.rpartition(" ")[2]) for column in looked.columns[2:5]]
    assert channels == np.argsort(-contribution)[:3].tolist()
    for channel, column in zip(channels, looked.columns[2:5], strict=True):
        assert relative_error(column.values, np.asarray(seen.attended)[..., channel]) <= CLOSE
    assert (looked.places > 0).sum((1, 2)).tolist() == [1, 16, 1, 1, 1]


def test_the_ends_of_a_scale():
    values = np.concatenate([np.full(5, -3.0), np.full(5, 2.0)])
    assert limits(values, signed=True) == (-3, 3)
    assert limits(values, signed=False) == (-3, 2)
    assert limits(np.append(values, np.nan), signed=False) == (-3, 2)
    assert limits(np.append(np.zeros(10_000), 9.0), signed=True) == (0, 0)  # a single place does not count
    assert limits(np.append(np.linspace(0, 1, 10_000), 9.0), signed=False)[1] < 1.01
    assert limits(np.append(np.full(10_000, 36.0), 9.0), signed=False) == (9, 36)  # unless nothing else is there


def test_the_figure_draws_the_columns_in_their_places(tmp_path):
    weights = RNG.uniform(size=(B, 1, H * W, H * W)).astype(np.float32)
    after = shown(a__weights=weights, b__gate=RNG.uniform(size=(B, 1, 1, C)).astype(np.float32))
    x, captions = image_pair(), [Caption("first"), Caption("second", wrong=True)]
    image = Column("", np.clip(x / 2 + 0.5, 0, 1), "image", extent=(0, 28, 20, 0))
    looked = Looked(np.zeros(2), [image, *after], query_cells(x, ACTIVATION))
    figure = draw_images("both", x, captions, looked)
    save(figure, tmp_path / "both.png")
    axes, bars = figure.axes, [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    assert [axes[len(looked.columns)].get_title(), axes[0].get_title()] == ["second", "first"]
    for number, column in enumerate(looked.columns):
        for row in range(B):
            ax = axes[row * len(looked.columns) + number]
            if number:
                assert ax.get_title() == (column.title if row == 0 else "")
            if column.kind == "bars":
                assert [bar.get_height() for bar in ax.patches] == column.values[row].tolist()
                continue
            assert np.array_equal(ax.images[-1].get_array(), column.values[row])
            # Cells of 4 by 4 pixels, on the image's own coordinates; only the first image has a patch to outline.
            assert ax.images[-1].get_extent() == [0, 28, 20, 0]
            assert [patch.get_bbox().bounds for patch in ax.patches] == ([(9, 4, 16, 16)] if row == 0 else [])
            dots = [tuple(line.get_xydata()[0]) for line in ax.lines]
            assert dots == ([(PEAK[1] * 4 + 2, PEAK[0] * 4 + 2)] if row == 1 else [])
            if column.kind == "map":  # with a bar and a scale of its own
                assert ax.images[-1].get_clim() == limits(column.values[row], column.signed)
    assert len(bars) == B * sum(column.kind == "map" for column in looked.columns)


# Of a ResNet the class activation is what each place adds to the logit of the predicted class, whatever the attention.
PHOTOS = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
GATES = {
    None: [],
    "eca": [],  # has no value per place
    "cbam_spatial": [f"layer{stage}: gate" for stage in (1, 2, 3, 4)],
    "coordinate": [f"layer{stage}: {side}_gate" for stage in (1, 2, 3, 4) for side in ("height", "width")],
    "bam": [f"attention{stage}: gate" for stage in (1, 2, 3)],
}


@pytest.fixture(scope="module", params=GATES)
def seen(request):
    """The attention, its network, and what is seen of the images: in all, the activation, and the gates."""
    network = ResNet(18, request.param, 5, rngs=nnx.Rngs(0))
    looked = see(network, PHOTOS)
    _, activation, *gates = looked.columns
    return request.param, network, looked, activation.values, {gate.title: gate.values for gate in gates}


def test_the_activation_is_the_weighted_map_of_the_predicted_class_and_its_mean_the_logit(seen):
    _, network, looked, activation, _ = seen
    network.eval()
    x = normalised(jnp.asarray(PHOTOS))
    features, logits = np.asarray(network.features(x)), np.asarray(network(x))
    predicted = logits.argmax(-1)
    columns, bias = np.asarray(network.fc.kernel[...])[:, predicted].T, np.asarray(network.fc.bias[...])[predicted]
    expected = np.einsum("bhwc,bc->bhw", features, columns) + bias[:, None, None]
    terms = np.einsum("bhwc,bc->bhw", np.abs(features), np.abs(columns))  # which cancel one another in part
    assert activation.shape == (2, 2, 3)
    assert (np.abs(activation - expected) <= CLOSE * terms).all()
    for mean in (activation.mean((1, 2)), looked.answer.max(-1)):
        assert (np.abs(mean - logits.max(-1)) <= CLOSE * terms.mean((1, 2))).all()


def test_gates_are_those_of_the_last_block_of_each_stage(seen):
    attention, network, _, _, gates = seen
    assert [*gates] == GATES[attention]
    network.eval()
    recorded = attention_maps(network, normalised(jnp.asarray(PHOTOS)))
    for title, gate in gates.items():
        stage, name = title.split(": ")
        path = [path for path in recorded if path.startswith(f"{stage}.") and path.endswith(name)][-1]
        assert ".layers." not in path or ".layers.1." in path
        assert relative_error(gate, np.broadcast_to(np.asarray(recorded[path]).mean(-1), gate.shape)) <= CLOSE


def test_the_picture_of_classes_shows_each_map_over_its_image(seen):
    _, _, looked, values, of_gates = seen
    columns = 2 + len(of_gates)
    figure = draw_images("title", PHOTOS, [Caption("a"), Caption("b", wrong=True)], looked)
    axes = figure.axes
    for row in range(2):
        image, activation, *gates = axes[row * columns : (row + 1) * columns]
        assert np.array_equal(image.images[0].get_array(), PHOTOS[row])
        assert np.array_equal(activation.images[1].get_array(), values[row])
        for ax, gate in zip(gates, of_gates.values(), strict=True):
            assert np.array_equal(ax.images[0].get_array(), PHOTOS[row])
            assert np.array_equal(ax.images[1].get_array(), gate[row])
            assert ax.images[1].get_extent() == [0, 96, 64, 0]
