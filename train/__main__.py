"""``python -m train``: trains a network on a task and leaves a run folder. See ``--help``."""

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from .devices import keep_memory, use_all_cores
from .signals import INTERRUPTED
from .text import EXHAUSTED, first_line

# Commands other than training; the ``main`` of their modules takes the words that follow and returns the exit status.
COMMANDS = {"attend": "train.attend", "compare": "train.compare", "report": "train.report.command"}


def keep_programs() -> None:
    """Keeps compiled programs in the user's cache, unless JAX is told where; call it before JAX is used."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "flax_attn", "jax")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))
            # Also small ones: to compile those of a start would take longer than to load its step.
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 1 where it fails, 2 for bad input."""
    keep_memory()
    use_all_cores()
    keep_programs()
    words = list(sys.argv[1:] if argv is None else argv)
    name = words.pop(0) if words and words[0] in COMMANDS else "training"
    command: Callable[[Sequence[str]], int] = importlib.import_module(COMMANDS.get(name, "train.training")).main
    try:
        return command(words)
    except (ValueError, FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError) as error:
        status, line = 2, f"error: {error}"
    except ImportError as error:
        needs = f"{name} needs PyTorch: pip install -e '.[torch]'"
        status, line = 2, f"error: {needs if name in COMMANDS else error}"
    except (OSError, *EXHAUSTED) as error:
        status, line = 1, f"error: {first_line(error)}"
    except KeyboardInterrupt:
        status, line = INTERRUPTED, "stopped before the end"
    print(line, file=sys.stderr)
    return status


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name must not end a run
    sys.exit(main())
