"""Numbers of channels."""


def make_divisible(value: float, divisor: int = 8, round_limit: float = 0.9) -> int:
    """The multiple of ``divisor`` nearest to ``value``, at least ``divisor``; halves round up, as in MobileNet.

    Args:
        value: A number of channels, such as a ratio of another one.
        divisor: What the result is a multiple of.
        round_limit: The result is one ``divisor`` more where it would be below this share of ``value``.

    Example:
        >>> make_divisible(12), make_divisible(3), make_divisible(11), make_divisible(11, round_limit=0)
        (16, 8, 16, 8)
    """
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < round_limit * value else nearest
