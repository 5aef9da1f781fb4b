"""The flags of every command. It imports nothing heavy: --help answers at once.

`does` names the function, in a module of `simdep.cli`, that carries a command out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

EXAMPLES = """examples:
  simdep simulate --model deepseek-v2 --hardware a6000 --ag 3 --eg 5 --layers 8 --seq-len 2048 --m-a 2 --r1 2 --r2 4
  simdep simulate scenario.toml --order aass --html timeline.html
  simdep simulate --stage-times attention=1000,shared=300,a2e=50,expert=200,e2a=50 --layers 4 --r1 2 --r2 2 --json
  simdep simulate --schedule my_schedule.json --stage-times attention=9,a2e=1,expert=5,e2a=1 --trace trace.json
  simdep simulate scenario.toml --routing power-law:1.2 --straggler AG.0=1.2 --html ranks.html
"""
_POLICIES_EXAMPLES = """
simdep policies
simdep policies two-batch-decode
simdep policies my_policy.py:backwards --json
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


_COMPARE_EXAMPLES = """
simdep compare naive pppipe:r1=2 findep:r1=2,r2=4,order=aass scenario.toml --html compare.html
simdep compare ep two-batch-prefill findep --model deepseek-v2 --hardware h20 --ag 3 --eg 5 --samples 4 --r1 2 --r2 2
"""
_SWEEP_EXAMPLES = """
simdep sweep scenario.toml --vary r1=1,2,4 --vary r2=1..16 --html sweep.html
simdep sweep scenario.toml --vary ag:eg=1:7..7:1 --vary seq_len=1024,2048,4096 --out splits.csv
simdep sweep scenario.toml --vary link.gbytes_per_s=log:10..400:9 --vary policy=pppipe,findep --json
simdep sweep scenario.toml --vary ag:eg=1:7..7:1 --vary samples=1,2,4,8 --solve --html solved.html
"""


_SOLVE_EXAMPLES = """
simdep solve --model deepseek-v2 --hardware h20 --ag 3 --eg 5 --max-r1 8 --max-r2 16
simdep solve scenario.toml --gpus 8 --samples 16 --json
simdep solve --stage-costs attention=100+900,shared=20+300,expert=50+2.5,link=20+1 --layers 8 --samples 8
simdep solve --stage-times-model lines.toml --method algorithm1
"""


_EXPLAIN_EXAMPLES = """
simdep explain scenario.toml --against pppipe:r1=3
simdep explain scenario.toml --against other.toml --html why.html
simdep explain --stage-times attention=9,shared=4,a2e=3,expert=5,e2a=3 --layers 4 --r1 2 --r2 2 --exact
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one sentence and ends with exit code 2."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def add_commands(commands: Any) -> None:
    """Every command of simdep."""
    _add_simulate(commands)
    _add_explain(commands)
    _add_policies(commands)
    _add_what_if(commands)
    _add_solve(commands)
    _add_costs(commands)
    _add_validation(commands)


def add_scenario_flags(p: argparse.ArgumentParser, *, cut: bool = True) -> None:
    """SCENARIO.toml and the flags that override it; read by `simdep.cli.scenario_args`.

    Without `cut` the command chooses policy, order, r1 and r2 by itself.
    """
    p.add_argument(
        "scenario",
        nargs="?",
        type=Path,
        metavar="SCENARIO.toml",
        help="what is served, on what, and how",
    )
    served = p.add_argument_group("what is served, on what (each overrides the scenario file)")
    served.add_argument(
        "--model", help="a name such as deepseek-v2, or the path of a HuggingFace config.json"
    )
    served.add_argument("--scale", type=float, help="factor on every width of the model, at most 1")
    served.add_argument(
        "--hardware", help="a profile such as a6000, or the path of one from `realrun calibrate`"
    )
    served.add_argument("--ag", type=int, help="GPUs of the attention group")
    served.add_argument("--eg", type=int, help="GPUs of the expert group")
    served.add_argument("--gpus", type=int, help="all GPUs: colocated, or for solve to split")
    served.add_argument(
        "--layers", type=int, help="MoE layers, default all of the model (bare problem: 1)"
    )
    served.add_argument("--phase", help="prefill (default) or decode")
    served.add_argument(
        "--seq-len", type=int, help="tokens of a sample (decode: of its context), default 2048"
    )
    served.add_argument("--samples", type=int, help="samples of an AG GPU, r1 * m_a")
    served.add_argument("--m-a", type=int, help="samples of a micro-batch per AG GPU, default 1")
    served.add_argument("--dtype", help="bf16 (default), fp32 or fp8")
    served.add_argument("--dispatch", help="per-expert (default), per-gpu or broadcast")
    served.add_argument(
        "--link-gbytes-per-s", type=float, metavar="GB/S", help="replaces the link of the profile"
    )
    served.add_argument(
        "--link-alpha-us", type=float, metavar="US", help="start-up of that link, default 0"
    )
    served.add_argument(
        "--shared-on", help="the group that computes shared experts: ag (default) or eg"
    )
    served.add_argument("--duplex", help="full (default), or half: A2E and E2A share one medium")
    served.add_argument(
        "--memory-gbytes",
        type=float,
        metavar="GB",
        help="of each GPU, default its data sheet less 1",
    )
    if cut:
        _add_cut_flags(p)
        _add_rank_flags(p)


def _add_cut_flags(p: argparse.ArgumentParser) -> None:
    cut = p.add_argument_group("the schedule")
    cut.add_argument(
        "--policy", help="findep (default), another of `simdep policies`, or my_policy.py:name"
    )
    cut.add_argument("--order", help="asas (default), aass, or a list such as 'A0 A1 S0 A2 S1 S2'")
    cut.add_argument("--r1", type=int, help="micro-batches on the AG, default 1")
    cut.add_argument("--r2", type=int, help="chunks of each micro-batch on the EG, default 1")
    cut.add_argument(
        "--micro-batches", metavar="N,N,...", help="samples of each micro-batch, in place of --r1"
    )
    cut.add_argument(
        "--chunks",
        metavar="N,N/N,N",
        help="shares of each chunk of each micro-batch, in place of --r2",
    )
    cut.add_argument("--split", help="cut micro-batches by token (default) or by expert")
    cut.add_argument(
        "--merge-last",
        action="store_true",
        default=None,
        help="do not cut the last layer into chunks",
    )


def _add_rank_flags(p: argparse.ArgumentParser) -> None:
    ranks = p.add_argument_group("how ranks differ; any of these simulates every rank")
    ranks.add_argument(
        "--per-rank", action="store_true", default=None, help="every rank, even if all are alike"
    )
    ranks.add_argument(
        "--routing",
        metavar="WORD|FILE",
        help="balanced, zipf:1.2, power-law:1.2 (a seed: zipf:1.2:7), .csv or .json",
    )
    ranks.add_argument(
        "--batches", metavar="N,N,...", help="samples of every AG rank, such as 4,4,2"
    )
    ranks.add_argument(
        "--straggler",
        action="append",
        metavar="AG.3=1.3",
        help="factor on a rank's computation; may be repeated",
    )
    ranks.add_argument("--gpus-per-node", type=int, help="nodes of this many GPUs, AG ranks first")
    ranks.add_argument(
        "--nics-per-node", type=int, help="network ports of a node, default one for each GPU"
    )


def _add_simulate(commands: Any) -> None:
    word = "predict the timeline of a schedule"
    p = commands.add_parser(
        "simulate",
        help=word,
        description=word,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_scenario_flags(p)
    _add_own_schedule(p)
    terms = p.add_argument_group("what hosts add to the paper's model")
    terms.add_argument(
        "--ideal", action="store_true", help="nothing, whatever the hardware profile holds"
    )
    terms.add_argument(
        "--noise",
        type=float,
        default=0.0,
        metavar="CV",
        help="vary computation times by this coefficient of variation",
    )
    terms.add_argument("--seed", type=int, default=0, help="of --noise, default 0")
    out = p.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="one JSON object on stdout")
    out.add_argument(
        "--trace", type=Path, metavar="FILE", help="write .json[.gz] (Perfetto), .csv or .parquet"
    )
    out.add_argument("--html", type=Path, metavar="FILE", help="write a page with the timeline")
    out.add_argument(
        "--save-schedule", type=Path, metavar="FILE.json", help="write the schedule, for --schedule"
    )
    p.set_defaults(does="simulate.simulate_command")


def _add_own_schedule(p: argparse.ArgumentParser) -> None:
    """A schedule of the user's own, and times without a model; read by
    `simdep.cli.simulate.asked`."""
    p.add_argument(
        "--schedule", type=Path, metavar="FILE.json", help="run this schedule instead of a policy's"
    )
    bare = p.add_argument_group("or the bare scheduling problem")
    bare.add_argument(
        "--stage-times",
        metavar="KIND=US,...",
        help="microseconds per task: attention (or projection and core), shared, a2e, expert, e2a",
    )


def _add_explain(commands: Any) -> None:
    word = (
        "why a schedule takes as long as it does: critical path, idle time, sensitivities, signs, "
        "distance to the best"
    )
    p = _add(commands, "explain", "explain.explain_command", word, _EXPLAIN_EXAMPLES)
    add_scenario_flags(p)
    _add_own_schedule(p)
    p.add_argument("--ideal", action="store_true", help="without what the hosts of the profile add")
    p.add_argument(
        "--against", metavar="POLICY|FILE.toml", help="and what makes it slower or faster than this"
    )
    p.add_argument(
        "--exact",
        action="store_true",
        help="and the proven optimum over all orders (extra `exact`)",
    )
    p.add_argument(
        "--time-limit", type=float, default=30.0, metavar="S", help="of --exact, default 30 seconds"
    )
    p.add_argument(
        "--workers",
        type=int,
        default=1,
        help="threads of --exact, default 1: the same result in every run",
    )
    p.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with the timeline and all tables"
    )


def _add_policies(commands: Any) -> None:
    word = "the policies: what each does, where it comes from, what may be chosen"
    p = _add(commands, "policies", "policies.policies_command", word, _POLICIES_EXAMPLES)
    p.add_argument(
        "policy", nargs="?", help="one of them, or FILE.py:NAME, with a small schedule of it"
    )


def _add_what_if(commands: Any) -> None:
    word = "policies side by side on one scenario"
    p = _add(commands, "compare", "compare.compare_command", word, _COMPARE_EXAMPLES)
    p.add_argument(
        "policies",
        nargs="+",
        metavar="POLICY",
        help="such as findep, pppipe:r1=3, FILE.py:NAME, or best",
    )
    add_scenario_flags(p)
    p.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with the table and every timeline"
    )

    word = "every combination of some parameters of a scenario, to a table and a plot"
    p = _add(commands, "sweep", "sweep.sweep_command", word, _SWEEP_EXAMPLES)
    add_scenario_flags(p)
    p.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="1,2,4 or 1..8 or 0..64:8 or lin:0..1:5 or log:10..400:9; may be repeated, all combinations are taken",
    )
    p.add_argument(
        "--solve", action="store_true", help="find the best policy, order and cut of every point"
    )
    p.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write .csv or .parquet; goes on if it holds a part of it",
    )
    p.add_argument(
        "--force", action="store_true", help="begin again where --out holds something else"
    )
    p.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with plots and the table"
    )
    p.add_argument(
        "--value",
        default="throughput_tokens_per_s_per_gpu",
        metavar="COLUMN",
        help="to plot, default %(default)s",
    )


def _add_solve(commands: Any) -> None:
    word = "find the best cut and order, and say how far from optimal it may be"
    p = _add(commands, "solve", "solve.solve_command", word, _SOLVE_EXAMPLES)
    add_scenario_flags(p, cut=False)
    bare = p.add_argument_group("or the bare scheduling problem, with --layers and --samples")
    bare.add_argument(
        "--stage-costs",
        metavar="KIND=ALPHA+BETA,...",
        help="attention, shared: us, and us a sample of a micro-batch; expert, link: us, and us a token of a chunk",
    )
    bare.add_argument(
        "--stage-times-model",
        type=Path,
        metavar="FILE",
        help="the same from .toml or .json: [attention] alpha_us ...",
    )
    bare.add_argument("--tokens-per-sample", type=int, metavar="K", help="default 1")
    search = p.add_argument_group("the search")
    search.add_argument(
        "--method", default="exact", help="exact (default), or algorithm1, FinDEP's"
    )
    search.add_argument(
        "--max-r1", type=int, metavar="N", help="micro-batches; default 8, bare problem: any"
    )
    search.add_argument(
        "--max-r2", type=int, metavar="N", help="chunks; default 32, bare problem: any"
    )
    search.add_argument(
        "--ideal", action="store_true", help="without what hosts of the hardware profile add"
    )


def _add_costs(commands: Any) -> None:
    hardware = commands.add_parser(
        "hardware", help="the hardware profiles, value by value with label and source"
    )
    parts = hardware.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    p = _add(
        parts,
        "list",
        "calibrate.hardware_list",
        "the profiles that ship with simdep",
        "simdep hardware list",
    )
    p = _add(
        parts,
        "show",
        "calibrate.hardware_show",
        "one profile",
        "simdep hardware show h20\nsimdep hardware show mine.json",
    )
    p.add_argument("name", help="such as h20, or the path of a profile")

    p = _add(
        commands, "fit", "calibrate.fit", "make a hardware profile from measurements", _FIT_EXAMPLES
    )
    p.add_argument(
        "data",
        nargs="+",
        metavar="DATA.csv",
        help="measurements, or aiconfigurator:GPU; see README",
    )
    p.add_argument(
        "--out", type=Path, required=True, metavar="FILE.json", help="the profile to write"
    )
    p.add_argument("--gpu", default="", help="the rows of this GPU, where a file has several")
    p.add_argument(
        "--name", default="", help="of the profile; default the GPU, or the name of the file"
    )
    p.add_argument(
        "--form",
        default="auto",
        help="auto (default: what predicts shapes left out best), table, roofline, knee, linear or least-squares",
    )
    p.add_argument(
        "--source", default="", help="what the profile says about the origin of its values"
    )

    costs = commands.add_parser(
        "costs", help="how far a profile's predictions lie from measurements"
    )
    parts = costs.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    word = "errors of a profile on measured rows, by operation, kernel and range"
    p = _add(parts, "evaluate", "calibrate.costs_evaluate", word, _EVALUATE_EXAMPLES)
    p.add_argument("data", metavar="DATA.csv", help="measurements, or aiconfigurator:GPU")
    p.add_argument("--hardware", required=True, help="a profile such as h100, or the path of one")
    p.add_argument(
        "--anchors",
        type=int,
        metavar="N",
        help="bring the profile to this machine's speed by N of the rows",
    )


def _add_validation(commands: Any) -> None:
    word = "published measurements of real systems beside predictions"
    p = _add(commands, "reproduce", "calibrate.reproduce_command", word, _REPRODUCE_EXAMPLES)
    p.add_argument(
        "name", nargs="?", default="all", help="findep, fastafd, eps-moe or all (default)"
    )
    p.add_argument(
        "--measured",
        type=Path,
        metavar="FILE.csv",
        help="predict these rows, in the columns of the table",
    )
    p.add_argument("--html", type=Path, metavar="FILE", help="the page, default reproduction.html")
    word = "simulate the order of a real run with its measured task times"
    p = _add(
        commands, "replay", "calibrate.replay_command", word, "simdep replay events.csv --json"
    )
    p.add_argument(
        "events",
        type=Path,
        metavar="EVENTS.csv",
        help="mode,batch,seq,node,op,layer,mb,start_ms,end_ms",
    )


def _add(commands: Any, name: str, does: str, word: str, examples: str) -> Parser:
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    parser: Parser = commands.add_parser(
        name,
        help=word,
        description=word,
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(does=does)
    return parser
