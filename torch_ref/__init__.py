"""The PyTorch reference of flax_attn, written to be read.

``python -m torch_ref parity`` compares every block of `flax_attn` with its twin here.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .maps import attention_maps as attention_maps


def __getattr__(name: str) -> Any:
    # On demand: where PyTorch is missing, the command line says so in a line of its own.
    if name == "attention_maps":
        from .maps import attention_maps

        return attention_maps
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
