"""Predict how disaggregated MoE inference runs, before it runs.

Data goes to stdout, messages to stderr. Exit codes: 0 good, 1 internal error, 2 bad input, 3 infeasible.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from simdep import __version__
from simdep.checks import InfeasibleError, RangeWarning

# Modules that import numpy, pandas or simpy are imported by the command that needs them: --help answers at once.
if TYPE_CHECKING:
    from simdep.costs import Costs, Host
    from simdep.schedule import Schedule
    from simdep.timeline import Timeline

_SERVED = ("model", "scale", "hardware", "ag", "eg", "phase", "seq_len", "m_a", "dtype")
_FLAGS = (*_SERVED, "layers", "policy", "order", "r1", "r2")
_EXAMPLES = """examples:
  simdep simulate --model deepseek-v2 --hardware a6000 --ag 3 --eg 5 --layers 8 --seq-len 2048 --m-a 2 --r1 2 --r2 4
  simdep simulate scenario.toml --order aass --html timeline.html
  simdep simulate --stage-times attention=1000,shared=300,a2e=50,expert=200,e2a=50 --layers 4 --r1 2 --r2 2 --json
  simdep simulate --schedule my_schedule.json --stage-times attention=9,a2e=1,expert=5,e2a=1 --trace trace.json
"""
_FIT_EXAMPLES = """
simdep fit gemm.csv attention.csv --out mine.json
simdep fit all_gpus.csv --gpu h100 --form roofline --out h100.json
simdep fit aiconfigurator:l40s --out l40s.json
"""
_EVALUATE_EXAMPLES = """
simdep costs evaluate gemm.csv --hardware h100
simdep costs evaluate gemm.csv --hardware h100 --anchors 5 --json
"""
_REPRODUCE_EXAMPLES = """
simdep reproduce
simdep reproduce findep --json
simdep reproduce fastafd --measured mine.csv --html mine.html
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one sentence and ends with exit code 2."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def run_command(prog: str, command: Callable[[], int]) -> int:
    """Run a command; an error becomes one sentence on stderr and its exit code.

    2 for bad input (ValueError), 3 for InfeasibleError, 1 for a run that could not go on (RuntimeError, OSError).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("once", RangeWarning)
            warnings.showwarning = lambda message, *_: print(f"{prog}: note: {message}", file=sys.stderr)
            return command()
    except (ValueError, InfeasibleError, RuntimeError, OSError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 3 if isinstance(error, InfeasibleError) else 1


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("simdep", description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--version", action="version", version=f"simdep {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _add_simulate(commands)
    _add_costs(commands)
    _add_validation(commands)
    args = parser.parse_args(argv)
    return run_command("simdep", lambda: _command(args))


def _command(args: argparse.Namespace) -> int:
    if args.command == "simulate":
        return simulate_command(args)
    from simdep import commands

    done: int = getattr(commands, args.does)(args)
    return done


def _add_simulate(commands: Any) -> None:
    word = "predict the timeline of a schedule"
    p = commands.add_parser(
        "simulate", help=word, description=word, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("scenario", nargs="?", type=Path, metavar="SCENARIO.toml", help="what is served, on what, and how")
    served = p.add_argument_group("what is served, on what (each overrides the scenario file)")
    served.add_argument("--model", help="a name such as deepseek-v2, or the path of a HuggingFace config.json")
    served.add_argument("--scale", type=float, help="factor on every width of the model, at most 1")
    served.add_argument("--hardware", help="a profile such as a6000, or the path of one from `realrun calibrate`")
    served.add_argument("--ag", type=int, help="GPUs of the attention group")
    served.add_argument("--eg", type=int, help="GPUs of the expert group")
    served.add_argument("--layers", type=int, help="MoE layers, default all of the model (bare stage times: 1)")
    served.add_argument("--phase", help="prefill (default) or decode")
    served.add_argument("--seq-len", type=int, help="tokens of a sample (decode: of its context), default 2048")
    served.add_argument("--m-a", type=int, help="samples of a micro-batch per AG GPU, default 1")
    served.add_argument("--dtype", help="bf16 (default), fp32 or fp8")
    bare = p.add_argument_group("or the bare scheduling problem")
    bare.add_argument(
        "--stage-times", metavar="KIND=US,...", help="microseconds per task: attention, shared, a2e, expert, e2a"
    )
    cut = p.add_argument_group("the schedule")
    cut.add_argument("--policy", help="naive, pppipe or findep (default)")
    cut.add_argument("--order", help="asas (default), aass, or a list such as 'A0 A1 S0 A2 S1 S2'")
    cut.add_argument("--r1", type=int, help="micro-batches on the AG, default 1")
    cut.add_argument("--r2", type=int, help="chunks of each micro-batch on the EG, default 1")
    cut.add_argument("--schedule", type=Path, metavar="FILE.json", help="run this schedule instead of a policy's")
    terms = p.add_argument_group("what hosts add to the paper's model")
    terms.add_argument("--ideal", action="store_true", help="nothing, whatever the hardware profile holds")
    terms.add_argument(
        "--noise", type=float, default=0.0, metavar="CV", help="vary computation times by this coefficient of variation"
    )
    terms.add_argument("--seed", type=int, default=0, help="of --noise, default 0")
    out = p.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="one JSON object on stdout")
    out.add_argument("--trace", type=Path, metavar="FILE", help="write .json[.gz] (Perfetto), .csv or .parquet")
    out.add_argument("--html", type=Path, metavar="FILE", help="write a page with the timeline")


def _add_costs(commands: Any) -> None:
    hardware = commands.add_parser("hardware", help="the hardware profiles, value by value with label and source")
    parts = hardware.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    p = _add(parts, "list", "hardware_list", "the profiles that ship with simdep", "simdep hardware list")
    p = _add(parts, "show", "hardware_show", "one profile", "simdep hardware show h20\nsimdep hardware show mine.json")
    p.add_argument("name", help="such as h20, or the path of a profile")

    p = _add(commands, "fit", "fit", "make a hardware profile from measurements", _FIT_EXAMPLES)
    p.add_argument("data", nargs="+", metavar="DATA.csv", help="measurements, or aiconfigurator:GPU; see README")
    p.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="the profile to write")
    p.add_argument("--gpu", default="", help="the rows of this GPU, where a file has several")
    p.add_argument("--name", default="", help="of the profile; default the GPU, or the name of the file")
    p.add_argument(
        "--form", default="auto",
        help="auto (default: what predicts shapes left out best), table, roofline, knee, linear or least-squares",
    )  # fmt: skip
    p.add_argument("--source", default="", help="what the profile says about the origin of its values")

    costs = commands.add_parser("costs", help="how far a profile's predictions lie from measurements")
    parts = costs.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    word = "errors of a profile on measured rows, by operation, kernel and range"
    p = _add(parts, "evaluate", "costs_evaluate", word, _EVALUATE_EXAMPLES)
    p.add_argument("data", metavar="DATA.csv", help="measurements, or aiconfigurator:GPU")
    p.add_argument("--hardware", required=True, help="a profile such as h100, or the path of one")
    p.add_argument(
        "--anchors", type=int, metavar="N", help="bring the profile to this machine's speed by N of the rows"
    )


def _add_validation(commands: Any) -> None:
    word = "published measurements of real systems beside predictions"
    p = _add(commands, "reproduce", "reproduce_command", word, _REPRODUCE_EXAMPLES)
    p.add_argument("name", nargs="?", default="all", help="findep, fastafd, eps-moe or all (default)")
    p.add_argument("--measured", type=Path, metavar="FILE.csv", help="predict these rows, in the columns of the table")
    p.add_argument(
        "--html", type=Path, default=Path("reproduction.html"), metavar="FILE", help="the page, default %(default)s"
    )
    word = "simulate the order of a real run with its measured task times"
    p = _add(commands, "replay", "replay_command", word, "simdep replay events.csv --json")
    p.add_argument("events", type=Path, metavar="EVENTS.csv", help="mode,batch,seq,node,op,layer,mb,start_ms,end_ms")


def _add(commands: Any, name: str, does: str, word: str, examples: str) -> Parser:
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    parser: Parser = commands.add_parser(
        name, help=word, description=word, epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(does=does)
    return parser


def simulate_command(args: argparse.Namespace) -> int:
    """`simdep simulate`: predict, print, export."""
    from simdep import checks, report, trace
    from simdep.engine import IDEAL, simulate

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
    from simdep.costs import StageTimes
    from simdep.engine import IDEAL
    from simdep.policies import build
    from simdep.schedule import Schedule

    if given := [name for name in ("scenario", *_SERVED) if getattr(args, name) is not None]:
        name = given[0] if given[0] == "scenario" else f"--{given[0].replace('_', '-')}"
        raise ValueError(f"--stage-times replaces model and hardware; leave out {name}")
    times = StageTimes.parse(args.stage_times)
    if args.schedule:
        return Schedule.load(args.schedule), times, IDEAL, None, []
    layers, r1, r2 = (1 if value is None else value for value in (args.layers, args.r1, args.r2))
    return build(args.policy or "findep", layers, r1, r2, args.order or "asas"), times, IDEAL, None, []


def _served(args: argparse.Namespace) -> tuple[Schedule, Costs, Host, int, list[str]]:
    from simdep.costs import ScenarioCosts
    from simdep.policies import schedule_for
    from simdep.scenario import override, read_toml, scenario_from_dict
    from simdep.schedule import Schedule

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


if __name__ == "__main__":
    sys.exit(main())
