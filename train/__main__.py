"""``python -m train``: trains a network on a task and leaves a run folder. See ``--help``."""

import importlib
import io
import sys
from collections.abc import Callable, Sequence

from .devices import use_all_cores

# Commands other than training; the ``main`` of their modules takes the words that follow and returns the exit status.
COMMANDS = {"attend": "train.attend", "compare": "train.compare", "report": "train.report.command"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    use_all_cores()
    words = list(sys.argv[1:] if argv is None else argv)
    module = COMMANDS[words.pop(0)] if words and words[0] in COMMANDS else "train.training"
    command: Callable[[Sequence[str]], int] = importlib.import_module(module).main
    return command(words)


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name must not end a run
    sys.exit(main())
