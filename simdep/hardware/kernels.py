"""Kernels: what one measured operation costs on one machine. A kernel has a form, its origin,
errors and ranges.

`kernel.us(m=512, n=4096, k=7168)` gives the time of one operation, `kernel.predict(rows)` those of
a whole table. Beyond the range that it was measured on it still answers; `kernel.extrapolations`
names each such use as a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from simdep import checks
from simdep.hardware.extrapolation import Extrapolation
from simdep.hardware.forms import Array, Form, form_from_dict
from simdep.hardware.operations import OPERATIONS, Columns, Operation

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
        off = 100 * (predicted / measured - 1)
        sizes, spread = np.abs(off), ((measured - measured.mean()) ** 2).sum()
        r2 = 1 - ((predicted - measured) ** 2).sum() / spread if spread else 1.0
        return cls(
            n=len(off),
            mape_pct=float(sizes.mean()),
            p50_pct=float(np.median(sizes)),
            p95_pct=float(np.percentile(sizes, 95)),
            bias_pct=float(off.mean()),
            r2=float(r2),
        )


@dataclass(frozen=True)
class Kernel:
    """Cost of an operation, for the attributes in `variant` (data type, library and the like; one
    left out fits any).

    `fit` holds the errors on the points of the fit, `held_out` those on shapes left out of it in
    turn. `sms` is the number of SMs that a form with wave quantisation counts with (0: it does
    without).
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

    def predict(self, rows: Columns) -> Array:
        """Microseconds of every row of a table of columns; attributes of the variant may be left out
        of it."""
        length = len(next(iter(rows.values())))
        whole = {name: np.full(length, value) for name, value in self.variant.items()} | dict(rows)
        if self.sms:
            whole["gpu_sms"] = np.full(length, float(self.sms))
        return self.form(self.operation.work(whole))

    def us(self, attributes: Mapping[str, str] | None = None, /, **features: float | Array) -> Any:
        """Microseconds of one operation, or an array of those that arrays among `features` hold.

        `attributes` replace those of the variant where an operation takes the kernel of another,
        for example experts under balanced routing one that was measured under skewed routing.
        """
        columns = [np.atleast_1d(np.asarray(value, float)) for value in features.values()]
        rows: dict[str, Any] = dict(zip(features, np.broadcast_arrays(*columns), strict=True))
        length = len(next(iter(rows.values())))
        for name, value in (attributes or {}).items():
            rows[name] = np.full(length, value)
        times = self.predict(rows)
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

    def interval(self, us: float) -> tuple[float, float]:
        """Where 95 % of measurements lie for a prediction of `us`, by the errors on shapes left out
        of the fit."""
        errors = self.held_out or self.fit
        if errors is None:
            return us, us
        return us / (1 + errors.p95_pct / 100), us / max(1e-3, 1 - errors.p95_pct / 100)

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Whether this kernel is one for these attributes: they agree wherever both state one."""
        return all(self.variant.get(name, value) == value for name, value in attributes.items())

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "op": self.op,
            "variant": dict(self.variant),
            "label": self.label,
            "source": self.source,
            "sms": self.sms,
            "ranges": {name: list(pair) for name, pair in self.ranges.items()},
            "fit": None if self.fit is None else asdict(self.fit),
            "held_out": None if self.held_out is None else asdict(self.held_out),
            "form": self.form.to_dict(),
        }


def kernel_from_dict(row: Any, where: str) -> Kernel:
    """A kernel from its JSON table; raises ValueError naming the field at fault."""
    checks.mapping(row, tuple(Kernel.__dataclass_fields__), where)
    for key in ("op", "form", "label", "source"):
        if key not in row:
            raise ValueError(f"{where}.{key} is missing")
    variant, ranges = row.get("variant", {}), row.get("ranges", {})
    for key, value in (("variant", variant), ("ranges", ranges)):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}.{key}={value!r}; expected a table")
    op = checks.known(row["op"], OPERATIONS, f"{where}.op")
    form = form_from_dict(row["form"], f"{where}.form")
    for quantity in form.quantities:
        checks.known(quantity, OPERATIONS[op].quantities, f"quantity of {op} in {where}.form")
    for name in ranges:
        checks.known(name, OPERATIONS[op].features, f"number of {op} in {where}.ranges")
    return Kernel(
        op=op,
        variant={
            checks.known(word, OPERATIONS[op].attributes, f"{where}.variant"): checks.string(
                value, f"{where}.variant.{word}"
            )
            for word, value in variant.items()
        },
        form=form,
        label=checks.known(row["label"], LABELS, f"{where}.label"),
        source=checks.string(row["source"], f"{where}.source"),
        ranges={
            name: checks.pair(value, f"{where}.ranges.{name}") for name, value in ranges.items()
        },
        fit=_errors(row.get("fit"), f"{where}.fit"),
        held_out=_errors(row.get("held_out"), f"{where}.held_out"),
        sms=checks.integer(row.get("sms", 0), f"{where}.sms", 0),
    )


def _errors(row: Any, where: str) -> Errors | None:
    if row is None:
        return None
    names = tuple(Errors.__dataclass_fields__)
    checks.mapping(row, names, where)
    if missing := [name for name in names if name not in row]:
        raise ValueError(f"{where}.{missing[0]} is missing")
    values = {name: checks.finite(row[name], f"{where}.{name}") for name in names[1:]}
    return Errors(n=checks.integer(row["n"], f"{where}.n"), **values)
