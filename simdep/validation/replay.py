"""Replay: the measured task times of a real run in the simulated order, to see what the order alone
explains.

A run is a CSV with the columns of `COLUMNS`: computations and sends of the nodes `attention` and
`ffn`, by layer and micro-batch. Every computation takes its measured time, in the order in which
its node ran it; sending takes its measured time of the node that sends. Waits for messages are not
replayed: they are what the simulation predicts. The one constant is the host gap before every
computation. It is fitted on the first half of the layers, so that the makespan of the whole run is
a prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from simdep.calibration.measurements import read_table
from simdep.costs import Host
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.engine import makespan_us

RUN = ["mode", "batch", "seq"]
COLUMNS = [*RUN, "node", "op", "layer", "mb", "start_ms", "end_ms"]
COMPUTE = {"attn_compute": Kind.ATTENTION, "ffn_compute": Kind.EXPERT}
SEND, WAIT = "send_transfer", "recv_wait"
NODES = {"attention": Kind.ATTENTION, "ffn": Kind.EXPERT}
PRECISION_US, PRECISION = (
    1.0,
    1e-5,
)  # of the fitted gap: microseconds, or that share of the makespan if it is less


@dataclass(frozen=True)
class Recorded:
    """One real run: its schedule as it was ordered, the measured microseconds of every task, and
    the makespan."""

    name: Mapping[str, Any]
    schedule: Schedule
    us: Mapping[str, float]
    measured_us: float

    def simulated_us(self, gap_us: float) -> float:
        """The makespan with this host gap before every computation."""
        host = Host(gap_us=gap_us, post_us=lambda task: self.us[task.name])
        return makespan_us(self.schedule, lambda task: self.us[task.name], host)


@dataclass(frozen=True)
class Replay:
    """A prediction of the whole run, with the gap that fits its first half."""

    recorded: Recorded
    host_gap_us: float
    predicted_us: float
    no_gap_us: float
    whole_gap_us: float

    def to_dict(self) -> dict[str, Any]:
        measured = self.recorded.measured_us
        return {
            **self.recorded.name,
            "predicted_us": self.predicted_us,
            "measured_us": measured,
            "host_gap_us": self.host_gap_us,
            "error_pct": 100 * (self.predicted_us / measured - 1),
            "tasks": len(self.recorded.schedule),
            "fitted_on": "the first half of the layers",
            "error_without_gap_pct": 100 * (self.no_gap_us / measured - 1),
            "host_gap_fitted_on_the_whole_run_us": self.whole_gap_us,
        }


def replay(events: pd.DataFrame, where: str = "events") -> Replay:
    """Simulate the order of one run with its measured task times; raises ValueError where events
    are missing."""
    whole = recorded(events, where)
    middle = (events.layer.min() + events.layer.max() + 1) / 2
    half = events[events.layer < middle] if events.layer.nunique() > 1 else events
    gap = fitted_gap(recorded(half, where))
    return Replay(whole, gap, whole.simulated_us(gap), whole.simulated_us(0), fitted_gap(whole))


def fitted_gap(run: Recorded) -> float:
    """The host gap, at least 0, with which the simulated makespan of a run is the measured one, to
    1 us."""
    if run.simulated_us(0) >= run.measured_us:
        return 0.0
    precision = min(PRECISION_US, PRECISION * run.measured_us)
    low, high = 0.0, run.measured_us / len(run.schedule) + precision
    while run.simulated_us(high) < run.measured_us:
        low, high = high, 2 * high
    while high - low > precision:
        middle = (low + high) / 2
        low, high = (middle, high) if run.simulated_us(middle) < run.measured_us else (low, middle)
    return (low + high) / 2


def read_events(path: Path) -> list[pd.DataFrame]:
    """The runs of an events file, one table each; raises ValueError naming the file and the row or
    column at fault."""
    table = read_table(path)
    if missing := [column for column in COLUMNS if column not in table]:
        raise ValueError(
            f"{path}: column {missing[0]} is missing; an events file has {','.join(COLUMNS)}"
        )
    if table.empty:
        raise ValueError(f"{path}: no events")
    numbers = table[["layer", "mb", "start_ms", "end_ms"]].apply(pd.to_numeric, errors="coerce")
    faults = {
        "a number is missing": numbers.isna().any(axis=1),
        "an event ends before it starts": numbers.end_ms < numbers.start_ms,
        "layer and mb count from 0": (
            (numbers[["layer", "mb"]] < 0) | (numbers[["layer", "mb"]] % 1 != 0)
        ).any(axis=1),
        "mode, batch or seq is empty": table[RUN].isna().any(axis=1),
        f"node is one of {', '.join(NODES)}": ~table.node.isin(NODES),
        f"op is one of {', '.join((*COMPUTE, SEND, WAIT))}": ~table.op.isin([*COMPUTE, SEND, WAIT]),
    }
    for rule, wrong in faults.items():
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise ValueError(
                f"{path}: event {row + 1}, {','.join(map(str, table.iloc[row][COLUMNS]))}: {rule}"
            )
    if absent := [op for op in COMPUTE if op not in set(table.op)]:
        raise ValueError(f"{path}: no event is {absent[0]}; a run has computations of both nodes")
    return [run for _, run in table.assign(**numbers).groupby(RUN, sort=False)]


def recorded(events: pd.DataFrame, where: str) -> Recorded:
    """The schedule that a run followed. A layer that comes again (a later decode step) follows its
    last layer."""
    rows = events.sort_values(["start_ms", "end_ms"], kind="stable")
    step = rows.groupby(["node", "op", "layer", "mb"]).cumcount()
    rows = rows.assign(
        layer=(rows.layer + step * (rows.layer.max() + 1)).astype(int),
        us=1e3 * (rows.end_ms - rows.start_ms),
    )
    computed = rows[rows.op.isin(list(COMPUTE))]
    sends = rows[rows.op == SEND].set_index(["node", "layer", "mb"]).us.to_dict()
    arrived = {
        (layer, mb)
        for op, layer, mb in zip(computed.op, computed.layer, computed.mb, strict=True)
        if op == "ffn_compute"
    }
    streams: dict[str, list[Task]] = {stream: [] for stream in ("AG", "A2E", "EG", "E2A")}
    us: dict[str, float] = {}
    for op, layer, mb, time in zip(
        computed.op, computed.layer, computed.mb.astype(int), computed.us, strict=True
    ):
        if COMPUTE[op] is Kind.ATTENTION:
            before = (f"E2A[{layer - 1}.{mb}.0]",) if (layer - 1, mb) in arrived else ()
            task, message, node = (
                Task(Kind.ATTENTION, layer, mb, after=before),
                Kind.A2E,
                "attention",
            )
        else:
            task, message, node = (
                Task(Kind.EXPERT, layer, mb, 0, after=(f"A2E[{layer}.{mb}.0]",)),
                Kind.E2A,
                "ffn",
            )
        sent = Task(message, layer, mb, 0, after=(task.name,))
        streams[task.kind.stream].append(task)
        streams[message.stream].append(sent)
        us |= {task.name: time, sent.name: sends.get((node, layer, mb), 0.0)}
    name = {str(key): value for key, value in events[RUN].iloc[0].to_dict().items()}
    try:
        schedule = Schedule({stream: tuple(tasks) for stream, tasks in streams.items()}, "replay")
    except ValueError as error:
        raise ValueError(
            f"{where}: {error}; every FFN computation needs the attention of its layer"
        ) from None
    measured = 1e3 * (computed.end_ms.max() - computed.start_ms.min())
    if not measured > 0:
        raise ValueError(
            f"{where}: all computations take no time; start_ms and end_ms are milliseconds of a clock"
        )
    return Recorded(name, schedule, us, float(measured))
