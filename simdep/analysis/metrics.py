"""The metrics of a result, each declared once: every table, JSON object, CSV file and page takes
keys, labels and units from here.

Microseconds, percent of the makespan, tokens a second. Pure functions of a timeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from simdep.analysis.summary import communication, critical_path, streams
from simdep.timeline import Timeline


@dataclass(frozen=True)
class Metric:
    """One entry of a result: its key, how tables call it, its unit, and which values are better."""

    key: str
    label: str
    unit: str = ""
    better: Literal["min", "max", ""] = ""

    @property
    def heading(self) -> str:
        """Of a column of a table."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


_DECLARED = (
    Metric("policy", "policy"),
    Metric("schedule", "schedule"),
    Metric("m_a", "m_a"),
    Metric("r1", "r1"),
    Metric("r2", "r2"),
    Metric("makespan_us", "makespan", "us", "min"),
    Metric("throughput_tokens_per_s", "throughput", "tokens/s", "max"),
    Metric("throughput_tokens_per_s_per_gpu", "throughput per GPU", "tokens/s", "max"),
    Metric("ag_bubble_pct", "AG bubble", "%", "min"),
    Metric("eg_bubble_pct", "EG bubble", "%", "min"),
    Metric("a2e_busy_pct", "A2E busy", "%"),
    Metric("e2a_busy_pct", "E2A busy", "%"),
    Metric("exposed_communication_us", "exposed communication", "us", "min"),
    Metric("hidden_communication_pct", "hidden communication", "%", "max"),
    Metric("memory_fits", "fits into memory"),
    Metric("memory_missing_bytes", "missing memory", "bytes", "min"),
)
METRICS: Mapping[str, Metric] = {metric.key: metric for metric in _DECLARED}


def tokens_per_second(tokens: int | None, makespan_us: float) -> float | None:
    """Tokens a second; None without tokens or time."""
    return 1e6 * tokens / makespan_us if tokens and makespan_us else None


def timeline_metrics(
    timeline: Timeline, tokens: int | None = None, gpus: int | None = None
) -> dict[str, Any]:
    """The metrics that follow from a timeline, by key; throughput is None without `tokens` of the
    whole AG, that of a GPU without the number of `gpus`.

    The bubble of a group is the share of the makespan in which it does not compute; colocated GPUs
    are both groups. A stream that the schedule does not have is None.
    """
    busy = {name: stream["busy_fraction"] for name, stream in streams(timeline).items()}
    exposed, hidden = communication(timeline)
    makespan = timeline.makespan_us
    rate = tokens_per_second(tokens, makespan)
    return {
        "makespan_us": makespan,
        "throughput_tokens_per_s": rate,
        "throughput_tokens_per_s_per_gpu": rate / gpus if rate and gpus else None,
        "ag_bubble_pct": _bubble_pct(busy, "AG"),
        "eg_bubble_pct": _bubble_pct(busy, "EG"),
        "a2e_busy_pct": 100 * busy["A2E"] if "A2E" in busy else None,
        "e2a_busy_pct": 100 * busy["E2A"] if "E2A" in busy else None,
        "exposed_communication_us": exposed,
        "hidden_communication_pct": 100 * hidden,
    }


def timeline_summary(timeline: Timeline, tokens: int | None = None) -> dict[str, Any]:
    """The metrics of a timeline, its streams and its critical path, ready for JSON."""
    return {
        "source": timeline.source,
        "schedule": timeline.schedule.label,
        **timeline_metrics(timeline, tokens),
        "streams": streams(timeline),
        "tasks": len(timeline.schedule),
        "critical_path": critical_path(timeline),
    }


def headed(row: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Some entries of a result by the headings of their columns."""
    return {METRICS[key].heading: row[key] for key in keys}


def _bubble_pct(busy: Mapping[str, float], group: str) -> float | None:
    fraction = busy.get(group, busy.get("GPU"))
    return None if fraction is None else 100 * (1 - fraction)
