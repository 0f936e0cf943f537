"""The command line of the PyTorch reference."""

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
    parser = argparse.ArgumentParser(prog="python -m torch_ref", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add_parity(commands)
    options = parser.parse_args(arguments)
    try:
        return parity(options)
    except (ValueError, ImportError, OSError) as error:
        print(f"python -m torch_ref parity: {error}", file=sys.stderr)
        return 2


def add_parity(commands: Any) -> None:
    """Declares the options of ``parity``."""
    parser = commands.add_parser(
        "parity",
        help="compare flax_attn with the PyTorch reference",
        description="Compares every case of torch_ref/cases.py: outputs, attention maps, gradients and buffers in "
        "train and eval mode, and training runs. Exits with 1 where something is further off than its tolerance.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a class or a case; all by default")
    parser.add_argument("--platform", choices=("cpu", "gpu", "tpu"), help="where Flax runs; JAX's choice by default")
    parser.add_argument("--precision", choices=("highest", "high", "default"), default="highest", help="of products")
    parser.add_argument("--dtypes", type=dtypes, default=DTYPES, help=f"comma-separated, of {','.join(DTYPES)}")
    parser.add_argument(
        "--steps", type=whole_number, default=100, help="training steps with each optimizer; 0 for none"
    )
    parser.add_argument("--seed", type=whole_number, default=0, help="of weights, inputs and dropout")
    parser.add_argument("--jobs", type=positive, help="processes; by default one per core, and one off the CPU")
    parser.add_argument("--json", type=output_path, metavar="PATH", help="write every comparison as JSON")
    parser.add_argument("--markdown", type=output_path, metavar="PATH", help="write the tables as Markdown")
    parser.add_argument("--html", type=output_path, metavar="PATH", help="write one self-contained page with plots")
    parser.add_argument("--docs", action="store_true", help="renew docs/parity.md and README's table (all cases)")


def parity(options: argparse.Namespace) -> int:
    """Compares the cases, shows and writes the report; returns 1 where something falls short."""
    # PyTorch's threads cost small tensors more than they bring, and wait for JAX's. Before torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError("the reference needs PyTorch: pip install -e '.[torch]'") from error
    from .pairs import find_cases  # after parsing: --help need not wait for two frameworks

    cases = find_cases(options.names)
    if options.docs and options.names:
        raise ValueError(f"--docs needs all cases, got {', '.join(options.names)}")
    if options.docs and (options.dtypes, options.steps, options.seed) != (DTYPES, 100, 0):
        raise ValueError("--docs needs the default dtypes, steps and seed, got others")
    choose_platform(options.platform)
    from rich.console import Console
    from rich.progress import Progress

    from .report.run import Options, run_cases
    from .report.terminal import print_run

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
    if options.docs:
        from .report.docs import write_docs

        print("wrote", *write_docs(run))
    return 1 if run.problems() else 0


def report_writers(options: argparse.Namespace) -> list[tuple[Path, Callable[[Any], str]]]:
    """The files that are asked for and what makes their text; fails before the work, not after it."""
    from .report import markdown, page, run

    if options.html and importlib.util.find_spec("matplotlib") is None:
        raise ImportError("--html needs matplotlib: pip install -e '.[train]'")

    known = ((options.json, run.to_json), (options.markdown, markdown.run_page), (options.html, page.run_html))
    return [(path, text) for path, text in known if path is not None]


def choose_platform(platform: str | None) -> None:
    """Has JAX use a platform, or says that there is none.

    Raises:
        ValueError: JAX finds no such device.
    """
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
            f"--platform must be one that JAX finds a device for, got {platform}; flax_attn[{extra}] brings what JAX "
            f"needs: {str(error).splitlines()[0]}"
        ) from error


def default_jobs() -> int:
    """One process per core; one in all where they would share a device's memory."""
    import jax

    if jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def dtypes(text: str) -> tuple[str, ...]:
    """Reads --dtypes."""
    names = tuple(text.split(","))
    if any(name not in DTYPES for name in names):
        raise argparse.ArgumentTypeError(f"must be of {', '.join(DTYPES)}, comma-separated, got {text!r}")
    return names


def whole_number(text: str) -> int:
    """Reads a number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number >= 0, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """Reads a number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)


def output_path(text: str) -> Path:
    """Reads a path to write to, in a folder that exists."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in a folder that exists, got {text!r}")
    return path


if __name__ == "__main__":
    sys.exit(main())
