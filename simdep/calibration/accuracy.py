"""Measurements against kernels: fit a profile, and say how far its predictions lie from measured
rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from simdep import checks
from simdep.calibration.fit_kernel import FITS, fit_kernel, held_out_errors
from simdep.calibration.measurements import MeasuredTable, Series, series_of
from simdep.checks import InputError
from simdep.hardware.gpus import find_gpu
from simdep.hardware.kernels import Errors, Kernel
from simdep.hardware.operations import OPERATIONS
from simdep.hardware.profile import HardwareProfile

_RANGES = 4  # parts of the axis of an operation that errors are given for
_WORST = 10
_AUTO = ("table", "roofline")  # what `auto` chooses between, by the error on shapes left out
_FALLBACK = "linear"  # what it takes where the rows are too few for either


@dataclass(frozen=True)
class KernelFit:
    """A fitted kernel, and the errors of the paper's linear forms on the same shapes left out."""

    name: str
    kernel: Kernel
    linear: Errors | None
    least_squares: Errors | None
    skipped: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The keys of `simdep fit --json`."""
        errors = {
            "fit": self.kernel.fit,
            "held_out": self.kernel.held_out,
            "linear": self.linear,
            "least_squares": self.least_squares,
        }
        return {
            "kernel": self.name,
            "form": self.kernel.form.to_dict()["form"],
            **{name: value and asdict(value) for name, value in errors.items()},
            "skipped": dict(self.skipped),
        }


def fit_profile(
    measurements: Sequence[MeasuredTable],
    name: str,
    gpu_name: str = "",
    form: str = "auto",
    source: str = "",
) -> tuple[HardwareProfile, list[KernelFit]]:
    """A profile of kernels fitted to measurements, and every fit with its errors.

    `gpu_name` picks the rows of one machine, `form` is one of `FITS` or `auto`, `source` is the
    stated origin of the kernels. Raises InputError for too few rows, or a name that no row has.
    """
    gpu = find_gpu(gpu_name or _only_machine(measurements) or name)
    series: list[tuple[Series, str]] = []
    for measured in measurements:
        if not gpu_name and len(measured.machines) > 1:
            machines = checks.listed(measured.machines)
            raise InputError(f"rows of {machines}; choose one with --gpu", measured.origin)
        of_machine = measured.of_gpu(gpu, gpu_name) if gpu_name else measured
        series += [(one, measured.origin) for one in series_of(of_machine)]
    origins = ", ".join(measured.origin for measured in measurements)
    if not series:
        raise InputError(f"{origins}: no rows to fit")
    sms = gpu.sms if gpu else 0
    fits = []
    for one, origin in tqdm(series, desc="fitting", unit="kernel", disable=None, leave=False):
        try:
            fits.append(_fit(one, form, source or f"measured, {origin}", sms))
        except InputError as error:
            raise InputError(error, origin) from None
    kernels = tuple(fit.kernel for fit in fits)
    description = f"fitted from {origins}"
    return HardwareProfile(name, description, (), kernels, gpu=gpu.name if gpu else ""), fits


def _only_machine(measurements: Sequence[MeasuredTable]) -> str:
    """The one machine that tables name; empty where they name none or several."""
    names: set[str] = set()
    for measured in measurements:
        names |= set(measured.machines)
    return names.pop() if len(names) == 1 else ""


def _fit(series: Series, form: str, source: str, sms: int) -> KernelFit:
    operation, columns, us = series.operation, series.columns, series.us
    return KernelFit(
        name=series.name,
        kernel=best_kernel(series, form, source, sms),
        linear=held_out_errors(operation, columns, us, "linear"),
        least_squares=held_out_errors(operation, columns, us, "least-squares"),
        skipped=series.skipped,
    )


def best_kernel(series: Series, form: str, source: str, sms: int) -> Kernel:
    """The kernel of a series in a form; `auto` takes that with the smallest error on shapes left
    out.

    Where the rows are too few for a table and a roofline, `auto` takes a line. Raises InputError,
    naming the series, where they are too few for the form.
    """

    def fitted(form: str) -> Kernel:
        variant, columns = series.variant, series.columns
        return fit_kernel(series.operation, variant, columns, series.us, form, source, sms)

    try:
        if form != "auto":
            return fitted(checks.known(form, ("auto", *FITS), "form"))
        try:
            kernels = [fitted(choice) for choice in _AUTO]
        except ValueError:
            return fitted(_FALLBACK)
    except ValueError as error:
        raise InputError(error, series.name) from None
    return min(kernels, key=_held_out_mape)


def _held_out_mape(kernel: Kernel) -> float:
    return kernel.held_out.mape_pct if kernel.held_out else np.inf


@dataclass(frozen=True)
class KernelErrors:
    """Errors of one kernel on measured rows.

    `linear_mape_pct` is that of the paper's linear form on shapes left out of a fit to the rows.
    """

    errors: Errors
    form: str
    label: str
    held_out_mape_pct: float | None
    linear_mape_pct: float | None

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self.errors),
            "form": self.form,
            "label": self.label,
            "held_out_mape_pct": self.held_out_mape_pct,
            "linear_mape_pct": self.linear_mape_pct,
        }


@dataclass(frozen=True)
class RangeErrors:
    """Errors on the rows in a part of the axis of an operation."""

    column: str
    low: float
    high: float
    errors: Errors

    def to_dict(self) -> dict[str, Any]:
        place = {"column": self.column, "low": self.low, "high": self.high}
        return {**place, **asdict(self.errors)}


@dataclass(frozen=True)
class Evaluation:
    """What a profile predicts for measured rows.

    `rows` has features, us, predicted_us, error_pct, operation and kernel of every row. Rows that
    no kernel of the profile is for are counted under `not_priced`, rows out of the window under
    `skipped`.
    """

    profile: HardwareProfile
    rows: pd.DataFrame
    by_kernel: Mapping[str, KernelErrors]
    not_priced: Mapping[str, int]
    skipped: Mapping[str, int]

    @property
    def by_operation(self) -> dict[str, Errors]:
        """Errors on the rows of every operation."""
        groups = self.rows.groupby("operation", sort=False)
        return {str(operation): _errors(rows) for operation, rows in groups}

    @property
    def by_range(self) -> dict[str, list[RangeErrors]]:
        """Errors on the rows of every operation, by quartiles of its axis."""
        groups = self.rows.groupby("operation", sort=False)
        return {str(operation): _by_range(str(operation), rows) for operation, rows in groups}

    @property
    def worst(self) -> list[dict[str, Any]]:
        """The rows with the largest errors."""
        order = self.rows.error_pct.abs().sort_values(ascending=False).index
        worst = self.rows.reindex(order).head(_WORST)
        return [_filled(row) for row in worst.to_dict("records")]

    def to_dict(self) -> dict[str, Any]:
        """The keys of `simdep costs evaluate --json`."""
        by_operation = {name: asdict(errors) for name, errors in self.by_operation.items()}
        by_kernel = {name: errors.to_dict() for name, errors in self.by_kernel.items()}
        by_range = {}
        for operation, parts in self.by_range.items():
            by_range[operation] = [part.to_dict() for part in parts]
        return {
            "hardware": self.profile.name,
            "by_operation": by_operation,
            "by_kernel": by_kernel,
            "by_range": by_range,
            "worst": self.worst,
            "not_priced": dict(self.not_priced),
            "skipped": dict(self.skipped),
            "speed_factor": self.profile.speed_factor,
        }


def _filled(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row without the features of other operations."""
    return {str(column): value for column, value in row.items() if not pd.isna(value)}


def evaluate(measurements: Sequence[MeasuredTable], profile: HardwareProfile) -> Evaluation:
    """Predictions of a profile beside measured rows; raises InputError if it has a kernel for
    none."""
    pieces: list[pd.DataFrame] = []
    by_kernel: dict[str, KernelErrors] = {}
    not_priced: dict[str, int] = {}
    skipped: dict[str, int] = {}
    for series, kernel in _with_kernels(measurements, profile):
        for reason, count in series.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
        if kernel is None:
            not_priced[series.name] = len(series.us)
            continue
        predicted = kernel.predict(series.columns) * profile.speed_factor
        by_kernel[series.name] = _kernel_errors(series, kernel, predicted)
        features = {name: series.columns[name] for name in series.operation.features}
        piece = pd.DataFrame({**features, "us": series.us, "predicted_us": predicted})
        pieces.append(piece.assign(operation=series.operation.name, kernel=series.name))
    if not pieces:
        raise _no_kernel(measurements, profile, checks.listed(not_priced) or "its rows")
    rows = pd.concat(pieces, ignore_index=True)
    rows["error_pct"] = 100 * (rows.predicted_us / rows.us - 1)
    return Evaluation(profile, rows, by_kernel, not_priced, skipped)


def speed_factor(
    measurements: Sequence[MeasuredTable], profile: HardwareProfile, anchors: int
) -> float:
    """The factor that brings predictions to this machine's speed.

    It is the median of measured over predicted time over `anchors` rows, spread evenly over the
    measured times. Raises InputError if the profile has a kernel for none.
    """
    points = []
    for series, kernel in _with_kernels(measurements, profile):
        if kernel is not None:
            ratios = series.us / kernel.predict(series.columns)
            points.append(np.column_stack([series.us, ratios]))
    if not points:
        raise _no_kernel(measurements, profile, "its rows")
    times, ratios = np.concatenate(points).T
    ratios = ratios[np.argsort(times)]
    places = np.linspace(0, len(ratios) - 1, min(anchors, len(ratios)) + 2)[1:-1]
    return float(np.median(ratios[places.round().astype(int)]))


def _with_kernels(
    measurements: Sequence[MeasuredTable], profile: HardwareProfile
) -> list[tuple[Series, Kernel | None]]:
    """The series of the profile's machine, each with the kernel of the profile that is for it."""
    pairs = []
    for measured in measurements:
        for series in series_of(measured.of_gpu(profile.machine, profile.name)):
            kernel = profile.kernel(series.operation.name, **series.variant)
            pairs.append((series, kernel))
    return pairs


def _no_kernel(
    measurements: Sequence[MeasuredTable], profile: HardwareProfile, rows: str
) -> InputError:
    origins = ", ".join(measured.origin for measured in measurements)
    hint = "see simdep hardware show"
    return InputError(f"hardware {profile.name} has no kernel for {rows}; {hint}", origins)


def _kernel_errors(series: Series, kernel: Kernel, predicted: np.ndarray) -> KernelErrors:
    linear = held_out_errors(series.operation, series.columns, series.us, "linear")
    return KernelErrors(
        errors=Errors.of(predicted, series.us),
        form=kernel.form.to_dict()["form"],
        label=kernel.label,
        held_out_mape_pct=kernel.held_out.mape_pct if kernel.held_out else None,
        linear_mape_pct=linear.mape_pct if linear else None,
    )


def _errors(rows: pd.DataFrame) -> Errors:
    return Errors.of(rows.predicted_us.to_numpy(), rows.us.to_numpy())


def _by_range(operation: str, rows: pd.DataFrame) -> list[RangeErrors]:
    axis = OPERATIONS[operation].axis
    edges = np.unique(np.quantile(rows[axis], np.linspace(0, 1, _RANGES + 1)))
    parts = np.searchsorted(edges, rows[axis], side="right") - 1
    ranges = []
    for _, part in rows.groupby(np.clip(parts, 0, max(0, len(edges) - 2))):
        low, high = float(part[axis].min()), float(part[axis].max())
        ranges.append(RangeErrors(axis, low, high, _errors(part)))
    return ranges
