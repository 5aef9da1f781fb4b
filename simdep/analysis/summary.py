"""What a timeline says: pure functions of its table. Times are microseconds, fractions are of the
makespan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from simdep.schedule import Kind, Task
from simdep.timeline import Timeline, length, union
from simdep.units import human_us

TRANSFERS = [kind.label for kind in Kind if kind.is_transfer]
_SOURCES = {"sim": "simulated", "real": "measured"}
_FILL = {
    "attention": "A",
    "projection": "P",
    "core": "C",
    "shared": "s",
    "a2e": ">",
    "expert": "E",
    "e2a": "<",
}


def streams(timeline: Timeline) -> dict[str, dict[str, float]]:
    """Per stream: time busy and idle (the bubble), as the mean over its ranks, and the busy
    fraction."""
    makespan = timeline.makespan_us
    codes, names = pd.factorize(timeline.rows["stream"])
    columns = [timeline.rows[name].to_numpy() for name in ("rank", "start_us", "end_us")]
    found = {}
    for stream in timeline.schedule.resources:
        here = codes == (names.get_loc(stream) if stream in names else -1)
        busy = _mean_busy_us(*(column[here] for column in columns))
        fraction = busy / makespan if makespan else 0.0
        found[stream] = {"busy_us": busy, "busy_fraction": fraction, "bubble_us": makespan - busy}
    return found


def communication(timeline: Timeline) -> tuple[float, float]:
    """(exposed, overlapped): time in which a transfer is active and no group computes; covered
    share of transfers.

    The share is 1 for a timeline without transfers. Exposed communication is what FinDEP's Table 7
    measures.
    """
    transfer = timeline.rows["kind"].isin(TRANSFERS)
    transfers = length(_busy(timeline.rows[transfer]))
    exposed = length(_busy(timeline.rows)) - length(_busy(timeline.rows[~transfer]))
    return exposed, 1 - exposed / transfers if transfers else 1.0


def critical_path(timeline: Timeline) -> list[str]:
    """Names of a chain of tasks, first to last, each the last to end among those that the next one
    waits for."""
    ends = timeline.by_task()["end_us"]
    last = max((task.name for task in timeline.schedule.in_order), key=lambda name: ends[name])
    path = [last]
    while before := timeline.schedule.predecessors[path[-1]]:
        path.append(max(before, key=lambda name: ends[name]))
    return path[::-1]


def task_errors(predicted: Timeline, measured: Timeline) -> pd.DataFrame:
    """Task by task, indexed by name: start and duration predicted and measured, each timeline
    starting at 0."""
    columns = {}
    for word, timeline in (("predicted", predicted), ("measured", measured)):
        rows = timeline.by_task()
        columns[f"{word}_start_us"] = rows["start_us"] - timeline.rows["start_us"].min()
        columns[f"{word}_us"] = rows["end_us"] - rows["start_us"]
    table = predicted.by_task()[["kind", "stream"]].join(pd.DataFrame(columns))
    table["start_error_us"] = table["predicted_start_us"] - table["measured_start_us"]
    table["error_us"] = table["predicted_us"] - table["measured_us"]
    return table


def gantt(timeline: Timeline, width: int = 100) -> str:
    """The timeline as text: a line a lane, `width` columns of equal time, each showing the task
    that fills it most.

    A task begins with the last digit of its micro-batch and goes on with A, P, C, s (shared), >
    (A2E), E or < (E2A).
    """
    first, span = timeline.rows["start_us"].min(), timeline.makespan_us or 1
    names = _track_names(timeline)
    margin = max(6, *map(len, names.values()))
    lines = []
    for (stream, rank), name in names.items():
        cells = ["."] * width
        is_shown = (timeline.rows["stream"] == stream) & (timeline.rows["rank"] == rank)
        rows = timeline.rows.loc[is_shown, ["kind", "mb", "start_us", "end_us"]]
        for kind, mb, start, end in rows.itertuples(index=False):
            left, right = round(width * (start - first) / span), round(width * (end - first) / span)
            cells[left:right] = (str(mb % 10) + _FILL[kind] * (right - left))[: right - left]
        lines.append(f"{name:>{margin}} |{''.join(cells)}|")
    return "\n".join([*lines, f"{'':>{margin}}  0{human_us(span):>{width - 1}}"])


def path_by_kind(timeline: Timeline, names: Iterable[str]) -> dict[str, float]:
    """Microseconds of each kind of task on a path of task names."""
    rows = timeline.by_task()
    spent = rows["end_us"] - rows["start_us"]
    totals: dict[str, float] = {}
    for task in map(Task.parse, names):
        totals[task.kind.label] = totals.get(task.kind.label, 0.0) + float(spent[task.name])
    return totals


def as_text(
    result: dict[str, Any], timeline: Timeline, spent: Mapping[str, float] | None = None
) -> str:
    """A `timeline_summary` and the timeline as text to read; `spent` is what each kind takes of the
    critical path, if known."""
    rate, source = result["throughput_tokens_per_s"], _SOURCES[timeline.source]
    exposed, hidden = result["exposed_communication_us"], result["hidden_communication_pct"]
    if spent is None:
        spent = path_by_kind(timeline, result["critical_path"])
    path = ", ".join(f"{kind} {human_us(us)}" for kind, us in spent.items())
    lines = [f"{result['schedule']}: {result['tasks']} tasks", "", gantt(timeline), ""]
    lines.append(f"makespan               {human_us(result['makespan_us'])} ({source})")
    if rate is not None:
        lines.append(f"throughput             {rate:,.0f} tokens/s")
    communication = f"{human_us(exposed)} ({hidden:.0f} % of transfers hidden)"
    lines.append(f"exposed communication  {communication}")
    lines.append(f"critical path          {path}")
    for name, stream in result["streams"].items():
        busy, bubble = human_us(stream["busy_us"]), human_us(stream["bubble_us"])
        percent = f"({100 * stream['busy_fraction']:5.1f} %)"
        lines.append(f"  {name:<4} busy {busy:>9} {percent}, bubble {bubble}")
    return "\n".join(lines)


def _track_names(timeline: Timeline) -> dict[tuple[str, int], str]:
    """How each track is called: by its stream, and its rank where the stream has several."""
    tracks = timeline.tracks()
    counts = Counter(stream for stream, _ in tracks)
    names = {}
    for stream, rank in tracks:
        names[stream, rank] = f"{stream} {rank}" if counts[stream] > 1 else stream
    return names


def _mean_busy_us(ranks: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> float:
    """Time in which a rank is busy, as the mean over ranks."""
    busy = []
    for rank in np.unique(ranks):
        own = ranks == rank
        busy.append(length(union(starts[own], ends[own])))
    return float(np.mean(busy)) if busy else 0.0


def _busy(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return union(rows["start_us"].to_numpy(), rows["end_us"].to_numpy())
