"""The command `explain`: where the time of a schedule goes, what would change it, how far it is
from the optimum."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simdep.checks import InputError, integer, number
from simdep.cli import scenario_args
from simdep.cli.explain_text import (
    CHANGES,
    IDLE,
    conclusion,
    explanation_parts,
    heading,
    idle_rows,
    path_rows,
    sensitivity_rows,
)
from simdep.cli.output import check_paths, emit, tell
from simdep.cli.parser import add_json
from simdep.cli.scenario_args import add_scenario_flags
from simdep.cli.simulate import add_schedule_flags, own_schedule
from simdep.costs import Costs
from simdep.hardware.extrapolation import assumption_sentences
from simdep.schedule import Schedule

if TYPE_CHECKING:
    from simdep.prediction import Prediction
    from simdep.scenario.spec import Scenario
    from simdep.timeline import Timeline

HELP = (
    "explain a makespan: critical path, idle time, sensitivities, findings, distance to the optimum"
)
EXAMPLES = """
simdep explain scenario.toml --against pppipe:r1=3
simdep explain scenario.toml --against other.toml --html why.html
simdep explain --stage-times attention=9,a2e=3,expert=5,e2a=3 --layers 4 --r1 2 --r2 2 --exact
"""
MAX_TIME_LIMIT_S, MAX_WORKERS = 1e6, 256  # of --exact
_MAX_RANK_TASKS = 20_000  # of all ranks, where every rank is simulated


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_json(parser)
    add_scenario_flags(parser)
    add_schedule_flags(parser)
    parser.add_argument("--ideal", action="store_true", help="no host overheads")
    parser.add_argument(
        "--against",
        metavar="POLICY|FILE.toml",
        help="also explain the difference to this policy or scenario",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="also prove the optimum over all orders (needs the extra `exact`)",
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds that --exact may take (default: 30)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="threads of --exact; one gives the same result in every run (default: 1)",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with the timeline and all tables"
    )


def run(args: argparse.Namespace) -> int:
    """`simdep explain`: attribution, idle time, sensitivities, diagnoses; beside another schedule;
    the optimum."""
    from simdep.planning.memory_fixes import missing_memory
    from simdep.prediction import simulate

    check_paths(args)
    number(args.time_limit, "--time-limit", above=0, high=MAX_TIME_LIMIT_S)
    integer(args.workers, "--workers", high=MAX_WORKERS)
    scenario = scenario_args.scenario(args)
    prediction = simulate(scenario, schedule=own_schedule(args), ideal=args.ideal)
    subject = _Subject.of(prediction)
    result = _explained(subject)
    if args.against is not None:
        result["difference"] = _difference(_other(args.against, scenario), prediction, subject)
    if args.exact:
        result["optimum"] = _optimum(subject, args.time_limit, args.workers)
    missing = missing_memory(prediction)
    unfit = [missing] if missing and args.json else []
    tell([*unfit, *prediction.assumptions])
    if args.html:
        _write_html(args.html, subject.timeline, result, missing)
    parts = [missing, *explanation_parts(result)]
    emit(args, result | {"assumptions": prediction.assumptions}, parts)
    return 0


@dataclass(frozen=True)
class _Subject:
    """What is explained: a prediction with the schedule, costs and timeline of its tasks, or of the
    tasks of every rank."""

    prediction: Prediction
    schedule: Schedule
    costs: Costs
    timeline: Timeline

    @classmethod
    def of(cls, prediction: Prediction) -> _Subject:
        """Raises InputError for more tasks of ranks than can be explained."""
        if prediction.ranks is None:
            costs, timeline = prediction.task_us, prediction.simulated
            return cls(prediction, prediction.schedule, costs, timeline)
        work = prediction.ranks.work
        if work.tasks > _MAX_RANK_TASKS:
            limit = f"explain takes {_MAX_RANK_TASKS:,}: use fewer layers or ranks"
            raise InputError(f"{work.tasks:,} tasks of all ranks; {limit}")
        schedule, costs = work.expand()
        return cls(prediction, schedule, costs, prediction.ranks.expanded)


def _explained(subject: _Subject) -> dict[str, Any]:
    from simdep.analysis.diagnoses import diagnoses
    from simdep.analysis.idle import time_breakdown
    from simdep.analysis.sensitivity import link_parts, sensitivities
    from simdep.hardware.extrapolation import Extrapolation
    from simdep.scenario.memory import memory
    from simdep.scenario.task_costs import ScenarioCosts
    from simdep.simulation.bounds import lower_bound_us

    prediction, makespan = subject.prediction, subject.timeline.makespan_us
    is_group, costs = prediction.ranks is None, prediction.task_us
    parts = link_parts(costs) if isinstance(costs, ScenarioCosts) and is_group else ()
    changes = sensitivities(subject.schedule, subject.costs, prediction.host, parts)
    bound = min(makespan, lower_bound_us(subject.schedule, subject.costs))
    has_memory = prediction.results["memory_fits"] is not None
    beyond = [use for use in prediction.assumed if isinstance(use, Extrapolation)]
    findings = diagnoses(
        subject.timeline,
        start_up=_start_up(prediction),
        needed=memory(prediction.scenario) if has_memory else None,
        out_of_range=tuple(assumption_sentences(beyond)),
    )
    return {
        **prediction.results,
        "lower_bound_us": bound,
        "gap_pct": 100 * (makespan / bound - 1) if bound else 0.0,
        **time_breakdown(subject.timeline),
        "sensitivities": [asdict(change) for change in changes],
        "diagnoses": [asdict(finding) for finding in findings],
        "difference": None,
        "optimum": None,
    }


def _start_up(prediction: Prediction) -> dict[str, float] | None:
    """The share of start-up in the time of each kind; None for stage times.

    What it asks of halved tasks says nothing of the prediction: it has costs of its own.
    """
    from simdep.analysis.diagnoses import start_up_shares
    from simdep.scenario.task_costs import ScenarioCosts

    if not isinstance(prediction.task_us, ScenarioCosts):
        return None
    return start_up_shares(prediction.schedule, ScenarioCosts(prediction.scenario))


def _other(against: str, scenario: Scenario) -> Prediction:
    """The prediction of --against: another scenario file, or a policy on the same scenario."""
    from simdep.planning.choice import Choice, simulate_choice
    from simdep.policies import load_policy
    from simdep.prediction import simulate
    from simdep.scenario.spec import Scenario

    if against.endswith(".toml"):
        return simulate(Scenario.load(against))
    return simulate_choice(Choice.parse(against, load_policy), scenario)


def _difference(other: Prediction, prediction: Prediction, subject: _Subject) -> dict[str, Any]:
    """What makes the schedule slower or faster than the other one."""
    from simdep.analysis.difference import difference

    found = difference(other.simulated, subject.timeline)
    sentences = list(found.sentences)
    own, others, unit = prediction.tokens, other.tokens, "tokens"
    if own is None or others is None:  # stage times say nothing of tokens
        own, others, unit = prediction.schedule.r1, other.schedule.r1, "micro-batches"
    if own != others and prediction.makespan_us and other.makespan_us:
        speed = (own / prediction.makespan_us) / (others / other.makespan_us)
        sentences.append(
            f"it serves {own:,} {unit}, the other {others:,}: {speed:.3f} times the throughput"
        )
    return {
        "against": other.schedule.label,
        "against_makespan_us": other.makespan_us,
        "words": sentences,
        "critical_path": [asdict(change) for change in found.path],
        "idle": [asdict(change) for change in found.idle],
    }


def _optimum(subject: _Subject, time_limit_s: float, workers: int) -> dict[str, Any]:
    from simdep.planning.exact import data_alone, optimum, same_tasks  # OR-Tools, only for a proof

    prediction, schedule = subject.prediction, data_alone(subject.schedule)
    start = _look_ahead(prediction)
    found = optimum(
        schedule,
        subject.costs,
        prediction.host,
        starts=[start] if start and same_tasks(schedule, start) else [],
        time_limit_s=time_limit_s,
        workers=workers,
    )
    makespan = subject.timeline.makespan_us
    above = found.distance_pct(makespan)
    is_optimal = found.optimal and makespan <= found.makespan_us + found.rounding_us
    streams = {}
    for stream, tasks in found.schedule.streams.items():
        streams[stream] = [task.name for task in tasks]
    return {
        "makespan_us": found.makespan_us,
        "lower_bound_us": found.lower_bound_us,
        "verdict": "optimal" if is_optimal else f"within {above:.2g} %",
        "found_verdict": found.verdict,
        "gap_pct": 0.0 if is_optimal else above,
        "rounding_us": found.rounding_us,
        "solve_s": found.solve_s,
        "streams": streams,
    }


def _look_ahead(prediction: Prediction) -> Schedule | None:
    """The look-ahead order of the same granularity, a good start of the search, where there is
    one."""
    from simdep.policies import build, schedule_for

    scenario, own, costs = prediction.scenario, prediction.schedule, prediction.task_us
    if prediction.ranks is not None or (scenario.has_model and not prediction.has_sizes):
        return None
    try:
        if scenario.has_model:
            return schedule_for(replace(scenario, policy="lookahead", order="asas"), costs)
        return build("lookahead", own.layers, own.r1, own.r2, costs=costs)
    except ValueError:  # a schedule of another kind
        return None


def _write_html(path: Path, timeline: Timeline, result: Mapping[str, Any], missing: str) -> None:
    import pandas as pd

    from simdep.analysis import figures  # plotly, only to draw

    findings = []
    for finding in result["diagnoses"]:
        holds = "yes" if finding["found"] else "no"
        findings.append({"finding": finding["name"], "holds": holds, "numbers": finding["text"]})
    tables = {
        IDLE: idle_rows(result),
        CHANGES: sensitivity_rows(result),
        "Findings": findings,
    }
    chart, path_table = figures.gantt_chart(timeline), pd.DataFrame(path_rows(result))
    answer = f"{missing}\n{heading(result)}".strip()
    sections = [
        figures.Section("Why it takes as long", answer, figure=chart),
        figures.Section("Critical path", conclusion(result), table=path_table),
    ]
    sections += [figures.Section(name, table=pd.DataFrame(rows)) for name, rows in tables.items()]
    difference = result["difference"]
    if difference:
        name, sentences = f"Against {difference['against']}", "; ".join(difference["words"])
        paths, idle = pd.DataFrame(difference["critical_path"]), pd.DataFrame(difference["idle"])
        sections.append(figures.Section(name, sentences, table=paths))
        sections.append(figures.Section("Idle time of both", table=idle))
    figures.write_html(path, f"simdep explain: {result['schedule']}", sections)
