"""The command `replay`: the order of a real run with its measured task times."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simdep.cli.output import emit
from simdep.cli.parser import add_json
from simdep.units import human_us

HELP = "simulate the schedule of a real run with its measured task times"
EXAMPLES = "simdep replay events.csv --json"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_json(parser)
    parser.add_argument(
        "events",
        type=Path,
        metavar="EVENTS.csv",
        help="tasks of a run: mode,batch,seq,node,op,layer,mb,start_ms,end_ms",
    )


def run(args: argparse.Namespace) -> int:
    """`simdep replay EVENTS.csv`: the runs of an events file, each replayed."""
    from simdep.validation.replay import read_events, replay

    runs = [replay(events, str(args.events)).to_dict() for events in read_events(args.events)]
    result = runs[0] if len(runs) == 1 else runs[0] | {"runs": runs}
    emit(args, result, [_run_text(run) for run in runs])
    return 0


def _run_text(run: Mapping[str, Any]) -> str:
    gap = human_us(run["host_gap_us"])
    return "\n".join(
        [
            f"{run['mode']} batch {run['batch']} seq {run['seq']}: {run['tasks']} tasks",
            f"  predicted  {human_us(run['predicted_us'])} (measured task times, simulated order)",
            f"  measured   {human_us(run['measured_us'])}",
            f"  error      {run['error_pct']:+.2f} % with a host gap of {gap} before every "
            f"computation, fitted on {run['fitted_on']}",
            f"             {run['error_without_gap_pct']:+.2f} % without it",
        ]
    )
