"""The command `replay`: the order of a real run with its measured task times."""

from __future__ import annotations

import argparse
from pathlib import Path

from simdep.cli.output import emit
from simdep.cli.parser import add_json
from simdep.units import human_us

HELP = "simulate the order of a real run with its measured task times"
EXAMPLES = "simdep replay events.csv --json"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_json(parser)
    parser.add_argument(
        "events",
        type=Path,
        metavar="EVENTS.csv",
        help="mode,batch,seq,node,op,layer,mb,start_ms,end_ms",
    )


def run(args: argparse.Namespace) -> int:
    """`simdep replay`: the makespan of a real run from its measured task times."""
    from simdep.validation.replay import read_events, replay

    runs = [replay(run, str(args.events)).to_dict() for run in read_events(args.events)]
    result = runs[0] if len(runs) == 1 else runs[0] | {"runs": runs}
    parts = []
    for run in runs:
        parts.append(
            f"{run['mode']} batch {run['batch']} seq {run['seq']}: {run['tasks']} tasks\n"
            f"  predicted  {human_us(run['predicted_us'])} (measured task times, simulated order)\n"
            f"  measured   {human_us(run['measured_us'])}\n"
            f"  error      {run['error_pct']:+.2f} % with a host gap of {human_us(run['host_gap_us'])} before every "
            f"computation, fitted on {run['fitted_on']}\n"
            f"             {run['error_without_gap_pct']:+.2f} % without it"
        )
    emit(args, result, parts)
    return 0
