"""The command `simulate`: the timeline of one schedule."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from simdep import checks, files
from simdep.checks import InputError
from simdep.cli import scenario_args
from simdep.cli.output import check_paths, emit, table, tell
from simdep.cli.scenario_args import add_scenario_flags
from simdep.completeness import check_complete
from simdep.file_kinds import SCHEDULE
from simdep.schedule import Schedule

if TYPE_CHECKING:
    from simdep.prediction import Prediction

MAX_NOISE = 10  # coefficient of variation
HELP = "predict the timeline of a scenario"
EXAMPLES = """
simdep simulate --model deepseek-v2 --hardware a6000 --ag 3 --eg 5 --layers 8 --m-a 2 --r1 2 --r2 4
simdep simulate scenario.toml --order aass --html timeline.html
simdep simulate --stage-times attention=1000,a2e=50,expert=200,e2a=50 --layers 4 --r1 2 --r2 2
simdep simulate --schedule mine.json --stage-times attention=9,a2e=1,expert=5,e2a=1 --json
simdep simulate scenario.toml --routing power-law:1.2 --straggler AG.0=1.2 --html ranks.html
"""
_OF_POLICY = ("policy", "order", "r1", "r2", "micro_batches", "chunks", "split", "merge_last")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_scenario_flags(parser)
    add_schedule_flags(parser)
    terms = parser.add_argument_group("Host overheads")
    terms.add_argument(
        "--ideal",
        action="store_true",
        help="no host overheads, whatever the hardware profile holds",
    )
    terms.add_argument(
        "--noise",
        type=float,
        default=0.0,
        metavar="CV",
        help="coefficient of variation of the computation times (default: 0)",
    )
    terms.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the noise (default: 0)"
    )
    out = parser.add_argument_group("Output")
    out.add_argument("--json", action="store_true", help="one JSON object on stdout")
    out.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write the timeline as .json[.gz] (Perfetto), .csv or .parquet",
    )
    out.add_argument("--html", type=Path, metavar="FILE", help="write a page with the timeline")
    out.add_argument(
        "--save-schedule",
        type=Path,
        metavar="FILE.json",
        help="write the schedule; --schedule reads it",
    )


def add_schedule_flags(parser: argparse.ArgumentParser) -> None:
    """A schedule of the user's own, read by `own_schedule`."""
    parser.add_argument(
        "--schedule",
        type=Path,
        metavar="FILE.json",
        help="simulate this schedule instead of one of a policy",
    )


def run(args: argparse.Namespace) -> int:
    """`simdep simulate`: predict, print, export."""
    from simdep.analysis.per_rank import rank_text
    from simdep.analysis.summary import as_text
    from simdep.planning.memory_fixes import missing_memory
    from simdep.prediction import simulate

    check_paths(args)
    prediction = simulate(
        scenario_args.scenario(args),
        schedule=own_schedule(args),
        ideal=args.ideal,
        noise=checks.number(args.noise, "--noise", high=MAX_NOISE),
        seed=checks.integer(args.seed, "--seed", 0),
    )
    missing = missing_memory(prediction)
    assumptions = [*filter(None, [missing]), *prediction.assumptions]
    if args.save_schedule:
        prediction.schedule.save(args.save_schedule)
    if args.trace:
        prediction.save(args.trace)
    if args.html:
        _write_html(args.html, prediction, missing)
    tell(assumptions if args.json else prediction.assumptions)
    basis = [entry.to_dict() for entry in prediction.basis]
    if args.json:
        emit(args, prediction.metrics | {"assumptions": assumptions, "costs": basis}, [])
        return 0
    if prediction.ranks is None:
        text = as_text(prediction.metrics, prediction.simulated)
    else:
        text = rank_text(prediction.metrics, prediction.ranks)
    emit(args, {}, [missing, text, table(basis)])
    return 0


def own_schedule(args: argparse.Namespace) -> Schedule | None:
    """The schedule of --schedule, if it is given; raises InputError for a flag beside it that says
    how to divide or order the work."""
    if args.schedule is None:
        return None
    for name in _OF_POLICY:
        if getattr(args, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"--schedule holds order and granularity; leave out {flag}")
    schedule = Schedule.load(args.schedule)
    if args.layers not in (None, schedule.layers):
        raise InputError(
            f"--layers {args.layers}: the schedule {args.schedule} has {schedule.layers}"
        )
    with files.context(args.schedule, SCHEDULE):
        check_complete(schedule)
    return schedule


def _write_html(path: Path, prediction: Prediction, missing: str) -> None:
    from simdep.analysis import figures  # plotly, only to draw

    section = figures.Section("Timeline (simulated)", missing, figure=prediction.figure())
    figures.write_html(path, prediction.schedule.label, [section])
