"""The commands `hardware list` and `hardware show`: the hardware profiles."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from simdep.cli.output import emit, table
from simdep.cli.parser import Parser, add_command, add_json

if TYPE_CHECKING:
    from simdep.hardware.profile import HardwareProfile

HELP = "the hardware profiles, value by value with label and source"
EXAMPLES = ""
_SHOW_EXAMPLES = "simdep hardware show h20\nsimdep hardware show mine.json"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parts = parser.add_subparsers(
        dest="part", required=True, metavar="COMMAND", parser_class=Parser
    )
    every = add_command(parts, "list", "the profiles that ship with simdep", "simdep hardware list")
    one = add_command(parts, "show", "one profile", _SHOW_EXAMPLES)
    add_json(every)
    add_json(one)
    one.add_argument("name", help="such as h20, or the path of a profile")


def run(args: argparse.Namespace) -> int:
    """`simdep hardware list` or `simdep hardware show NAME`."""
    return _list(args) if args.part == "list" else _show(args)


def _list(args: argparse.Namespace) -> int:
    """`simdep hardware list`: what there is, and where its numbers come from."""
    from simdep.hardware.kernels import LABELS
    from simdep.hardware.profile import hardware_names, load_hardware

    rows = []
    for profile in map(load_hardware, hardware_names()):
        labels = Counter(
            [*(cost.label for cost in profile.costs), *(kernel.label for kernel in profile.kernels)]
        )
        counts = {"costs": len(profile.costs), "kernels": len(profile.kernels)} | {
            word: labels[word] for word in LABELS
        }
        rows.append({"name": profile.name, **counts, "description": profile.description})
    emit(args, {"hardware": rows}, [table(rows)])
    return 0


def _show(args: argparse.Namespace) -> int:
    """`simdep hardware show NAME`: every value of a profile with its label, source and errors."""
    from simdep.hardware.profile import load_hardware

    profile = load_hardware(args.name)
    gpu = profile.machine
    figures = {} if gpu is None else {name: asdict(figure) for name, figure in gpu.figures.items()}
    parts = [
        f"{profile.name}: {profile.description}",
        table([{"figure": k, **v} for k, v in figures.items()]),
    ]
    parts += [table([_cost_row(cost) for cost in profile.costs]), table(_kernel_rows(profile))]
    emit(args, profile.to_dict() | {"figures": figures}, parts)
    return 0


def _cost_row(cost: Any) -> dict[str, Any]:
    row = {
        name: getattr(cost, name)
        for name in ("op", "ag", "eg", "shape", "alpha_us", "beta_us", "label", "source")
    }
    return row | {"points": len(cost.points), "mape_pct": cost.fit.mape_pct if cost.fit else None}


def _kernel_rows(profile: HardwareProfile) -> list[dict[str, Any]]:
    return [
        {
            "kernel": kernel.name,
            "form": kernel.form.to_dict()["form"],
            "label": kernel.label,
            "fit_mape_pct": kernel.fit.mape_pct if kernel.fit else None,
            "held_out_mape_pct": kernel.held_out.mape_pct if kernel.held_out else None,
            "held_out_p95_pct": kernel.held_out.p95_pct if kernel.held_out else None,
            "range": ", ".join(
                f"{name} {low:g}-{high:g}" for name, (low, high) in kernel.ranges.items()
            ),
            "source": kernel.source,
        }
        for kernel in profile.kernels
    ]
