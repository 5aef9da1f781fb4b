"""The command `costs evaluate`: what a profile predicts for measured operations."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace

from simdep import checks
from simdep.cli.measurements import measured_tables
from simdep.cli.output import emit, table
from simdep.cli.parser import Parser, add_command, add_json

HELP = "how far a profile's predictions lie from measurements"
EXAMPLES = ""
_EVALUATE_EXAMPLES = """
simdep costs evaluate gemm.csv --hardware h100
simdep costs evaluate gemm.csv --hardware h100 --anchors 5 --json
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parts = parser.add_subparsers(
        dest="part", required=True, metavar="COMMAND", parser_class=Parser
    )
    evaluate = add_command(
        parts,
        "evaluate",
        "errors of a profile on measured rows, by operation, kernel and range",
        _EVALUATE_EXAMPLES,
    )
    add_json(evaluate)
    evaluate.add_argument("data", metavar="DATA.csv", help="measurements, or aiconfigurator:GPU")
    evaluate.add_argument(
        "--hardware", required=True, help="a profile such as h100, or the path of one"
    )
    evaluate.add_argument(
        "--anchors",
        type=int,
        metavar="N",
        help="bring the profile to this machine's speed by N of the rows",
    )


def run(args: argparse.Namespace) -> int:
    """`simdep costs evaluate`: what a profile predicts for measured rows."""
    from simdep.calibration.accuracy import evaluate, speed_factor
    from simdep.hardware.profile import load_hardware

    profile = load_hardware(args.hardware)
    results = []
    for where, rows in measured_tables(args.data):
        own = profile
        if args.anchors is not None:
            factor = speed_factor(rows, profile, checks.integer(args.anchors, "--anchors"), where)
            own = replace(profile, speed_factor=factor)
        results.append(evaluate(rows, own, where) | {"speed_factor": own.speed_factor})
    result = results[0]
    for other in results[1:]:  # tables of different operations
        for key, value in other.items():
            if isinstance(value, Mapping):
                result[key] |= value
            elif isinstance(value, list):
                result[key] += value
    parts = [
        f"{profile.name}, errors in percent of the measurement; speed factor {result['speed_factor']:.3f}"
    ]
    parts += [table([{"operation": op, **row} for op, row in result["by_operation"].items()])]
    parts += [table([{"kernel": name, **row} for name, row in result["by_kernel"].items()])]
    parts += [
        table([{"operation": op, **row} for op, rows in result["by_range"].items() for row in rows])
    ]
    parts += ["worst rows", table(result["worst"])]
    parts += [f"no kernel for {name}: {count} rows" for name, count in result["not_priced"].items()]
    parts += [f"left out, {reason}: {count} rows" for reason, count in result["skipped"].items()]
    emit(args, result, parts)
    return 0
