"""The command `compare`: policies side by side on one scenario."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simdep.checks import InputError
from simdep.cli import scenario_args
from simdep.cli.output import check_paths, emit, table, tell
from simdep.cli.parser import add_json
from simdep.cli.scenario_args import add_scenario_flags
from simdep.hardware.extrapolation import assumption_sentences

if TYPE_CHECKING:
    from simdep.prediction import Prediction

HELP = "compare policies on one scenario"
EXAMPLES = """
simdep compare naive pppipe:r1=2 findep:r1=2,r2=4,order=aass scenario.toml --html compare.html
simdep compare ep two-batch-prefill findep --model deepseek-v2 --hardware h20 --ag 3 --eg 5
"""
_SPEEDUP = "Speed-up is that of the throughput over the first policy."


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_json(parser)
    parser.add_argument(
        "policies",
        nargs="+",
        metavar="POLICY",
        help="a policy such as findep, pppipe:r1=3 or FILE.py:NAME; best is what solve finds",
    )
    add_scenario_flags(parser, usage="POLICY [POLICY ...] ")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with the table and every timeline"
    )


def run(args: argparse.Namespace) -> int:
    """`simdep compare A B ...`: simulate each, print one table, draw one page."""
    from simdep.planning.comparison import (
        compared_predictions,
        comparison_rows,
        readable_row,
    )
    from simdep.policies import load_policy

    check_paths(args)
    policies = list(args.policies)
    if args.scenario is None and _is_file(policies[-1]):
        args.scenario = Path(policies.pop())
    if args.policy is not None:
        raise InputError(f"--policy {args.policy}: compare names its policies first; leave it out")
    if not policies:
        raise InputError("nothing to compare: name one policy or more, such as naive pppipe findep")
    predictions = compared_predictions(scenario_args.scenario(args), policies, load_policy)
    rows = comparison_rows(predictions)
    assumed = (prediction.assumed for prediction in predictions)
    assumptions = assumption_sentences(itertools.chain.from_iterable(assumed))
    missing = _missing(predictions)
    tell([*missing, *assumptions] if args.json else assumptions)
    if args.html:
        _write_html(args.html, predictions, rows, missing, assumptions)
    changes = [f"{row['schedule']}: {'; '.join(row['changes'])}" for row in rows if row["changes"]]
    head = "\n".join([*missing, f"Simulated. {_SPEEDUP}"])
    parts = [head, table(list(map(readable_row, rows))), "\n".join(changes)]
    emit(args, {"policies": rows, "assumptions": assumptions}, parts)
    return 0


def _missing(predictions: Sequence[Prediction]) -> list[str]:
    """Which policies do not fit into memory, and what would make them fit."""
    from simdep.planning.memory_fixes import missing_memory

    sentences = []
    for prediction in predictions:
        if missing := missing_memory(prediction):
            sentences.append(f"{prediction.schedule.label}: {missing}")
    return sentences


def _is_file(text: str) -> bool:
    """Whether the last of the policies is a file in place of a policy: a scenario, as it is to be
    read or refused."""
    path = Path(text)
    return path.suffix == ".toml" or (path.suffix not in ("", ".py") and path.is_file())


def _write_html(
    path: Path,
    predictions: Sequence[Prediction],
    rows: Sequence[Mapping[str, Any]],
    missing: Sequence[str],
    assumptions: Sequence[str],
) -> None:
    import pandas as pd

    from simdep.analysis import figures  # plotly, only to draw
    from simdep.planning.comparison import readable_row

    frame = pd.DataFrame(map(readable_row, rows)).dropna(axis="columns", how="all")
    if frame.isna().any(axis=None):
        frame = frame.astype(object).where(frame.notna(), "")
    text = " ".join([*(f"{sentence}." for sentence in missing), f"Simulated. {_SPEEDUP}"])
    sections = [figures.Section("Policies side by side", text, table=frame)]
    for figure, row in zip(_timelines(predictions), rows, strict=True):
        text = f"{figures.human_time(row['makespan_us'])}. {'; '.join(row['changes'])}".strip()
        sections.append(figures.Section(f"{row['schedule']}, simulated", text, figure=figure))
    if assumptions:
        sections.append(figures.Section("Assumed", "; ".join(assumptions)))
    names = ", ".join(row["schedule"] for row in rows)
    figures.write_html(path, f"simdep compare: {names}", sections)


def _timelines(predictions: Sequence[Prediction]) -> list[Any]:
    """A chart of each policy, all with the same window and the same scale of the whole."""
    from simdep.analysis import figures  # plotly, only to draw

    longest_us = max(prediction.makespan_us for prediction in predictions)
    unit_us = 1e3 if longest_us >= 1e3 else 1.0
    gantts = []
    for prediction in predictions:
        gantts.append(figures.Gantt.of(prediction.view, unit_us=unit_us, heading=False))
    window_us = (0.0, min(gantt.opening_us[1] for gantt in gantts))
    return [gantt.figure(window_us, reach_us=longest_us, embed=True) for gantt in gantts]
