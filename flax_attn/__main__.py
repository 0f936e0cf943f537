"""``python -m flax_attn convert``: renames the entries of a PyTorch checkpoint and writes it in another format."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._check import nearest
from .convert import NAMES, OFFICIAL_CBAM_NAMES, TUTORIAL_NAMES, files
from .convert.rename import rename_all
from .convert.state_dict import read_mapping, to_numpy

TABLES = {"tutorial": TUTORIAL_NAMES, "official": OFFICIAL_CBAM_NAMES, **NAMES}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status, 2 for bad input."""
    options = _parser().parse_args(argv)
    try:
        written = convert(Path(options.source), Path(options.target), _table(options.rename), options.key)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.target}: {written} {'entry' if written == 1 else 'entries'}")
    return 0


def convert(source: Path, target: Path, rename: dict[str, str], key: str | None = None) -> int:
    """Writes the state_dict of ``source`` to the new file ``target`` and returns the number of its entries.

    Names and layouts are PyTorch's on both sides; values and dtypes stay as they are.

    Raises:
        ValueError: a file that `flax_attn.from_torch` would refuse, names that collide, entries that are no arrays, or
            of a kind that NumPy lacks, or a target that exists or has a suffix other than .safetensors, .pt or .pth.
        FileNotFoundError: no such file or folder.
    """
    if target.exists():
        raise ValueError(f"the file to write must be new, got {str(target)!r}, which exists")
    given = read_mapping(source, key)
    names = rename_all(given, rename)
    arrays = {name: _array(value) for name, value in given.items()}
    if others := [name for name, array in arrays.items() if array is None]:
        raise ValueError(f"{source} must hold arrays that NumPy has, got others: {', '.join(others)}")
    files.write(target, {names[name]: np.asarray(array) for name, array in arrays.items()})
    return len(arrays)


def _array(value: Any) -> np.ndarray | None:
    try:
        return to_numpy(value)
    except Exception:  # a sparse, quantised or meta tensor, or one of eight bits, each with an error of its own
        return None


def _table(given: Sequence[str]) -> dict[str, str]:
    """The renaming that words like ``tutorial`` and ``old=new`` give together."""
    table: dict[str, str] = {}
    for word in given:
        old, equals, new = word.partition("=")
        if not equals and word not in TABLES:
            hint = nearest(word, [*TABLES])
            raise ValueError(f"--rename must be OLD=NEW or the name of a table, got {word!r}; {hint}")
        table |= {old: new} if equals else TABLES[word]
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flax_attn", allow_abbrev=False)
    command = parser.add_subparsers(required=True, metavar="convert").add_parser(
        "convert", help=main.__doc__, description=__doc__, allow_abbrev=False
    )
    command.add_argument("source", help="a file of safetensors or torch.save, or the index of its shards")
    command.add_argument("target", help="the file to write: .safetensors, .pt or .pth")
    command.add_argument(
        "--rename",
        action="append",
        default=[],
        metavar="NAMES",
        help="tutorial, official or a key of flax_attn.convert.NAMES, the names of published code; or OLD=NEW, OLD= to "
        "remove a run; may be repeated",
    )
    command.add_argument("--key", help="the entry of a training checkpoint that holds the state_dict")
    return parser


if __name__ == "__main__":
    sys.exit(main())
