"""The scenario that a command is given: its file, its flags (which win), or both."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simdep.scenario.spec import Scenario

SERVED = (
    "model",
    "scale",
    "hardware",
    "ag",
    "eg",
    "gpus",
    "phase",
    "seq_len",
    "samples",
    "m_a",
    "dtype",
    "dispatch",
    "shared_on",
    "duplex",
    "memory_gbytes",
)
LINK = {"link_gbytes_per_s": "gbytes_per_s", "link_alpha_us": "alpha_us"}
CUT = ("layers", "policy", "order", "r1", "r2", "micro_batches", "chunks", "split", "merge_last")
RANKS = ("routing", "batches", "gpus_per_node", "nics_per_node")


def scenario(args: argparse.Namespace) -> Scenario:
    """The scenario; raises ValueError where there is none, or naming the key at fault."""
    from simdep.scenario.file import scenario_from_dict

    return scenario_from_dict(tables(args))


def tables(args: argparse.Namespace) -> dict[str, Any]:
    """Its nested tables, unchecked; raises ValueError where neither a file nor a model is given."""
    from simdep.policies import load
    from simdep.scenario.file import override, read_toml

    if args.scenario is None and args.model is None:
        raise ValueError(
            f"nothing to {args.command}: give SCENARIO.toml, or --model with --hardware, --ag and --eg"
        )
    flags = _flags(args, (*SERVED, *CUT))
    if "policy" in flags:
        flags["policy"] = load(
            flags["policy"]
        ).name  # a flag may name a module of the user's own, a file may not
    data = override(read_toml(args.scenario) if args.scenario else {}, flags)
    if args.link_alpha_us is not None and args.link_gbytes_per_s is None:
        own = data.get("deployment", {}).get("link")
        if not isinstance(own, dict):
            raise ValueError(
                f"--link-alpha-us {args.link_alpha_us:g} needs a speed: give --link-gbytes-per-s too"
            )
    if link := {LINK[name]: value for name, value in _flags(args, LINK).items()}:
        where = data.setdefault("deployment", {})
        own = where.get("link")
        where["link"] = (dict(own) if isinstance(own, dict) else {}) | link
    different = ranks(args)
    if different is not None:
        data["ranks"] = dict(data.get("ranks", {})) | different
    return data


def ranks(args: argparse.Namespace) -> dict[str, Any] | None:
    """The table of ranks that flags give; None without any of them."""
    table = _flags(args, RANKS)
    if stragglers := getattr(args, "straggler", None):
        table["stragglers"] = dict(map(_straggler, stragglers))
    return table if table or getattr(args, "per_rank", None) else None


def _flags(args: argparse.Namespace, names: Any) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(args, name, None)) is not None}


def _straggler(text: str) -> tuple[str, float]:
    name, _, factor = text.partition("=")
    try:
        return name, float(factor)
    except ValueError:
        raise ValueError(
            f"--straggler {text!r}; write a rank and a factor, such as AG.3=1.3"
        ) from None


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
