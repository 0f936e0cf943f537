"""Which runs a report is made of."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from ..cli import FREE
from ..config import PRESETS, Config
from ..config import check as check_config
from ..networks import NETWORKS
from ..runs import CONFIG, read_config
from .options import Options
from .rows import ROWS, Protocol, Row, RowName

Side = Literal["ours", "pytorch"]


class Key(NamedTuple):
    """Which run of a report one is."""

    row: RowName
    protocol: Protocol
    side: Side
    seed: int


@dataclass(frozen=True)
class Planned:
    """A run that belongs to a report.

    Attributes:
        row: of the table.
        protocol: how it is trained.
        side: ours, or the PyTorch twin.
        config: all of its options.
    """

    row: RowName
    protocol: Protocol
    side: Side
    config: Config

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.config.seed

    @property
    def key(self) -> Key:
        """Which run of the report it is."""
        return Key(self.row, self.protocol, self.side, self.seed)

    @property
    def path(self) -> Path:
        """Its run folder."""
        return Path(str(self.config.run_dir))

    @property
    def name(self) -> str:
        """Its folder among those of the report."""
        return "/".join(self.path.parts[-4:])


def check(options: Options) -> None:
    """Raises ``ValueError`` where a value makes no sense."""
    for name in ("rows", "protocols", "seeds"):
        given = getattr(options, name)
        if not given or len(set(given)) < len(given):
            raise ValueError(f"--{name} must be at least one, none of them twice, got {' '.join(map(str, given))!r}")
    if options.article_epochs is not None and options.article_epochs < 1:
        raise ValueError(f"--article-epochs must be at least 1, got {options.article_epochs}")
    for run in plan(options):
        check_config(run.config)


def plan(options: Options) -> list[Planned]:
    """All runs of a report, a seed of all rows before the next seed."""
    return [
        Planned(row, protocol, side, config_of(options, row, protocol, side, seed))
        for seed in options.seeds
        for protocol in options.protocols
        for row in options.rows
        for side in sides(options, protocol)
    ]


def sides(options: Options, protocol: Protocol) -> Iterator[Side]:
    """Who is trained under a protocol."""
    yield "ours"
    if protocol in options.twins:
        yield "pytorch"


def config_of(options: Options, name: RowName, protocol: Protocol, side: Side, seed: int) -> Config:
    """The options of a run."""
    row = ROWS[name]
    own = {option: getattr(row, option) for option in NETWORKS[row.network].options if option in Row._fields}
    config = dataclasses.replace(
        PRESETS["quick" if protocol == "per_image" else "article"],
        **own,
        network=row.network,
        data=options.data,
        epochs=options.epochs_of(protocol),
        seed=seed,
        keep=1,
        run_dir=str(Path(options.runs) / protocol / name / side / f"seed-{seed}"),
    )
    if protocol == "article":
        return config
    return dataclasses.replace(config, batch_size=options.batch_size, learning_rate=options.learning_rate)


def words(config: Config) -> list[str]:
    """The command line of ``python -m train`` for these options: what differs from the preset's.

    Example:
        >>> " ".join(words(Config(network="cnn", shuffle=False, run_dir="runs/mine")))
        '--preset quick --network cnn --no-shuffle --run-dir runs/mine'
    """
    given = ["--preset", config.preset]
    for name, value in vars(config).items():
        flag = name.replace("_", "-")
        if value == getattr(PRESETS[config.preset], name):
            continue
        given += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return given


def check_same(run: Planned) -> None:
    """Raises ``ValueError`` where the run's folder holds a run with other options, naming them."""
    if not (run.path / CONFIG).is_file():
        return
    stored = read_config(run.path)
    differing = [
        f"--{name.replace('_', '-')} is {getattr(stored, name)} there, {value} in the report"
        for name, value in vars(run.config).items()
        if value != getattr(stored, name) and name not in (*FREE, "run_dir")
    ]
    if differing:
        raise ValueError(
            f"{run.path} holds a run with another configuration: {'; '.join(differing)}; another --runs keeps both"
        )
