"""Widths of hidden layers, as timm computes them."""


def reduced_width(channels: int, rd_ratio: float, rd_channels: int | None, rd_divisor: int) -> int:
    """``rd_channels``, or the nearest multiple of ``rd_divisor`` to a share of the channels, and at least that."""
    if rd_channels is not None:
        return rd_channels
    return max(rd_divisor, int(channels * rd_ratio + rd_divisor / 2) // rd_divisor * rd_divisor)
