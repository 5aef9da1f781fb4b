"""The command `costs evaluate`: what a profile predicts for measured operations."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
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
    from simdep.calibration.sources import load_tables
    from simdep.hardware.profile import load_hardware

    profile = load_hardware(args.hardware)
    anchors = None if args.anchors is None else checks.integer(args.anchors, "--anchors")
    results = []
    for origin, rows in load_tables(args.data):
        adapted = profile
        if anchors is not None:
            adapted = replace(profile, speed_factor=speed_factor(rows, profile, anchors, origin))
        factor = {"speed_factor": adapted.speed_factor}
        results.append(evaluate(rows, adapted, origin) | factor)
    result = _merged(results)
    emit(args, result, _parts(profile.name, result))
    return 0


def _merged(results: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The results of tables of different operations as one."""
    merged, *others = results
    for other in others:
        for key, value in other.items():
            if isinstance(value, Mapping):
                merged[key] |= value
            elif isinstance(value, list):
                merged[key] += value
    return merged


def _parts(name: str, result: Mapping[str, Any]) -> list[str]:
    factor = f"{result['speed_factor']:.3f}"
    by_operation = [{"operation": op, **row} for op, row in result["by_operation"].items()]
    by_kernel = [{"kernel": name, **row} for name, row in result["by_kernel"].items()]
    by_range = [{"operation": op, **row} for op, rows in result["by_range"].items() for row in rows]
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
