"""The command `calibrate`: measure the costs of this machine by micro-benchmark."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from realrun.commands.options import (
    add_case_flags,
    add_common_flags,
    case_of,
    progress_bar,
    ready_cases,
)
from simdep import checks, files
from simdep.checks import InputError
from simdep.cli.output import check_paths, emit

HELP = "measure the costs of this machine by micro-benchmark and write a hardware profile"
EXAMPLES = """
realrun calibrate --out profile.json
realrun calibrate scenario.toml --scale 0.125 --layers 2 --out profile.json --force
"""
MISSED = 4  # exit code of a calibration that misses its own points


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_common_flags(parser)
    add_case_flags(parser)
    parser.add_argument(
        "--name",
        default="this-machine",
        help="name of the profile (default: this-machine)",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="measured rounds (default: 5)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.json",
        default=Path("profile.json"),
        help="profile to write (default: profile.json)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="keep lines that miss their own points by more than 5 %%",
    )


def run(args: argparse.Namespace) -> int:
    """Measure, fit, write the profile, print its costs."""
    from realrun.calibration.profile import for_any_transport, profile_from, refusals
    from realrun.validation.campaign import Campaign, measure
    from realrun.validation.report import costs_table

    checks.integer(args.rounds, "--rounds")
    checks.string(args.name, "--name")
    check_paths(args, ("out",))
    if args.out.suffix != ".json":
        raise InputError(f"--out {files.shown_path(args.out)}: expected the name of a .json file")
    (case,) = ready_cases([case_of(args)], args)
    campaign = Campaign(
        [case], args.rounds, args.seed, runs=False, operations=True, backend=args.backend
    )
    with tempfile.TemporaryDirectory() as folder, progress_bar("calibrating") as progress:
        measurements = measure(campaign, Path(folder), progress)
    description = f"measured by realrun calibrate on {case.ag}+{case.eg} ranks"
    profile = profile_from(measurements.points, args.name, description)
    profile = for_any_transport(profile, case)
    refused = {} if args.force else refusals(profile)
    for reason in refused.values():
        print(f"realrun: {reason}; left out, --force keeps it", file=sys.stderr)
    profile = replace(profile, costs=tuple(cost for cost in profile.costs if cost not in refused))
    profile.save(args.out)
    emit(args, profile.to_dict(), [costs_table(profile).to_string(index=False)])
    print(f"realrun: wrote {args.out}", file=sys.stderr)
    return MISSED if refused else 0
