"""Numbers of channels."""


def make_divisible(value: float, divisor: int = 8, round_limit: float = 0.9) -> int:
    """The multiple of ``divisor`` nearest to ``value``, at least one of it; halves go up.

    Where that is below ``round_limit`` times ``value``, it is the next multiple (Howard et al., MobileNetV2's code).

    Example:
        >>> make_divisible(12, 8), make_divisible(3, 8), make_divisible(11, 8), make_divisible(11, 8, round_limit=0)
        (16, 8, 16, 8)
    """
    near = max(int(value + divisor / 2) // divisor * divisor, divisor)
    return near + divisor if near < round_limit * value else near
