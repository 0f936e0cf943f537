import pytest

from flax_attn import ops


@pytest.mark.parametrize(
    ("value", "divisor", "round_limit", "expected"),
    [
        (0.5, 8, 0.9, 8),
        (11, 8, 0.9, 16),  # 8 is below 0.9 * 11
        (11, 8, 0, 8),
        (12, 8, 0.9, 16),  # a half goes up
        (35, 8, 0.9, 32),  # 32 is above 0.9 * 35
        (35, 1, 0.9, 35),
    ],
)
def test_make_divisible(value, divisor, round_limit, expected):
    assert ops.make_divisible(value, divisor, round_limit) == expected
