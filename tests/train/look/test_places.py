"""The class activation map is what each place adds to the logit of the predicted class, whatever the attention."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flax_attn import attention_maps
from flax_attn.networks.resnet import ResNet
from flax_attn.testing import relative_error, tolerance
from train.look.grid import Caption
from train.look.picture import draw_images, see
from train.tasks.classes import normalised

CLOSE = tolerance("output", "float32")
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
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
    looked = see(network, IMAGES)
    _, activation, *gates = looked.columns
    return request.param, network, looked, activation.values, {gate.title: gate.values for gate in gates}


def test_the_activation_is_the_weighted_map_of_the_predicted_class_and_its_mean_the_logit(seen):
    _, network, looked, activation, _ = seen
    network.eval()
    x = normalised(jnp.asarray(IMAGES))
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
    recorded = attention_maps(network, normalised(jnp.asarray(IMAGES)))
    for title, gate in gates.items():
        stage, name = title.split(": ")
        path = [path for path in recorded if path.startswith(f"{stage}.") and path.endswith(name)][-1]
        assert ".layers." not in path or ".layers.1." in path
        assert relative_error(gate, np.broadcast_to(np.asarray(recorded[path]).mean(-1), gate.shape)) <= CLOSE


def test_the_picture_shows_each_map_over_its_image(seen):
    _, _, looked, values, of_gates = seen
    columns = 2 + len(of_gates)
    figure = draw_images("title", IMAGES, [Caption("a"), Caption("b", wrong=True)], looked)
    axes = figure.axes
    for row in range(2):
        image, activation, *gates = axes[row * columns : (row + 1) * columns]
        assert np.array_equal(image.images[0].get_array(), IMAGES[row])
        assert np.array_equal(activation.images[1].get_array(), values[row])
        for ax, gate in zip(gates, of_gates.values(), strict=True):
            assert np.array_equal(ax.images[0].get_array(), IMAGES[row])
            assert np.array_equal(ax.images[1].get_array(), gate[row])
            assert ax.images[1].get_extent() == [0, 96, 64, 0]
