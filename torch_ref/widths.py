"""Widths of hidden layers, as timm computes them."""


def make_divisible(width: float, divisor: int, round_limit: float = 0.9) -> int:
    """The nearest multiple of ``divisor``, and the next one where that is below a share of the width."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < round_limit * width else rounded


def reduced_width(
    channels: int, rd_ratio: float, rd_channels: int | None, rd_divisor: int, round_limit: float = 0.0
) -> int:
    """``rd_channels``, or a multiple of ``rd_divisor`` near to a share of the channels."""
    return make_divisible(channels * rd_ratio, rd_divisor, round_limit) if rd_channels is None else rd_channels
