"""What a simulation of every rank says: the slowest rank, what skew costs and by which cause, who
waits for whom.

Pure functions of `RankTimes`. Times are microseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simdep.analysis import summary as report
from simdep.scenario.imbalance import Ranks
from simdep.scenario.routing import Array
from simdep.schedule import Kind, track
from simdep.simulation.rank_times import RankTimes, rank_times
from simdep.simulation.rank_work import ranked
from simdep.timeline import Timeline
from simdep.units import human_us

FEW = 16  # lanes that are shown as text, all of them or some
MANY = 64  # lanes that are drawn


def summary(times: RankTimes, total_tokens: int | None = None) -> dict[str, Any]:
    """The numbers of `report.summary`, tasks and critical path those of ranks; under "ranks" what
    this module finds."""
    numbers = report.summary(times.timeline, total_tokens)
    path = [ranked(*each) for each in times.critical_path]
    return numbers | {"tasks": times.work.rows, "critical_path": path, "ranks": _ranks(times)}


def _ranks(times: RankTimes) -> dict[str, Any]:
    work, routing = times.work, times.work.ranks.routing
    computing = {group: busy_us(times, group) for group in ("AG", "EG")}
    return {
        "ag": work.ag,
        "eg": work.eg,
        "routing": routing.label if routing else "equal on all EG ranks",
        "imbalance": float(routing.imbalance(work.eg).mean()) if routing else 1.0,
        "slowest": slowest(times),
        **skew(times),
        "waiting_us_per_layer": {
            group: waiting_us(times, group).tolist() for group in ("AG", "EG")
        },
        "busy_us": {stream: busy_us(times, stream).tolist() for stream in work.schedule.resources},
        "over_mean": {
            group: float(us.max() / us.mean()) if us.any() else 1.0
            for group, us in computing.items()
        },
    }


def busy_us(times: RankTimes, stream: str) -> Array:
    """Time that a stream of every rank is busy."""
    work = times.work
    total = np.zeros(work.ag if stream == "AG" else work.eg)
    for task in work.schedule.streams[stream]:
        total += np.nan_to_num(times.end[task.name] - times.start[task.name])
    return total


def slowest(times: RankTimes) -> dict[str, Any]:
    """The rank that computes longest on the critical path, with its computing time and that over
    its group's mean."""
    spent: dict[tuple[str, int], float] = {}
    for name, rank in times.critical_path:
        if not times.work.schedule[name].kind.is_transfer:
            at = (track(times.work.schedule.stream_of[name])[0], rank)
            spent[at] = spent.get(at, 0.0) + float(times.end[name][rank] - times.start[name][rank])
    group, rank = max(spent, key=lambda at: spent[at])
    busy = busy_us(times, group)
    over = float(busy[rank] / busy.mean()) if busy.any() else 1.0
    return {
        "group": group,
        "rank": rank,
        "critical_us": spent[group, rank],
        "busy_us": float(busy[rank]),
        "over_mean": over,
    }


def skew(times: RankTimes) -> dict[str, Any]:
    """What it costs that ranks differ: the makespan beyond that of the group's model, and what each
    cause alone adds.

    `balanced_us` is the makespan where all ranks are alike, each with the samples of the scenario.
    What hosts add is left out on both sides.
    """
    work, own = times.work, times.work.ranks
    balanced = rank_times(work.with_ranks(Ranks())).makespan_us
    alone = {
        "routing": Ranks(routing=own.routing) if own.routing else None,
        "batches": Ranks(batches=own.batches) if own.batches else None,
        "stragglers": Ranks(stragglers=own.stragglers) if own.stragglers else None,
        "nodes": Ranks(nodes=own.nodes) if own.nodes else None,
    }
    added = {
        cause: rank_times(work.with_ranks(ranks)).makespan_us - balanced
        for cause, ranks in alone.items()
        if ranks
    }
    cost = rank_times(work).makespan_us - balanced
    return {
        "balanced_us": balanced,
        "skew_us": cost,
        "skew_pct": 100 * cost / balanced if balanced else 0.0,
        "alone_us": added,
    }


def waiting_us(times: RankTimes, group: str) -> Array:
    """How long the ranks of a group wait for the slowest of them, layer by layer, as the mean over
    ranks.

    AG ranks wait for the last one's attention before any EG rank can have all of a micro-batch, EG
    ranks for the last one's return: the sum over micro-batches of the latest end less the mean end.
    """
    work = times.work
    kinds = (Kind.E2A,) if group == "EG" else (Kind.ATTENTION, Kind.CORE)
    ends: dict[tuple[int, int], Array] = {}
    for task in work.schedule:
        if task.kind in kinds:
            at = (task.layer, task.mb)
            ends[at] = np.fmax(ends.get(at, times.end[task.name]), times.end[task.name])
    found = np.zeros(work.schedule.layers)
    for (layer, _), end in ends.items():
        part = end[~np.isnan(end)]
        found[layer] += (part.max() - part).mean() if len(part) else 0
    return found


def shown(times: RankTimes, most: int) -> Timeline:
    """The timeline of all lanes, or of `most`: of each stream those at even steps from the busiest
    to the idlest rank, and the one that ends last."""
    rows, streams = times.timeline.rows, times.work.schedule.resources
    if len(times.timeline.tracks()) <= most:
        return times.timeline
    chosen = {
        stream: _spread(busy_us(times, stream), max(2, most // len(streams))) for stream in streams
    }
    last = int(rows["end_us"].to_numpy().argmax())
    chosen[rows["stream"].iloc[last]].add(rows["rank"].iloc[last])
    keep = np.zeros(len(rows), bool)
    for stream, ranks in chosen.items():
        keep |= ((rows["stream"] == stream) & rows["rank"].isin(ranks)).to_numpy()
    return Timeline(times.timeline.schedule, "sim", rows[keep].reset_index(drop=True))


def _spread(busy: Array, count: int) -> set[int]:
    order = np.argsort(-busy, kind="stable")
    return set(
        order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)].tolist()
    )


def as_text(result: dict[str, Any], times: RankTimes) -> str:
    """A `summary` and the timeline of some ranks as text to read."""
    ranks, view = result["ranks"], shown(times, FEW)
    spent: dict[str, float] = {}
    for name, rank in times.critical_path:
        kind = times.work.schedule[name].kind.label
        spent[kind] = spent.get(kind, 0.0) + float(times.end[name][rank] - times.start[name][rank])
    slow, waits = (
        ranks["slowest"],
        {group: np.mean(us) for group, us in ranks["waiting_us_per_layer"].items()},
    )
    causes = ", ".join(f"{cause} alone {human_us(us)}" for cause, us in ranks["alone_us"].items())
    rows = (
        f"; busiest EG rank {ranks['imbalance']:.2f} times the mean rows"
        if times.work.ranks.routing
        else ""
    )
    lines = [
        report.as_text(result, view, spent),
        "",
        f"ranks                  {ranks['ag']} AG and {ranks['eg']} EG, routing {ranks['routing']}{rows}",
        f"slowest rank           {slow['group']} {slow['rank']}: computes {human_us(slow['busy_us'])}, "
        f"{slow['over_mean']:.2f} times the mean of {slow['group']}",
        f"skew costs             {human_us(ranks['skew_us'])}, {ranks['skew_pct']:+.1f} % of "
        f"{human_us(ranks['balanced_us'])} balanced{f' ({causes})' if causes else ''}",
        f"waiting for the last   AG {human_us(waits['AG'])}, EG {human_us(waits['EG'])} a layer (mean over ranks)",
    ]
    some, every = len(view.tracks()), len(times.timeline.tracks())
    if some < every:
        lines.append(
            f"shown                  {some} of {every} lanes, of each stream from its busiest to its idlest"
        )
    return "\n".join(lines)
