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
    add_speed(commands)
    add_originals(commands)
    what = "regenerate the tables in README.md, docs/blocks, checkpoints, parity and speed.md"
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
        description="Compares every case of torch_ref/cases: outputs, attention maps, gradients and buffers in "
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


def add_speed(commands: Any) -> None:
    """Declares the options of ``speed``."""
    parser = commands.add_parser(
        "speed",
        help="time flax_attn and the PyTorch reference in turn",
        description="Times blocks and networks of flax_attn and their PyTorch twins in turn, in several forms of the "
        "twin, with memory and compilation. Leave the machine alone meanwhile: figures of a busy one are marked.",
    )
    parser.set_defaults(run=speed)
    names = "block/NAME, network/NAME, NAME for both, or a pattern such as 'network/*' (default: all)"
    parser.add_argument("names", nargs="*", metavar="NAME", help=names)
    parser.add_argument("--batch", type=at_least(1), nargs="+", default=[10], help="maps or images in a call")
    size = "of the map; patch networks take images four times as high and wide, and have 32 channels"
    parser.add_argument("--size", type=map_size, nargs="+", default=[(24, 24, 32)], metavar="HxWxC", help=size)
    devices = "JAX devices that share a batch (default: 1, and all: on a CPU as many as cores)"
    parser.add_argument("--devices", type=at_least(1), nargs="+", help=devices)
    parser.add_argument("--repeats", type=at_least(1), default=20, help="rounds, of which the median counts")
    full = "measure blocks like networks: also memory, torch.compile, other attentions, and one device"
    parser.add_argument("--full", action="store_true", help=full)
    growth = "also measure how the time and memory of blocks grow with tokens, batch and channels"
    parser.add_argument("--growth", action="store_true", help=growth)
    parser.add_argument(
        "--json", type=output_path, metavar="PATH", help="write all figures as JSON, after each subject"
    )
    resume = "take the figures that --json holds, of this machine and its versions, and measure the others"
    parser.add_argument("--resume", action="store_true", help=resume)
    parser.add_argument("--plot", type=output_path, metavar="PATH", help="draw the growth, or else the ratios")
    docs = "update these figures in docs/speed and docs/speed.md; refused if the machine was busy"
    parser.add_argument("--docs", action="store_true", help=docs)


def add_originals(commands: Any) -> None:
    """Declares the options of ``originals``."""
    parser = commands.add_parser(
        "originals",
        help="compare flax_attn with what others published",
        description="Loads the weights of published code into our blocks and compares outputs, gradients and running "
        "statistics in float64. Packages: tests/originals.txt. Exits with 1 if an error exceeds its tolerance.",
    )
    parser.set_defaults(run=originals)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a class of ours (default: all)")
    parser.add_argument(
        "--file", metavar="PATH", help="the file of an original that is in a repository; needs one NAME"
    )


def originals(options: argparse.Namespace) -> int:
    """Compares, and prints a line for each original; returns 1 if something exceeds its tolerance."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    check_pytorch()
    from .originals import find_originals
    from .originals.check import bound, differences

    failed = False
    for original in find_originals(options.names, in_repository=options.file is not None):
        errors = differences(original, options.file)
        bounds = {name: bound(original, name) for name in errors}
        beyond = [name for name in errors if not errors[name] <= bounds[name]]  # NaN too
        worst = beyond[0] if beyond else max(errors, key=lambda name: errors[name] / bounds[name])
        failed |= bool(beyond)
        print(f"{original.name}: worst error {errors[worst]:.1e} ({worst}), at most {bounds[worst]:.1e}")
    return int(failed)


def speed(options: argparse.Namespace) -> int:
    """Measures, prints and writes the report."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # on a GPU, which PyTorch needs too
    check_pytorch()
    missing = [name for name in ("matplotlib", "optax", "rich", "tyro") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"speed needs {', '.join(missing)}: pip install -e '.[train,torch]'")
    if options.resume and not options.json:
        raise ValueError("--resume must come with --json PATH, got no path")
    from .speed.command import measure_all

    run = measure_all(options)
    if options.docs:
        from .report.docs import write_speed

        print("wrote", *write_speed(run))
    return 0


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


def map_size(text: str) -> tuple[int, int, int]:
    """Reads the size of a map."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"must be height, width and channels such as 24x24x32, got {text!r}")
    height, width, channels = map(int, parts)
    return height, width, channels


def output_path(text: str) -> Path:
    """Reads the path of a file to write, in an existing folder."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in an existing folder, got {text!r}")
    return path


if __name__ == "__main__":
    sys.exit(main())
