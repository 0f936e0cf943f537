"""Widths of hidden layers, by hand."""

import pytest

from flax_attn import ops


@pytest.mark.parametrize(
    ("value", "divisor", "round_limit", "width"),
    [
        (1, 8, 0.9, 8),  # at least one divisor
        (11.9, 8, 0.9, 16),  # 8 is nearer, but below nine tenths
        (11.9, 8, 0.0, 8),
        (12, 8, 0.0, 16),  # a half rounds up
        (20, 8, 0.0, 24),
        (8.8, 8, 0.9, 8),
        (8.9, 8, 0.9, 16),
        (5, 4, 0.8, 4),  # not below, but equal
        (2.5, 1, 0.0, 3),
        (0.5, 1, 0.0, 1),
        (0.2, 1, 0.0, 1),
    ],
)
def test_by_hand(value, divisor, round_limit, width):
    assert ops.make_divisible(value, divisor, round_limit) == width


def test_the_widths_of_squeeze_and_excitation():
    channels = (16, 128, 192, 200, 256, 320, 512, 1024, 2048)
    assert [ops.make_divisible(c / 16, 8, 0.0) for c in channels] == [8, 8, 16, 16, 16, 24, 32, 64, 128]


def test_a_width_is_a_share_or_given():
    assert ops.reduced_width(64, 1 / 16, None, 1) == 4
    assert ops.reduced_width(64, 1 / 16, None, 8) == 8
    assert ops.reduced_width(84, 1 / 8, None, 8) == 8
    assert ops.reduced_width(84, 1 / 8, None, 8, 0.9) == 16
    assert ops.reduced_width(64, 1 / 16, 5, 8) == 5


@pytest.mark.parametrize("rd_ratio", [0, -0.5, float("nan"), "1"])
def test_bad_ratios(rd_ratio):
    with pytest.raises(ValueError, match="rd_ratio must be a finite number above 0"):
        ops.reduced_width(64, rd_ratio, None, 8)
