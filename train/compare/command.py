"""The command: parse, train both, judge, write."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..data import Source, open_source
from ..data.batches import check_batch_size
from ..data.source import RESIDENT_BYTES
from ..devices import Layout
from ..runs import check_run_dir
from ..show import looking
from ..signals import INTERRUPTED
from ..text import EXHAUSTED, first_line, printable
from .options import Options, check, parse

JSON, PICTURE = "compare.json", "compare.png"


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    0; 1 where the two do not agree, the memory is full or the results cannot be written; 2 for bad input; 130 after
    Ctrl-C.
    """
    try:
        options = parse(argv)
        source, folder = prepare(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped before the first step", file=sys.stderr)
        return INTERRUPTED
    try:
        return run(options, source, folder)
    except OSError as error:
        print(f"error: cannot write to {folder}: {error}", file=sys.stderr)
        return 1
    except EXHAUSTED as error:
        print(f"error: {first_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped before the end: nothing to show", file=sys.stderr)
        return INTERRUPTED


def prepare(options: Options) -> tuple[Source, Path]:
    """Does all that bad input can stop, and makes the folder last.

    Raises:
        ValueError: an option or a file that cannot be used.
        FileNotFoundError: no such file.
        ImportError: PyTorch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise ImportError("comparing needs PyTorch: pip install -e '.[torch]'")
    check(options)
    folder = check_run_dir(options.config)
    if options.run_dir is None:
        folder = folder.with_name(f"{folder.name}-compare")
    with looking(Console()) as progress:
        source = open_source(options.data, progress)
    most = Layout(options.batch_size).most
    if not source.resident or source.size > most:
        limit = f"at most {int(min(RESIDENT_BYTES, most)) >> 20} MiB of images, which are held all at once"
        raise ValueError(f"--data must have {limit}, got {options.data} with {len(source.records)} of them")
    check_batch_size(options.batch_size, source.train)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--run-dir must be a folder that can be written to, got {folder}: {error}") from error
    return source, folder


def run(options: Options, source: Source, folder: Path) -> int:
    """Trains both, shows and writes what came out; returns 1 where the two do not agree.

    Raises:
        OSError: the folder cannot be written to.
    """
    from .ours import train_ours  # two frameworks and matplotlib, for which bad input need not wait
    from .picture import save_picture
    from .problem import Problem, settings
    from .result import make_result, write_json
    from .show import Bar, findings, heading, table
    from .twin import train_twin

    console = Console()
    console.print(heading(options), soft_wrap=True, highlight=False, markup=False)
    with settings(options), Bar(2 + options.runs, options.steps, console) as bar:
        problem = Problem(options, source)
        ours = train_ours(problem, bar.step)
        reference, *others = (train_twin(problem, number, bar.step) for number in range(1 + options.runs))
        result = make_result(problem, ours, reference, others)
    write_json(folder / JSON, result)
    save_picture(folder / PICTURE, result)
    console.print(table(result))
    for line in [*findings(result), f"run folder: {printable(folder)}"]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if result.verdict.holds:
        return 0
    print(f"error: ours and PyTorch's {options.network} do not agree in {options.dtype}", file=sys.stderr)
    return 1
