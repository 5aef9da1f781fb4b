"""A trace keeps every row and every dependency of its timelines."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import findep, naive
from timelines import findep_schedules, measured_timelines

from simdep.costs import StageTimes
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.engine import simulate_schedule
from simdep.timeline import Timeline
from simdep.traces.export import save_timelines
from simdep.traces.perfetto import chrome_trace
from simdep.traces.table import read_timeline

whole_times = st.integers(1, 1000)


any_times = st.one_of(st.integers(0, 3), st.floats(0, 1e4))


def stage_times(times: st.SearchStrategy[Any]) -> st.SearchStrategy[StageTimes]:
    return st.builds(StageTimes, attention=times, shared=times, a2e=times, expert=times, e2a=times)


def slices(trace: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


def arrows(trace: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of slices that an arrow joins, found by the thread and the instant at which its two
    ends stand."""
    at = {(each["pid"], each["tid"], each["ts"]): each for each in slices(trace)}
    ends: dict[int, dict[str, Any]] = {}
    for event in trace["traceEvents"]:
        if event["ph"] in "sf":
            ends.setdefault(event["id"], {})[event["ph"]] = at[
                event["pid"], event["tid"], event["ts"]
            ]
    return [(end["s"], end["f"]) for end in ends.values()]


def lanes(trace: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for each in slices(trace):
        found.setdefault(each["tid"], []).append(each)
    return found


def ns(us: float) -> int:
    assert abs(us * 1000 - round(us * 1000)) < 1e-3, f"{us} us is not in whole nanoseconds"
    return round(us * 1000)


def two_ranks(times: dict[str, list[tuple[float, float]]], schedule: Schedule) -> Timeline:
    rows = [(name, rank, *span) for name, spans in times.items() for rank, span in enumerate(spans)]
    return Timeline.from_times(schedule, "real", rows)


@settings(deadline=None)
@given(schedule=findep_schedules, costs=stage_times(any_times))
def test_a_simulated_timeline_has_one_arrow_for_every_dependency(
    schedule: Schedule, costs: StageTimes
) -> None:
    """The pairs of slices that arrows join are exactly the pairs (name in after, task), each
    once."""
    drawn = Counter(
        (tail["name"], head["name"])
        for tail, head in arrows(chrome_trace(simulate_schedule(schedule, costs)))
    )
    assert drawn == Counter((needed, task.name) for task in schedule for needed in task.after)


@settings(deadline=None)
@given(timeline=measured_timelines(st.one_of(st.integers(0, 5), st.floats(0, 1e3))))
def test_every_row_has_an_arrow_from_every_task_it_waits_for(timeline: Timeline) -> None:
    """Also where several ranks took part, and where the measured times contradict streams and
    dependencies."""
    drawn = Counter(
        (tail["name"], head["name"], head["args"]["rank"])
        for tail, head in arrows(chrome_trace(timeline))
    )
    rows = zip(timeline.rows["task"], timeline.rows["rank"], strict=True)
    assert drawn == Counter(
        (needed, name, rank) for name, rank in rows for needed in timeline.schedule[name].after
    )


@settings(deadline=None)
@given(
    timeline=st.one_of(
        measured_timelines(any_times),
        st.builds(simulate_schedule, findep_schedules, stage_times(any_times)),
    )
)
def test_slices_of_a_thread_neither_overlap_nor_begin_together(timeline: Timeline) -> None:
    """In whole nanoseconds, whatever the times; and a thread is one lane."""
    for lane in lanes(chrome_trace(timeline)).values():
        assert len({(each["args"]["stream"], each["args"]["rank"]) for each in lane}) == 1
        spans = [(ns(each["ts"]), ns(each["ts"]) + ns(each["dur"])) for each in lane]
        for (start, end), (next_start, _) in pairwise(spans):
            assert start < next_start
            assert end <= next_start


@settings(deadline=None)
@given(
    timeline=st.one_of(
        measured_timelines(any_times),
        st.builds(simulate_schedule, findep_schedules, stage_times(any_times)),
    )
)
def test_the_file_holds_each_slice_before_its_arrow_ends_and_each_tail_before_its_head(
    timeline: Timeline,
) -> None:
    """Perfetto keeps file order at equal times, so this order decides what binds to what."""
    events = [event for event in chrome_trace(timeline)["traceEvents"] if event["ph"] != "M"]
    assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)
    begun: set[tuple[int, float]] = set()
    tails: set[int] = set()
    for event in events:
        if event["ph"] == "X":
            begun.add((event["tid"], event["ts"]))
            continue
        assert (event["tid"], event["ts"]) in begun
        assert event["ph"] == "s" or event["id"] in tails
        tails.add(event["id"])


@settings(deadline=None)
@given(schedule=findep_schedules, costs=stage_times(whole_times))
def test_a_simulated_timeline_keeps_all_its_times(schedule: Schedule, costs: StageTimes) -> None:
    """Slices have the starts and ends of the rows, none is moved, and durations add up to the busy
    time."""
    timeline = simulate_schedule(schedule, costs)
    trace = chrome_trace(timeline)
    shown = {each["name"]: (each["ts"], each["ts"] + each["dur"]) for each in slices(trace)}
    rows = timeline.rows
    assert shown == {
        name: (start, end)
        for name, start, end in zip(rows["task"], rows["start_us"], rows["end_us"], strict=True)
    }
    assert sum(each["dur"] for each in slices(trace)) == sum(costs(task) for task in schedule)
    assert trace["metadata"]["timelines"][0]["rows_moved"] == 0


def test_ids_are_unique_over_all_timelines_and_heads_bind_to_the_enclosing_slice() -> None:
    timeline = simulate_schedule(findep(2, 2, 2), lambda task: 3)
    events = chrome_trace(timeline, timeline)["traceEvents"]
    for ph in "sf":
        ids = [event["id"] for event in events if event["ph"] == ph]
        assert len(ids) == len(set(ids)) == 2 * sum(len(task.after) for task in timeline.schedule)
    assert {event.get("bp") for event in events if event["ph"] == "f"} == {"e"}


def test_a_trace_starts_at_zero_and_counts_whole_nanoseconds() -> None:
    schedule = Schedule({"AG": (Task(Kind.ATTENTION, 0, 0), Task(Kind.ATTENTION, 0, 1))})
    timeline = Timeline.from_times(
        schedule, "real", [("A[0.0]", 0, 7e9, 7e9 + 1.0004), ("A[0.1]", 0, 7e9 + 1.5, 8e9)]
    )
    trace = chrome_trace(timeline)
    assert [(each["ts"], each["dur"]) for each in slices(trace)] == [(0.0, 1.0), (1.5, 999999998.5)]
    assert trace["metadata"]["timelines"][0]["base_us"] == 7e9


def test_predicted_and_measured_are_processes_with_a_thread_a_track_in_stream_order() -> None:
    predicted = simulate_schedule(naive(1), lambda task: 2)
    rows = [
        (name, rank, start, end)
        for name, rank, start, end in predicted.rows[
            ["task", "rank", "start_us", "end_us"]
        ].itertuples(index=False)
    ]
    real = Timeline.from_times(predicted.schedule, "real", [*rows, ("E[0.0.0]", 1, 6, 8)])
    named: dict[int, list[tuple[str, str]]] = {}
    for event in chrome_trace(predicted, real)["traceEvents"]:
        if event["name"] in ("process_name", "thread_name"):
            named.setdefault(event["pid"], []).append((event["name"], event["args"]["name"]))
    assert [name for _, name in named[1]] == ["predicted", "AG", "A2E", "EG", "E2A"]
    assert [name for _, name in named[2]] == ["measured", "AG", "A2E", "EG 0", "EG 1", "E2A"]
    assert [kind for kind, _ in named[1]] == ["process_name"] + 4 * ["thread_name"]


def test_threads_and_processes_carry_their_order_and_no_thread_has_the_number_of_a_process() -> (
    None
):
    timeline = simulate_schedule(naive(1), lambda task: 2)
    events = chrome_trace(timeline, timeline)["traceEvents"]
    order = [
        event["args"]["sort_index"] for event in events if event["name"] == "thread_sort_index"
    ]
    assert order == sorted(set(order))
    threads = {event["tid"] for event in events if event["ph"] == "X"}
    assert len(threads) == 8
    assert not threads & {event["pid"] for event in events}


def test_several_timelines_of_one_source_are_numbered() -> None:
    timeline = simulate_schedule(naive(1), lambda task: 2)
    notes = chrome_trace(timeline, timeline)["metadata"]["timelines"]
    assert [note["process"] for note in notes] == ["predicted 1", "predicted 2"]


def test_a_slice_says_what_it_is() -> None:
    trace = chrome_trace(simulate_schedule(findep(1, 1, 2, shared=False), lambda task: 2))
    by_name = {each["name"]: each for each in slices(trace)}
    assert by_name["A[0.0]"]["cat"] == "attention"
    assert by_name["A[0.0]"]["args"] == {
        "kind": "attention",
        "layer": 0,
        "mb": 0,
        "tokens": 2,
        "stream": "AG",
        "rank": 0,
    }
    assert by_name["A2E[0.0.1]"]["args"] == {
        "kind": "a2e",
        "layer": 0,
        "mb": 0,
        "chunk": 1,
        "tokens": 1,
        "stream": "A2E",
        "rank": 0,
        "Collective name": "a2e",
        "Dst Rank": 0,
    }
    assert (trace["schemaVersion"], trace["displayTimeUnit"]) == (1, "ms")
    assert trace["traceName"] == "findep ASAS r1=1 r2=2"


def test_an_arrow_comes_from_the_same_rank_or_another_groups_rank_that_ended_last() -> None:
    times = {
        "A[0.0]": [(0, 5), (0, 9)],
        "S[0.0]": [(5, 6), (9, 10)],
        "A2E[0.0.0]": [(9, 12), (9, 20)],
        "E[0.0.0]": [(20, 30), (20, 29)],
        "E2A[0.0.0]": [(30, 31), (30, 32)],
    }
    schedule = findep(1, 1, 1)
    drawn = {
        (head["name"], head["args"]["rank"]): (tail["name"], tail["args"]["rank"])
        for tail, head in arrows(chrome_trace(two_ranks(times, schedule)))
    }
    assert drawn == {
        ("S[0.0]", 0): ("A[0.0]", 0),
        ("S[0.0]", 1): ("A[0.0]", 1),
        ("A2E[0.0.0]", 0): ("A[0.0]", 1),  # every sender must have sent: the last one counts
        ("A2E[0.0.0]", 1): ("A[0.0]", 1),
        ("E[0.0.0]", 0): ("A2E[0.0.0]", 0),
        ("E[0.0.0]", 1): ("A2E[0.0.0]", 1),
        ("E2A[0.0.0]", 0): ("E[0.0.0]", 0),
        ("E2A[0.0.0]", 1): ("E[0.0.0]", 0),
    }


def test_receives_posted_early_are_shown_one_after_the_other_and_keep_their_own_times() -> None:
    schedule = findep(1, 1, 2, shared=False)
    rows = [
        ("A[0.0]", 0, 2, 10),
        ("A2E[0.0.0]", 0, 0, 12),
        ("A2E[0.0.1]", 0, 0, 14),
        ("E[0.0.0]", 0, 12, 13),
        ("E[0.0.1]", 0, 14, 15),
        ("E2A[0.0.0]", 0, 13, 14),
        ("E2A[0.0.1]", 0, 15, 16),
    ]
    trace = chrome_trace(Timeline.from_times(schedule, "real", rows))
    shown = {each["name"]: each for each in slices(trace)}
    first, second = shown["A2E[0.0.0]"], shown["A2E[0.0.1]"]
    assert (first["ts"], first["dur"]) == (2.0, 10.0)  # from the start of the task that sends
    assert (second["ts"], second["dur"]) == (12.0, 2.0)  # from the end of the receive before it
    assert (second["args"]["row_start_us"], second["args"]["row_end_us"]) == (0.0, 14.0)
    assert "row_start_us" not in shown["E[0.0.1]"]["args"]
    assert trace["metadata"]["timelines"][0]["rows_moved"] == 2


def test_tasks_of_no_duration_are_a_nanosecond_apart() -> None:
    timeline = simulate_schedule(
        findep(1, 2, 1), StageTimes(attention=1, shared=0, a2e=1, expert=1, e2a=1)
    )
    shown = {each["name"]: (each["ts"], each["dur"]) for each in slices(chrome_trace(timeline))}
    assert shown["S[0.0]"] == (1.0, 0.0)
    assert shown["A[0.1]"] == (1.001, 0.999)


def test_an_empty_timeline_makes_a_trace_without_slices(tmp_path: Path) -> None:
    timeline = Timeline.from_times(Schedule({}), "sim", [])
    assert slices(chrome_trace(timeline)) == []
    save_timelines(tmp_path / "t.csv", timeline)
    assert len(read_timeline(tmp_path / "t.csv", timeline.schedule, "sim").rows) == 0
