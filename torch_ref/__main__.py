"""``python -m torch_ref``: compares flax_attn with the PyTorch reference, and regenerates the documents."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DTYPES = ("float64", "float32", "bfloat16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m torch_ref", description="The PyTorch reference of flax_attn.")
    commands = parser.add_subparsers(dest="command", required=True)
    add_parity(commands)
    what = "regenerate the tables in README.md, docs/blocks.md and docs/parity.md"
    commands.add_parser("docs", help=what, description=what.capitalize()).set_defaults(run=docs)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def add_parity(commands: Any) -> None:
    """Declares the options of ``parity``."""
    parser = commands.add_parser(
        "parity",
        help="compare flax_attn with the PyTorch reference",
        description="Compares every case of torch_ref/cases.py: outputs, attention maps, gradients and buffers in "
        "train and eval mode, and training runs. Exits with 1 if an error exceeds its tolerance.",
    )
    parser.set_defaults(run=parity)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a class or a case (default: all)")
    parser.add_argument("--platform", choices=("cpu", "gpu", "tpu"), help="where Flax runs (default: JAX's choice)")
    parser.add_argument(
        "--precision", choices=("highest", "high", "default"), default="highest", help="of matrix products in Flax"
    )
    parser.add_argument("--dtypes", type=dtypes, default=DTYPES, help=f"comma-separated, of {','.join(DTYPES)}")
    parser.add_argument("--steps", type=at_least(0), default=100, help="training steps with each optimizer")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of weights, inputs and dropout")
    parser.add_argument("--jobs", type=at_least(1), help="processes (default: one per core; one on an accelerator)")
    parser.add_argument("--json", type=output_path, metavar="PATH", help="write all comparisons as JSON")
    parser.add_argument("--markdown", type=output_path, metavar="PATH", help="write the tables as Markdown")
    parser.add_argument("--html", type=output_path, metavar="PATH", help="write a self-contained page with plots")
    parser.add_argument(
        "--docs", action="store_true", help="update the figures of these cases in docs/parity and all generated tables"
    )


def parity(options: argparse.Namespace) -> int:
    """Compares the cases, prints and writes the report; returns 1 if something exceeds its limit."""
    # Before torch is imported: its threads slow small tensors down and compete with JAX's.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    check_pytorch()
    from .pairs import find_cases  # here, so that --help need not load two frameworks

    cases = find_cases(options.names)
    if options.docs and (options.dtypes, options.steps, options.seed) != (DTYPES, 100, 0):
        given = f"--dtypes {','.join(options.dtypes)} --steps {options.steps} --seed {options.seed}"
        raise ValueError(f"--docs must have the default dtypes, steps and seed, got {given}")
    choose_platform(options.platform)
    from rich.console import Console
    from rich.progress import Progress

    from .report.run import Options, run_cases
    from .report.tables import print_run

    how = Options(options.dtypes, options.steps, options.precision, options.seed)
    writers = report_writers(options)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("comparing", total=len(cases))
        jobs = min(options.jobs or default_jobs(), len(cases))
        run = run_cases(cases, how, jobs, lambda name: bar.update(task, description=name, advance=1))
    print_run(run)
    for path, text in writers:
        path.write_text(text(run), encoding="utf-8")
        print(f"wrote {path}")
    failed = bool(run.problems())
    if options.docs and not failed:
        from .report.docs import write_docs

        print("wrote", *write_docs(run))
    return int(failed)


def docs(_: argparse.Namespace) -> int:
    """Regenerates the documents' tables from the registry and the kept figures."""
    from .report.docs import render_docs

    print("wrote", *render_docs())
    return 0


def check_pytorch() -> None:
    """Raises ``ImportError`` where PyTorch cannot be imported."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError("the reference needs PyTorch: pip install -e '.[torch]'") from error


def report_writers(options: argparse.Namespace) -> list[tuple[Path, Callable[[Any], str]]]:
    """The requested files with the functions that render them; fails before the work, not after it."""
    from .report import page, run, tables

    if options.html and importlib.util.find_spec("matplotlib") is None:
        raise ImportError("--html needs matplotlib: pip install -e '.[train]'")

    known = ((options.json, run.to_json), (options.markdown, tables.run_markdown), (options.html, page.run_html))
    return [(path, text) for path, text in known if path is not None]


def choose_platform(platform: str | None) -> None:
    """Selects JAX's platform; raises ``ValueError`` where it has no such device."""
    import jax

    if platform is None:
        return
    os.environ["JAX_PLATFORMS"] = platform  # for the processes of --jobs
    jax.config.update("jax_platforms", platform)
    try:
        jax.devices()
    except RuntimeError as error:
        extra = {"gpu": "cuda"}.get(platform, platform)
        raise ValueError(
            f"--platform must be one with a device that JAX finds, got {platform}; is flax_attn[{extra}] installed? "
            f"{str(error).splitlines()[0]}"
        ) from error


def default_jobs() -> int:
    """One process per core; a single one where they would share an accelerator's memory."""
    import jax

    if jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def dtypes(text: str) -> tuple[str, ...]:
    """Reads --dtypes."""
    names = tuple(text.split(","))
    if any(name not in DTYPES for name in names):
        raise argparse.ArgumentTypeError(f"must be some of {', '.join(DTYPES)}, comma-separated, got {text!r}")
    return names


def at_least(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least ``least``."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number >= {least}, got {text!r}")
        return int(text)

    return read


def output_path(text: str) -> Path:
    """Reads the path of a file to write, in an existing folder."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in an existing folder, got {text!r}")
    return path


if __name__ == "__main__":
    sys.exit(main())
