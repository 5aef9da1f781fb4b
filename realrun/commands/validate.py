"""The command `validate`: calibrate, predict, run a set of schedules for real, and compare."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realrun.commands.options import (
    add_common_flags,
    add_out,
    progress_bar,
    ready_cases,
    run_folder,
)
from simdep import checks
from simdep.cli.output import emit

if TYPE_CHECKING:
    from realrun.cases import Case

HELP = "calibrate, predict, run a set of schedules for real, and compare"
EXAMPLES = """
realrun validate --quick
realrun validate --schedules my_schedules.json --out runs/mine --tolerance 15
"""
OVER_TOLERANCE = 4  # exit code
ROUNDS, QUICK_ROUNDS = 10, 16


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_common_flags(parser)
    sets = parser.add_mutually_exclusive_group()
    sets.add_argument(
        "--quick", action="store_true", help="a set of small schedules that takes under 4 minutes"
    )
    sets.add_argument(
        "--full",
        action="store_true",
        help="over 150 schedules, also of full width, in about 20 minutes",
    )
    sets.add_argument(
        "--schedules",
        type=Path,
        metavar="FILE.json",
        help="a JSON list of schedules; each holds the fields of a scenario, and link_mbytes_per_s",
    )
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="predict from this profile, do not calibrate"
    )
    parser.add_argument(
        "--foreign-profile",
        type=Path,
        metavar="FILE",
        help="predict also from this one, as a stale profile",
    )
    parser.add_argument(
        "--in-situ",
        type=int,
        default=0,
        metavar="N",
        help="let N schedules of each shape correct the calibration; the score leaves them out",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help=f"measured runs of each schedule (default: {ROUNDS}, --quick: {QUICK_ROUNDS})",
    )
    parser.add_argument(
        "--tolerance", type=float, metavar="PCT", help="exit with 4 if the median error is larger"
    )
    add_out(parser)


def run(args: argparse.Namespace) -> int:
    """Exit code 4 if the median absolute makespan error is above --tolerance."""
    from realrun.calibration.profile import profile_from
    from realrun.validation.campaign import Campaign, measure
    from realrun.validation.evaluate import (
        Evidence,
        check_training,
        trained,
        validation_result,
    )
    from realrun.validation.report import summary_text, table_of, write_report
    from realrun.validation.trial import model_of
    from simdep.hardware.profile import load_hardware

    rounds = _rounds(args)
    checks.integer(args.in_situ, "--in-situ", 0)
    if args.tolerance is not None:
        checks.number(args.tolerance, "--tolerance")
    profile = load_hardware(str(args.profile)) if args.profile else None
    foreign = {}
    if args.foreign_profile:
        name = f"foreign calibration: {args.foreign_profile.name}"
        foreign[name] = load_hardware(str(args.foreign_profile))
    cases = ready_cases(_cases(args), args)
    if args.in_situ:
        check_training(cases, args.in_situ)
    for given in filter(None, [profile, *foreign.values()]):
        # A profile that lacks a cost says so now, not after the runs
        for case in cases:
            model_of(case, given).makespan_us()
    folder = run_folder(args.out)
    campaign = Campaign(cases, rounds, args.seed, calibrate=profile is None, backend=args.backend)
    with progress_bar("measuring") as progress:
        measured = measure(campaign, folder, progress)
    if profile is None:
        description = "measured in this validation, between its runs"
        profile = profile_from(measured.points, "this-machine", description)
    evidence = Evidence(cases, profile, measured, foreign)
    if args.in_situ:
        evidence = trained(evidence, args.in_situ, args.seed)
    result = validation_result(evidence, args.seed)
    write_report(folder, evidence, result)
    emit(args, result, [table_of(result).to_string(index=False), summary_text(result)])
    print(f"realrun: report in {folder / 'report.html'}", file=sys.stderr)
    return _exit_code(args, result)


def _rounds(args: argparse.Namespace) -> int:
    if args.rounds is not None:
        return checks.integer(args.rounds, "--rounds")
    return QUICK_ROUNDS if args.quick else ROUNDS


def _cases(args: argparse.Namespace) -> list[Case]:
    from realrun.cases import load_cases
    from realrun.validation.case_sets import standard_cases

    if args.schedules:
        return load_cases(args.schedules)
    if args.quick:
        return standard_cases("quick")
    return standard_cases("full" if args.full else "default")


def _exit_code(args: argparse.Namespace, result: dict[str, Any]) -> int:
    median = result["median_abs_error_pct"]
    if args.tolerance is None or median <= args.tolerance:
        return 0
    print(
        f"realrun: median error {median:.1f} % is above the tolerance of {args.tolerance:g} %",
        file=sys.stderr,
    )
    return OVER_TOLERANCE
