"""Where the time goes: splits are complete, causes of idle time are those of every moment."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios import varied_us
from strategies import policy_schedules, random_schedules, with_shared

from simdep.analysis.idle import attribution, idle_by_cause
from simdep.analysis.summary import critical_path, streams
from simdep.costs import Costs, HostOverheads, StageTimes
from simdep.policies import build
from simdep.scenario.imbalance import Ranks, Straggler
from simdep.schedule import Kind, Schedule, Task, track
from simdep.simulation.engine import simulate_schedule
from simdep.simulation.rank_costs import RankCosts
from simdep.simulation.rank_work import rank_work
from simdep.timeline import Timeline


def ranks(times: StageTimes, factor: int, shape: tuple[int, int, int]) -> tuple[Schedule, Costs]:
    stragglers = (Straggler("EG", 1, factor),)
    return rank_work(
        build("findep", *shape), 2, 2, Ranks(stragglers=stragglers), RankCosts.of_stages(times)
    ).expand()


def causes_moment_by_moment(timeline: Timeline) -> dict[str, dict[str, float]]:
    """Idle time by cause, every microsecond of every stream looked at on its own (varied_us
    times, a row a task)."""
    schedule, rows = timeline.schedule, timeline.by_task()
    start, end = rows["start_us"].to_dict(), rows["end_us"].to_dict()
    found: dict[str, dict[str, float]] = {}

    def cause(tasks: tuple[Task, ...], now: int) -> str | None:
        left = [
            task
            for task in tasks
            if end[task.name] > now or (start[task.name] == end[task.name] > now)
        ]
        if any(start[task.name] <= now < end[task.name] for task in tasks):
            return None
        begun = [task for task in tasks if start[task.name] <= now]
        if not begun:
            return "warm-up"
        if not left:
            return "drain"
        head = next(task for task in tasks if start[task.name] > now)
        later = tasks[tasks.index(head) + 1 :]
        if any(end[t.name] > start[t.name] and all(end[n] <= now for n in t.after) for t in later):
            return "order"
        name, slow = head.name, False
        while True:
            before = [each for each in schedule.predecessors[name] if end[each] > now]
            if not before:
                return "host"
            last = max(before, key=lambda each: end[each])
            same = [
                each
                for each in schedule.predecessors[name]
                if replace(schedule[each], rank=None, after=(), tokens=1)
                == replace(schedule[last], rank=None, after=(), tokens=1)
            ]
            whose = [
                (schedule.stream_of[each][:2] == "AG", schedule[each].rank)
                for each in (last, head.name)
            ]
            slow = slow or (whose[0] != whose[1] and min(end[each] for each in same) <= now)
            if start[last] <= now:
                return "another rank" if slow else schedule[last].kind.label
            name = last

    several = {
        resource: sum(track(name)[0] == resource for name in schedule.streams) > 1
        for resource in schedule.resources
    }
    for stream, tasks in schedule.streams.items():
        if not tasks:
            continue
        name = stream if several[track(stream)[0]] else track(stream)[0]
        causes = found.setdefault(name, {})
        for now in range(int(min(start.values())), int(max(end.values()))):
            why = cause(tasks, now)
            if why:
                causes[why] = causes.get(why, 0) + 1
    return found


@settings(max_examples=200)
@given(policy_schedules() | random_schedules())
def test_the_critical_path_sums_to_the_makespan(schedule: Schedule) -> None:
    timeline = simulate_schedule(schedule, varied_us)
    shares = attribution(timeline)
    assert sum(share.us for share in shares) == timeline.makespan_us
    assert all(share.kind != "host" for share in shares)
    assert sum(share.tasks for share in shares) == len(critical_path(timeline))


@settings(max_examples=150)
@given(policy_schedules(), st.integers(0, 5), st.integers(0, 3), st.booleans())
def test_what_hosts_add_to_the_critical_path_is_a_part_of_its_own(
    schedule: Schedule, gap: int, receive: int, half: bool
) -> None:
    host = HostOverheads(gap_us=gap, receive_us=receive, post_us=lambda task: 2, half_duplex=half)
    timeline = simulate_schedule(schedule, varied_us, host)
    assert sum(share.us for share in attribution(timeline)) == timeline.makespan_us
    for stream, causes in idle_by_cause(timeline).items():
        assert sum(causes.values()) == streams(timeline)[stream]["bubble_us"]


@settings(max_examples=200)
@given(policy_schedules() | random_schedules())
def test_causes_of_idle_time_are_those_of_every_moment(schedule: Schedule) -> None:
    timeline = simulate_schedule(schedule, varied_us)
    found = idle_by_cause(timeline)
    assert found == causes_moment_by_moment(timeline)
    for stream, causes in found.items():
        assert sum(causes.values()) == streams(timeline)[stream]["bubble_us"]


@settings(max_examples=50)
@given(with_shared, st.integers(1, 3), st.sampled_from([(1, 2, 2), (2, 2, 1), (2, 1, 2)]))
def test_causes_of_every_rank_are_those_of_every_moment(
    times: StageTimes, factor: int, shape: tuple[int, int, int]
) -> None:
    schedule, costs = ranks(times, factor, shape)
    timeline = simulate_schedule(schedule, costs)
    assert idle_by_cause(timeline) == causes_moment_by_moment(timeline)
    assert sum(share.us for share in attribution(timeline)) == timeline.makespan_us


def test_the_fast_rank_waits_for_the_slow_one() -> None:
    """EG rank 1 takes 30 for 10: E2A@0 is ready 20 before E2A@1, and the AG waits for both."""
    schedule, costs = ranks(StageTimes(attention=5, expert=10, a2e=2, e2a=1), 3, (2, 1, 1))
    found = idle_by_cause(simulate_schedule(schedule, costs))
    assert found["AG@0"] == {"a2e": 2, "expert": 11, "another rank": 20, "drain": 33}
    assert found["EG@0"]["another rank"] == 20
    assert "another rank" not in found["EG@1"]


def test_a_pipeline_warms_up_and_drains() -> None:
    """A S on the AG, one chunk, one layer: everything in sequence."""
    found = idle_by_cause(
        simulate_schedule(
            build("naive", 1), StageTimes(attention=5, shared=2, a2e=3, expert=7, e2a=1)
        )
    )
    assert found == {
        "AG": {"drain": 11},
        "A2E": {"warm-up": 7, "drain": 8},
        "EG": {"warm-up": 10, "drain": 1},
        "E2A": {"warm-up": 17},
    }


def test_a_head_that_is_not_ready_holds_up_what_is() -> None:
    """AASS: S0 is ready from the start on but stands behind A1, which a long A2E holds up."""
    first, last = Task(Kind.ATTENTION, 0, 0), Task(Kind.SHARED, 0, 0, after=("A[0.0]",))
    send = Task(Kind.A2E, 0, 0, 0, after=("A[0.0]",))
    held = Task(Kind.ATTENTION, 0, 1, after=("A2E[0.0.0]",))
    timeline = simulate_schedule(
        Schedule({"AG": (first, held, last), "A2E": (send,)}),
        StageTimes(1, 0, a2e=6, e2a=0, shared=4),
    )
    assert idle_by_cause(timeline)["AG"] == {"order": 6}
