"""PyTorch with random rounding errors: Monte Carlo arithmetic (Parker 1997).

Operations that only select or move numbers (maxima, views, masks) get no error, and zeros and infinities keep their
value. So a tie among inputs stays a tie, a wrong gradient at a tie stays wrong, and so does a NaN where PyTorch has a
number.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OPERATIONS = """
    _adaptive_avg_pool2d _adaptive_avg_pool2d_backward _log_softmax _log_softmax_backward_data _softmax
    _softmax_backward_data _scaled_dot_product_flash_attention_for_cpu
    _scaled_dot_product_flash_attention_for_cpu_backward add addmm avg_pool2d avg_pool2d_backward baddbmm bmm
    convolution convolution_backward cos cumsum div elu elu_backward embedding_dense_backward erf exp gelu
    gelu_backward linalg_vector_norm log logsumexp mean mish mish_backward mm mul native_batch_norm
    native_batch_norm_backward native_group_norm native_group_norm_backward native_layer_norm
    native_layer_norm_backward pow reciprocal rsqrt sigmoid sigmoid_backward silu silu_backward sin softplus
    softplus_backward sqrt sub sum tanh tanh_backward var
"""
ARITHMETIC = frozenset(OPERATIONS.split())
# BatchNorm writes to these two, so it must get the tensors themselves.
STATISTICS = ("running_mean", "running_var")

# In the narrow dtypes few digits decide between maxima; float64 has many, and a tie behind arithmetic remains one.
KINDS = {"float64": {"ties": True}, "float32": {"results": True}, "bfloat16": {"results": True}}


@contextmanager
def noise(size: float, seed: int, results: bool = False, ties: bool = False) -> Iterator[None]:
    """Adds random relative errors of up to ``size`` to the operands of PyTorch's arithmetic in the with-block.

    With ``results`` also to its results, so that equal results no longer are. With ``ties`` equal numbers in one
    operand get equal errors, so that a tie behind arithmetic stays one; for float64.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    generator = torch.Generator().manual_seed(seed)

    def shaken(value: Any, name: str = "") -> Any:
        if isinstance(value, tuple):
            return tuple(shaken(item) for item in value)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or name in STATISTICS:
            return value
        if ties and value.dtype == torch.float64:
            factor = int(torch.randint(2**62, (), generator=generator)) | 1
            # The upper half of a product of odd numbers depends on all bits of both.
            mixed = ((value.view(torch.int64) | 1) * factor >> 32) * factor >> 32
            unit = mixed.to(value.dtype) / 2**31
        else:
            unit = torch.rand(value.shape, dtype=value.dtype, generator=generator) * 2 - 1
        return value * (1 + size * unit)

    class Noise(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func._schema.name.removeprefix("aten::") not in ARITHMETIC:
                return func(*args, **(kwargs or {}))
            named = zip(args, func._schema.arguments, strict=False)
            out = func(*[shaken(value, argument.name) for value, argument in named], **(kwargs or {}))
            return shaken(out) if results else out

    with Noise():
        yield
