"""The rows of a report's tables, the runs that it consists of, and their results, which are kept as JSON."""

import dataclasses
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

import jax
import tyro
from flax import nnx

from flax_attn._check import nearest
from flax_attn.registry import BLOCKS
from torch_ref.report.run import hardware

from ..config import NETWORKS, PRESETS, PatchConfig, check, flag
from ..look import SCORES
from ..runs import DATA, RunFolder, read_json
from ..tasks.patch import build_network

PROGRAM = "python -m train report"
Protocol = Literal["per_image", "article"]
PROTOCOLS: tuple[Protocol, ...] = ("per_image", "article")
SAME = ("epochs", "batch_size", "learning_rate")  # in all runs of one table
PACKAGES = {"ours": ("jax", "flax", "optax"), "pytorch": ("torch",)}  # of the sides
PIXELS = {"token_order": "pixels"}
ROWS: dict[str, dict[str, Any]] = {  # with the options that they train with
    "cnn": {"network": "cnn"},
    "multi_head-article": {"network": "multi_head", "token_order": "article"},
    "multi_head-pixels": {"network": "multi_head", **PIXELS},
    "multi_head-sine": {"network": "multi_head", **PIXELS, "position": "sine"},
    "multi_head-learned": {"network": "multi_head", **PIXELS, "position": "learned"},
    **{
        block.name: {"network": block.name, **(PIXELS if block.over_tokens else {})}
        for block in BLOCKS
        if block.name in NETWORKS and block.name != "multi_head"
    },
}
ALL = "all"


@dataclass(frozen=True)
class Options:
    """Trains networks under both protocols with several seeds, and writes a page of results.

    Results in the folder --out are kept and their runs not trained again: the same command continues a report that was
    stopped, and further seeds or rows add to it.

    Attributes:
        data: The images of the patch task, as for training.
        rows: The rows of the tables, or patterns like 'cbam*': cnn, the name of a block (multi_head-article, -pixels,
            -sine or -learned for multi_head), or all.
        protocols: per_image: an independent patch for each image, batches in random order, Adam under a one-cycle
            schedule; article: the tutorial's patches, by the place in the batch, and its settings, Adam 1e-4 over
            batches of 10 in file order.
        seeds: The seeds of each row: of the weights, and under per_image of patches and order too.
        epochs: Passes over the training images, of each run.
        batch_size: Images per step under per_image.
        learning_rate: The largest learning rate under per_image.
        twins: The protocols under which each network's PyTorch twin is trained too.
        runs: The folder of the run folders.
        out: The folder for results.json, and results.md, leaderboard.md and leaderboard.png, which are made from it.
            Text between the tables of the pages is kept.
        pictures: A folder for a picture of each block, drawn from the run of seed 0 under per_image.
        train: Whether to train; --no-train makes the pages from the results.json in --out alone.
        costs: Whether to measure, after any training, what the networks cost that have results but no costs yet. Other
            work on the machine lengthens the times.
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
    pictures: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    train: bool = True
    costs: bool = False


@dataclass(frozen=True)
class Key:
    """What identifies a run of a report."""

    row: str
    protocol: Protocol
    side: str  # "ours" or "pytorch"
    seed: int

    @property
    def name(self) -> str:
        """The run's folder within that of the report."""
        return f"{self.protocol}/{self.row}/{self.side}/seed-{self.seed}"


class Planned(NamedTuple):
    """A run of a report."""

    key: Key
    path: Path  # of its run folder
    config: PatchConfig
    words: list[str]  # the arguments of ``python -m train`` for it


def select_rows(patterns: Sequence[str]) -> list[str]:
    """The rows that match one of the patterns; raises ``ValueError`` for a pattern that none matches.

    Example:
        >>> select_rows(["cbam*", "cnn", "cbam"])
        ['cbam', 'cbam_spatial', 'cnn']
    """
    selected: list[str] = []
    for pattern in patterns:
        matched = [name for name in ROWS if pattern == ALL or fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            hint = nearest(pattern, [ALL, *ROWS])
            raise ValueError(f"--rows must be all, or rows of the tables or patterns of them, got {pattern!r}; {hint}")
        selected += matched
    return list(dict.fromkeys(selected))


def plan(options: Options) -> list[Planned]:
    """All runs of a report, a seed of all rows before the next; raises ``ValueError`` for an option out of range."""
    rows = select_rows(options.rows)
    keys = dict.fromkeys(
        Key(row, protocol, side, seed)
        for seed in options.seeds
        for protocol in options.protocols
        for row in rows
        for side in ("ours", "pytorch")
        if side == "ours" or protocol in options.twins
    )
    if not keys:
        raise ValueError("--rows, --protocols and --seeds must name at least one each, got none")
    return [_planned(options, key) for key in keys]


def _planned(options: Options, key: Key) -> Planned:
    path, preset = Path(options.runs, key.name), "article" if key.protocol == "article" else "quick"
    changes: dict[str, Any] = {**ROWS[key.row], "data": options.data, "seed": key.seed, "keep": 1}
    changes |= {"run_dir": str(path), "epochs": options.epochs}
    if key.protocol == "per_image":
        changes |= {"batch_size": options.batch_size, "learning_rate": options.learning_rate}
    config = dataclasses.replace(cast(PatchConfig, PRESETS["patch"][preset]), **changes)
    check(config)
    given = [word for name, value in changes.items() for word in (flag(name), str(value))]
    return Planned(key, path, config, ["--preset", preset, *given])


@dataclass(frozen=True)
class Outcome(Key):
    """The result of a run."""

    parameters: int
    train_errors: list[float]  # of each epoch
    test_errors: list[float]
    test_accuracy: float
    maps: dict[str, dict[str, float | None]]  # as in localisation.json
    where: str


@dataclass(frozen=True)
class Cost:
    """What a row's network costs, see `train.report.costs`."""

    row: str
    multiply_adds: float  # of a forward pass, per image
    milliseconds: float  # of a training step
    step_bytes: int  # of memory, for a training step
    devices: int  # that share the step
    where: str


@dataclass(frozen=True)
class Report:
    """The options of a report's runs, the images as in their ``data.json``, what finished runs gave, and costs."""

    options: dict[str, Any]
    images: dict[str, Any]
    outcomes: list[Outcome]
    costs: list[Cost] = field(default_factory=list)

    def of(self, row: str, protocol: str, side: str = "ours") -> list[Outcome]:
        """The outcomes of a row, seed by seed."""
        return [one for one in self.outcomes if (one.row, one.protocol, one.side) == (row, protocol, side)]


def read_report(file: Path) -> Report:
    """Reads a results.json, of which earlier versions had more values; raises ``ValueError`` for another file."""
    values = read_json(file)
    names = [field.name for field in dataclasses.fields(Outcome)]
    try:
        outcomes = [Outcome(**{name: each[name] for name in names}) for each in values["outcomes"]]
        costs = [Cost(**each) for each in values.get("costs", [])]
        return Report(dict(values["options"]), dict(values["images"]), outcomes, costs)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{file} must hold the results of a report, got {problem}") from None


def outcome_of(run: Planned) -> Outcome:
    """The result of a finished run, on this machine."""
    history = RunFolder(run.path).history()
    height, width = read_json(run.path / DATA)["image_size"]
    network = nnx.eval_shape(lambda: build_network(run.config, height, width))
    return Outcome(
        **vars(run.key),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param))),
        train_errors=[metrics.train_error for metrics in history],
        test_errors=[metrics.test_error for metrics in history],
        test_accuracy=history[-1].test_accuracy,
        maps=read_json(run.path / SCORES)["maps"],
        where=machine(run.key.side),
    )


def machine(side: str) -> str:
    """The hardware, and the versions that matter for a side."""
    return f"{hardware()}; {', '.join(f'{name} {version(name)}' for name in PACKAGES[side])}"
