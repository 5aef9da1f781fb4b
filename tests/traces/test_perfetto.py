"""A trace keeps every row and every dependency of its timelines, and the table reads back exactly
as it was."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simdep.costs import StageTimes
from simdep.policies import findep, naive
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.engine import simulate
from simdep.timeline import COLUMNS, Timeline
from simdep.traces.perfetto import chrome_trace, read_table, write

schedules = st.builds(
    findep,
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["ASAS", "AASS"]),
    shared=st.booleans(),
)
whole_times = st.integers(1, 1000)
any_times = st.one_of(st.integers(0, 3), st.floats(0, 1e4))


def stage_times(times: st.SearchStrategy[Any]) -> st.SearchStrategy[StageTimes]:
    return st.builds(StageTimes, attention=times, shared=times, a2e=times, expert=times, e2a=times)


@st.composite
def measured(draw: st.DrawFn, times: st.SearchStrategy[Any]) -> Timeline:
    """A timeline of one to three ranks whose times know nothing of streams or dependencies."""
    schedule = draw(schedules)
    ranks = range(draw(st.integers(1, 3)))
    rows = []
    for task in schedule:
        for rank in ranks:
            start = draw(times)
            rows.append((task.name, rank, start, start + abs(draw(times))))
    return Timeline.from_times(schedule, "real", rows)


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


@settings(deadline=None, max_examples=50)
@given(timeline=measured(st.one_of(st.floats(-1e15, 1e15), st.integers(-(10**15), 10**15))))
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_any_times_reads_back_exactly(suffix: str, timeline: Timeline) -> None:
    """read_table(write(timeline)) has the same rows in the same order with the same types, to the
    last bit."""
    with TemporaryDirectory() as folder:
        path = Path(folder, f"run.of.today{suffix}")
        write(path, timeline)
        back = read_table(path, timeline.schedule, "real")
    pd.testing.assert_frame_equal(back.rows, timeline.rows, check_exact=True)
    assert (back.source, back.schedule) == ("real", timeline.schedule)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_whole_numbers_stay_whole_numbers_in_a_table(tmp_path: Path, suffix: str) -> None:
    timeline = simulate(findep(2, 2, 2), lambda task: 5)
    write(tmp_path / f"t{suffix}", timeline)
    back = read_table(tmp_path / f"t{suffix}", timeline.schedule, "sim")
    assert type(back.makespan_us) is int
    assert back.makespan_us == timeline.makespan_us


def test_a_stream_may_be_called_na(tmp_path: Path) -> None:
    timeline = simulate(Schedule({"NA": (Task(Kind.ATTENTION, 0, 0),)}), lambda task: 1)
    write(tmp_path / "t.csv", timeline)
    pd.testing.assert_frame_equal(
        read_table(tmp_path / "t.csv", timeline.schedule, "sim").rows, timeline.rows
    )


@settings(deadline=None)
@given(schedule=schedules, costs=stage_times(any_times))
def test_a_simulated_timeline_has_one_arrow_for_every_dependency(
    schedule: Schedule, costs: StageTimes
) -> None:
    """The pairs of slices that arrows join are exactly the pairs (name in after, task), each
    once."""
    drawn = Counter(
        (tail["name"], head["name"])
        for tail, head in arrows(chrome_trace(simulate(schedule, costs)))
    )
    assert drawn == Counter((needed, task.name) for task in schedule for needed in task.after)


@settings(deadline=None)
@given(timeline=measured(st.one_of(st.integers(0, 5), st.floats(0, 1e3))))
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
    timeline=st.one_of(measured(any_times), st.builds(simulate, schedules, stage_times(any_times)))
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
    timeline=st.one_of(measured(any_times), st.builds(simulate, schedules, stage_times(any_times)))
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
@given(schedule=schedules, costs=stage_times(whole_times))
def test_a_simulated_timeline_keeps_all_its_times(schedule: Schedule, costs: StageTimes) -> None:
    """Slices have the starts and ends of the rows, none is moved, and durations add up to the busy
    time."""
    timeline = simulate(schedule, costs)
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
    timeline = simulate(findep(2, 2, 2), lambda task: 3)
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


def test_predicted_and_measured_are_two_processes_with_a_thread_a_lane_in_the_order_of_streams() -> (
    None
):
    predicted = simulate(naive(1), lambda task: 2)
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
    timeline = simulate(naive(1), lambda task: 2)
    events = chrome_trace(timeline, timeline)["traceEvents"]
    order = [
        event["args"]["sort_index"] for event in events if event["name"] == "thread_sort_index"
    ]
    assert order == sorted(set(order))
    threads = {event["tid"] for event in events if event["ph"] == "X"}
    assert len(threads) == 8
    assert not threads & {event["pid"] for event in events}


def test_several_timelines_of_one_source_are_numbered() -> None:
    timeline = simulate(naive(1), lambda task: 2)
    notes = chrome_trace(timeline, timeline)["metadata"]["timelines"]
    assert [note["process"] for note in notes] == ["predicted 1", "predicted 2"]


def test_a_slice_says_what_it_is() -> None:
    trace = chrome_trace(simulate(findep(1, 1, 2, shared=False), lambda task: 2))
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


def test_an_arrow_comes_from_the_same_rank_within_a_group_and_else_from_the_rank_that_ended_last() -> (
    None
):
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
    timeline = simulate(findep(1, 2, 1), StageTimes(attention=1, shared=0, a2e=1, expert=1, e2a=1))
    shown = {each["name"]: (each["ts"], each["dur"]) for each in slices(chrome_trace(timeline))}
    assert shown["S[0.0]"] == (1.0, 0.0)
    assert shown["A[0.1]"] == (1.001, 0.999)


def test_json_and_gzipped_json_hold_the_same_trace(tmp_path: Path) -> None:
    timeline = simulate(findep(2, 2, 2), lambda task: 0.1 + task.tokens)
    write(tmp_path / "a.json", timeline)
    write(tmp_path / "A.JSON.GZ", timeline)
    plain = (tmp_path / "a.json").read_bytes()
    assert gzip.decompress((tmp_path / "A.JSON.GZ").read_bytes()) == plain
    assert json.loads(plain) == chrome_trace(timeline)


def test_an_empty_timeline_makes_a_trace_without_slices(tmp_path: Path) -> None:
    timeline = Timeline.from_times(Schedule({}), "sim", [])
    assert slices(chrome_trace(timeline)) == []
    write(tmp_path / "t.csv", timeline)
    assert len(read_table(tmp_path / "t.csv", timeline.schedule, "sim").rows) == 0


@pytest.mark.parametrize("name", ["t.html", "t.gz", "t", "t.json.zip"])
def test_an_unknown_suffix_is_refused_with_the_choices(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rule = f"{path}: suffix {path.suffix!r} is not one of .json, .json.gz, .csv, .parquet"
    with pytest.raises(ValueError, match=f"^{re.escape(rule)}$"):
        write(path, simulate(naive(1), lambda task: 2))
    assert not path.exists()


def test_a_trace_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"t\.json: suffix '\.json' is not one of \.csv, \.parquet$"
    ):
        read_table(tmp_path / "t.json", naive(1), "sim")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_holds_one_timeline(tmp_path: Path, suffix: str) -> None:
    timeline = simulate(naive(1), lambda task: 2)
    with pytest.raises(
        ValueError,
        match=rf"t{suffix}: {suffix} holds one timeline, not 2; write \.json for several$",
    ):
        write(tmp_path / f"t{suffix}", timeline, timeline)


def test_nothing_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"t\.json: there is no timeline to write; give at least one$"
    ):
        write(tmp_path / "t.json")


BAD_CELLS = [
    ("task", "A[9.9]", "row 2 (A[9.9]): task=A[9.9]; the schedule has no task of that name"),
    ("kind", "expert", "row 2 (S[0.0]): kind=expert; the task has another kind in the schedule"),
    ("layer", 1, "row 2 (S[0.0]): layer=1; the task has another layer in the schedule"),
    ("chunk", 0, "row 2 (S[0.0]): chunk=0; the task has another chunk in the schedule"),
    ("stream", "EG", "row 2 (S[0.0]): stream=EG; the task has another stream in the schedule"),
    ("tokens", 4, "row 2 (S[0.0]): tokens=4; the task has another tokens in the schedule"),
    ("rank", -1, "row 2 (S[0.0]): rank=-1; ranks are whole numbers from 0"),
    ("rank", 0.5, "row 2 (S[0.0]): rank=0.5; ranks are whole numbers from 0"),
    ("start_us", float("nan"), "row 2 (S[0.0]): start_us=nan; a time is a finite number"),
    ("end_us", float("inf"), "row 2 (S[0.0]): end_us=inf; a time is a finite number"),
    ("end_us", 1, "row 2 (S[0.0]): end_us=1; a task ends at or after its start_us"),
]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(("column", "value", "message"), BAD_CELLS)
def test_a_bad_cell_is_refused_with_file_row_value_and_rule(
    tmp_path: Path, suffix: str, column: str, value: Any, message: str
) -> None:
    timeline = simulate(naive(1), lambda task: 2)
    path = tmp_path / f"t{suffix}"
    rows = timeline.rows.copy()
    rows[column] = [value if number == 1 else cell for number, cell in enumerate(rows[column])]
    write(path, Timeline(timeline.schedule, "sim", rows))
    with pytest.raises(
        ValueError,
        match="^"
        + re.escape(f"{path}: {message}").replace("=1;", r"=1(\.0)?;").replace("=nan", "=(nan)?")
        + "$",
    ):
        read_table(path, timeline.schedule, "sim")


def test_a_cell_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv")
    path.write_text(path.read_text().replace(",2,4\n", ",soon,4\n", 1))
    with pytest.raises(
        ValueError, match=r"t\.csv: row 2 \(S\[0\.0\]\): start_us=soon; a time is a finite number$"
    ):
        read_table(path, naive(1), "sim")


def test_a_row_that_appears_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv")
    path.write_text(path.read_text() + path.read_text().splitlines()[3] + "\n")
    with pytest.raises(
        ValueError,
        match=r"row 6 \(A2E\[0\.0\.0\]\): rank=0; the task has a row of this rank already$",
    ):
        read_table(path, naive(1), "sim")


def test_a_task_without_a_row_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(
        ValueError,
        match=r"t\.csv: there is no row for E2A\[0\.0\.0\]; every task of the schedule has",
    ):
        read_table(path, naive(1), "sim")


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_refused_by_name(tmp_path: Path, column: str) -> None:
    path = written(tmp_path / "t.csv")
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(
        ValueError,
        match=rf"t\.csv: column {column} is missing; a timeline has the columns task, kind,",
    ):
        read_table(path, naive(1), "sim")


def test_further_columns_are_ignored(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv")
    pd.read_csv(path).assign(note="warm").to_csv(path, index=False)
    assert list(read_table(path, naive(1), "sim").rows) == list(COLUMNS)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00nonsense"])
def test_a_file_that_is_absent_or_no_table_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: "):
        read_table(path, naive(1), "sim")


def written(path: Path) -> Path:
    write(path, simulate(naive(1), lambda task: 2))
    return path
