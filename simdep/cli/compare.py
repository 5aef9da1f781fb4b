"""The command `compare`: policies side by side on one scenario."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simdep.checks import InfeasibleError
from simdep.cli import scenario_args as given
from simdep.cli.output import check_paths, emit, table, tell
from simdep.cli.parser import add_json
from simdep.cli.scenario_args import add_scenario_flags
from simdep.hardware.extrapolation import assumption_sentences
from simdep.units import human_bytes

if TYPE_CHECKING:
    from simdep.prediction import Prediction
    from simdep.scenario.spec import Scenario

HELP = "compare policies on one scenario"
EXAMPLES = """
simdep compare naive pppipe:r1=2 findep:r1=2,r2=4,order=aass scenario.toml --html compare.html
simdep compare ep two-batch-prefill findep --model deepseek-v2 --hardware h20 --ag 3 --eg 5 --samples 4
"""


BEST = "best"  # in place of a policy: whatever the solver finds
_SHOWN = {  # of a row of `--json`, as people read it
    "schedule": "policy",
    "gpus": "GPUs",
    "m_a": "m_a",
    "makespan_us": "makespan (us)",
    "throughput_tokens_per_s": "tokens/s",
    "throughput_tokens_per_s_per_gpu": "tokens/s per GPU",
    "speedup": "speed-up",
    "ag_bubble_pct": "AG bubble (%)",
    "eg_bubble_pct": "EG bubble (%)",
    "exposed_communication_us": "exposed communication (us)",
    "memory": "memory",
}


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
    check_paths(args)
    words = list(args.policies)
    if args.scenario is None and words[-1].endswith(".toml"):
        args.scenario = Path(words.pop())
    if args.policy is not None:
        raise ValueError(f"--policy {args.policy}: compare names its policies first; leave it out")
    if not words:
        raise ValueError("nothing to compare: name one policy or more, such as naive pppipe findep")
    scenario = given.scenario(args)
    found = [_predicted(word, scenario) for word in words]
    rows = _rows(found)
    notes = assumption_sentences(note for prediction in found for note in prediction.notes)
    tell(notes)
    if args.html:
        _write_html(args.html, found, rows, notes)
    changes = [f"{row['schedule']}: {'; '.join(row['changes'])}" for row in rows if row["changes"]]
    heads = [
        "Simulated; speed-up is that of the throughput over the first policy.",
        table(_shown(rows)),
    ]
    emit(args, {"policies": rows, "assumptions": notes}, [*heads, "\n".join(changes)])
    return 0


def _predicted(word: str, scenario: Scenario) -> Prediction:
    from simdep.planning.choice import Choice, best, under
    from simdep.policies import load

    try:
        return under(best(scenario) if word == BEST else Choice.parse(word, load), scenario)
    except ValueError as error:
        raise ValueError(f"{word}: {error}") from None
    except InfeasibleError as error:
        raise InfeasibleError(f"{word}: {error}") from None


def _rows(found: Sequence[Prediction]) -> list[dict[str, Any]]:
    from simdep.scenario.memory import memory

    rows: list[dict[str, Any]] = []
    for prediction in found:
        where, needed = prediction.scenario.deployment, memory(prediction.scenario)
        row = prediction.row()
        first = rows[0]["throughput_tokens_per_s"] if rows else row["throughput_tokens_per_s"]
        rows.append(
            {
                **row,
                "gpus": str(where.gpus) if where.colocated else f"{where.ag}+{where.eg}",
                "samples_per_ag_gpu": prediction.scenario.workload.samples,
                "speedup": row["throughput_tokens_per_s"] / first
                if first and row["throughput_tokens_per_s"]
                else None,
                "memory_fits": needed.fits,
                "memory_missing_bytes": needed.missing_bytes,
                "memory": "fits" if needed.fits else f"{human_bytes(needed.missing_bytes)} missing",
                "changes": list(prediction.changes),
            }
        )
    return rows


def _shown(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[key] for key, name in _SHOWN.items()} for row in rows]


def _write_html(
    path: Path, found: Sequence[Prediction], rows: Sequence[dict[str, Any]], notes: Sequence[str]
) -> None:
    import pandas as pd

    from simdep.analysis import figures  # plotly, only to draw

    longest = max(prediction.timeline.makespan_us for prediction in found)
    unit_us = 1e3 if longest >= 1e3 else 1.0
    frame = pd.DataFrame(_shown(rows)).dropna(axis="columns", how="all")
    frame = frame if frame.notna().all(axis=None) else frame.astype(object).where(frame.notna(), "")
    text = "Simulated. Speed-up is that of the throughput over the first policy."
    sections = [figures.Section("Policies side by side", text, table=frame)]
    for prediction, row in zip(found, rows, strict=True):
        figure = figures.gantt_chart(prediction.timeline, unit_us=unit_us)
        figure.update_xaxes(range=[0, 1.02 * longest / unit_us])
        figure.update_layout(title_text="", margin_t=figure.layout.margin.t - 24)
        told = f"{figures.human_time(row['makespan_us'])}. {'; '.join(row['changes'])}".strip()
        sections.append(figures.Section(f"{row['schedule']}, simulated", told, figure=figure))
    sections += [figures.Section("Assumed", "; ".join(notes))] if notes else []
    figures.write_html(
        path, f"simdep compare: {', '.join(row['schedule'] for row in rows)}", sections
    )
