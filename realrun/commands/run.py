"""The command `run`: execute one schedule and show its measured timeline.

Under torchrun every rank calls it and rank 0 prints.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from realrun.commands.options import (
    add_case_flags,
    add_common_flags,
    add_out,
    case_of,
    progress_bar,
    ready_cases,
    run_folder,
)
from simdep import checks, files
from simdep.checks import InputError
from simdep.cli.output import check_paths, emit
from simdep.file_kinds import SCHEDULE

if TYPE_CHECKING:
    from realrun.validation.campaign import Campaign, CampaignMeasurements

HELP = "execute one schedule and show its measured timeline"
EXAMPLES = """
realrun run --scale 0.125 --layers 2 --seq-len 64 --m-a 2 --r1 2 --r2 2 --html measured.html
realrun run scenario.toml --scale 0.125 --layers 2 --seq-len 64
realrun run --scale 0.125 --schedule my_schedule.json --trace measured.json.gz
torchrun --standalone --nproc-per-node 8 -m realrun run --layers 4 --ag 3 --eg 5 --m-a 2
"""
_TORCHRUN = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_common_flags(parser)
    add_case_flags(parser)
    parser.add_argument(
        "--schedule", type=Path, metavar="FILE.json", help="run this schedule instead of a policy's"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="measured runs (default: 5)"
    )
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write the timeline as .json[.gz] (Perfetto), .csv or .parquet",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the timeline")
    add_out(parser)


def run(args: argparse.Namespace) -> int:
    """Execute, print, export."""
    from realrun.validation.campaign import Campaign
    from realrun.validation.trial import typical
    from simdep.analysis.metrics import timeline_summary
    from simdep.analysis.summary import as_text
    from simdep.schedule import Schedule
    from simdep.traces.export import save_timelines

    checks.integer(args.rounds, "--rounds")
    _check_torchrun()
    check_paths(args, ("html", "trace"))
    case = case_of(args)
    if args.schedule:
        schedule = Schedule.load(args.schedule)
        with files.context(args.schedule, SCHEDULE):
            case = case.with_schedule(schedule)
    (case,) = ready_cases([case], args)
    folder = run_folder(args.out)
    campaign = Campaign([case], args.rounds, args.seed, calibrate=False, backend=args.backend)
    measurements = _measured(campaign, folder)
    if measurements is None:
        return 0
    runs = measurements.runs(0)
    timeline = typical(runs)
    result = timeline_summary(timeline, timeline.schedule.tokens * case.ag)
    result["makespans_us"] = [run.makespan_us for run in runs]
    if args.trace:
        save_timelines(args.trace, timeline)
    if args.html:
        from simdep.analysis import figures

        section = figures.Section("Timeline", figure=figures.gantt_chart(timeline))
        figures.write_html(args.html, timeline.schedule.label, [section])
    emit(args, result, [as_text(result, timeline)])
    print(f"realrun: measurements are in {folder}", file=sys.stderr)
    return 0


def _check_torchrun() -> None:
    """Raise ValueError for a rank that does not know the others."""
    missing = [name for name in _TORCHRUN if name not in os.environ]
    if "RANK" in os.environ and missing:
        raise InputError(f"RANK is set and {missing[0]} is not; torchrun sets both")


def _measured(campaign: Campaign, folder: Path) -> CampaignMeasurements | None:
    """What ranks of this command's own measured, or those of torchrun; None on all but rank 0."""
    from realrun.validation.campaign import measure, measure_here

    if "RANK" in os.environ:
        return measure_here(campaign, folder)
    with progress_bar("running") as progress:
        return measure(campaign, folder, progress)
