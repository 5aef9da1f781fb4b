"""The commands about costs and their validation: hardware, fit, costs evaluate, reproduce,
replay."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from simdep import checks
from simdep.analysis.summary import human_us
from simdep.calibration import aiconfigurator
from simdep.calibration.accuracy import evaluate, fit_profile, speed_factor
from simdep.calibration.measurements import read_csv
from simdep.cli.output import check_paths, emit, table, tell
from simdep.hardware.gpus import find_gpu
from simdep.hardware.kernels import LABELS
from simdep.hardware.profile import HardwareProfile, hardware_names, load_hardware
from simdep.validation.replay import read_events, replay
from simdep.validation.reproduce import reproduce
from simdep.validation.reproduce.result import Point, Reproduction, errors

_FITS = ("fit", "held_out", "linear", "least_squares")  # of which `fit` shows errors


def hardware_list(args: argparse.Namespace) -> int:
    """`simdep hardware list`: what there is, and where its numbers come from."""
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


def hardware_show(args: argparse.Namespace) -> int:
    """`simdep hardware show NAME`: every value of a profile with its label, source and errors."""
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


def fit(args: argparse.Namespace) -> int:
    """`simdep fit`: a profile from measurements."""
    given = args.gpu or next(
        (word.removeprefix(aiconfigurator.PREFIX) for word in args.data if _packaged(word)), ""
    )
    name = args.name or given or Path(args.data[0]).stem
    check_paths(args)
    if args.out.suffix != ".json":
        raise ValueError(f"--out {args.out}: a profile is a .json file")
    tables = [each for word in args.data for each in _tables(word)]
    gpu = find_gpu(given)
    profile, told = fit_profile(
        tables, gpu.name if gpu and not args.name else name, args.gpu or "", args.form, args.source
    )
    if gpu and not profile.gpu:
        profile = replace(profile, gpu=gpu.name)
    profile.save(args.out)
    print(f"simdep: {args.out} holds {len(profile.kernels)} kernels", file=sys.stderr)
    rows = [
        {"kernel": row["kernel"], "form": row["form"], "n": (row["fit"] or {}).get("n")}
        | {f"{key}_mape_pct": (row[key] or {}).get("mape_pct") for key in _FITS}
        for row in told
    ]
    emit(args, {"profile": str(args.out), "kernels": told}, [table(rows)])
    return 0


def costs_evaluate(args: argparse.Namespace) -> int:
    """`simdep costs evaluate`: what a profile predicts for measured rows."""
    profile = load_hardware(args.hardware)
    results = []
    for where, rows in _tables(args.data):
        own = profile
        if args.anchors is not None:
            factor = speed_factor(rows, profile, checks.whole(args.anchors, "--anchors"), where)
            own = replace(profile, speed_factor=factor)
        results.append(evaluate(rows, own, where) | {"speed_factor": own.speed_factor})
    result = results[0]
    for other in results[1:]:  # tables of different operations
        for key, value in other.items():
            if isinstance(value, Mapping):
                result[key] |= value
            elif isinstance(value, list):
                result[key] += value
    parts = [
        f"{profile.name}, errors in percent of the measurement; speed factor {result['speed_factor']:.3f}"
    ]
    parts += [table([{"operation": op, **row} for op, row in result["by_operation"].items()])]
    parts += [table([{"kernel": name, **row} for name, row in result["by_kernel"].items()])]
    parts += [
        table([{"operation": op, **row} for op, rows in result["by_range"].items() for row in rows])
    ]
    parts += ["worst rows", table(result["worst"])]
    parts += [f"no kernel for {name}: {count} rows" for name, count in result["not_priced"].items()]
    parts += [f"left out, {reason}: {count} rows" for reason, count in result["skipped"].items()]
    emit(args, result, parts)
    return 0


def reproduce_command(args: argparse.Namespace) -> int:
    """`simdep reproduce`: published against predicted."""
    check_paths(args)
    found = reproduce(args.name, args.measured)
    told = [each.to_dict() for each in found]
    result = {key: [row for each in told for row in each[key]] for key in ("rows", "summary")}
    emit(args, result, [_reproduction_text(each) for each in found])
    page = args.html or Path("reproduction.html")
    try:
        _write_page(page, found)
    except (OSError, ModuleNotFoundError) as error:
        if args.html:
            raise
        tell([f"no page: {error}; --html FILE says where"])
        return 0
    print(f"simdep: page written to {page}", file=sys.stderr)
    return 0


def replay_command(args: argparse.Namespace) -> int:
    """`simdep replay`: the makespan of a real run from its measured task times."""
    runs = [replay(run, str(args.events)).to_dict() for run in read_events(args.events)]
    result = runs[0] if len(runs) == 1 else runs[0] | {"runs": runs}
    parts = []
    for run in runs:
        parts.append(
            f"{run['mode']} batch {run['batch']} seq {run['seq']}: {run['tasks']} tasks\n"
            f"  predicted  {human_us(run['predicted_us'])} (measured task times, simulated order)\n"
            f"  measured   {human_us(run['measured_us'])}\n"
            f"  error      {run['error_pct']:+.2f} % with a host gap of {human_us(run['host_gap_us'])} before every "
            f"computation, fitted on {run['fitted_on']}\n"
            f"             {run['error_without_gap_pct']:+.2f} % without it"
        )
    emit(args, result, parts)
    return 0


def _tables(word: str) -> list[tuple[str, pd.DataFrame]]:
    """The tables of measurements that a word names: a CSV file, or those of a GPU in
    aiconfigurator-core."""
    if _packaged(word):
        return list(aiconfigurator.tables(word.removeprefix(aiconfigurator.PREFIX)))
    return [(Path(word).name, read_csv(Path(word)))]


def _packaged(word: str) -> bool:
    return word.startswith(aiconfigurator.PREFIX)


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


def _point_rows(points: Iterable[Point]) -> list[dict[str, Any]]:
    return [
        {
            **{
                key: value
                for key, value in point.columns.items()
                if key not in ("value", "step_ms", "unit")
            },
            "role": point.role,
            "published": point.published,
            "predicted": point.predicted,
            "error_pct": point.error_pct,
            "unit": point.unit,
            **point.others,
        }
        for point in points
    ]


def _reproduction_text(each: Reproduction) -> str:
    parts = [f"{each.title}\n{each.source}", table(_point_rows(each.points))]
    for role in ("calibrated", "predicted"):
        told = errors([point for point in each.points if point.role == role])
        if told["mape_pct"] is not None:
            parts.append(
                f"{role}: {told['n']} figures, MAPE {told['mape_pct']:.2f} %, worst {told['worst_pct']:.1f} %"
            )
    parts.append("Checks\n" + table([asdict(check) for check in each.checks]))
    parts.append("Parameters\n" + table([asdict(parameter) for parameter in each.parameters]))
    reasons = dict.fromkeys(
        f"{point.role}: {point.reason}" for point in each.points if point.reason
    )
    parts += ["Roles\n" + "\n".join(f"- {reason}" for reason in reasons)] if reasons else []
    parts += (
        ["Remarks\n" + "\n".join(f"- {remark}" for remark in each.remarks)] if each.remarks else []
    )
    return "\n\n".join(parts)


def _write_page(path: Path, found: Iterable[Reproduction]) -> None:
    from simdep.analysis import figures  # plotly, only to draw

    sections = []
    for each in found:
        drawn = pd.DataFrame(
            {
                "label": _label(point),
                "role": point.role,
                "unit": point.unit,
                "published": point.published,
                "predicted": point.predicted,
            }
            for point in each.points
            if point.predicted and point.predicted > 0 and point.published and point.published > 0
        )
        sections.append(figures.Section(each.title, each.source))
        for unit, group in drawn.groupby("unit") if len(drawn) else ():
            sections.append(
                figures.Section(f"{each.name}: {unit}", figure=figures.agreement(group, str(unit)))
            )
        for heading, rows in (
            ("checks", [asdict(check) for check in each.checks]),
            ("parameters", [asdict(parameter) for parameter in each.parameters]),
            ("points", _point_rows(each.points)),
        ):
            # as objects, so that a count beside an empty cell stays a whole number
            shown = pd.DataFrame(rows, dtype=object).dropna(axis="columns", how="all")
            told = shown.where(shown.notna(), "").map(
                lambda cell: ("no", "yes")[cell] if isinstance(cell, bool) else cell
            )
            sections.append(figures.Section(f"{each.name}: {heading}", table=told))
        reasons = dict.fromkeys(
            f"{point.role}: {point.reason}" for point in each.points if point.reason
        )
        sections += [figures.Section(f"{each.name}: role", reason) for reason in reasons]
        sections += [figures.Section(f"{each.name}: remark", remark) for remark in each.remarks]
    figures.write_html(path, "simdep: published against predicted", sections)


def _label(point: Point) -> str:
    hidden = ("value", "step_ms", "unit")
    return ", ".join(
        f"{key} {value}"
        for key, value in point.columns.items()
        if value is not None and key not in hidden
    )
