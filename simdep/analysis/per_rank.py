"""What a simulation of every rank says: the slowest rank, what skew costs and by which cause, who
waits for whom.

Pure functions of `RankTimes`. Times are microseconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from simdep.analysis import summary as report
from simdep.analysis.metrics import timeline_summary
from simdep.arrays import Array
from simdep.scenario.imbalance import Ranks
from simdep.schedule import Kind, track
from simdep.simulation.rank_times import RankTimes, rank_times
from simdep.simulation.rank_work import ranked
from simdep.timeline import Timeline
from simdep.units import human_us

MAX_TEXT_TRACKS, MAX_DRAWN_TRACKS = 16, 64
_GROUPS = ("AG", "EG")


@dataclass(frozen=True)
class SlowestRank:
    """The rank that computes longest on the critical path; `over_mean` is its busy time over the
    mean of its group."""

    group: str
    rank: int
    critical_us: float
    busy_us: float
    over_mean: float


@dataclass(frozen=True)
class SkewCost:
    """What it costs that ranks differ: the makespan beyond `balanced_us`, that of ranks that are
    alike, and what each cause alone adds.

    Balanced ranks have the samples of the scenario each. Host overheads are left out on both sides.
    """

    balanced_us: float
    skew_us: float
    skew_pct: float
    alone_us: dict[str, float]


def rank_summary(times: RankTimes, total_tokens: int | None = None) -> dict[str, Any]:
    """The numbers of `summary`, with tasks and critical path of ranks, and under "ranks" what only
    a simulation of every rank says."""
    numbers = timeline_summary(times.timeline, total_tokens)
    path = [ranked(name, rank) for name, rank in times.critical_path]
    return numbers | {"tasks": times.work.tasks, "critical_path": path, "ranks": _ranks(times)}


def _ranks(times: RankTimes) -> dict[str, Any]:
    work, routing = times.work, times.work.ranks.routing
    busy = {stream: busy_us(times, stream) for stream in work.schedule.resources}
    return {
        "ag": work.ag,
        "eg": work.eg,
        "routing": routing.label if routing else "equal on all EG ranks",
        "imbalance": float(routing.imbalance(work.eg).mean()) if routing else 1.0,
        "slowest": asdict(slowest_rank(times)),
        **asdict(skew_cost(times)),
        "waiting_us_per_layer": {group: waiting_us(times, group).tolist() for group in _GROUPS},
        "busy_us": {stream: us.tolist() for stream, us in busy.items()},
        "over_mean": {group: _over_mean(busy[group], busy[group].max()) for group in _GROUPS},
    }


def _over_mean(busy: Array, us: float) -> float:
    return float(us / busy.mean()) if busy.any() else 1.0


def busy_us(times: RankTimes, stream: str) -> Array:
    """Time that a stream of every rank is busy."""
    work = times.work
    total = np.zeros(work.ag if stream == "AG" else work.eg)
    for task in work.schedule.streams[stream]:
        total += np.nan_to_num(times.end[task.name] - times.start[task.name])
    return total


def slowest_rank(times: RankTimes) -> SlowestRank:
    """The rank that computes longest on the critical path."""
    schedule = times.work.schedule
    computing: dict[tuple[str, int], float] = {}
    for name, rank in times.critical_path:
        if not schedule[name].kind.is_transfer:
            group, _ = track(schedule.stream_of[name])
            us = _duration_us(times, name, rank)
            computing[group, rank] = computing.get((group, rank), 0.0) + us
    group, rank = max(computing, key=lambda group_rank: computing[group_rank])
    busy = busy_us(times, group)
    over_mean = _over_mean(busy, busy[rank])
    return SlowestRank(group, rank, computing[group, rank], float(busy[rank]), over_mean)


def _duration_us(times: RankTimes, task: str, rank: int) -> float:
    return float(times.end[task][rank] - times.start[task][rank])


def skew_cost(times: RankTimes) -> SkewCost:
    """The makespan of the ranks as they are against that of equal ranks, and of each difference
    alone."""
    work, ranks = times.work, times.work.ranks
    causes = {
        "routing": Ranks(routing=ranks.routing),
        "batches": Ranks(batches=ranks.batches),
        "stragglers": Ranks(stragglers=ranks.stragglers),
        "nodes": Ranks(nodes=ranks.nodes),
    }
    balanced = rank_times(work.with_ranks(Ranks())).makespan_us
    alone_us = {}
    for cause, alone in causes.items():
        if getattr(ranks, cause):
            alone_us[cause] = rank_times(work.with_ranks(alone)).makespan_us - balanced
    cost = rank_times(work).makespan_us - balanced
    return SkewCost(balanced, cost, 100 * cost / balanced if balanced else 0.0, alone_us)


def waiting_us(times: RankTimes, group: str) -> Array:
    """How long the ranks of a group wait for the slowest of them, layer by layer, as the mean over
    ranks.

    AG ranks wait for the last one's attention before any EG rank can have all of a micro-batch, EG
    ranks for the last one's return: the sum over micro-batches of the latest end less the mean end.
    """
    schedule = times.work.schedule
    kinds = (Kind.E2A,) if group == "EG" else (Kind.ATTENTION, Kind.CORE)
    ends: dict[tuple[int, int], Array] = {}
    for task in schedule:
        if task.kind in kinds:
            end = times.end[task.name]
            ends[task.layer, task.mb] = np.fmax(ends.get((task.layer, task.mb), end), end)
    waiting = np.zeros(schedule.layers)
    for (layer, _), end in ends.items():
        of_ranks = end[~np.isnan(end)]
        if len(of_ranks):
            waiting[layer] += (of_ranks.max() - of_ranks).mean()
    return waiting


def shown_tracks(timeline: Timeline, most: int) -> Timeline:
    """A timeline with all its tracks, or with `most`: of each stream those at even steps from the
    busiest to the idlest rank, and the one that ends last."""
    rows, tracks = timeline.rows, timeline.tracks()
    if len(tracks) <= most:
        return timeline
    streams = timeline.schedule.resources
    busy = (rows["end_us"] - rows["start_us"]).groupby([rows["stream"], rows["rank"]]).sum()
    count = max(2, most // len(streams))
    chosen = {stream: _spread(busy[stream], count) for stream in streams}
    last = int(rows["end_us"].to_numpy().argmax())
    chosen[rows["stream"].iloc[last]].add(rows["rank"].iloc[last])
    keep = np.zeros(len(rows), bool)
    for stream, ranks in chosen.items():
        keep |= ((rows["stream"] == stream) & rows["rank"].isin(ranks)).to_numpy()
    return Timeline(timeline.schedule, timeline.source, rows[keep].reset_index(drop=True))


def _spread(busy: pd.Series, count: int) -> set[int]:
    """`count` ranks at even steps from the busiest to the idlest; `busy` is by rank."""
    ranks = busy.sort_values(ascending=False, kind="stable").index.to_numpy()
    steps = np.linspace(0, len(ranks) - 1, min(count, len(ranks))).round().astype(int)
    return set(ranks[steps].tolist())


def rank_text(result: dict[str, Any], times: RankTimes) -> str:
    """A `rank_summary` and the timeline of some ranks as text to read."""
    ranks, view = result["ranks"], shown_tracks(times.timeline, MAX_TEXT_TRACKS)
    path_us: dict[str, float] = {}
    for name, rank in times.critical_path:
        kind = times.work.schedule[name].kind.label
        path_us[kind] = path_us.get(kind, 0.0) + _duration_us(times, name, rank)
    lines = [report.as_text(result, view, path_us), "", *_rank_lines(ranks)]
    count, total = len(view.tracks()), len(times.timeline.tracks())
    if count < total:
        lines.append(
            f"shown                  {count} of {total} tracks, of each stream from its busiest to "
            "its idlest"
        )
    return "\n".join(lines)


def _rank_lines(ranks: dict[str, Any]) -> list[str]:
    slowest, waiting = ranks["slowest"], ranks["waiting_us_per_layer"]
    routing = f"routing {ranks['routing']}"
    if ranks["imbalance"] != 1.0:
        routing += f"; the busiest EG rank gets {ranks['imbalance']:.2f} times the mean"
    causes = [f"{cause} alone {human_us(us)}" for cause, us in ranks["alone_us"].items()]
    alone = f" ({', '.join(causes)})" if causes else ""
    mean_waits = [f"{group} {human_us(np.mean(waiting[group]))}" for group in _GROUPS]
    return [
        f"ranks                  {ranks['ag']} AG and {ranks['eg']} EG, {routing}",
        f"slowest rank           {slowest['group']} {slowest['rank']}: computes "
        f"{human_us(slowest['busy_us'])}, {slowest['over_mean']:.2f} times the mean of "
        f"{slowest['group']}",
        f"skew costs             {human_us(ranks['skew_us'])}, {ranks['skew_pct']:+.1f} % of "
        f"{human_us(ranks['balanced_us'])} balanced{alone}",
        f"waiting for the last   {', '.join(mean_waits)} a layer (mean over ranks)",
    ]
