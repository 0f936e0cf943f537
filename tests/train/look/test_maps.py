"""From what blocks record to maps over places."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

from flax_attn import ops
from flax_attn.networks.patch import PatchNetwork
from flax_attn.testing import relative_error, tolerance
from train.config import PatchConfig
from train.data import Source
from train.look.maps import detector_maps, gathered, spread
from train.look.observe import observe
from train.look.scores import localise
from train.tasks.patch import Patches, build_network

CLOSE = tolerance("output", "float32")
SIZE = (2, 5, 7, 3)
HEIGHT, WIDTH = 20, 28  # of images whose maps have 5 by 7 places
RNG = np.random.default_rng(0)


def article_pixels(token, h, w, c):
    """The places (with repetition) whose values the tutorial's token holds, from its own reshape."""
    places = np.broadcast_to(np.arange(h * w), (c, h * w)).reshape(h * w, c)
    return places[token]


@pytest.mark.parametrize("name", ["cbam_spatial", "multi_head"])
def test_the_mean_of_the_class_activation_is_the_logit(name, images):
    network = build_network(PatchConfig(network=name), HEIGHT, WIDTH)
    x = jnp.asarray((images(2) / 128 - 1).astype(np.float32))
    seen = observe(nnx.split(network), x)
    assert seen.activation.shape == (2, 5, 7)
    assert np.ptp(seen.activation) > 0
    assert relative_error(np.asarray(seen.answer), expit(np.asarray(seen.activation).mean((1, 2)))) <= CLOSE
    # In eval mode one image is nothing to another, though the network itself is still in training and stays so.
    other = observe(nnx.split(network), x.at[1].set(0))
    assert other.answer[0] == seen.answer[0]
    assert other.answer[1] != seen.answer[1]
    assert not network.conv.bn1a.use_running_average
    assert (np.asarray(network.conv.bn1a.mean[...]) == 0).all()


def test_weights_become_the_attention_that_places_receive():
    weights = np.zeros((1, 2, 2, 6), np.float32)  # 2 heads, 2 queries, 2 x 3 places
    weights[0, 0, 0, 5] = weights[0, 0, 1, 5] = weights[0, 1, 0, 0] = 1
    weights[0, 1, 1, 1:3] = 0.5
    maps = detector_maps({"attn1.weights": jnp.asarray(weights)}, (1, 2, 3, 4))
    # Of four rows of weights two look at place 5, one at place 0, one half at each of 1 and 2; times six places.
    assert np.asarray(maps["attn1.weights"]).tolist() == [[[1.5, 0.75, 0.75], [0, 0, 3]]]


def test_gates_become_their_mean_over_channels():
    gate = RNG.uniform(size=SIZE).astype(np.float32)
    maps = detector_maps({"a.gate": gate, "b.gate.0": gate[..., :1], "c.gate": gate[:, :, :1]}, SIZE)
    assert relative_error(np.asarray(maps["a.gate"]), gate.mean(-1)) <= CLOSE
    assert np.array_equal(maps["b.gate.0"], gate[..., 0])
    assert relative_error(np.asarray(maps["c.gate"]), gate[:, :, :1].mean(-1).repeat(7, 2)) <= CLOSE


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("attn1.channel_gate.gate", (2, 1, 1, 3)),
        ("attn1.gate", (2, 5, 11, 1)),  # over another map
        ("attn1.z1", (2, 1, 35, 35)),
        ("attn1.weights", (2, 1, 35, 13)),  # over other tokens
        ("attn1.weights", (6, 1, 35, 35)),  # of windows, say
        ("attn1.weights", (2, 35, 35)),
    ],
)
def test_what_has_no_places_gives_no_map(path, shape):
    assert detector_maps({path: jnp.ones(shape)}, SIZE) == {}


def test_an_article_token_counts_for_the_places_whose_values_it_holds():
    values = RNG.uniform(size=(2, 35)).astype(np.float32)
    expected = np.zeros((2, 35))
    for token in range(35):
        for place in article_pixels(token, 5, 7, 3):
            expected[:, place] += values[:, token] / 3
    assert relative_error(np.asarray(spread(values, SIZE, "article")), expected.reshape(2, 5, 7)) <= CLOSE
    assert relative_error(np.asarray(spread(values, SIZE, "pixels")), values.reshape(2, 5, 7)) <= CLOSE
    weights = np.broadcast_to(values[:, None, None] / 35, (2, 4, 11, 35))
    received = detector_maps({"weights": weights}, SIZE, "article")["weights"]
    assert relative_error(np.asarray(received), expected.reshape(2, 5, 7)) <= CLOSE


@pytest.mark.parametrize("token_order", ["pixels", "article"])
def test_places_are_gathered_from_the_tokens_that_hold_them(token_order):
    shares = {0: {(1, 4): 0.25, (2, 6): 0.75}, 1: {(3, 0): 1.0}}
    places = np.zeros((2, 5, 7), np.float32)
    for b, counts in shares.items():
        for place, share in counts.items():
            places[b][place] = share
    held = np.asarray(gathered(places, SIZE, token_order))
    for b, counts in shares.items():
        expected = np.zeros(35, np.float32)
        for (row, column), share in counts.items():
            place = row * 7 + column
            if token_order == "pixels":
                expected[place] += share
            else:
                expected += [share * np.mean(article_pixels(token, 5, 7, 3) == place) for token in range(35)]
        assert relative_error(held[b], expected) <= CLOSE


class Ring(nnx.Module):
    """A block that nobody has seen before: it lets the border of a map through."""

    def __call__(self, x):
        gate = jnp.ones((1, *x.shape[1:3], 1)).at[:, 1:-1, 1:-1].set(0)
        ops.record(self, "gate", gate)
        return x * gate


def test_a_new_block_gets_its_scores_for_nothing(images):
    network = PatchNetwork(Ring(), rngs=nnx.Rngs(0))
    patches = Patches(*np.array([[1, 1, 0], [0, 2, 0], [0, 6, 0]]))
    scores = localise(network, Source("some", images(5), test=range(2, 5)), patches)
    assert scores.keys() == {"class_activation", "attended_mean", "attn1.gate"}
    # The first patch lies on 4 by 4 places of 5 by 7, from the corner: 7 of the 20 on the border. The second, at
    # (2, 6), has the centres of rows 0 to 3 and columns 1 to 4: 4 of them.
    assert scores["attn1.gate"].pointing == (7 / 20 + 4 / 20) / 2
