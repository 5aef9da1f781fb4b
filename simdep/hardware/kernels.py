"""Kernels: what one measured operation costs on one machine. A kernel has a form, its origin,
errors and ranges.

`kernel.us(m=512, n=4096, k=7168)` gives the time of one operation, `kernel.predict(columns)` those
of a whole table. Beyond the range that it was measured on it still answers; `kernel.extrapolations`
names each such use as a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdep import checks
from simdep.arrays import Array
from simdep.checks import InputError
from simdep.hardware.extrapolation import Extrapolation
from simdep.hardware.forms import Form, form_from_dict
from simdep.hardware.operations import OPERATIONS, Operation, OperationColumns

LABELS = ("measured", "published", "datasheet", "assumed")


@dataclass(frozen=True)
class Errors:
    """How far predictions lie from measurements, in percent of the measurement; r2 is that of the
    times themselves."""

    n: int
    mape_pct: float
    p50_pct: float
    p95_pct: float
    bias_pct: float
    r2: float

    @classmethod
    def of(cls, predicted: Array, measured: Array) -> Errors:
        """The errors of predictions of measured times."""
        errors = 100 * (predicted / measured - 1)
        sizes = np.abs(errors)
        spread = ((measured - measured.mean()) ** 2).sum()
        r2 = 1.0
        if spread:
            r2 = float(1 - ((predicted - measured) ** 2).sum() / spread)
        return cls(
            n=len(errors),
            mape_pct=float(sizes.mean()),
            p50_pct=float(np.median(sizes)),
            p95_pct=float(np.percentile(sizes, 95)),
            bias_pct=float(errors.mean()),
            r2=r2,
        )


@dataclass(frozen=True)
class Kernel:
    """Time of an operation, for the attributes in `variant` (data type, library and the like; one
    that is left out fits any).

    `ranges` are those of the measured features. `fit` holds the errors on the points of the fit,
    `held_out` those on shapes left out of it in turn. `sms` is the number of SMs that a form with
    wave quantisation counts with (0: it does without).
    """

    op: str
    variant: Mapping[str, str]
    form: Form
    label: str
    source: str
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    fit: Errors | None = None
    held_out: Errors | None = None
    sms: int = 0

    @property
    def name(self) -> str:
        return " ".join([self.op, *self.variant.values()])

    @property
    def operation(self) -> Operation:
        return OPERATIONS[self.op]

    def predict(self, columns: OperationColumns) -> Array:
        """Microseconds of every row of a table; attributes that it has go before the variant."""
        length = len(next(iter(columns.values())))
        complete: dict[str, NDArray[Any]] = {}
        for attribute, value in self.variant.items():
            complete[attribute] = np.full(length, value)
        complete |= columns
        if self.sms:
            complete["gpu_sms"] = np.full(length, float(self.sms))
        return self.form(self.operation.work(complete))

    def us(self, attributes: Mapping[str, str] | None = None, /, **features: float | Array) -> Any:
        """Microseconds of one operation, or an array of those that the arrays among `features`
        hold.

        `attributes` replace those of the variant where an operation takes the kernel of another,
        for example experts under balanced routing one that was measured under skewed routing.
        """
        values = [np.atleast_1d(np.asarray(value, float)) for value in features.values()]
        broadcast = np.broadcast_arrays(*values)
        columns: dict[str, NDArray[Any]] = dict(zip(features, broadcast, strict=True))
        for attribute, name in (attributes or {}).items():
            columns[attribute] = np.full(len(broadcast[0]), name)
        times = self.predict(columns)
        is_scalar = all(np.ndim(value) == 0 for value in features.values())
        return float(times[0]) if is_scalar else times

    def extrapolations(self, **features: float | Array) -> tuple[Extrapolation, ...]:
        """The least and the largest of `features` that lie out of the measured range."""
        records = []
        for name, (low, high) in self.ranges.items():
            values = np.ravel(features[name])
            for value in dict.fromkeys((float(values.min()), float(values.max()))):
                if not low <= value <= high:
                    records.append(Extrapolation(self.op, name, value, low, high, self.source))
        return tuple(records)

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Whether this kernel is for operations with these attributes: they agree wherever both
        state one."""
        return all(self.variant.get(name, value) == value for name, value in attributes.items())

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "op": self.op,
            "variant": dict(self.variant),
            "label": self.label,
            "source": self.source,
            "sms": self.sms,
            "ranges": {name: list(pair) for name, pair in self.ranges.items()},
            "fit": asdict(self.fit) if self.fit else None,
            "held_out": asdict(self.held_out) if self.held_out else None,
            "form": self.form.to_dict(),
        }


def kernel_from_dict(row: Any, place: str) -> Kernel:
    """A kernel from its JSON table; raises InputError naming the field at fault."""
    checks.mapping(row, tuple(field.name for field in fields(Kernel)), place)
    for key in ("op", "form", "label", "source"):
        if key not in row:
            raise InputError(f"{place}.{key} is missing")
    operation = OPERATIONS[checks.known(row["op"], OPERATIONS, f"{place}.op")]
    return Kernel(
        op=operation.name,
        variant=_variant(row.get("variant", {}), operation, f"{place}.variant"),
        form=_form(row["form"], operation, f"{place}.form"),
        label=checks.known(row["label"], LABELS, f"{place}.label"),
        source=checks.string(row["source"], f"{place}.source"),
        ranges=_ranges(row.get("ranges", {}), operation, f"{place}.ranges"),
        fit=_errors(row.get("fit"), f"{place}.fit"),
        held_out=_errors(row.get("held_out"), f"{place}.held_out"),
        sms=checks.integer(row.get("sms", 0), f"{place}.sms", 0),
    )


def _variant(data: Any, operation: Operation, place: str) -> dict[str, str]:
    checks.mapping(data, operation.attributes, place)
    return {name: checks.string(value, f"{place}.{name}") for name, value in data.items()}


def _form(data: Any, operation: Operation, place: str) -> Form:
    form = form_from_dict(data, place)
    for quantity in form.quantities:
        checks.known(quantity, operation.quantities, f"quantity of {operation.name} in {place}")
    return form


def _ranges(data: Any, operation: Operation, place: str) -> dict[str, tuple[float, float]]:
    checks.mapping(data, operation.features, place)
    return {name: checks.pair(value, f"{place}.{name}") for name, value in data.items()}


def _errors(row: Any, place: str) -> Errors | None:
    if row is None:
        return None
    count, *names = (field.name for field in fields(Errors))
    checks.mapping(row, (count, *names), place)
    for name in (count, *names):
        if name not in row:
            raise InputError(f"{place}.{name} is missing")
    values = {name: checks.finite(row[name], f"{place}.{name}") for name in names}
    return Errors(n=checks.integer(row[count], f"{place}.{count}"), **values)
