"""Test cases: the constructor arguments and input shapes of every public class.

They drive the parity tests, the parity report, the README's table and the tests of jit, grad, vmap, remat and export.
Pure data: names and numbers. Sizes are distinct primes where possible, to expose transposed axes.
"""

from . import channel_gates, convolutions, maps, resnet, spatial_gates, tokens, tutorials, windows
from .case import GATES as GATES
from .case import HEADS as HEADS
from .case import MAP as MAP
from .case import SEQUENCE as SEQUENCE
from .case import Case as Case
from .case import Input as Input

# The blocks of other papers, and what carries them. Transformations, exports and random calls are tested at night.
COLLECTION = (
    *channel_gates.CASES,
    *spatial_gates.CASES,
    *convolutions.CASES,
    *tokens.CASES,
    *maps.CASES,
    *windows.CASES,
    *resnet.CASES,
)
CASES = (*tutorials.CASES, *COLLECTION)
