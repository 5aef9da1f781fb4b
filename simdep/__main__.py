"""`python -m simdep`, and the entry point of `simdep`."""

from __future__ import annotations

import sys

from simdep.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
