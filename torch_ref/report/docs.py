"""The figures in the documentation: ``docs/parity`` holds runs, ``docs/parity.md`` and README's table show them."""

import os
import re
from pathlib import Path

from flax_attn.testing.tolerances import STALE, TRAINED, UNITS

from .markdown import case_table, class_table, describe
from .run import CaseResult, Options, ParityRun, from_json, to_json

ROOT = Path(__file__).parent.parent.parent
BEGIN, END = "<!-- parity: begin -->", "<!-- parity: end -->"
README_RUN = "cpu-highest"

INTRODUCTION = """\
# Parity in figures

Written by `python -m torch_ref parity --docs`; a test fails where an error is more than 100 times larger or
smaller than written. Errors are the largest relative error, `norm(got - reference) / norm(reference)`, over all tensors
of a quantity, in train and eval mode, against PyTorch's float64. For the narrower dtypes weights and inputs are rounded
first, and both errors stand there, ours / PyTorch's own. *Ratio* is ours over PyTorch's own, each the root of the mean
square over all tensors of the case and at least one unit in the last place: below 1 we are nearer to the truth. After
the training steps (optax against torch.optim: SGD with momentum, Adam, AdamW with weight decay; dropout included)
losses, parameters and buffers are compared, in float64."""

NO_ACCELERATOR = """\
## GPU and TPU

No figures yet: no such device was at hand. `python -m torch_ref parity --platform gpu --docs` (or `tpu`; also with
`--precision default`, which is TF32 on NVIDIA's and bfloat16 on TPUs) adds them to this page. Tolerances there are the
CPU's, and bfloat16's for float32 at a lower precision of products, until figures say otherwise."""


def write_docs(run: ParityRun, root: Path = ROOT) -> list[Path]:
    """Keeps a complete run and writes the pages anew; returns what was written.

    Raises:
        ValueError: the run lacks cases, or the README its marks.
    """
    if not run.is_complete:
        raise ValueError("--docs must have all cases, got some of them")
    if run.options != Options(precision=run.options.precision) or run.problems():
        raise ValueError("--docs must have a run with the default options in which all is well, got another")
    folder = root / "docs" / "parity"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{run.platform}-{run.options.precision}.json"
    write(kept, to_json(run.summary()))
    return [kept, *render_docs(root)]


def render_docs(root: Path = ROOT) -> list[Path]:
    """Writes the pages from the runs that are kept."""
    pages = {root / "docs" / "parity.md": parity_page(kept_runs(root)), root / "README.md": readme(root)}
    for path, text in pages.items():
        write(path, text)
    return list(pages)


def kept_runs(root: Path = ROOT) -> dict[str, ParityRun]:
    """The runs in docs/parity by name, "cpu-highest" first."""
    paths = sorted((root / "docs" / "parity").glob("*.json"), key=lambda path: (path.stem != README_RUN, path.stem))
    return {path.stem: from_json(path.read_text(encoding="utf-8")) for path in paths}


def stale(result: CaseResult, kept: CaseResult) -> list[str]:
    """Where today's figures of a case are not those of the kept run, but for what another processor makes of them.

    Training runs are left out: how far two of them are apart depends on their length.
    """
    found = []
    for dtype, quantity in dict.fromkeys((row.dtype, row.quantity) for row in result.rows):
        new, old = result.worst(dtype, [quantity]), kept.worst(dtype, [quantity])
        if quantity in TRAINED or new is None:
            continue
        floor = UNITS[dtype]
        if old is None or not 1 / STALE <= max(new.error, floor) / max(old.error, floor) <= STALE:
            written = "nothing" if old is None else f"{old.error:.0e}"
            found.append(f"{kept.name}, {dtype} {quantity}: {written} is written, got {new.error:.0e}")
    return found


def parity_page(runs: dict[str, ParityRun]) -> str:
    """docs/parity.md."""
    parts = [INTRODUCTION]
    for run in runs.values():
        parts += [f'## {run.platform}, "{run.options.precision}" precision', describe(run)]
        for dtype in run.options.dtypes:
            parts += [f"### {dtype}", case_table(run, dtype)]
    if all(run.platform == "cpu" for run in runs.values()):
        parts.append(NO_ACCELERATOR)
    return "\n\n".join(parts) + "\n"


def readme(root: Path = ROOT) -> str:
    """The README with its table written anew."""
    text = (root / "README.md").read_text(encoding="utf-8")
    if not re.search(f"{BEGIN}.*{END}", text, flags=re.DOTALL):
        raise ValueError(f"README.md must hold {BEGIN} and {END}, got neither or one")
    run = kept_runs(root)[README_RUN]
    between = f"{BEGIN}\n{class_table(run)}\n\n{describe(run)}\n{END}"
    return re.sub(f"{BEGIN}.*{END}", lambda _: between, text, flags=re.DOTALL)


def write(path: Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_between(path: Path, mark: str, text: str) -> None:
    """Replaces what stands between ``<!-- MARK: begin -->`` and ``<!-- MARK: end -->`` in a document.

    Raises:
        ValueError: the document lacks one of the marks.
    """
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    old = path.read_text(encoding="utf-8")
    new, count = re.subn(f"{begin}.*{end}", lambda _: f"{begin}\n{text.strip()}\n{end}", old, flags=re.DOTALL)
    if not count:
        raise ValueError(f"{path} must contain {begin} and {end}, got at most one of them")
    if new != old:
        path.write_text(new, encoding="utf-8", newline="\n")
