"""Lower bounds on makespans: whatever the order of the streams, no schedule of the same tasks is
faster. `lower_bound_us` takes one schedule, `makespan_bounds` many configurations of equal
micro-batches at once.

Each bound of a configuration is the load of one stream with the least that has to come before it
and after it. A micro-batch needs G in a layer, from the start of its attention to its last E2A. So
no task of the last layer starts before the G of all layers before it, and each bound holds twice:
for all layers from 0 on, and for the last one from then on.

    AG     all attention and shared experts; or all but the shared experts of the last layer, and
           then G - attention, since only those need not precede the last attention
    A2E    attention, all A2E, the shortest E and E2A; EG and E2A likewise

The longest chain of a micro-batch is among them: G is at most the bound of A2E, EG or E2A in the
last layer, and a layer of longer shared experts at most that of AG.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from simdep.arrays import Array
from simdep.costs import Costs
from simdep.schedule import STREAMS, Kind, Schedule, task_name
from simdep.simulation.stage_table import StageTable

_STAGES = (Kind.A2E, Kind.EXPERT, Kind.E2A)
_DISAGGREGATED = (Kind.ATTENTION, Kind.SHARED, *_STAGES)


def lower_bound_us(schedule: Schedule, costs: Costs) -> float:
    """What no order of the streams can beat, 0 for an empty schedule.

    It is the largest of the longest chain of tasks that wait for each other, the work of a stream
    with the least before and after it, and, for equal micro-batches on AG, A2E, EG and E2A, the
    bound of their configuration.
    """
    us = {task.name: costs(task) for task in schedule}
    head, tail = _heads_and_tails(schedule, us)
    bounds = [head[name] + us[name] + tail[name] for name in us]
    for tasks in schedule.streams.values():
        names = [task.name for task in tasks]
        if names:
            around = min(head[name] for name in names) + min(tail[name] for name in names)
            bounds.append(around + sum(us[name] for name in names))
    batch = _equal_micro_batches(schedule, us)
    if batch is not None:
        bounds.append(float(makespan_bounds(batch, schedule.layers, schedule.r1)[0]))
    return max(bounds, default=0)


def _heads_and_tails(
    schedule: Schedule, us: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """The longest chain before and after each task, by what tasks wait for and not by streams."""
    order = Schedule({task.name: (task,) for task in schedule}).in_order
    head: dict[str, float] = {}
    tail = dict.fromkeys(us, 0.0)
    for task in order:
        head[task.name] = max((head[needed] + us[needed] for needed in task.after), default=0)
    for task in reversed(order):
        for needed in task.after:
            tail[needed] = max(tail[needed], us[task.name] + tail[task.name])
    return head, tail


def _equal_micro_batches(schedule: Schedule, us: Mapping[str, float]) -> StageTable | None:
    """The stage times of micro-batches that are alike, are cut alike in every layer and wait for
    the data they need; None for any other schedule."""
    if set(schedule.streams) != set(STREAMS):
        return None
    times: dict[tuple[Kind, int | None, int | None], list[float]] = {}
    for task in schedule:
        if task.kind not in _DISAGGREGATED or schedule.stream_of[task.name] != task.kind.stream:
            return None
        layer = task.layer if task.kind is Kind.ATTENTION else None
        times.setdefault((task.kind, layer, task.chunk), []).append(us[task.name])
    layers, r1 = schedule.layers, schedule.r1
    for (_, layer, _), values in times.items():
        count = layers * r1 if layer is None else r1
        if len(values) != count or min(values) != max(values):
            return None
    chunks = range(schedule.r2)
    if any((kind, None, chunk) not in times for kind in _STAGES for chunk in chunks):
        return None
    if not _waits_for_data(schedule):
        return None
    attention = [[times[Kind.ATTENTION, layer, None][0]] for layer in range(layers)]
    shared = times.get((Kind.SHARED, None, None), [0.0])[:1]
    a2e, expert, e2a = (
        np.array([times[kind, None, chunk][:1] for chunk in chunks], float) for kind in _STAGES
    )
    counts = np.ones((len(chunks), 1))
    return StageTable(np.array(attention, float), np.array(shared, float), counts, a2e, expert, e2a)


def _waits_for_data(schedule: Schedule) -> bool:
    """Whether every task itself waits for what brings its data; A2E may wait for the shared experts
    in place of attention, which they wait for."""
    for task in schedule:
        needed = schedule.data_of(task)
        if task.kind is Kind.A2E and not set(needed) & set(task.after):
            needed = (task_name(Kind.SHARED, task.layer, task.mb),)
        if not set(needed) <= set(task.after):
            return False
    return True


def makespan_bounds(batch: StageTable, layers: int, r1: int | NDArray[np.int64]) -> Array:
    """A lower bound for every configuration of a table [n], in its unit of time.

    r1 is one number, or one for each configuration. The bound of a micro-batch, which is the bound
    divided by r1, never grows with r1.
    """
    attention = batch.attention  # [layers, n], or [1, n] for layers that are alike
    loads, others = _chunks(batch)
    transfers = np.maximum.reduce([load + other for load, other in zip(loads, others, strict=True)])
    passage = attention + transfers
    before = (layers - 1) * passage[0] if len(passage) == 1 else passage[:-1].sum(axis=0)
    total = layers * attention[0] if len(attention) == 1 else attention.sum(axis=0)

    def of_layers(count: int, first: Array, total: Array) -> Array:
        """What `count` layers take, the first of which may begin at 0."""
        shared = r1 * batch.shared
        ag = r1 * total + np.maximum(count * shared, (count - 1) * shared + transfers)
        streams = [count * r1 * load + other for load, other in zip(loads, others, strict=True)]
        bounds: Array = np.maximum(ag, first + np.maximum.reduce(streams))
        return bounds

    last = before + of_layers(1, attention[-1], attention[-1])
    bounds: Array = np.maximum(of_layers(layers, attention[0], total), last)
    return bounds


def _chunks(batch: StageTable) -> tuple[list[Array], list[Array]]:
    """Of A2E, E and E2A: what all chunks of a micro-batch take, and the shortest chunk of the two
    others.

    Together, the least time from the end of an attention to its last E2A: a stage takes all chunks,
    one by one.
    """
    stages = (batch.a2e, batch.expert, batch.e2a)
    if len(batch.counts) == 1:
        shortest = [stage[0] for stage in stages]
        loads = [batch.counts[0] * stage[0] for stage in stages]
    else:
        none = batch.counts == 0
        shortest = [np.where(none, np.inf, stage).min(axis=0) for stage in stages]
        loads = [(batch.counts * stage).sum(axis=0) for stage in stages]
    a2e, expert, e2a = shortest
    return loads, [expert + e2a, a2e + e2a, a2e + expert]
