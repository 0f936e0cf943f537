"""The command line of ``python -m train report``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from ..config import told_default
from ..usage import read_options
from .rows import PROTOCOLS, ROWS, Protocol, RowName

PROGRAM = "python -m train report"


@dataclass(frozen=True)
class Options:
    """Trains every network under both protocols with several seeds, and writes what came of it as a page.

    What is done already is not done again: a report that was stopped goes on with the same command, and further seeds
    or rows add to it.
    """

    data: Annotated[str, tyro.conf.arg(metavar="KIND[:PATH]")] = "synthetic"
    """The images of the patch task, as for training."""
    rows: tuple[RowName, ...] = tuple(ROWS)
    """The rows of the table: networks with their options."""
    protocols: tuple[Protocol, ...] = PROTOCOLS
    """per_image: a patch of its own for each image, batches in random order, Adam under a one-cycle schedule; article:
    the tutorial's patches, by the place in the batch, and its settings, Adam 1e-4 over batches of 10 in file order."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The seeds of each row: of the weights, and under per_image of patches and order too."""
    epochs: int = 50
    """Passes over the training images, of each run."""
    article_epochs: Annotated[int | None, told_default("as --epochs")] = None
    """Those under the protocol article, where they are others."""
    batch_size: int = 10
    """Images per step under per_image."""
    learning_rate: float = 1e-3
    """The largest learning rate under per_image."""
    twins: tuple[Protocol, ...] = ("per_image",)
    """The protocols under which each network's PyTorch twin is trained, too."""
    runs: Annotated[str, tyro.conf.arg(metavar="DIR")] = "runs/report"
    """Where the run folders lie."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")] = "runs/report"
    """Where results.md, results.json and results.png go."""
    known: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE...")] = ()
    """The results.json of reports made on other machines, or in folders that are gone: their runs are not done again,
    and stand in this report, too."""
    docs: bool = False
    """Whether they go to docs/ in this checkout, and README's table is written anew."""
    renew: bool = False
    """Writes what --docs writes from docs/results.json, after a change to words or tables, and does nothing else."""
    train: bool = True
    """Whether what is missing is trained; else the page is made of what there is."""

    def epochs_of(self, protocol: Protocol) -> int:
        """Of a run under a protocol."""
        return self.article_epochs or self.epochs if protocol == "article" else self.epochs


def parse(argv: Sequence[str]) -> Options:
    """Reads the options.

    Raises:
        SystemExit: with status 2 after a message and the usage line, where an option or value is unknown; with status 0
            after ``--help``.
    """
    return read_options(Options, PROGRAM, argv)
