"""`python -m simdep`, and the entry point of `simdep`."""

from __future__ import annotations

import sys

from simdep.entry import run_program


def main() -> int:
    """Run the command line; the exit code."""
    return run_program("simdep", "simdep.cli.run")


if __name__ == "__main__":
    sys.exit(main())
