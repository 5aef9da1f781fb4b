"""Findings: reasons why pipelining gains nothing, or why a prediction can't be trusted, each with
whether it holds and the numbers that show it. Times are microseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from simdep.analysis.idle import attribution
from simdep.analysis.summary import communication, streams
from simdep.costs import Costs
from simdep.scenario.memory import Memory
from simdep.schedule import Schedule, Task
from simdep.timeline import Timeline
from simdep.units import human_bytes, human_us

MAX_HIDDEN = 0.02  # exposed share of the makespan up to which communication counts as hidden
MIN_DOMINANT = 0.5  # share of the critical path from which on start-up counts as dominant


@dataclass(frozen=True)
class Diagnosis:
    """A finding, whether it holds, and the numbers that show it."""

    name: str
    found: bool
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)


def diagnoses(
    timeline: Timeline,
    *,
    start_up: Mapping[str, float] | None = None,
    needed: Memory | None = None,
    out_of_range: Sequence[str] = (),
) -> list[Diagnosis]:
    """All findings on a timeline.

    `start_up` as from `start_up_shares` (None where costs do not depend on sizes), `needed` the
    memory of the scenario, `out_of_range` the costs that were asked beyond their measurements.
    """
    findings = []
    if start_up is not None:
        findings.append(_start_up(timeline, start_up))
    if needed is not None:
        findings.append(_memory(needed))
    findings += [_hidden_communication(timeline), _out_of_range(out_of_range)]
    return findings


def start_up_shares(schedule: Schedule, costs: Costs) -> dict[str, float]:
    """Kind -> the share of its time that halving its tasks would add; for a line, its start-up
    alpha.

    Tasks of one token, and groups of experts, can't be halved and are left out.
    """
    known: dict[tuple[object, ...], tuple[float, float]] = {}  # of a task: added, all
    added: dict[str, float] = {}
    total: dict[str, float] = {}
    for task in schedule:
        if task.tokens < 2 or task.groups > 1:
            continue
        layer = None if task.kind.is_chunked else task.layer
        key = (task.kind, layer, task.tokens, task.rank)
        if key not in known:
            known[key] = _added_by_halving(task, costs), costs(task)
        added_us, us = known[key]
        kind = task.kind.label
        added[kind] = added.get(kind, 0) + added_us
        total[kind] = total.get(kind, 0) + us
    return {kind: min(1.0, max(0.0, float(added[kind] / us))) for kind, us in total.items() if us}


def _added_by_halving(task: Task, costs: Costs) -> float:
    half = task.tokens // 2
    halves = (replace(task, tokens=half), replace(task, tokens=task.tokens - half))
    return sum(map(costs, halves)) - costs(task)


def _start_up(timeline: Timeline, start_up: Mapping[str, float]) -> Diagnosis:
    path = {share.kind: share.fraction for share in attribution(timeline)}
    paid = sum(share * start_up.get(kind, 0.0) for kind, share in path.items())
    shares = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in start_up.items())
    text = (
        f"{100 * paid:.0f} % of the critical path is start-up, "
        f"which finer chunks pay more often ({shares or 'none is known'})"
    )
    numbers = {"critical_path_fraction": paid, "fraction_by_kind": dict(start_up)}
    return Diagnosis("start-up cost dominates", paid >= MIN_DOMINANT, text, numbers)


def _memory(needed: Memory) -> Diagnosis:
    status = "everything fits"
    if not needed.fits:
        status = f"{human_bytes(needed.missing_bytes)} are missing"
    text = f"{status}: {'; '.join(map(str, needed.groups))}"
    return Diagnosis("memory infeasible", not needed.fits, text, needed.to_dict())


def _hidden_communication(timeline: Timeline) -> Diagnosis:
    exposed, hidden = communication(timeline)
    makespan = timeline.makespan_us
    share = float(exposed / makespan) if makespan else 0.0
    busy = {stream: times["busy_fraction"] for stream, times in streams(timeline).items()}
    busy_fraction, busiest = max(
        ((fraction, stream) for stream, fraction in busy.items()), default=(0.0, "")
    )
    transfers = any(task.kind.is_transfer for task in timeline.schedule)
    text = (
        f"{human_us(exposed)} of communication ({100 * share:.1f} % of the makespan) is exposed, "
        f"{100 * hidden:.0f} % of transfers are hidden; "
        f"{busiest} is busiest, {100 * busy_fraction:.0f} % of the time"
    )
    numbers = {
        "exposed_us": exposed,
        "exposed_fraction": share,
        "busiest": busiest,
        "busy_fraction": busy_fraction,
    }
    found = transfers and share <= MAX_HIDDEN
    return Diagnosis("communication already hidden", found, text, numbers)


def _out_of_range(notes: Sequence[str]) -> Diagnosis:
    text = "; ".join(notes) or "no cost was asked beyond its measurements"
    return Diagnosis("costs out of range", bool(notes), text, {"costs": len(notes)})
