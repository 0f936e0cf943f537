import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flax_attn.blocks import position as fx
from flax_attn.testing import relative_error, tolerance

OUTPUT = tolerance("output", "float64")


def encoding(block, *shape):
    with jax.enable_x64(True):
        return np.asarray(block(jnp.zeros((1, *shape))))[0]


def test_sine_by_hand():
    # Eight channels: four for the row, with wavelengths 1 and temperature ** (1/2), and four for the column.
    block = fx.SinePositionEncoding2d(8, temperature=400, rngs=nnx.Rngs(0))
    at_row_3_column_5 = encoding(block, 4, 7, 8)[3, 5]
    expected = [math.sin(3), math.cos(3), math.sin(3 / 20), math.cos(3 / 20)]
    expected += [math.sin(5), math.cos(5), math.sin(5 / 20), math.cos(5 / 20)]
    assert relative_error(at_row_3_column_5, np.array(expected)) <= OUTPUT


def test_sine_against_the_formula_one_number_at_a_time():
    h, w, c = 5, 7, 12
    expected = np.zeros((h, w, c))
    for row, column, channel in np.ndindex(h, w, c):
        place, index = (row, channel) if channel < 6 else (column, channel - 6)
        angle = place / 10000 ** (index // 2 * 2 / 6)
        expected[row, column, channel] = math.cos(angle) if index % 2 else math.sin(angle)
    assert relative_error(encoding(fx.SinePositionEncoding2d(c, rngs=nnx.Rngs(0)), h, w, c), expected) <= OUTPUT


def test_sine_has_no_parameters():
    assert jax.tree.leaves(nnx.state(fx.SinePositionEncoding2d(8, rngs=nnx.Rngs(0)))) == []


def test_learned_is_a_row_of_one_table_beside_a_row_of_the_other():
    block = fx.LearnedPositionEncoding2d(5, 7, 6, rngs=nnx.Rngs(0))
    rows, columns = (np.asarray(table.embedding[...]) for table in (block.row_embed, block.col_embed))
    assert (rows.shape, columns.shape) == ((5, 3), (7, 3))
    got = encoding(block, 5, 7, 6)
    for row, column in np.ndindex(5, 7):
        np.testing.assert_array_equal(got[row, column], [*rows[row], *columns[column]])


@pytest.mark.parametrize(
    "block",
    [fx.SinePositionEncoding2d(8, rngs=nnx.Rngs(0)), fx.LearnedPositionEncoding2d(5, 7, 8, rngs=nnx.Rngs(0))],
    ids=["sine", "learned"],
)
def test_is_added_to_every_map_of_the_batch(block):
    x = np.random.default_rng(0).standard_normal((3, 5, 7, 8))
    with jax.enable_x64(True):
        out = np.asarray(block(jnp.asarray(x)))
    np.testing.assert_array_equal(out, x + encoding(block, 5, 7, 8))


def test_rows_come_first():
    # DETR's learned form has the columns first; both of ours have the rows there.
    for block in (
        fx.SinePositionEncoding2d(8, rngs=nnx.Rngs(0)),
        fx.LearnedPositionEncoding2d(5, 7, 8, rngs=nnx.Rngs(0)),
    ):
        got = encoding(block, 5, 7, 8)
        assert (got[..., :4] == got[:, :1, :4]).all()
        assert (got[..., 4:] == got[:1, :, 4:]).all()
        assert not (got[..., :4] == got[:1, :, :4]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rngs: fx.SinePositionEncoding2d(6, rngs=rngs), "channels must be a multiple of 4, got 6"),
        (lambda rngs: fx.SinePositionEncoding2d(0, rngs=rngs), "channels must be a whole number >= 1, got 0"),
        (lambda rngs: fx.LearnedPositionEncoding2d(5, 7, 3, rngs=rngs), "channels must be even, got 3"),
        (lambda rngs: fx.LearnedPositionEncoding2d(0, 7, 4, rngs=rngs), "height must be a whole number >= 1, got 0"),
        (lambda rngs: fx.LearnedPositionEncoding2d(5, -7, 4, rngs=rngs), "width must be a whole number >= 1, got -7"),
        (lambda rngs: fx.LearnedPositionEncoding2d(5, 7, 0, rngs=rngs), "channels must be a whole number >= 1, got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(nnx.Rngs(0))


SINE = "x must have shape (b, h, w, c=8), got "
LEARNED = "x must have shape (b, h=5, w=7, c=8), got "


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda rngs: fx.SinePositionEncoding2d(8, rngs=rngs), (2, 35, 8), SINE),
        (lambda rngs: fx.SinePositionEncoding2d(8, rngs=rngs), (2, 5, 7, 4), SINE),
        (lambda rngs: fx.LearnedPositionEncoding2d(5, 7, 8, rngs=rngs), (2, 7, 5, 8), LEARNED),
        (lambda rngs: fx.LearnedPositionEncoding2d(5, 7, 8, rngs=rngs), (2, 5, 7, 4), LEARNED),
        (lambda rngs: fx.LearnedPositionEncoding2d(5, 7, 8, rngs=rngs), (5, 7, 8), LEARNED),
    ],
)
def test_bad_shapes(make, shape, message):
    with pytest.raises(ValueError, match=re.escape(f"{message}{shape}")):
        make(nnx.Rngs(0))(jnp.ones(shape))
