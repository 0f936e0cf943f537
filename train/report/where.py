"""What a run computed on, in words."""

from importlib.metadata import version

from torch_ref.report.run import cpu_name, hardware

from .plan import Side

PACKAGES: dict[Side, tuple[str, ...]] = {"ours": ("jax", "flax", "optax"), "pytorch": ("torch",)}


def where(side: Side) -> str:
    """The device and the versions of one side.

    Example:
        >>> where("ours").split("; ")[1].split()[0]
        'jax'
    """
    device = hardware() if side == "ours" else _torch_hardware()
    return f"{device}; {', '.join(f'{name} {version(name)}' for name in PACKAGES[side])}"


def _torch_hardware() -> str:
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{cpu_name()}, {torch.get_num_threads()} threads"
