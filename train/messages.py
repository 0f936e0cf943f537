"""How errors of other libraries are told."""

from jax.errors import JaxRuntimeError

EXHAUSTED = (JaxRuntimeError, MemoryError)  # a device's memory, most of the time, or the host's


def first_line(error: BaseException) -> str:
    r"""What an error says first, or its type where it says nothing.

    Example:
        >>> first_line(RuntimeError("out of memory\nallocator: ...")), first_line(MemoryError())
        ('out of memory', 'MemoryError')
    """
    return next(iter(str(error).splitlines()), type(error).__name__)
