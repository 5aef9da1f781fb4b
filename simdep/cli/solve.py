"""The command `solve`: the best cut and order of a scenario or a bare problem, and how far from
optimal it may be."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simdep import checks, files
from simdep.checks import InputError
from simdep.cli import scenario_args as given
from simdep.cli.output import emit, table, tell
from simdep.cli.parser import add_json
from simdep.cli.scenario_args import add_scenario_flags
from simdep.costs import Line, StageCosts
from simdep.file_kinds import STAGE_COSTS
from simdep.hardware.extrapolation import assumption_sentences
from simdep.scenario.fields import FIELDS
from simdep.units import human_us

if TYPE_CHECKING:
    from simdep.planning.problem import Problem
    from simdep.planning.solver import Configuration, Solution

HELP = "find the best order, m_a, r1 and r2, with a proof of optimality"
EXAMPLES = """
simdep solve --model deepseek-v2 --hardware h20 --ag 3 --eg 5 --max-r1 8 --max-r2 16
simdep solve scenario.toml --gpus 8 --samples 16 --json
simdep solve --stage-costs attention=100+900,expert=50+2.5,link=20+1 --layers 8 --samples 8
simdep solve --stage-times-model lines.toml --method algorithm1
"""


_SIZES = ("layers", "samples")  # of a bare problem
_BARE = ("stage_costs", "stage_times_model")
_LINES = ("attention", "shared", "expert", "link")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_json(parser)
    add_scenario_flags(parser, schedule=False)
    bare = parser.add_argument_group(
        "Stage costs",
        "Given costs replace model and hardware; --layers and --samples go with them.",
    )
    bare.add_argument(
        "--stage-costs",
        metavar="KIND=ALPHA+BETA,...",
        help="us plus us per sample (attention, shared) or per token of a chunk (expert, link)",
    )
    bare.add_argument(
        "--stage-times-model",
        type=Path,
        metavar="FILE",
        help="the same from a .toml or .json file: [attention] alpha_us = 100 ...",
    )
    bare.add_argument(
        "--tokens-per-sample", type=int, metavar="K", help="tokens of a sample (default: 1)"
    )
    search = parser.add_argument_group("Search")
    search.add_argument(
        "--method", default="exact", help="exact, or algorithm1 of FinDEP (default: exact)"
    )
    search.add_argument(
        "--max-r1",
        type=int,
        metavar="N",
        help="most micro-batches (default: 8, with stage costs any number)",
    )
    search.add_argument(
        "--max-r2",
        type=int,
        metavar="N",
        help="most chunks (default: 32, with stage costs any number)",
    )
    search.add_argument("--ideal", action="store_true", help="no host overheads")


def run(args: argparse.Namespace) -> int:
    """`simdep solve`: search, print."""
    from simdep.planning.solver import solve_splits

    is_bare = any(getattr(args, name) is not None for name in _BARE)
    problems = [_bare(args)] if is_bare else _served(args)
    solution = solve_splits(problems, args.method, max_r1=args.max_r1, max_r2=args.max_r2)
    tell(assumption_sentences(solution.problem.assumptions))
    emit(args, solution.to_dict(), _parts(solution, args))
    return 0


def _served(args: argparse.Namespace) -> list[Problem]:
    """The problem of a scenario, or one for every way to split --gpus between the groups."""
    from simdep.planning.problem import Problem
    from simdep.planning.stage_cache import StageCache
    from simdep.scenario.spec import Scenario

    if args.tokens_per_sample is not None:
        raise InputError("--tokens-per-sample belongs to stage costs; a model has --seq-len")
    data = given.tables(args)
    workload = data.setdefault("workload", {})
    if "m_a" in workload:
        tell(
            [
                f"m_a={workload.pop('m_a')} is left aside: "
                f"solve chooses it; samples of an AG GPU stay as they are given"
            ]
        )
    samples = checks.integer(workload["samples"], "samples") if "samples" in workload else None
    data["schedule"] = {}
    where = data.get("deployment", {})
    if "gpus" not in where:
        return [Problem.of(Scenario.from_dict(data), samples, ideal=args.ideal)]
    gpus = checks.integer(where["gpus"], "gpus", 2)
    split = {key: value for key, value in where.items() if key != "gpus"} | {"ag": 1, "eg": 1}
    scenario = Scenario.from_dict(data | {"deployment": split})
    sizes = range(max(1, gpus - scenario.model.experts), gpus)
    deployments = (replace(scenario.deployment, ag=ag, eg=gpus - ag) for ag in sizes)
    cache = StageCache()
    return [
        Problem.of(replace(scenario, deployment=split), samples, ideal=args.ideal, cache=cache)
        for split in deployments
    ]


def _bare(args: argparse.Namespace) -> Problem:
    """The problem of stage costs, from flags or from a file whose values flags override."""
    from simdep.planning.problem import Problem

    if args.stage_costs is not None and args.stage_times_model is not None:
        raise InputError("--stage-costs and --stage-times-model say the same; give one of them")
    names = [FIELDS[name].option for name in given.stated(args) if name not in _SIZES]
    if args.scenario is not None:
        names.insert(0, "scenario")
    if names:
        raise InputError(f"stage costs replace model and hardware; leave out {names[0]}")
    sizes = {
        "layers": args.layers,
        "samples": args.samples,
        "tokens_per_sample": args.tokens_per_sample,
    }
    lines: StageCosts | None = None
    if args.stage_times_model is not None:
        data = _read(args.stage_times_model)
        with files.context(args.stage_times_model, STAGE_COSTS):
            lines = _stage_costs(data)
            for name in sizes.keys() & data.keys():
                checks.integer(data[name], name)
        sizes = {name: data.get(name) if value is None else value for name, value in sizes.items()}
    layers, samples, tokens = (
        checks.integer(1 if value is None else value, name.replace("_", " "))
        for name, value in sizes.items()
    )
    costs = (
        StageCosts.parse(args.stage_costs, tokens)
        if lines is None
        else replace(lines, tokens_per_sample=tokens)
    )
    return Problem.bare(costs, layers, samples)


def _read(path: Path) -> Mapping[str, Any]:
    reader = files.read_toml if path.suffix == ".toml" else files.read_json
    data = reader(path, STAGE_COSTS)
    with files.context(path, STAGE_COSTS):
        return checks.mapping(
            data, (*_LINES, "layers", "samples", "tokens_per_sample"), "stage costs"
        )


def _stage_costs(data: Mapping[str, Any]) -> StageCosts:
    lines: dict[str, Any] = {}
    for name in _LINES:
        if name not in data:
            if name == "shared":
                continue
            raise InputError(f"{name} is missing; only shared may be left out")
        row = checks.mapping(data[name], ("alpha_us", "beta_us"), name)
        lines[name] = Line(
            *(checks.number(row.get(key, 0), f"{name}.{key}") for key in ("alpha_us", "beta_us"))
        )
    return StageCosts(**lines)


def _parts(solution: Solution, args: argparse.Namespace) -> list[str]:
    """The output for people: the best, the runners-up, and what was searched."""
    scenario = solution.problem.scenario
    note = "m_e: tokens of an expert in a chunk" + ("" if scenario else " (here: of a chunk)")
    runners_up = table(list(map(_row, (solution.best, *solution.runner_up))))
    parts = [_best(solution), f"best and runners-up; {note}", runners_up]
    if scenario is not None:
        parts.append(_searched(solution, args))
    return parts


def _row(choice: Configuration) -> dict[str, Any]:
    gpus = {} if choice.ag is None else {"GPUs": f"{choice.ag}+{choice.eg}"}
    return gpus | {
        "order": choice.order,
        "m_a": choice.m_a,
        "r1": choice.r1,
        "r2": choice.r2,
        "m_e": choice.m_e,
        "makespan": human_us(choice.makespan_us),
        "tokens/s": choice.to_dict()["throughput_tokens_per_s"],
    }


def _best(solution: Solution) -> str:
    best, scenario = solution.best, solution.problem.scenario
    gpus = f" on {scenario.deployment.ag}+{scenario.deployment.eg} GPUs" if scenario else ""
    count = f"{solution.evaluated:,} evaluations of {solution.configurations:,} configurations"
    if solution.gap_pct < 1e-9:
        proof = "optimal: no order of any searched configuration is faster"
    else:
        gap = f"within {solution.gap_pct:.2g} % of the optimum"
        proof = f"{gap}: no order of any searched configuration takes less than that"
    lines = [
        f"best of {count} in {solution.solve_ms:.1f} ms{gpus} ({solution.method})",
        f"  {best.policy}, order {best.order}: r1={best.r1} micro-batches of m_a={best.m_a} "
        f"samples, r2={best.r2} chunks",
        f"  makespan     {human_us(best.makespan_us)} (simulated)",
        f"  throughput   {best.throughput_tokens_per_s:,.0f} tokens/s",
        f"  lower bound  {human_us(solution.lower_bound_us)}; {proof}",
    ]
    return "\n".join(lines)


def _searched(solution: Solution, args: argparse.Namespace) -> str:
    from simdep.planning.solver import MAX_R1, MAX_R2

    r1, r2 = args.max_r1 or MAX_R1, args.max_r2 or MAX_R2
    samples = "every m_a that memory allows"
    if solution.problem.samples:
        samples = "the samples given"
    return f"searched: r1 up to {r1}, r2 up to {r2} (--max-r1, --max-r2), {samples}"
