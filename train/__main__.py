"""``python -m train``: trains a network on a task and leaves a run folder. See ``--help``."""

import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from .devices import use_all_cores
from .signals import status
from .terminal import outlive_terminals

# By the first word: what does something other than to train. Each is a module, loaded when it is asked for, whose
# ``main`` takes the words after the first and returns the exit status.
COMMANDS = {
    "attend": "train.attend",
    "compare": "train.compare.command",
    "report": "train.report.command",
}
TRAINING = "train.training"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    use_all_cores()
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        print(
            f"error: the first word must be an option of training or one of {', '.join(COMMANDS)}, got {words[0]!r}",
            file=sys.stderr,
        )
        return 2
    name = COMMANDS.get(words[0]) if words else None
    command: Callable[[Sequence[str]], int] = importlib.import_module(name or TRAINING).main
    return command(words[1:] if name else words)


def run_and_leave() -> None:
    """Ends the process with `main`'s status."""
    outlive_terminals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a run does not end because of a file's name
    code = main()
    if code > status(0):
        # XLA's threads may be in the middle of a step or a compilation; a normal exit would pull memory away from them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run_and_leave()
