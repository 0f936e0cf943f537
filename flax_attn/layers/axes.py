"""Arguments of convolutions and pools that PyTorch takes as one number for all axes or one per axis."""

from collections.abc import Sequence

IntOrAxes = int | Sequence[int]


def kernel_axes(kernel_size: IntOrAxes) -> tuple[int, ...]:
    """The size of a kernel along each spatial axis; one number stands for two axes, as for PyTorch's 2d layers.

    Raises:
        ValueError: If it is neither a whole number above 0 nor one to three of them.
    """
    return per_axis("kernel_size", kernel_size, len(kernel_size) if isinstance(kernel_size, Sequence) else 2)


def per_axis(argument: str, value: IntOrAxes, rank: int, minimum: int = 1) -> tuple[int, ...]:
    """One number for each of ``rank`` axes.

    Raises:
        ValueError: If it is neither a whole number of at least ``minimum`` nor ``rank`` of them.

    Example:
        >>> per_axis("stride", 2, 3), per_axis("padding", (1, 0), 2, minimum=0)
        ((2, 2, 2), (1, 0))
    """
    numbers = tuple(value) if isinstance(value, Sequence) else (value,) * rank
    whole = all(hasattr(n, "__index__") and not isinstance(n, bool) and n >= minimum for n in numbers)
    if isinstance(value, str) or not whole or len(numbers) != rank or not 1 <= rank <= 3:
        count = f"or {rank} of them" if rank in (1, 2, 3) else "or one to three of them"
        raise ValueError(f"{argument} must be a whole number >= {minimum}, {count}, got {value!r}")
    return numbers
