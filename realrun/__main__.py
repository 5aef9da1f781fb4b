"""`python -m realrun`, and the entry point of `realrun`."""

from __future__ import annotations

import sys

from simdep.entry import run_program


def main() -> int:
    """Run the command line; the exit code."""
    return run_program("realrun", "realrun.cli")


if __name__ == "__main__":
    sys.exit(main())
