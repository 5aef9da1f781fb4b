"""The command `simulate`: the timeline of one schedule."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from simdep import checks
from simdep.cli import scenario_args as given
from simdep.cli.output import check_paths, table, tell
from simdep.cli.scenario_args import add_scenario_flags, add_stage_times
from simdep.costs import IDEAL, Costs, HostOverheads, StageTimes
from simdep.hardware.extrapolation import assumption_sentences
from simdep.schedule import Schedule

if TYPE_CHECKING:
    from simdep.scenario.spec import Scenario
    from simdep.simulation.rank_work import RankWork
    from simdep.timeline import Timeline

MAX_NOISE = 10  # coefficient of variation
HELP = "predict the timeline of a scenario"
EXAMPLES = """
simdep simulate --model deepseek-v2 --hardware a6000 --ag 3 --eg 5 --layers 8 --m-a 2 --r1 2 --r2 4
simdep simulate scenario.toml --order aass --html timeline.html
simdep simulate --stage-times attention=1000,a2e=50,expert=200,e2a=50 --layers 4 --r1 2 --r2 2
simdep simulate --schedule mine.json --stage-times attention=9,a2e=1,expert=5,e2a=1 --json
simdep simulate scenario.toml --routing power-law:1.2 --straggler AG.0=1.2 --html ranks.html
"""


@dataclass(frozen=True)
class Job:
    """What is simulated: a group's schedule or, with `work`, that of every rank; `scenario` is what
    it is made from."""

    schedule: Schedule
    costs: Costs
    host: HostOverheads = IDEAL
    tokens: int | None = None
    work: RankWork | None = None
    notes: list[str] = field(default_factory=list)
    scenario: Scenario | None = None


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
    """A schedule of the user's own, and times without a model; read by `asked`."""
    parser.add_argument(
        "--schedule",
        type=Path,
        metavar="FILE.json",
        help="simulate this schedule instead of one of a policy",
    )
    add_stage_times(parser)


def run(args: argparse.Namespace) -> int:
    """`simdep simulate`: predict, print, export."""
    from simdep.analysis import summary as report
    from simdep.analysis.per_rank import MAX_DRAWN_TRACKS, rank_summary, rank_text, shown_tracks
    from simdep.scenario.task_costs import ScenarioCosts
    from simdep.simulation.engine import simulate_schedule
    from simdep.simulation.rank_times import simulate_ranks
    from simdep.traces.export import save_timelines

    check_paths(args)
    checks.number(args.noise, "--noise", high=MAX_NOISE)
    job = asked(args)
    host = replace(
        job.host.ideal if args.ideal else job.host,
        noise=args.noise,
        seed=checks.integer(args.seed, "--seed", 0),
    )
    if job.work:
        times = simulate_ranks(job.work, host)
        result, shown = (
            rank_summary(times, job.tokens),
            shown_tracks(times, MAX_DRAWN_TRACKS),
        )
        text = "" if args.json else rank_text(result, times)
        timeline = times.expanded if args.trace else shown
    else:
        timeline = shown = simulate_schedule(job.schedule, job.costs, host)
        result = report.summary(timeline, job.tokens)
        text = "" if args.json else report.as_text(result, timeline)
    if args.save_schedule:
        job.schedule.save(args.save_schedule)
    if args.trace:
        save_timelines(args.trace, timeline)
    if args.html:
        _write_html(args.html, shown)
    notes, basis = list(job.notes), []
    if isinstance(job.costs, ScenarioCosts):
        notes = assumption_sentences([*notes, *job.costs.evidence.extrapolations])
        basis = [cost.to_dict() for cost in job.costs.basis]
    tell(notes)
    shown_text = f"{text}\n\n{table(basis)}" if basis else text
    print(json.dumps(result | {"assumptions": notes, "costs": basis}) if args.json else shown_text)
    return 0


def asked(args: argparse.Namespace) -> Job:
    """What the flags ask to simulate; raises ValueError for what they do not say, or say twice."""
    scenario = given.scenario(args)
    if scenario.stage_times is None:
        return _served(args, scenario)
    return _timed(args, scenario, scenario.stage_times)


def _timed(args: argparse.Namespace, scenario: Scenario, times: StageTimes) -> Job:
    """A job of stage times given by hand."""
    from simdep.policies import build, schedule_for
    from simdep.simulation.rank_work import RankCosts, rank_work

    if args.schedule:
        schedule = _loaded(args)
    elif scenario.has_model:
        schedule = schedule_for(scenario)
    else:
        schedule = build(
            scenario.policy, scenario.layers, scenario.r1, scenario.r2, scenario.order, costs=times
        )
    where = scenario.deployment
    tokens = schedule.tokens * where.ag if scenario.has_model else None
    if scenario.ranks is None:
        return Job(schedule, times, tokens=tokens)
    costs = RankCosts.of_stages(times)
    work = rank_work(schedule, where.ag, where.eg, scenario.ranks, costs)
    return Job(schedule, times, tokens=tokens, work=work)


def _served(args: argparse.Namespace, scenario: Scenario) -> Job:
    from simdep.planning.memory_fixes import explain
    from simdep.policies import schedule_for, set_up
    from simdep.scenario.memory import memory
    from simdep.scenario.task_costs import ScenarioCosts
    from simdep.simulation.rank_work import scenario_work

    completed = set_up(scenario)
    scenario = completed.scenario
    costs = ScenarioCosts(scenario)
    schedule = _loaded(args) if args.schedule else schedule_for(scenario, costs)
    work = scenario_work(scenario, schedule, costs) if scenario.ranks else None
    tokens = work.total_tokens if work else schedule.tokens * scenario.deployment.ag
    notes = [*completed.assumptions, *costs.notes, *(work.costs.notes if work else ())]
    own = None if args.schedule else scenario
    if own and not memory(own).fits:
        notes.append(f"it does not fit into memory: {explain(own)}")
    return Job(schedule, costs, costs.host, tokens, work, notes, own)


def _loaded(args: argparse.Namespace) -> Schedule:
    """The schedule of --schedule; raises ValueError for a flag that says how to cut or order it."""
    own = ("policy", "order", "r1", "r2", "micro_batches", "chunks", "split", "merge_last")
    if known := [name for name in own if getattr(args, name) is not None]:
        raise ValueError(
            f"--schedule holds order and cut; leave out --{known[0].replace('_', '-')}"
        )
    schedule = Schedule.load(args.schedule)
    if args.layers not in (None, schedule.layers):
        raise ValueError(
            f"--layers {args.layers}: the schedule {args.schedule} has {schedule.layers}"
        )
    return schedule


def _write_html(path: Path, timeline: Timeline) -> None:
    from simdep.analysis import figures  # plotly, only to draw

    figures.write_html(
        path,
        timeline.schedule.label,
        [figures.Section("Timeline (simulated)", figure=figures.gantt_chart(timeline))],
    )
