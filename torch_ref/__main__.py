"""The command line: ``python -m torch_ref parity [NAME...]``."""

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m torch_ref", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    parity = commands.add_parser(
        "parity",
        help="compare flax_attn with the PyTorch reference",
        description="Compares every case of torch_ref/cases.py and prints the largest relative error of each quantity.",
    )
    parity.add_argument("names", nargs="*", metavar="NAME", help="a class or a case; all by default")
    options = parser.parse_args(arguments)

    from .pairs import find_cases  # after parsing: --help need not wait for two frameworks
    from .parity import print_parity

    try:
        cases = find_cases(options.names)
    except ValueError as error:
        print(f"python -m torch_ref parity: {error}", file=sys.stderr)
        return 2
    return 0 if print_parity(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
