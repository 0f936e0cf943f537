import pytest

from flax_attn import ops


@pytest.mark.parametrize(
    ("value", "arguments", "expected"), [(12, {}, 16), (3, {}, 8), (11, {}, 16), (11, {"round_limit": 0}, 8)]
)
def test_make_divisible(value, arguments, expected):
    assert ops.make_divisible(value, 8, **arguments) == expected
