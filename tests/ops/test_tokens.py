"""Between maps and tokens."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flax_attn import ops

MAP = np.arange(2 * 5 * 7 * 3, dtype=np.float32).reshape(2, 5, 7, 3)
CHANNELS_FIRST = MAP.transpose(0, 3, 1, 2)


def test_a_pixels_token_is_one_pixel_with_its_channels():
    tokens = ops.map_to_tokens(MAP)
    np.testing.assert_array_equal(tokens[1, 2 * 7 + 3], MAP[1, 2, 3])


def test_article_tokens_are_the_literal_reshape_of_the_channels_first_array():
    tokens = ops.map_to_tokens(MAP, "article")
    np.testing.assert_array_equal(tokens, torch.tensor(CHANNELS_FIRST).reshape(2, 5 * 7, 3))


def test_an_article_token_is_neighbouring_pixels_of_one_channel_where_channels_divide_pixels():
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype(np.float32)
    tokens = ops.map_to_tokens(x, "article")
    np.testing.assert_array_equal(tokens[1, 0], x[1, 0, :3, 0])
    np.testing.assert_array_equal(tokens[1, 1], x[1, 0, 3:, 0])
    np.testing.assert_array_equal(tokens[1, 10], x[1, 0, :3, 1])  # 30 pixels make ten tokens per channel


def test_an_article_token_straddles_channels_where_they_do_not():
    tokens = ops.map_to_tokens(MAP, "article")
    np.testing.assert_array_equal(tokens[0, 11], [MAP[0, 4, 5, 0], MAP[0, 4, 6, 0], MAP[0, 0, 0, 1]])


def test_the_two_orders_differ():
    assert not np.array_equal(ops.map_to_tokens(MAP, "pixels"), ops.map_to_tokens(MAP, "article"))


@pytest.mark.parametrize("token_order", ["pixels", "article"])
def test_round_trip(token_order):
    token_order = "".join(token_order)  # another string of the same letters, as one from a file would be
    tokens = ops.map_to_tokens(MAP, token_order)
    assert tokens.shape == (2, 35, 3)
    np.testing.assert_array_equal(ops.tokens_to_map(tokens, 5, 7, token_order), MAP)


@pytest.mark.parametrize(
    "call", [lambda: ops.map_to_tokens(MAP, "rows"), lambda: ops.tokens_to_map(jnp.ones((2, 35, 3)), 5, 7, "rows")]
)
def test_unknown_token_order(call):
    with pytest.raises(ValueError, match="token_order must be one of 'pixels', 'article', got 'rows'"):
        call()


def test_flatten_channels_first_is_torchs_order():
    np.testing.assert_array_equal(ops.flatten_channels_first(MAP), torch.tensor(CHANNELS_FIRST).flatten(1))
