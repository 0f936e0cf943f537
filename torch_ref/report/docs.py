"""Writes generated tables into the documentation: the blocks, and the parity figures kept in ``docs/parity``."""

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from flax import nnx

import flax_attn
from flax_attn.registry import BLOCKS, Entry, create_block
from flax_attn.testing.tolerances import QUANTITIES, STALE, TRAINED, UNITS

from ..cases import CASES
from ..originals import ORIGINALS
from ..speed import figures as speed
from ..speed.shown import run_markdown
from .run import CaseResult, Options, ParityRun, from_json, to_json
from .tables import case_table, class_table, describe, in_markdown, markdown

ROOT = Path(__file__).parent.parent.parent
README_RUN = "cpu-highest"  # the run that README quotes


def write_between(path: Path, mark: str, text: str) -> None:
    """Replaces what stands between ``<!-- MARK: begin -->`` and ``<!-- MARK: end -->`` in a document.

    Raises:
        ValueError: the document lacks one of the marks.
    """
    write_all_between(path, {mark: text})


def write_all_between(path: Path, texts: Mapping[str, str]) -> None:
    """`write_between` for several marks at once; nothing is written where one is missing."""
    old = new = path.read_text(encoding="utf-8")
    for mark, text in texts.items():
        begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
        before, _, rest = new.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{path} must contain {begin} and {end}, got at most one of them")
        new = f"{before}{begin}\n{text.strip()}\n{end}{after}"
    if new != old:
        write_whole(path, new)


def write_docs(run: ParityRun, root: Path = ROOT) -> list[Path]:
    """Stores the figures of a run's cases, leaving those of all others, and regenerates the pages.

    Raises:
        ValueError: the run has other than the default options, or failures.
    """
    if run.options != Options(precision=run.options.precision):
        raise ValueError(f"--docs must have the default dtypes, steps and seed, got {run.options}")
    if problems := run.problems():
        raise ValueError(f"--docs must have a run without failures, got {len(problems)}, the first {problems[0]}")
    path = root / "docs" / "parity" / f"{run.platform}-{run.options.precision}.json"
    run = run.summary()
    if path.is_file():
        run = update(from_json(path.read_text(encoding="utf-8")), run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, to_json(run))
    return [path, *render_docs(root)]


def write_speed(run: speed.SpeedRun, root: Path = ROOT) -> list[Path]:
    """Stores a run's figures, beside the others of the same machine and versions, and regenerates the page.

    Raises:
        ValueError: the machine was busy.
    """
    if busy := [f"{figure.name}: {figure.mark}" for figure in run.all_figures if figure.mark]:
        raise ValueError(f"--docs must have a machine without other work, got {'; '.join(dict.fromkeys(busy))}")
    path = root / "docs" / "speed" / f"{run.platform}.json"
    if path.is_file():
        run = speed.update(speed.from_json(path.read_text(encoding="utf-8")), run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, speed.to_json(run))
    return [path, render_speed(root)]


def render_speed(root: Path = ROOT) -> Path:
    """Regenerates the tables of docs/speed.md from the figures in docs/speed."""
    page, paths = root / "docs" / "speed.md", sorted((root / "docs" / "speed").glob("*.json"))
    runs = [speed.from_json(path.read_text(encoding="utf-8")) for path in paths]
    write_between(page, "speed", "\n\n".join(f"## {run.platform}\n\n{run_markdown(run)}" for run in runs))
    return page


def update(kept: ParityRun, new: ParityRun) -> ParityRun:
    """``kept`` with the cases of ``new``, in the order of the table and without cases that no longer exist."""
    names = {case.name for case in new.cases}
    others = {case.name: case for case in kept.cases if case.name not in names}
    cases = {**others, **{case.name: case for case in new.cases}}
    cases = {case.name: cases[case.name] for case in CASES if case.name in cases}
    if cases.keys() <= names:
        return new
    return replace(
        new,
        hardware=_both(kept.hardware, new.hardware),
        versions={name: _both(kept.versions[name], number) for name, number in new.versions.items()},
        seconds=sum(case.seconds for case in cases.values()),
        cases=list(cases.values()),
    )


def render_docs(root: Path = ROOT) -> list[Path]:
    """Regenerates the tables of all pages from the registry and the kept runs; returns the pages."""
    readme, blocks, parity = root / "README.md", root / "docs" / "blocks.md", root / "docs" / "parity.md"
    checkpoints = root / "docs" / "checkpoints.md"
    others = ", ".join(f"`{entry.name}`" for entry in BLOCKS if not entry.featured)
    table = block_table([entry for entry in BLOCKS if entry.featured], "flax_attn")
    write_between(readme, "blocks", f"{table}\n\nOf other papers: {others}.")
    write_between(readme, "parity", key_figures(kept_runs(root)[README_RUN]))
    tables = {"blocks": block_table(BLOCKS, "../flax_attn", whole=True), "parts": parts_table("../flax_attn")}
    write_all_between(blocks, tables)
    write_between(parity, "parity", parity_tables(kept_runs(root)))
    write_between(checkpoints, "arguments", argument_table())
    return [readme, blocks, parity, checkpoints, render_speed(root)]


def kept_runs(root: Path = ROOT) -> dict[str, ParityRun]:
    """The runs in docs/parity by name, "cpu-highest" first."""
    paths = sorted((root / "docs" / "parity").glob("*.json"), key=lambda path: (path.stem != README_RUN, path.stem))
    return {path.stem: from_json(path.read_text(encoding="utf-8")) for path in paths}


def stale(result: CaseResult, kept: CaseResult) -> list[str]:
    """Figures of a case that differ from the kept ones by more than another processor explains.

    Training runs are left out: how far two of them diverge depends on their length.
    """
    found = []
    for dtype, quantity in dict.fromkeys((row.dtype, row.quantity) for row in result.rows):
        new, old = result.worst(dtype, [quantity]), kept.worst(dtype, [quantity])
        if quantity in TRAINED or new is None:
            continue
        floor = UNITS[dtype]
        if old is None or not 1 / STALE <= max(new.error, floor) / max(old.error, floor) <= STALE:
            written = "nothing" if old is None else f"{old.error:.0e}"
            found.append(f"{kept.name}, {dtype} {quantity}: documented is {written}, got {new.error:.0e}")
    return found


def missing_figures(run: ParityRun) -> list[str]:
    """For each class with cases that a kept run lacks, the command that adds its figures."""
    kept = {case.name for case in run.cases}
    classes = dict.fromkeys(case.class_name for case in CASES if case.name not in kept)
    return [
        f"docs/parity has no figures of all its cases: run `python -m torch_ref parity {c} --docs`" for c in classes
    ]


def key_figures(run: ParityRun) -> str:
    """The sentence on parity in README."""
    worst = max(error for case in run.cases if (error := _error(case, QUANTITIES)) is not None)
    trained = max(error for case in run.cases if (error := _error(case, TRAINED)) is not None)
    return (
        f"Over all {len(run.cases)} cases the largest relative error in float64 is **{worst:.0e}**, and {trained:.0e} "
        f"after {run.options.steps} training steps.\nIn float32 our rounding error is {run.mean_ratio('float32'):.2f} "
        "times PyTorch's own (geometric mean), both measured against PyTorch's float64."
    )


def _error(case: CaseResult, quantities: Sequence[str]) -> float | None:
    row = case.worst("float64", quantities)
    return None if row is None else row.error


def parity_tables(runs: dict[str, ParityRun]) -> str:
    """The tables of docs/parity.md."""
    parts = []
    for run in runs.values():
        parts += [f'## {run.platform}, "{run.options.precision}" precision', describe(run)]
        parts += ["### Classes", in_markdown(class_table(run))]
        for dtype in run.options.dtypes:
            parts += [f"### {dtype}", in_markdown(case_table(run, dtype))]
    return "\n\n".join(parts)


def block_table(entries: Sequence[Entry], package: str, *, whole: bool = False) -> str:
    """A table of blocks; ``package`` is where links to their source start.

    A ``whole`` one also has what published code a block is held against, its parameters for 64 channels, and how its
    work grows with the number n of tokens, pixels or places.
    """
    lines = []
    for entry in entries:
        what = f"{summary(entry.block)} {entry.variant}".rstrip()
        paper = f"[{entry.paper}]({entry.url})" if entry.url else entry.paper
        more = [equal_to(entry.block), f"{parameters(entry):,}", entry.cost] if whole else []
        lines.append([f"`{entry.name}`", link(entry.block, package), what, entry.kind, paper, *more])
    head = ["name", "class", "what it does", "kind", "paper"]
    return markdown([*head, *(["equal to", "parameters", "work"] if whole else [])], lines, rule="---")


def parts_table(package: str) -> str:
    """A table of the public classes in ``flax_attn.blocks`` that have no name in the registry."""
    named = {entry.block for entry in BLOCKS}
    public = [cls for cls in vars(flax_attn).values() if inspect.isclass(cls) and ".blocks." in cls.__module__]
    lines = [[link(cls, package), summary(cls), equal_to(cls)] for cls in public if cls not in named]
    return markdown(["class", "what it does", "equal to"], lines, rule="---")


def link(cls: type, package: str) -> str:
    """A class's name, linked to its file."""
    return f"[`{cls.__name__}`]({package}/{'/'.join(cls.__module__.split('.')[1:])}.py)"


def summary(cls: type) -> str:
    """The first line of a class's docstring."""
    return (inspect.getdoc(cls) or "").splitlines()[0]


def equal_to(cls: type) -> str:
    """The published code that a block is held against: classes in packages, and repositories by their name."""
    found = [one for one in ORIGINALS if one.block == cls.__name__]
    named = [
        "/".join(one.path.split("/")[:2])
        if one.in_repository
        else f"`{one.path.replace('.py:', ':').replace(':', '.')}`"
        for one in found
    ]
    return ", ".join(dict.fromkeys(named))


def argument_table() -> str:
    """Published code, and with which arguments and names a block of ours is the same function."""
    rows = []
    blocks = (one for one in ORIGINALS if one.block != "ResNet")
    for one in sorted(blocks, key=lambda one: (one.in_repository, one.path)):
        place, _, cls = one.path.partition(":")
        theirs = "/".join(place.split("/")[:2]) if one.in_repository else place.split(".")[0]
        called = [f"{name}({_arguments(args)})" for name, args in ((cls, one.their_args), (one.block, one.args))]
        rows.append([theirs, f"`{called[0]}`", f"`{called[1]}`", f"`{one.names}`" if one.names else ""])
    return markdown(["package or repository", "theirs", "ours", "`NAMES`"], rows, rule="---")


def _arguments(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_shown(value)}" for name, value in args.items())


def _shown(value: Any) -> str:
    if isinstance(value, partial):
        return f"partial({_shown(value.func)}, {_arguments(value.keywords)})"
    return getattr(value, "__name__", None) or repr(value)


def parameters(entry: Entry) -> int:
    """The number of parameters for a map of 24x24 with 64 channels."""
    block = nnx.eval_shape(lambda: create_block(entry.name, 64, size=(24, 24), rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(block, nnx.Param)))


def _both(old: str, new: str) -> str:
    return old if new in old.split(" / ") else f"{old} / {new}"


def write_whole(path: Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
