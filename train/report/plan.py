"""The rows of the results tables, and the runs that a report consists of."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

import tyro

from flax_attn import list_blocks
from flax_attn._check import nearest
from flax_attn.registry import find_block

from ..config import PRESETS, PatchConfig, check, flag

PROGRAM = "python -m train report"
Protocol = Literal["per_image", "article"]
Side = Literal["ours", "pytorch"]
SIDES: tuple[Side, ...] = ("ours", "pytorch")
PROTOCOLS: tuple[Protocol, ...] = ("per_image", "article")


class Row(NamedTuple):
    """What a row of the tables trains: a network with its options."""

    network: str
    token_order: Literal["pixels", "article"] = "pixels"
    position: Literal["none", "sine", "learned"] = "none"


ROWS = {
    "cnn": Row("cnn"),
    "multi_head-article": Row("multi_head", "article"),
    "multi_head-pixels": Row("multi_head"),
    "multi_head-sine": Row("multi_head", position="sine"),
    "multi_head-learned": Row("multi_head", position="learned"),
    **{name: Row(name) for name in list_blocks() if name != "multi_head"},
}
ALL = "all"


@dataclass(frozen=True)
class Options:
    """Trains networks under both protocols with several seeds, and writes a page of results.

    Results in the folder --out are kept and their runs not trained again: the same command continues a report that was
    stopped, and further seeds or rows add to it.

    Attributes:
        data: The images of the patch task, as for training.
        rows: The rows of the tables: cnn, the name of a block (multi_head-article, -pixels, -sine or -learned for
            multi_head), or all.
        protocols: per_image: an independent patch for each image, batches in random order, Adam under a one-cycle
            schedule; article: the tutorial's patches, by the place in the batch, and its settings, Adam 1e-4 over
            batches of 10 in file order.
        seeds: The seeds of each row: of the weights, and under per_image of patches and order too.
        epochs: Passes over the training images, of each run.
        batch_size: Images per step under per_image.
        learning_rate: The largest learning rate under per_image.
        twins: The protocols under which each network's PyTorch twin is trained too.
        runs: The folder of the run folders.
        out: The folder for results.md, results.json and results.png. Text between the tables of a results.md is kept.
        train: Whether to train; --no-train makes the tables and the figure from the results.json in --out alone.
    """

    data: Annotated[str, tyro.conf.arg(metavar="KIND[:PATH]")] = "synthetic"
    rows: tuple[str, ...] = (ALL,)
    protocols: tuple[Protocol, ...] = PROTOCOLS
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 50
    batch_size: int = 10
    learning_rate: float = 1e-3
    twins: tuple[Protocol, ...] = ("per_image",)
    runs: Annotated[str, tyro.conf.arg(metavar="DIR")] = "runs/report"
    out: Annotated[str, tyro.conf.arg(metavar="DIR")] = "runs/report"
    train: bool = True


class Key(NamedTuple):
    """What identifies a run of a report."""

    row: str
    protocol: Protocol
    side: Side
    seed: int

    @property
    def name(self) -> str:
        """The run's folder within that of the report."""
        return f"{self.protocol}/{self.row}/{self.side}/seed-{self.seed}"


class Planned(NamedTuple):
    """A run of a report."""

    key: Key
    config: PatchConfig
    words: list[str]  # the arguments of ``python -m train`` for it

    @property
    def path(self) -> Path:
        """Its run folder."""
        return Path(str(self.config.run_dir))


def plan(options: Options) -> list[Planned]:
    """All runs of a report, a seed of all rows before the next; raises ``ValueError`` for an option out of range."""
    for name in ("rows", "protocols", "seeds"):
        if not getattr(options, name):
            raise ValueError(f"--{name} must be at least one, got none")
    rows = tuple(ROWS) if options.rows == (ALL,) else options.rows
    for name in rows:
        if name not in ROWS:
            hint = nearest(name, [ALL, *ROWS])
            raise ValueError(f"--rows must be all or rows of the tables, got {name!r}; {hint}")
    keys = dict.fromkeys(
        Key(row, protocol, side, seed)
        for seed in options.seeds
        for protocol in options.protocols
        for row in rows
        for side in SIDES[: 1 + (protocol in options.twins)]
    )
    return [_planned(options, key) for key in keys]


def _planned(options: Options, key: Key) -> Planned:
    row, preset = ROWS[key.row], "article" if key.protocol == "article" else "quick"
    changes: dict[str, Any] = {"network": row.network, "data": options.data, "seed": key.seed, "keep": 1}
    changes |= {"run_dir": str(Path(options.runs, key.name)), "epochs": options.epochs}
    if key.protocol == "per_image":
        changes |= {"batch_size": options.batch_size, "learning_rate": options.learning_rate}
    if row.network != "cnn" and find_block(row.network).kind == "tokens":
        changes |= {"token_order": row.token_order, "position": row.position}
    config = dataclasses.replace(cast(PatchConfig, PRESETS["patch"][preset]), **changes)
    check(config)
    given = [word for name, value in changes.items() for word in (flag(name), str(value))]
    return Planned(key, config, ["--preset", preset, *given])
