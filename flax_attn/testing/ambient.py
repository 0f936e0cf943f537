"""The settings of PyTorch and JAX under which modules are compared, whatever the caller's are."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jax


@contextmanager
def own_settings() -> Iterator[None]:
    """Brings the comparison's own settings, and the caller's back at the end, after an error too.

    Gradients are recorded; there is no autocast; PyTorch's default dtype and device are float32 and the CPU, its matrix
    products exact; operations without a deterministic form are allowed; random numbers are drawn apart from the
    caller's. JAX compiles and promotes ranks and dtypes. Neither stops at NaN, which reports name.
    """
    require_torch()
    import torch

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autograd.set_detect_anomaly(False))
        stack.enter_context(torch.autocast("cpu", enabled=False))
        stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(default_dtype(torch.float32))
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("highest")
        stack.callback(
            torch.use_deterministic_algorithms,
            torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        torch.use_deterministic_algorithms(False)
        stack.enter_context(jax.disable_jit(False))
        stack.enter_context(jax.debug_nans(False))
        stack.enter_context(jax.debug_infs(False))
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.numpy_rank_promotion("allow"))
        stack.enter_context(jax.transfer_guard("allow"))
        yield


@contextmanager
def default_dtype(dtype: Any) -> Iterator[None]:
    """The dtype of the tensors that PyTorch code makes without naming one."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def require_torch() -> None:
    """Raises ``ImportError`` without the packages that only comparisons need."""
    try:
        import einops  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        needed = "PyTorch and einops (flax_attn[torch]): pip install torch einops"
        raise ImportError(f"flax_attn.testing needs {needed}") from error
