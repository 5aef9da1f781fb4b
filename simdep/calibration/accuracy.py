"""Measurements against kernels: fit a profile from files, and say how far a profile's predictions
lie from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from simdep import checks
from simdep.calibration.fit_kernel import FORMS, fit_kernel, held_out
from simdep.calibration.measurements import Series, machine_names, machines, of_gpu, series_of
from simdep.hardware.gpus import find_gpu
from simdep.hardware.kernels import Errors, Kernel
from simdep.hardware.operations import OPERATIONS
from simdep.hardware.profile import HardwareProfile

RANGES = 4  # parts of the axis of an operation that errors are given for
WORST = 10
AUTO = ("table", "roofline")  # what --form auto chooses between, by the error on shapes left out
PLAIN = "linear"  # what it takes where the rows are too few for either


def fit_profile(
    tables: Sequence[tuple[str, pd.DataFrame]],
    name: str,
    gpu_name: str = "",
    form: str = "auto",
    source: str = "",
) -> tuple[HardwareProfile, list[dict[str, Any]]]:
    """A profile of kernels from tables of measurements (each with where it is from), and a row on
    every kernel: its errors beside the linear form's.

    `gpu_name` picks the rows of one machine. Raises ValueError for too few rows, or a name that no
    row has.
    """
    named = {machine for _, table in tables for machine in machine_names(table)}
    gpu = find_gpu(gpu_name or (named.pop() if len(named) == 1 else name))
    found: list[tuple[Series, str]] = []
    for where, table in tables:
        if not gpu_name and (several := machines(table)):
            raise ValueError(f"{where} has rows of {', '.join(several)}; choose one with --gpu")
        rows = of_gpu(table, gpu, gpu_name, where) if gpu_name else table
        found += [(series, where) for series in series_of(rows, where)]
    if not found:
        raise ValueError(f"{', '.join(where for where, _ in tables)}: no rows to fit")
    kernels = [
        best_kernel(series, form, source or f"measured, {where}", gpu.sms if gpu else 0)
        for series, where in tqdm(found, desc="fitting", unit="kernel", disable=None, leave=False)
    ]
    told = [_told(series, kernel) for (series, _), kernel in zip(found, kernels, strict=True)]
    description = f"fitted from {', '.join(where for where, _ in tables)}"
    return HardwareProfile(name, description, (), tuple(kernels), gpu=gpu.name if gpu else ""), told


def best_kernel(series: Series, form: str, source: str, sms: int) -> Kernel:
    """The kernel of a series in a form; `auto` takes the one with the smallest error on shapes left
    out, or a line."""

    def fitted(each: str) -> Kernel:
        return fit_kernel(
            series.operation, series.variant, series.rows, series.us, each, source, sms
        )

    try:
        if form != "auto":
            return fitted(checks.known(form, ("auto", *FORMS), "form"))
        try:
            found = [fitted(each) for each in AUTO]
        except ValueError:
            found = [fitted(PLAIN)]
    except ValueError as error:
        raise ValueError(f"{series.name}: {error}") from None
    return min(found, key=lambda kernel: kernel.held_out.mape_pct if kernel.held_out else np.inf)


def _told(series: Series, kernel: Kernel) -> dict[str, Any]:
    linear = {
        form: held_out(series.operation, series.rows, series.us, form)
        for form in ("linear", "least-squares")
    }
    return {
        "kernel": series.name,
        "form": kernel.form.to_dict()["form"],
        "fit": None if kernel.fit is None else asdict(kernel.fit),
        "held_out": None if kernel.held_out is None else asdict(kernel.held_out),
        **{
            form.replace("-", "_"): None if errors is None else asdict(errors)
            for form, errors in linear.items()
        },
        "skipped": series.skipped,
    }


def evaluate(table: pd.DataFrame, profile: HardwareProfile, where: str) -> dict[str, Any]:
    """What a profile predicts for measured rows: errors by operation, by kernel, by range, and the
    worst rows.

    Rows that no kernel of the profile is for are counted under `not_priced`, rows out of the window
    under `skipped`. Raises ValueError if no row could be priced.
    """
    pieces: list[pd.DataFrame] = []
    by_kernel: dict[str, Any] = {}
    not_priced: dict[str, int] = {}
    skipped: dict[str, int] = {}
    for series in series_of(of_gpu(table, profile.machine, profile.name, where), where):
        for reason, count in series.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
        kernel = profile.kernel(series.operation.name, **series.variant)
        if kernel is None:
            not_priced[series.name] = len(series.us)
            continue
        predicted = kernel.predict(series.rows) * profile.speed_factor
        linear = held_out(series.operation, series.rows, series.us, "linear")
        by_kernel[series.name] = asdict(Errors.of(predicted, series.us)) | {
            "form": kernel.form.to_dict()["form"],
            "label": kernel.label,
            "held_out_mape_pct": None if kernel.held_out is None else kernel.held_out.mape_pct,
            "linear_mape_pct": None if linear is None else linear.mape_pct,
        }
        numbers = {name: series.rows[name] for name in series.operation.numbers}
        piece = pd.DataFrame(numbers | {"us": series.us, "predicted_us": predicted})
        pieces.append(piece.assign(operation=series.operation.name, kernel=series.name))
    if not pieces:
        lacking = ", ".join(not_priced) or "its rows"
        raise ValueError(
            f"{where}: hardware {profile.name} has no kernel for {lacking}; see simdep hardware show"
        )
    rows = pd.concat(pieces, ignore_index=True)
    rows["error_pct"] = 100 * (rows.predicted_us / rows.us - 1)
    worst = rows.reindex(rows.error_pct.abs().sort_values(ascending=False).index).head(WORST)
    return {
        "hardware": profile.name,
        "by_operation": {
            str(op): _errors(group) for op, group in rows.groupby("operation", sort=False)
        },
        "by_kernel": by_kernel,
        "by_range": {
            str(op): _by_range(str(op), group)
            for op, group in rows.groupby("operation", sort=False)
        },
        "worst": [
            {k: v for k, v in row.items() if not pd.isna(v)} for row in worst.to_dict("records")
        ],
        "not_priced": not_priced,
        "skipped": skipped,
    }


def speed_factor(table: pd.DataFrame, profile: HardwareProfile, anchors: int, where: str) -> float:
    """The scalar that brings predictions to this machine's speed: the median of measured over
    predicted time over `anchors` rows, spread evenly over the measured times."""
    ratios = []
    for series in series_of(of_gpu(table, profile.machine, profile.name, where), where):
        kernel = profile.kernel(series.operation.name, **series.variant)
        if kernel is not None:
            ratios.append(np.column_stack([series.us, series.us / kernel.predict(series.rows)]))
    if not ratios:
        raise ValueError(
            f"{where}: hardware {profile.name} has no kernel for its rows; no speed factor can be taken"
        )
    points = np.concatenate(ratios)
    order = points[np.argsort(points[:, 0]), 1]
    chosen = np.linspace(0, len(order) - 1, min(anchors, len(order)) + 2)[1:-1].round().astype(int)
    return float(np.median(order[chosen]))


def _errors(group: pd.DataFrame) -> dict[str, Any]:
    return asdict(Errors.of(group.predicted_us.to_numpy(), group.us.to_numpy()))


def _by_range(op: str, group: pd.DataFrame) -> list[dict[str, Any]]:
    axis = OPERATIONS[op].axis
    edges = np.unique(np.quantile(group[axis], np.linspace(0, 1, RANGES + 1)))
    parts = np.clip(
        np.searchsorted(edges, group[axis], side="right") - 1, 0, max(0, len(edges) - 2)
    )
    found = []
    for _, part in group.groupby(parts):
        found.append(
            {
                "column": axis,
                "low": float(part[axis].min()),
                "high": float(part[axis].max()),
                **_errors(part),
            }
        )
    return found
