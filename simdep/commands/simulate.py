"""The command `simulate`: the timeline of one schedule."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from simdep import checks, report, trace
from simdep.costs import IDEAL, Costs, Host, ScenarioCosts, StageTimes
from simdep.engine import simulate
from simdep.policies import build, schedule_for
from simdep.scenario import override, read_toml, scenario_from_dict
from simdep.schedule import Schedule
from simdep.timeline import Timeline

_SERVED = ("model", "scale", "hardware", "ag", "eg", "phase", "seq_len", "m_a", "dtype")
_FLAGS = (*_SERVED, "layers", "policy", "order", "r1", "r2")


def simulate_command(args: argparse.Namespace) -> int:
    """`simdep simulate`: predict, print, export."""

    checks.number(args.noise, "--noise")
    schedule, costs, host, tokens, notes = _bare(args) if args.stage_times else _served(args)
    host = replace(IDEAL if args.ideal else host, noise=args.noise, seed=checks.whole(args.seed, "--seed", 0))
    timeline = simulate(schedule, costs, host)
    result = report.summary(timeline, tokens) | {"assumptions": notes}
    if args.trace:
        trace.write(args.trace, timeline)
    if args.html:
        _write_html(args.html, timeline)
    for note in notes:
        print(f"simdep: note: {note}", file=sys.stderr)
    print(json.dumps(result) if args.json else report.as_text(result, timeline))
    return 0


def _bare(args: argparse.Namespace) -> tuple[Schedule, Costs, Host, None, list[str]]:

    if given := [name for name in ("scenario", *_SERVED) if getattr(args, name) is not None]:
        name = given[0] if given[0] == "scenario" else f"--{given[0].replace('_', '-')}"
        raise ValueError(f"--stage-times replaces model and hardware; leave out {name}")
    times = StageTimes.parse(args.stage_times)
    if args.schedule:
        return Schedule.load(args.schedule), times, IDEAL, None, []
    layers, r1, r2 = (1 if value is None else value for value in (args.layers, args.r1, args.r2))
    return build(args.policy or "findep", layers, r1, r2, args.order or "asas"), times, IDEAL, None, []


def _served(args: argparse.Namespace) -> tuple[Schedule, Costs, Host, int, list[str]]:

    if args.scenario is None and args.model is None:
        raise ValueError("nothing to simulate: give SCENARIO.toml, --model with --hardware, or --stage-times")
    data = read_toml(args.scenario) if args.scenario else {}
    scenario = scenario_from_dict(override(data, {name: getattr(args, name) for name in _FLAGS}))
    costs = ScenarioCosts(scenario)
    schedule = Schedule.load(args.schedule) if args.schedule else schedule_for(scenario)
    return schedule, costs, costs.host, schedule.tokens * scenario.deployment.ag, costs.notes


def _write_html(path: Path, timeline: Timeline) -> None:
    from simdep import figures  # plotly, only to draw

    figures.write_html(
        path, timeline.schedule.label, [figures.Section("Timeline (simulated)", figure=figures.gantt(timeline))]
    )
