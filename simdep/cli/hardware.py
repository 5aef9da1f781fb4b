"""The commands `hardware list` and `hardware show`: the hardware profiles."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from simdep.cli.output import emit, table
from simdep.cli.parser import Parser, add_command, add_json

if TYPE_CHECKING:
    from simdep.hardware.kernels import Kernel
    from simdep.hardware.profile import Cost, HardwareProfile

HELP = "list and show the hardware profiles"
EXAMPLES = ""
_SHOW_EXAMPLES = "simdep hardware show h20\nsimdep hardware show mine.json"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parts = parser.add_subparsers(
        dest="part", required=True, metavar="COMMAND", parser_class=Parser
    )
    every = add_command(
        parts, "list", "list the profiles that ship with simdep", "simdep hardware list"
    )
    one = add_command(
        parts, "show", "show every value of a profile with its label and source", _SHOW_EXAMPLES
    )
    add_json(every)
    add_json(one)
    one.add_argument("name", help="a profile such as h20, or the path of one")


def run(args: argparse.Namespace) -> int:
    """`simdep hardware list` or `simdep hardware show NAME`."""
    return _list(args) if args.part == "list" else _show(args)


def _list(args: argparse.Namespace) -> int:
    """`simdep hardware list`: every profile, with the labels of its values."""
    from simdep.hardware.profile import hardware_names, load_hardware

    profiles = [_profile_row(load_hardware(name)) for name in hardware_names()]
    emit(args, {"hardware": profiles}, [table(profiles)])
    return 0


def _show(args: argparse.Namespace) -> int:
    """`simdep hardware show NAME`: every value of a profile with its label, source and errors."""
    from simdep.hardware.profile import load_hardware

    profile = load_hardware(args.name)
    gpu = profile.machine
    figures = {} if gpu is None else {name: asdict(figure) for name, figure in gpu.figures.items()}
    parts = [
        f"{profile.name}: {profile.description}",
        table([{"figure": name, **figure} for name, figure in figures.items()]),
        table([_cost_row(cost) for cost in profile.costs]),
        table([_kernel_row(kernel) for kernel in profile.kernels]),
    ]
    emit(args, profile.to_dict() | {"figures": figures}, parts)
    return 0


def _profile_row(profile: HardwareProfile) -> dict[str, Any]:
    from simdep.hardware.kernels import LABELS

    labels = Counter([cost.label for cost in profile.costs])
    labels.update([kernel.label for kernel in profile.kernels])
    return {
        "name": profile.name,
        "costs": len(profile.costs),
        "kernels": len(profile.kernels),
        **{label: labels[label] for label in LABELS},
        "description": profile.description,
    }


def _cost_row(cost: Cost) -> dict[str, Any]:
    return {
        "op": cost.op,
        "ag": cost.ag,
        "eg": cost.eg,
        "shape": cost.shape,
        "alpha_us": cost.alpha_us,
        "beta_us": cost.beta_us,
        "label": cost.label,
        "source": cost.source,
        "points": len(cost.points),
        "mape_pct": cost.fit.mape_pct if cost.fit else None,
    }


def _kernel_row(kernel: Kernel) -> dict[str, Any]:
    ranges = [f"{name} {low:g}-{high:g}" for name, (low, high) in kernel.ranges.items()]
    return {
        "kernel": kernel.name,
        "form": kernel.form.to_dict()["form"],
        "label": kernel.label,
        "fit_mape_pct": kernel.fit.mape_pct if kernel.fit else None,
        "held_out_mape_pct": kernel.held_out.mape_pct if kernel.held_out else None,
        "held_out_p95_pct": kernel.held_out.p95_pct if kernel.held_out else None,
        "range": ", ".join(ranges),
        "source": kernel.source,
    }
