"""Run schedules of disaggregated MoE layers for real, and hold simdep's predictions against them.

Data goes to stdout, messages and progress to stderr. Exit codes: 0 good, 1 internal error or a rank
that failed, 2 bad input, 3 infeasible (memory), 4 a validation over its tolerance or a calibration
that misses its own points.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from realrun.place import LINKS
from simdep import checks, files
from simdep.cli.parser import Parser
from simdep.cli.run import run_command

# Modules that import torch are imported by the command that needs them: --help answers at once.
if TYPE_CHECKING:
    from realrun.cases import Case
    from simdep.hardware.profile import HardwareProfile

_EXAMPLES = """examples:
  realrun validate --quick
  realrun validate --schedules my_schedules.json --out runs/mine --tolerance 15
  realrun calibrate --out profile.json
  realrun experiment speedup
  realrun run --model deepseek-v2-lite --scale 0.125 --layers 2 --seq-len 64 --m-a 2 --ag 1 --eg 1 --r1 2 --r2 2
  torchrun --standalone --nproc-per-node 8 -m realrun run --model deepseek-v2-lite --layers 4 --ag 3 --eg 5 --m-a 2
"""
_MODEL = "deepseek-v2-lite"


def main(argv: Sequence[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("realrun", description=__doc__, epilog=_EXAMPLES, formatter_class=raw)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )
    adders = {
        "run": _add_run,
        "calibrate": _add_calibrate,
        "validate": _add_validate,
        "experiment": _add_experiment,
    }
    for name, add in adders.items():
        word = str(add.__doc__)
        command = commands.add_parser(
            name, help=word, description=word, epilog=_EXAMPLES, formatter_class=raw
        )
        add(command)
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
        command.add_argument(
            "--backend",
            default="auto",
            choices=("auto", "gloo", "nccl"),
            help="default: nccl if GPUs",
        )
        _add_link(command)
        command.add_argument(
            "--seed", type=int, default=0, help="of weights, inputs and the order of runs"
        )
    args = parser.parse_args(argv)
    doers: dict[str, Callable[[argparse.Namespace], int]] = {
        "run": run_one,
        "calibrate": calibrate,
        "validate": validate,
        "experiment": experiment,
    }

    def do() -> int:
        checks.integer(args.seed, "--seed", 0)
        return doers[args.command](args)

    return run_command("realrun", do)


def _add_run(p: argparse.ArgumentParser) -> None:
    """execute one schedule and show its measured timeline"""
    _add_case(p)
    p.add_argument(
        "--schedule", type=Path, metavar="FILE.json", help="run this schedule instead of a policy's"
    )
    p.add_argument(
        "--rounds", type=int, default=5, help="measured runs after one that warms up, default 5"
    )
    p.add_argument(
        "--trace", type=Path, metavar="FILE", help="write .json[.gz] (Perfetto), .csv or .parquet"
    )
    p.add_argument("--html", type=Path, metavar="FILE", help="write a page with the timeline")
    p.add_argument("--out", type=Path, metavar="DIR", help="run folder, default runs/DATE")


def _add_calibrate(p: argparse.ArgumentParser) -> None:
    """measure the costs of this machine by micro-benchmark and write a hardware profile"""
    _add_case(p)
    p.add_argument("--name", default="this-machine", help="name of the profile")
    p.add_argument("--rounds", type=int, default=5, help="default 5")
    p.add_argument(
        "--out",
        type=Path,
        metavar="FILE.json",
        default=Path("profile.json"),
        help="default profile.json",
    )
    p.add_argument(
        "--force",
        action="store_true",
        help="keep lines that miss their own points by more than 5 %%",
    )


def _add_validate(p: argparse.ArgumentParser) -> None:
    """calibrate, predict, run a set of schedules for real, and compare"""
    p.add_argument(
        "--quick", action="store_true", help="a set of small schedules that takes under 4 minutes"
    )
    p.add_argument(
        "--full",
        action="store_true",
        help="over 150 schedules, also of full width, in about 20 minutes",
    )
    p.add_argument(
        "--schedules", type=Path, metavar="FILE.json", help="a JSON list of the schedules to run"
    )
    p.add_argument(
        "--profile", type=Path, metavar="FILE", help="predict from this profile, do not calibrate"
    )
    p.add_argument(
        "--foreign-profile",
        type=Path,
        metavar="FILE",
        help="predict also from this one, as a stale profile",
    )
    p.add_argument(
        "--in-situ",
        type=int,
        default=0,
        metavar="N",
        help="let N schedules of each shape correct the calibration; they are left out of the score",
    )
    p.add_argument(
        "--rounds", type=int, help="measured runs of each schedule, default 10 (--quick: 16)"
    )
    p.add_argument(
        "--tolerance", type=float, metavar="PCT", help="exit with 4 if the median error is larger"
    )
    p.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="run folder, default runs/DATE; an interrupted one goes on",
    )


def _add_experiment(p: argparse.ArgumentParser) -> None:
    """repeat an experiment of FinDEP here, predicted and measured"""
    p.add_argument(
        "name",
        choices=("monotonicity", "speedup", "orders"),
        help="throughput in m_a and r1; PPPipe against FinDEP; look-ahead against both",
    )
    p.add_argument(
        "--rounds", type=int, default=40, help="measured runs of each schedule, default 40"
    )
    p.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="run folder, default runs/DATE; an interrupted one goes on",
    )


def _add_link(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--link",
        default="shm",
        choices=LINKS,
        help="between CPU ranks. shm (default): payload in shared memory, delivered at the speed below; "
        "shaped: the same speed, bytes carried by gloo; tbf: gloo between network namespaces, at a speed that the "
        "kernel keeps (root only); lo: gloo over loopback as fast as it goes",
    )
    p.add_argument(
        "--link-mbytes-per-s",
        type=float,
        metavar="MB/S",
        help="speed of shm, shaped and tbf, default 1000",
    )
    p.add_argument(
        "--link-alpha-us", type=float, metavar="US", help="start-up of a message, default 50"
    )


def _add_case(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model", default=_MODEL, help=f"a name or the path of a config.json, default {_MODEL}"
    )
    p.add_argument(
        "--scale", type=float, default=1.0, help="factor on every width of the model, default 1"
    )
    p.add_argument("--layers", type=int, default=2, help="MoE layers, default 2")
    p.add_argument("--seq-len", type=int, default=64, help="tokens of a sample, default 64")
    p.add_argument(
        "--m-a", type=int, default=1, help="samples of a micro-batch per AG rank, default 1"
    )
    p.add_argument("--ag", type=int, default=1, help="ranks of the attention group, default 1")
    p.add_argument("--eg", type=int, default=1, help="ranks of the expert group, default 1")
    p.add_argument("--policy", default="findep", help="naive, pppipe or findep (default)")
    p.add_argument(
        "--order",
        default="asas",
        help="asas (default), aass, or a list such as 'A0 A1 S0 A2 S1 S2'",
    )
    p.add_argument("--r1", type=int, default=1, help="micro-batches on the AG, default 1")
    p.add_argument(
        "--r2", type=int, default=1, help="chunks of each micro-batch on the EG, default 1"
    )


def run_one(args: argparse.Namespace) -> int:
    """`realrun run`: execute, print, export. Under torchrun every rank calls it and rank 0
    prints."""
    from realrun.validation.campaign import Campaign, measure, measure_here
    from realrun.validation.trial import typical
    from simdep.analysis import summary as report
    from simdep.cli.output import check_paths
    from simdep.schedule import Schedule
    from simdep.traces.export import save_timelines

    check_paths(args, ("html", "trace"))
    case = _case(args)
    if args.schedule:
        case = replace(case, custom=Schedule.load(args.schedule))
    (case,) = _ready([case], args)
    folder = args.out or _dated_folder()
    campaign = Campaign(
        [case], _rounds(args.rounds), args.seed, calibrate=False, backend=args.backend
    )
    if "RANK" in os.environ:
        found = measure_here(campaign, folder)
        if found is None:
            return 0
    else:
        with _progress("running") as progress:
            found = measure(campaign, folder, progress)
    timeline = typical(found.runs(0))
    spans = [run.makespan_us for run in found.runs(0)]
    result = report.summary(timeline, timeline.schedule.tokens * case.ag) | {"makespans_us": spans}
    if args.trace:
        save_timelines(args.trace, timeline)
    if args.html:
        from simdep.analysis import figures

        figures.write_html(
            args.html,
            timeline.schedule.label,
            [figures.Section("Timeline", figure=figures.gantt_chart(timeline))],
        )
    print(json.dumps(result) if args.json else report.as_text(result, timeline))
    print(f"realrun: measurements are in {folder}", file=sys.stderr)
    return 0


def calibrate(args: argparse.Namespace) -> int:
    """`realrun calibrate`: measure, fit, write the profile, print its lines."""
    from realrun.calibration.profile import for_any_transport, profile_from, refusals
    from realrun.validation.campaign import Campaign, measure
    from realrun.validation.report import costs_table
    from simdep.cli.output import check_paths

    check_paths(args, ("out",))
    (case,) = _ready([_case(args)], args)
    folder = _dated_folder()
    campaign = Campaign(
        [case], _rounds(args.rounds), args.seed, runs=False, operations=True, backend=args.backend
    )
    with _progress("calibrating") as progress:
        found = measure(campaign, folder, progress)
    profile = profile_from(
        found.points, args.name, f"measured by realrun calibrate on {case.ag}+{case.eg} ranks"
    )
    profile = for_any_transport(profile, case)
    refused = {} if args.force else refusals(profile)
    for reason in refused.values():
        print(f"realrun: {reason}; left out, --force keeps it", file=sys.stderr)
    profile = replace(profile, costs=tuple(cost for cost in profile.costs if cost not in refused))
    profile.save(args.out)
    print(
        json.dumps(profile.to_dict()) if args.json else costs_table(profile).to_string(index=False)
    )
    print(f"realrun: wrote {args.out}", file=sys.stderr)
    return 4 if refused else 0


def validate(args: argparse.Namespace) -> int:
    """`realrun validate`: exit code 4 if the median absolute makespan error is above
    --tolerance."""
    from realrun.calibration.profile import profile_from
    from realrun.cases import load_cases, standard_cases
    from realrun.validation.campaign import Campaign, measure
    from realrun.validation.evaluate import Evidence, evaluate, trained
    from realrun.validation.report import summary_text, table_of, write
    from simdep import checks
    from simdep.hardware.profile import load_hardware

    if sum(map(bool, (args.quick, args.full, args.schedules))) > 1:
        raise ValueError(
            "--quick and --full have their own schedules; give one of --quick, --full and --schedules"
        )
    if args.tolerance is not None:
        checks.number(args.tolerance, "--tolerance")
    cases = (
        load_cases(args.schedules)
        if args.schedules
        else standard_cases("quick" if args.quick else "full" if args.full else "default")
    )
    if args.in_situ < 0:
        raise ValueError(f"--in-situ={args.in_situ}; it is a number of schedules")
    profile: HardwareProfile | None = load_hardware(str(args.profile)) if args.profile else None
    foreign = {}
    if args.foreign_profile:
        foreign = {
            f"foreign calibration: {args.foreign_profile.name}": load_hardware(
                str(args.foreign_profile)
            )
        }
    cases = _ready(cases, args)
    folder = args.out or _dated_folder()
    rounds = _rounds(args.rounds or (16 if args.quick else 10))
    campaign = Campaign(cases, rounds, args.seed, calibrate=profile is None, backend=args.backend)
    with _progress("measuring") as progress:
        found = measure(campaign, folder, progress)
    profile = profile or profile_from(
        found.points, "this-machine", "measured in this validation, between its runs"
    )
    evidence = Evidence(cases, profile, found, foreign)
    if args.in_situ:
        evidence = trained(evidence, args.in_situ, args.seed)
    result = evaluate(evidence, args.seed)
    write(folder, evidence, result)
    print(
        json.dumps(result)
        if args.json
        else f"{table_of(result).to_string(index=False)}\n\n{summary_text(result)}"
    )
    print(f"realrun: report in {folder / 'report.html'}", file=sys.stderr)
    if args.tolerance is not None and result["median_abs_error_pct"] > args.tolerance:
        median = result["median_abs_error_pct"]
        print(
            f"realrun: median error {median:.1f} % is above the tolerance of {args.tolerance:g} %",
            file=sys.stderr,
        )
        return 4
    return 0


def experiment(args: argparse.Namespace) -> int:
    """`realrun experiment`: run, print, keep result.json in the run folder."""
    from realrun.validation import experiments

    folder = args.out or _dated_folder()
    with _progress(args.name) as progress:
        ready = functools.partial(_ready, args=args)
        result = experiments.experiment(
            args.name, _rounds(args.rounds), args.seed, folder, ready, progress
        )
    files.write(folder / "result.json", json.dumps(result, indent=1) + "\n")
    print(
        json.dumps(result)
        if args.json
        else experiments.as_table(args.name, result).to_string(index=False)
    )
    print(f"realrun: measurements are in {folder}", file=sys.stderr)
    return 0


def _case(args: argparse.Namespace) -> Case:
    from realrun.cases import Case

    return Case.from_dict(
        {name: getattr(args, name) for name in Case.names() if getattr(args, name) is not None}
    )


def _ready(cases: Sequence[Case], args: argparse.Namespace) -> list[Case]:
    """The cases in the precision of their backend and over the link asked for, if they fit into
    memory."""
    from realrun.backends import netns
    from realrun.backends.registry import DTYPES, choose_backend
    from realrun.cases import check_memory

    ready = []
    for case in cases:
        chosen = choose_backend(args.backend, case.ag + case.eg)
        link = "nccl" if chosen == "nccl" else args.link
        speed = {"link_alpha_us": args.link_alpha_us, "link_mbytes_per_s": args.link_mbytes_per_s}
        given = {key: value for key, value in speed.items() if value is not None}
        ready.append(replace(case, dtype=DTYPES[chosen], link=link, **given).checked())
    if any(case.link == "tbf" for case in ready):
        if "RANK" in os.environ:
            raise ValueError(
                "--link tbf: torchrun's ranks stand in one network namespace; start without torchrun"
            )
        netns.check_available()
    check_memory(ready)
    return ready


def _rounds(rounds: int) -> int:
    if rounds < 1:
        raise ValueError(f"--rounds={rounds}; at least 1 run is measured")
    return rounds


def _dated_folder() -> Path:
    return Path("runs") / datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")


@contextmanager
def _progress(word: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(word, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    sys.exit(main())
