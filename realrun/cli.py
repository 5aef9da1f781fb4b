"""The command line of realrun."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from realrun.commands import calibrate, experiment, run, validate
from simdep.cli.parser import Parser, add_commands
from simdep.cli.run import run_command

_ABOUT = """Run schedules of disaggregated MoE layers for real, beside simdep's predictions.

Data goes to stdout, messages and progress to stderr. Exit codes: 0 good, 1 internal error or a rank
that failed, 2 bad input, 3 infeasible (memory), 4 a validation over its tolerance or a calibration
that misses its own points, 130 interrupted by Ctrl-C.
"""
_COMMANDS = {
    "run": run,
    "calibrate": calibrate,
    "validate": validate,
    "experiment": experiment,
}


def realrun_parser() -> Parser:
    """The parser of every command and its flags."""
    examples = "".join(module.EXAMPLES for module in _COMMANDS.values()).split("\n")
    parser = Parser(
        "realrun",
        description=_ABOUT,
        epilog="\n  ".join(["examples:", *filter(None, examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_commands(parser, _COMMANDS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = realrun_parser().parse_args(argv)
    return run_command("realrun", lambda: args.run(args))
