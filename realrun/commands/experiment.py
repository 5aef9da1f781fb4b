"""The command `experiment`: repeat an experiment of FinDEP here, predicted and measured."""

from __future__ import annotations

import argparse
import functools
import json
import sys

from realrun.commands.options import (
    add_common_flags,
    add_out,
    default_case,
    progress_bar,
    ready_cases,
    run_folder,
)
from simdep import checks, files
from simdep.cli.output import emit

HELP = "repeat an experiment of FinDEP here, predicted and measured"
EXAMPLES = """
realrun experiment orders
realrun experiment speedup --rounds 20 --json
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_common_flags(parser)
    parser.add_argument(
        "name",
        choices=("monotonicity", "speedup", "orders"),
        help="throughput in m_a and r1; PPPipe against FinDEP; look-ahead against both",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=40,
        metavar="N",
        help="measured runs of each schedule (default: 40)",
    )
    add_out(parser)


def run(args: argparse.Namespace) -> int:
    """Run, print, keep result.json in the run folder."""
    from realrun.validation.experiments import as_table, experiment

    rounds = checks.integer(args.rounds, "--rounds")
    ready_cases([default_case({})], args)  # refuses flags before anything is shown
    folder = run_folder(args.out)
    with progress_bar(args.name) as progress:
        ready = functools.partial(ready_cases, args=args)
        result = experiment(args.name, rounds, args.seed, folder, ready, progress)
    files.write(folder / "result.json", json.dumps(result, indent=1) + "\n")
    emit(args, result, [as_table(args.name, result).to_string(index=False)])
    print(f"realrun: measurements are in {folder}", file=sys.stderr)
    return 0
