"""Estimates: a time, the costs of a profile that it rests on, and where these were extrapolated.

Estimates add up as tasks are made of operations. `CostEvidence` gathers what the estimates of one
simulation rest on. Times are microseconds, one number or an array of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from simdep.hardware.extrapolation import Extrapolation
from simdep.hardware.kernels import Kernel
from simdep.hardware.profile import Cost

Source = Cost | Kernel


@dataclass(frozen=True, eq=False)
class Estimate:
    """Microseconds with the sources that answered, by operation, and their extrapolations."""

    us: Any
    sources: Mapping[str, Source] = field(default_factory=dict)
    extrapolations: tuple[Extrapolation, ...] = ()

    @classmethod
    def of_kernel(
        cls,
        kernel: Kernel,
        factor: float,
        attributes: Mapping[str, str] | None = None,
        **features: Any,
    ) -> Estimate:
        """The time of an operation by a kernel, times a factor."""
        us = kernel.us(attributes, **features) * factor
        return cls(us, {kernel.op: kernel}, kernel.extrapolations(**features))

    @classmethod
    def of_cost(cls, cost: Cost, us: Any) -> Estimate:
        """A time that a cost of the profile gave."""
        return cls(us, {cost.op: cost})

    def __add__(self, other: Estimate) -> Estimate:
        return self._with(self.us + other.us, other)

    def __mul__(self, factor: float) -> Estimate:
        return Estimate(self.us * factor, self.sources, self.extrapolations)

    def cheaper(self, other: Estimate) -> Estimate:
        """The lower time of two ways to compute, resting on both."""
        return self._with(np.minimum(self.us, other.us), other)

    def _with(self, us: Any, other: Estimate) -> Estimate:
        extrapolations = self.extrapolations
        if other.extrapolations:
            extrapolations = tuple(dict.fromkeys(extrapolations + other.extrapolations))
        return Estimate(us, {**self.sources, **other.sources}, extrapolations)


NOTHING = Estimate(0.0)


def total(estimates: Iterable[Estimate]) -> Estimate:
    """The sum of operations that run one after the other."""
    return sum(estimates, NOTHING)


@dataclass(frozen=True)
class CostBasis:
    """One entry of what times rest on: a cost or kernel, its label and source, and its errors.

    Errors are percent of measurements: of a kernel on shapes left out of its fit (where it has
    none, on those of it), of a line on its own points; None where nothing was measured.
    """

    cost: str
    label: str
    mape_pct: float | None
    p95_pct: float | None
    source: str

    @classmethod
    def of(cls, name: str, source: Source) -> CostBasis:
        if isinstance(source, Kernel):
            errors = source.held_out or source.fit
            mape, p95 = (errors.mape_pct, errors.p95_pct) if errors else (None, None)
            return cls(source.name, source.label, mape, p95, source.source)
        mape = source.fit.mape_pct if source.fit else None
        return cls(name, source.label, mape, None, source.source)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class CostEvidence:
    """What the times of one simulation rest on; each simulation has its own."""

    sources: dict[str, Source] = field(default_factory=dict)
    extrapolations: dict[Extrapolation, None] = field(default_factory=dict)

    def add(self, estimate: Estimate) -> None:
        self.sources.update(estimate.sources)
        self.extrapolations.update(dict.fromkeys(estimate.extrapolations))

    @property
    def costs(self) -> list[CostBasis]:
        """The costs and kernels in use, by name of the operation."""
        return [CostBasis.of(name, source) for name, source in sorted(self.sources.items())]
