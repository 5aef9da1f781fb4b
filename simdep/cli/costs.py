"""The command `costs evaluate`: what a profile predicts for measured operations."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from simdep import checks
from simdep.cli.output import emit, table
from simdep.cli.parser import Parser, add_command, add_json

HELP = "evaluate a hardware profile"
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
        "compare a profile with measurements, by operation, kernel and range",
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
        help="scale the profile to the speed of this machine by N of the measurements",
    )


def run(args: argparse.Namespace) -> int:
    """`simdep costs evaluate DATA --hardware NAME`: errors of a profile on measured rows."""
    from simdep.calibration.accuracy import evaluate, speed_factor
    from simdep.calibration.sources import load_measurements
    from simdep.hardware.profile import load_hardware

    profile = load_hardware(args.hardware)
    measurements = load_measurements(args.data)
    if args.anchors is not None:
        anchors = checks.integer(args.anchors, "--anchors")
        factor = speed_factor(measurements, profile, anchors)
        profile = replace(profile, speed_factor=factor)
    result = evaluate(measurements, profile).to_dict()
    emit(args, result, _parts(result))
    return 0


def _parts(result: Mapping[str, Any]) -> list[str]:
    name, factor = result["hardware"], f"{result['speed_factor']:.3f}"
    by_operation = [{"operation": op, **row} for op, row in result["by_operation"].items()]
    by_kernel = [{"kernel": name, **row} for name, row in result["by_kernel"].items()]
    by_range = []
    for operation, rows in result["by_range"].items():
        by_range += [{"operation": operation, **row} for row in rows]
    parts = [
        f"{name}, errors in percent of the measurement; speed factor {factor}",
        table(by_operation),
        table(by_kernel),
        table(by_range),
        "worst rows",
        table(result["worst"]),
    ]
    parts += [f"no kernel for {name}: {count} rows" for name, count in result["not_priced"].items()]
    parts += [f"left out, {reason}: {count} rows" for reason, count in result["skipped"].items()]
    return parts
