"""The parity harness: is a Flax module the same function as a PyTorch one?

Compares outputs, attention maps, gradients of every parameter and input, and buffers after a training-mode call, in
float64 and in float32. PyTorch is imported when something is compared, not before.
"""

from .compare import assert_parity as assert_parity
from .compare import compare as compare
from .layouts import Layouts as Layouts
from .report import ParityError as ParityError
from .report import Report as Report
from .report import Row as Row
from .tolerances import tolerance as tolerance
