"""Calibration points: the times that the ranks' micro-benchmarks measured, by operation and work.

Beside the operations of `simdep.hardware.profile` there are

    duplex.a2e, duplex.e2a   messages (bytes -> us) while the other direction is busy
    slowdown                 computation beside transfers over computation alone, by rank
    mbytes_per_s.alone       what each direction (0: A2E, 1: E2A) carries without computation
    mbytes_per_s.beside      the same, beside computation
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from realrun.calibration.benchmarks import host_schedule
from realrun.cases import UNMEASURED, Case
from realrun.runtime.stamps import Stamps, delays, timeline_of
from simdep.calibration.fit_line import trimmed_mean
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Schedule

DIRECTIONS = {0.0: "A2E", 1.0: "E2A"}
_MIN_POST_US = 0.1  # below it lies the noise of the clock, and a line needs values above 0


class PointKey(NamedTuple):
    """What was timed: an operation on a deployment; `shape` is that of its stages, or a
    transport."""

    operation: str
    ag: int = 0
    eg: int = 0
    shape: str = ""


Points = dict[PointKey, dict[float, list[float]]]  # -> work -> values, mostly microseconds
_Job = Mapping[str, Any]
_RankRow = Mapping[str, Any]


def new_points() -> Points:
    return defaultdict(lambda: defaultdict(list))


def early(points: Points) -> Points:
    """The first fifth of each calibration point."""
    first: Points = {}
    for key, of_work in points.items():
        first[key] = {work: values[: max(1, len(values) // 5)] for work, values in of_work.items()}
    return first


def collect(points: Points, job: _Job, ranks: Sequence[_RankRow], case: Case | None) -> None:
    """Add the times of one calibration job, as its ranks returned them, to `points`."""
    if job["job"] == "operations":
        for rank in ranks:
            for operation, work, values in rank["operations"]:
                points[PointKey(operation)][work] += values
        return
    assert case is not None, f"job {job['job']} has no case"
    collectors = {
        "stages": _collect_stages,
        "host": _collect_host,
        "interference": _collect_interference,
        "link": _collect_link,
    }
    collectors[job["job"]](points, ranks, case)


def _collect_stages(points: Points, ranks: Sequence[_RankRow], case: Case) -> None:
    shape = case.scenario.shape
    for group in (ranks[: case.ag], ranks[case.ag :]):
        for stage, sizes in group[0]["times"].items():
            key = PointKey(f"stage.{stage}", case.ag, case.eg, shape)
            for size in sizes:
                # A task of a group ends when its slowest rank ends
                calls = zip(*(rank["times"][stage][size] for rank in group), strict=True)
                points[key][float(size)] += [max(call) for call in calls]


def _collect_link(points: Points, ranks: Sequence[_RankRow], case: Case) -> None:
    for index, train in enumerate(ranks[0]["trains"]):
        alone = len(train["streams"]) == 1
        for stream in train["streams"]:
            operation = stream.lower() if alone else f"duplex.{stream.lower()}"
            key = PointKey(operation, case.ag, case.eg, case.transport)
            stamps = _train_of([rank["trains"][index] for rank in ranks], stream, case.ag)
            points[key][float(train["bytes"])] += stamps.occupancies_us


@dataclass(frozen=True)
class _Train:
    """Back-to-back messages of one direction: posts of every sender, arrivals at every receiver, in
    nanoseconds."""

    posted: Sequence[Sequence[float]]
    arrived: Sequence[Sequence[float]]

    @property
    def messages(self) -> int:
        return len(self.arrived[0])

    @property
    def us(self) -> float:
        """From the first post to the last arrival."""
        return (max(map(max, self.arrived)) - min(map(min, self.posted))) / 1e3

    @property
    def occupancies_us(self) -> list[float]:
        """How long each message but the first, cold one holds the link (rule in
        `realrun.runtime.stamps`)."""
        posted = [max(times) for times in zip(*self.posted, strict=True)]
        arrived = [max(times) for times in zip(*self.arrived, strict=True)]
        occupancies = []
        for start, (free, end) in zip(posted[1:], pairwise(arrived), strict=True):
            occupancies.append((end - max(start, free)) / 1e3)
        return occupancies


def _train_of(rows: Sequence[_RankRow], stream: str, ag: int) -> _Train:
    on_ag, on_eg = rows[:ag], rows[ag:]
    senders, receivers = (on_ag, on_eg) if stream == "A2E" else (on_eg, on_ag)
    return _Train([row["posted"] for row in senders], [row["arrived"] for row in receivers])


def _collect_interference(points: Points, ranks: Sequence[_RankRow], case: Case) -> None:
    deployment = (case.ag, case.eg, case.transport)
    both = [rank["both"] for rank in ranks]
    busy_until = min(max(row["arrived"]) for row in both)
    for number, rank in enumerate(ranks):
        alone = np.diff(rank["compute"]["products"])
        marks = np.array(rank["both"]["products"])
        # Products that ended after a direction fell idle had less beside them
        beside = np.diff(marks)[marks[1:] < busy_until]
        if len(beside):
            slowdown = float(np.mean(beside) / np.mean(alone))
            points[PointKey("slowdown", *deployment)][float(number)].append(slowdown)
    if case.link == "shm":
        return  # transfers are on time by construction
    transfers = {"alone": [rank["transfer"] for rank in ranks], "beside": both}
    for direction, stream in DIRECTIONS.items():
        for name, rows in transfers.items():
            train = _train_of(rows, stream, case.ag)
            rate = train.messages * ranks[0]["bytes"] / train.us
            points[PointKey(f"mbytes_per_s.{name}", *deployment)][direction].append(rate)


@dataclass(frozen=True)
class _Pause:
    """What passed ahead of a task that had not to wait: messages posted before, messages received,
    microseconds."""

    posted: int
    received: int
    us: float


def _collect_host(points: Points, ranks: Sequence[_RankRow], case: Case) -> None:
    """From runs with timed waits: what passes between two of them that had not to wait is the
    host's doing.

    It is a launch gap, a posting for each message of the earlier task, and a receipt of each
    message that the later needs.
    """
    deployment = (case.ag, case.eg, case.transport)
    costs = ScenarioCosts(case.scenario_on(UNMEASURED))
    for tokens in ranks[0]["runs"]:
        schedule = host_schedule(int(tokens))
        stamps = [Stamps.from_dict(rank["runs"][tokens]) for rank in ranks]
        pauses = _pauses(schedule, timeline_of(schedule, case.ag, stamps).rows)
        gaps = [pause.us for pause in pauses if not pause.posted and not pause.received]
        points[PointKey("host.gap", *deployment)][0.0] += gaps
        gap = trimmed_mean(gaps)
        posting = [
            max((pause.us - gap) / pause.posted, _MIN_POST_US)
            for pause in pauses
            if pause.posted and not pause.received
        ]
        size = costs.transfer_bytes(int(tokens))
        points[PointKey("host.post", *deployment)][size] += posting
        post = trimmed_mean(posting)
        for pause in pauses:
            if pause.received:
                receipt = max((pause.us - gap - pause.posted * post) / pause.received, 0.0)
                points[PointKey("host.receive", *deployment)][0.0].append(receipt)


def _pauses(schedule: Schedule, rows: pd.DataFrame) -> list[_Pause]:
    """The pauses of all ranks of a run."""
    pauses: list[_Pause] = []
    for group in ("AG", "EG"):
        for rank in sorted(rows.loc[rows["stream"] == group, "rank"].unique()):
            pauses += _pauses_of_rank(schedule, group, rows[rows["rank"] == rank])
    return pauses


def _pauses_of_rank(schedule: Schedule, group: str, rows: pd.DataFrame) -> Iterator[_Pause]:
    posts = schedule.posts_after
    starts = dict(zip(rows["task"], rows["start_us"], strict=True))
    ends = dict(zip(rows["task"], rows["end_us"], strict=True))
    delay_of = delays(schedule, group, starts, ends)
    for last, task in pairwise(schedule.streams[group]):
        delay = delay_of[task.name]
        if not delay.waited:
            received = sum(schedule[name].kind.is_transfer for name in task.after)
            yield _Pause(len(posts.get(last.name, ())), received, delay.us)
