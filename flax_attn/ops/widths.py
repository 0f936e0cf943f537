"""Numbers of channels."""

from .._check import check_positive, is_number


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


def reduced_width(
    channels: int, rd_ratio: float, rd_channels: int | None, rd_divisor: int, round_limit: float = 0.0
) -> int:
    """A hidden layer's width: ``rd_channels``, or `make_divisible` of ``channels * rd_ratio``.

    Raises:
        ValueError: If a number of channels is below 1, or ``rd_ratio`` is not above 0.

    Example:
        >>> reduced_width(64, 1 / 16, None, 8), reduced_width(64, 1 / 16, 4, 8)
        (8, 4)
    """
    check_positive(channels=channels, rd_divisor=rd_divisor)
    if rd_channels is not None:
        check_positive(rd_channels=rd_channels)
        return rd_channels
    if not is_number(rd_ratio) or rd_ratio <= 0:
        raise ValueError(f"rd_ratio must be a finite number above 0, got {rd_ratio!r}")
    return make_divisible(channels * rd_ratio, rd_divisor, round_limit)
