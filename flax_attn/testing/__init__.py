"""The parity harness: does a Flax module compute the same function as a PyTorch module?

Compares outputs, attention maps, gradients of every parameter and input, buffers after a training-mode call, and whole
training runs, in float64, float32 and bfloat16. PyTorch is imported on the first comparison.
"""

from .compare import assert_parity as assert_parity
from .compare import compare as compare
from .errors import relative_error as relative_error
from .layouts import Layouts as Layouts
from .locate import Finding as Finding
from .optimizers import OptimizerPair as OptimizerPair
from .report import ParityError as ParityError
from .report import Report as Report
from .report import Row as Row
from .tolerances import tolerance as tolerance
