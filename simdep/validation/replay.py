"""Replay: the measured task times of a real run in the simulated order, to see what the order alone
explains.

A run is a CSV with the columns of `EVENT_COLUMNS`: computations and sends of the nodes `attention`
and `ffn`, by layer and micro-batch. Every computation takes its measured time, in the order in
which its node ran it; sending takes its measured time of the node that sends. Waits for messages
are not replayed: they are what the simulation predicts. The one constant is the host gap before
every computation. It is fitted on the first half of the layers, so that the makespan of the whole
run is a prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from simdep import files
from simdep.calibration.measurements import read_table
from simdep.checks import InputError, shown_text
from simdep.costs import HostOverheads
from simdep.file_kinds import EVENTS
from simdep.schedule import DataFlow, Kind, Schedule, Task
from simdep.simulation.engine import simulated_makespan_us

_RUN_COLUMNS = ["mode", "batch", "seq"]  # that tell runs apart
_NUMBERS = ["layer", "mb", "start_ms", "end_ms"]
EVENT_COLUMNS = [*_RUN_COLUMNS, "node", "op", *_NUMBERS]
_ATTENTION, _EXPERTS, _SEND = "attn_compute", "ffn_compute", "send_transfer"
_COMPUTATIONS = (_ATTENTION, _EXPERTS)
_SENDS = {  # computation -> its kind, that of what it sends, and its node
    _ATTENTION: (Kind.ATTENTION, Kind.A2E, "attention"),
    _EXPERTS: (Kind.EXPERT, Kind.E2A, "ffn"),
}
_OPS = (*_COMPUTATIONS, _SEND, "recv_wait")
_NODES = ("attention", "ffn")
_MAX_MS, _MAX_INDEX = 1e12, 1_000_000  # of times, and of layers and micro-batches
_GAP_PRECISION_US = 1.0  # of the fitted gap, or that share of the makespan if it is less:
_GAP_PRECISION = 1e-5


@dataclass(frozen=True)
class RecordedRun:
    """One real run: the schedule that it followed, microseconds of every task, and its makespan."""

    name: Mapping[str, Any]
    schedule: Schedule
    task_us: Mapping[str, float]
    measured_us: float

    def simulated_us(self, gap_us: float) -> float:
        """The makespan with this host gap before every computation."""
        host = HostOverheads(gap_us=gap_us, post_us=self._us)
        return simulated_makespan_us(self.schedule, self._us, host)

    def _us(self, task: Task) -> float:
        return self.task_us[task.name]


@dataclass(frozen=True)
class Replay:
    """A prediction of a whole run, with the gap that fits its first half."""

    run: RecordedRun
    host_gap_us: float
    predicted_us: float
    without_gap_us: float
    whole_run_gap_us: float

    @property
    def measured_us(self) -> float:
        return self.run.measured_us

    def to_dict(self) -> dict[str, Any]:
        """The keys of `--json`."""
        measured = self.measured_us
        return {
            **self.run.name,
            "predicted_us": self.predicted_us,
            "measured_us": measured,
            "host_gap_us": self.host_gap_us,
            "error_pct": 100 * (self.predicted_us / measured - 1),
            "tasks": len(self.run.schedule),
            "fitted_on": "the first half of the layers",
            "error_without_gap_pct": 100 * (self.without_gap_us / measured - 1),
            "host_gap_fitted_on_the_whole_run_us": self.whole_run_gap_us,
        }


def replay(events: pd.DataFrame, source: str = "events") -> Replay:
    """Simulate the order of one run with its measured task times.

    Raises InputError, naming the source, where events are missing.
    """
    run = recorded_run(events, source)
    first_half = events
    if events.layer.nunique() > 1:
        middle = (events.layer.min() + events.layer.max() + 1) / 2
        first_half = events[events.layer < middle]
    gap = fitted_gap_us(recorded_run(first_half, source))
    return Replay(run, gap, run.simulated_us(gap), run.simulated_us(0), fitted_gap_us(run))


def fitted_gap_us(run: RecordedRun) -> float:
    """The host gap, at least 0, with which the simulated makespan is the measured one, to 1 us."""
    if run.simulated_us(0) >= run.measured_us:
        return 0.0
    precision = min(_GAP_PRECISION_US, _GAP_PRECISION * run.measured_us)
    low, high = 0.0, run.measured_us / len(run.schedule) + precision
    while run.simulated_us(high) < run.measured_us:
        low, high = high, 2 * high
    while high - low > precision:
        middle = (low + high) / 2
        if run.simulated_us(middle) < run.measured_us:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def read_events(path: Path) -> list[pd.DataFrame]:
    """The runs of an events file, one table for each.

    Raises InputError naming the file and the event or column at fault.
    """
    table = read_table(path, EVENTS)
    with files.context(path, EVENTS):
        return _runs(table)


def _runs(table: pd.DataFrame) -> list[pd.DataFrame]:
    missing = [column for column in EVENT_COLUMNS if column not in table]
    if missing:
        columns = ",".join(EVENT_COLUMNS)
        raise InputError(f"column {missing[0]} is missing; expected {columns}")
    if table.empty:
        raise InputError("no events")
    numbers = table[_NUMBERS].apply(pd.to_numeric, errors="coerce")
    for rule, is_wrong in _faults(table, numbers).items():
        if is_wrong.any():
            event = int(is_wrong.to_numpy().argmax())
            cells = ",".join(map(str, table.iloc[event][EVENT_COLUMNS]))
            line = table.index[event]
            raise InputError(f"line {line}: {rule}: {shown_text(cells)}")
    absent = [op for op in _COMPUTATIONS if op not in set(table.op)]
    if absent:
        raise InputError(f"no event is {absent[0]}; a run has computations of both nodes")
    return [run for _, run in table.assign(**numbers).groupby(_RUN_COLUMNS, sort=False)]


def _faults(table: pd.DataFrame, numbers: pd.DataFrame) -> dict[str, pd.Series[bool]]:
    """Rules of events, each with the events that break it."""
    places, times = numbers[["layer", "mb"]], numbers[["start_ms", "end_ms"]]
    return {
        "a number is missing": numbers.isna().any(axis=1),
        "an event ends before it starts": numbers.end_ms < numbers.start_ms,
        "layer and mb count from 0": ((places < 0) | (places % 1 != 0)).any(axis=1),
        "mode, batch or seq is empty": table[_RUN_COLUMNS].isna().any(axis=1),
        f"node is one of {', '.join(_NODES)}": ~table.node.isin(_NODES),
        f"op is one of {', '.join(_OPS)}": ~table.op.isin(_OPS),
        f"node attention runs {_ATTENTION}": (table.op == _ATTENTION)
        != ((table.node == "attention") & table.op.isin(_COMPUTATIONS)),
        f"node ffn runs {_EXPERTS}": (table.op == _EXPERTS)
        != ((table.node == "ffn") & table.op.isin(_COMPUTATIONS)),
        f"expected times of at most {_MAX_MS:g} ms": times.abs().max(axis=1) > _MAX_MS,
        f"expected layer and mb <= {_MAX_INDEX:,}": places.max(axis=1) > _MAX_INDEX,
    }


def recorded_run(events: pd.DataFrame, source: str) -> RecordedRun:
    """The schedule that a run followed, with its measured times.

    A layer that comes again (a later decode step) follows its last layer. Raises InputError, naming
    the source, for an FFN computation without its attention, and for a run that takes no time.
    """
    ordered = _by_start(events)
    computed = ordered[ordered.op.isin(_COMPUTATIONS)]
    measured_us = 1e3 * (computed.end_ms.max() - computed.start_ms.min())
    tasks, task_us = _tasks(computed, _send_us(ordered))
    name = {str(key): value for key, value in events[_RUN_COLUMNS].iloc[0].to_dict().items()}
    try:
        schedule = Schedule({stream: tuple(tasks[stream]) for stream in tasks}, "replay")
        _ = schedule.in_order  # raises on a circle
    except ValueError as error:
        rule = "every FFN computation follows the attention of its layer"
        raise InputError(f"{error}; {rule}", source) from None
    if not measured_us > 0:
        raise InputError(
            "all computations take no time; start_ms and end_ms are milliseconds of a clock", source
        )
    return RecordedRun(name, schedule, task_us, float(measured_us))


def _by_start(events: pd.DataFrame) -> pd.DataFrame:
    """Events in the order of their start, with `us`; later steps have layers of their own."""
    ordered = events.sort_values(["start_ms", "end_ms"], kind="stable")
    step = ordered.groupby(["node", "op", "layer", "mb"]).cumcount()
    layer = ordered.layer + step * (ordered.layer.max() + 1)
    duration_us = 1e3 * (ordered.end_ms - ordered.start_ms)
    return ordered.assign(layer=layer.astype(int), mb=ordered.mb.astype(int), us=duration_us)


def _send_us(ordered: pd.DataFrame) -> dict[tuple[str, int, int], float]:
    """Microseconds of every send by its node, layer and micro-batch."""
    sends = ordered[ordered.op == _SEND]
    columns = [sends[column].tolist() for column in ("node", "layer", "mb", "us")]
    return {(node, layer, mb): us for node, layer, mb, us in zip(*columns, strict=True)}


def _tasks(
    computed: pd.DataFrame, send_us: Mapping[tuple[str, int, int], float]
) -> tuple[dict[str, list[Task]], dict[str, float]]:
    """The tasks of every stream in order, and microseconds of every task by its name."""
    streams: dict[str, list[Task]] = {stream: [] for stream in ("AG", "A2E", "EG", "E2A")}
    task_us: dict[str, float] = {}
    experts = computed[computed.op == _EXPERTS]
    has_experts = set(zip(experts.layer, experts.mb, strict=True))
    flow = DataFlow(lambda layer, mb: int((layer, mb) in has_experts))

    def add(kind: Kind, layer: int, mb: int, us: float) -> None:
        chunk = 0 if kind.is_chunked else None
        task = Task(kind, layer, mb, chunk, after=flow.needs(kind, layer, mb, chunk))
        streams[kind.stream].append(task)
        task_us[task.name] = us

    columns = [computed[column].tolist() for column in ("op", "layer", "mb", "us")]
    for op, layer, mb, us in zip(*columns, strict=True):
        kind, message, node = _SENDS[op]
        add(kind, layer, mb, us)
        add(message, layer, mb, send_us.get((node, layer, mb), 0.0))
    return streams, task_us
