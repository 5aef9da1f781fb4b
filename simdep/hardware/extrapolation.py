"""Extrapolations: uses of a kernel beyond what it was measured on, as records.

Results list them beside other assumptions, a sentence each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Extrapolation:
    """A use of a kernel at a value of a feature beyond those that it was measured on."""

    kernel: str
    feature: str
    value: float
    low: float
    high: float
    source: str

    def __str__(self) -> str:
        return _sentence(self, f"{self.value:g}")


Assumption = str | Extrapolation  # what a result rests on besides measurements


def assumption_sentences(assumptions: Iterable[Assumption]) -> list[str]:
    """Each assumption once; the extrapolations of a feature as one, with the least and the
    largest value: `gemm: m=70 to 100 is out of the measured range 1 to 64 (source)`."""
    values: dict[Assumption, list[float]] = {}
    for assumption in assumptions:
        if isinstance(assumption, Extrapolation):
            feature = replace(assumption, value=0.0)
            values.setdefault(feature, []).append(assumption.value)
        else:
            values[assumption] = []
    sentences = []
    for assumption, each in values.items():
        if isinstance(assumption, Extrapolation):
            low, high = f"{min(each):g}", f"{max(each):g}"
            sentences.append(_sentence(assumption, low if low == high else f"{low} to {high}"))
        else:
            sentences.append(assumption)
    return sentences


def _sentence(record: Extrapolation, values: str) -> str:
    measured = f"the measured range {record.low:g} to {record.high:g} ({record.source})"
    return f"{record.kernel}: {record.feature}={values} is out of {measured}"
