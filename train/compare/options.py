"""The command line of ``python -m train compare``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from ..config import Config, NetworkName, told_default
from ..config import check as check_config
from ..usage import read_options

PROGRAM = "python -m train compare"


@dataclass(frozen=True)
class Options:
    """Trains the PyTorch twin of a network and ours alike, and holds one against the other."""

    network: NetworkName = "cbam"
    """What attends to the map before the classifier, as for training."""
    data: Annotated[str, tyro.conf.arg(metavar="KIND[:PATH]")] = "synthetic"
    """The images of the patch task, as for training; few enough to live on the device whole."""
    patches: Literal["per_image", "article"] = "per_image"
    """Patches by image, or by the place in the batch alone."""
    token_order: Literal["pixels", "article"] = "pixels"
    """What a token of multi_head is."""
    position: Literal["none", "sine", "learned"] = "none"
    """The position encoding of multi_head."""
    batch_size: int = 32
    """Images per step."""
    shuffle: bool = True
    """Whether the images come in a new order each epoch, or in file order."""
    steps: int = 200
    """Optimizer steps on either side."""
    learning_rate: float = 3e-3
    """Adam's, or its maximum under a schedule."""
    schedule: Literal["constant", "one_cycle"] = "one_cycle"
    """The learning rate over the steps."""
    dtype: Literal["float64", "float32"] = "float32"
    """Of weights and computation. float64: is it the same function? float32: does it round as PyTorch does?"""
    seed: int = 0
    """Of the weights, the patches, the order of the images and dropout."""
    runs: int = 4
    """Further PyTorch runs, that differ in the order of their sums alone; they make the band."""
    run_dir: Annotated[str | None, told_default("runs/TIME-NETWORK-compare", "DIR")] = None
    """The folder for results, new or empty."""

    @property
    def config(self) -> Config:
        """What the training code reads."""
        given = {name: value for name, value in vars(self).items() if name not in ("steps", "runs")}
        return Config(**given)


def parse(argv: Sequence[str]) -> Options:
    """Reads the options.

    Raises:
        SystemExit: with status 2 after a message and the usage line, where an option or value is unknown; with status 0
            after ``--help``.
    """
    return read_options(Options, PROGRAM, argv)


def check(options: Options) -> None:
    """Raises ``ValueError`` where a value makes no sense, or an option is set that the network does not have."""
    check_config(options.config)
    if options.steps < 1:
        raise ValueError(f"--steps must be at least 1, got {options.steps}")
    fewest = 1 if options.dtype == "float32" else 0
    if options.runs < fewest:
        raise ValueError(f"--runs must be at least {fewest} with --dtype {options.dtype}, got {options.runs}")
