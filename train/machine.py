"""What a run's last bits depend on beside its options: devices and versions."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from .runs import read_json, write_whole

MACHINE = "machine.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
VECTORS = ("avx", "fma", "amx", "asimd", "sve")  # instructions by which XLA's sums differ, as their names begin


def machine_of(devices: int) -> dict[str, Any]:
    """The devices that share a batch, so many of a kind, how XLA is told to compute, and the versions of what does."""
    kind = {"devices": devices, "kind": jax.devices()[0].device_kind}
    if jax.default_backend() == "cpu":
        kind |= {"processor": platform.machine(), "instructions": instructions()}
    kind["xla_flags"] = os.environ.get("XLA_FLAGS", "")
    return kind | {name: version(name) for name in PACKAGES}


def instructions(about: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's vector instructions, where the system tells them."""
    try:
        lines = about.read_text().splitlines()
    except OSError:
        return ""
    told = (line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features")))
    return " ".join(sorted(flag for flag in next(told, []) if flag.startswith(VECTORS)))


def write_machine(folder: Path, devices: int) -> None:
    """Writes into a run's folder where it begins."""
    write_whole(folder / MACHINE, json.dumps(machine_of(devices), indent=2) + "\n")


def compare_machine(folder: Path, devices: int) -> list[str]:
    """A line where a run goes on elsewhere than it began; nothing where it does not, or where its folder does not say.

    Raises:
        ValueError: the folder's file is not JSON.
    """
    if not (folder / MACHINE).is_file():
        return []
    began = read_json(folder / MACHINE)
    differing = [
        f"{name} {began[name]} then, {value} now"
        for name, value in machine_of(devices).items()
        if name in began and value != began[name]
    ]
    if not differing:
        return []
    return [f"not to the bit what it would have been where it began, as sums round otherwise: {'; '.join(differing)}"]
