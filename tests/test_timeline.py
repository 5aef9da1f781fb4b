"""Timelines: the table made of times, the rows of a task joined, lanes, unions of intervals."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedules import findep, naive

from simdep.costs import StageTimes
from simdep.simulation.engine import simulate_schedule
from simdep.timeline import COLUMNS, Timeline, length, union

# Two ranks a group: attention and experts compute, a transfer is seen by both ranks that receive.
TWO_RANKS = [
    ("A[0.0]", 0, 0, 10),
    ("A[0.0]", 1, 2, 13),
    ("A2E[0.0.0]", 0, 0, 20),
    ("A2E[0.0.0]", 1, 14, 19),
    ("E[0.0.0]", 0, 20, 30),
    ("E[0.0.0]", 1, 19, 28),
    ("E2A[0.0.0]", 0, 5, 40),
    ("E2A[0.0.0]", 1, 30, 39),
]


def two_ranks() -> Timeline:
    return Timeline.from_times(naive(1, shared=False), "real", TWO_RANKS)


# The table


def test_a_row_holds_its_task_its_stream_and_its_times() -> None:
    rows = two_ranks().rows
    assert tuple(rows.columns) == COLUMNS
    assert rows.query("task == 'E[0.0.0]' and rank == 1").values.tolist() == [
        ["E[0.0.0]", "expert", 0, 0, 0, "EG", 1, 1, 19, 28]
    ]


def test_a_task_that_is_not_chunked_has_chunk_minus_one() -> None:
    rows = simulate_schedule(findep(1, 1, 2), StageTimes(1, 1, 1, 1, 1)).rows
    assert dict(zip(rows.task, rows.chunk, strict=True))["S[0.0]"] == -1
    assert dict(zip(rows.task, rows.chunk, strict=True))["E[0.0.1]"] == 1


def test_rows_stand_in_order_of_start_then_end() -> None:
    rows = Timeline.from_times(naive(1, shared=False), "real", TWO_RANKS[::-1]).rows
    pairs = list(zip(rows.start_us, rows.end_us, strict=True))
    assert pairs == sorted(pairs)
    assert list(rows.index) == list(range(len(rows)))


def test_rows_of_equal_times_keep_the_order_in_which_they_came() -> None:
    names = [task.name for task in naive(1)]
    timeline = Timeline.from_times(naive(1), "sim", [(name, 0, 0, 0) for name in reversed(names)])
    assert list(timeline.rows.task) == names[::-1]


def test_a_task_without_a_time_is_our_own_mistake_and_is_named() -> None:
    with pytest.raises(AssertionError, match=r"^no time for E2A\[0\.0\.0\]$"):
        Timeline.from_times(naive(1, shared=False), "real", TWO_RANKS[:-2])


def test_a_timeline_remembers_its_schedule_its_source_and_its_meta() -> None:
    timeline = Timeline.from_times(naive(1, shared=False), "real", TWO_RANKS, {"host": "here"})
    assert (timeline.schedule, timeline.source, timeline.meta) == (
        naive(1, shared=False),
        "real",
        {"host": "here"},
    )


def test_makespan_lasts_from_the_first_start_to_the_last_end() -> None:
    late = [(name, rank, start + 100, end + 100) for name, rank, start, end in TWO_RANKS]
    assert two_ranks().makespan_us == 40
    assert Timeline.from_times(naive(1, shared=False), "real", late).makespan_us == 40


def test_makespan_is_whole_for_whole_times_and_a_float_otherwise() -> None:
    halves = [(name, rank, start / 2, end / 2) for name, rank, start, end in TWO_RANKS]
    assert type(two_ranks().makespan_us) is int
    assert type(Timeline.from_times(naive(1, shared=False), "real", halves).makespan_us) is float


# The rows of a task joined


def test_computation_lasts_from_the_earliest_start_to_the_latest_end_over_its_ranks() -> None:
    joined = two_ranks().by_task()
    assert tuple(joined.loc["A[0.0]", ["start_us", "end_us"]]) == (0, 13)
    assert tuple(joined.loc["E[0.0.0]", ["start_us", "end_us"]]) == (19, 30)


def test_a_transfer_lasts_from_the_latest_start_to_the_latest_end_over_its_ranks() -> None:
    joined = two_ranks().by_task()
    assert tuple(joined.loc["A2E[0.0.0]", ["start_us", "end_us"]]) == (14, 20)
    assert tuple(joined.loc["E2A[0.0.0]", ["start_us", "end_us"]]) == (30, 40)


def test_joining_the_rows_leaves_the_table_as_it_was() -> None:
    timeline = two_ranks()
    before = timeline.rows.copy()
    timeline.by_task()
    assert timeline.rows.equals(before)


def test_with_one_rank_the_joined_rows_are_the_rows() -> None:
    timeline = simulate_schedule(findep(2, 2, 2), StageTimes(5, 3, 1, 2, 4))
    assert timeline.by_task().reset_index().equals(timeline.rows.drop(columns="rank"))


# Lanes


def test_lanes_are_the_ranks_of_every_stream_in_the_order_of_the_schedule() -> None:
    lanes = [
        ("AG", 0),
        ("AG", 1),
        ("A2E", 0),
        ("A2E", 1),
        ("EG", 0),
        ("EG", 1),
        ("E2A", 0),
        ("E2A", 1),
    ]
    assert two_ranks().tracks() == lanes


def test_a_stream_that_served_nothing_has_no_lane() -> None:
    assert simulate_schedule(naive(1), StageTimes(1, 1, 1, 1, 1)).tracks() == [
        ("AG", 0),
        ("A2E", 0),
        ("EG", 0),
        ("E2A", 0),
    ]


# Unions of intervals


def joined(*intervals: tuple[int, int]) -> list[tuple[int, int]]:
    starts, ends = np.array(intervals, dtype=int).reshape(-1, 2).T
    return list(zip(*(side.tolist() for side in union(starts, ends)), strict=True))


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([], []),
        ([(3, 5)], [(3, 5)]),
        ([(3, 5), (0, 2)], [(0, 2), (3, 5)]),
        ([(0, 2), (2, 4)], [(0, 4)]),
        ([(0, 9), (1, 2), (5, 6)], [(0, 9)]),
        ([(0, 9), (1, 2), (9, 10), (12, 13)], [(0, 10), (12, 13)]),
        ([(1, 1), (1, 1)], [(1, 1)]),
    ],
)
def test_overlapping_and_touching_intervals_become_one(
    intervals: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    assert joined(*intervals) == expected


spans = st.tuples(st.integers(0, 40), st.integers(0, 9)).map(lambda pair: (pair[0], sum(pair)))


@given(st.lists(spans, max_size=8))
def test_a_union_covers_just_what_its_intervals_cover(intervals: list[tuple[int, int]]) -> None:
    """Cell by cell of a grid, and in disjoint pieces with gaps between them, in order."""
    pieces = joined(*intervals)
    assert {cell for piece in pieces for cell in range(*piece)} == {
        c for span in intervals for c in range(*span)
    }
    assert all(end < start for (_, end), (start, _) in pairwise(pieces))


@given(st.lists(spans, max_size=8))
def test_the_length_of_a_union_counts_every_cell_once(intervals: list[tuple[int, int]]) -> None:
    """length(union(...)) is the number of cells of a grid that are covered."""
    starts, ends = np.array(intervals, dtype=int).reshape(-1, 2).T
    assert length(union(starts, ends)) == len({cell for span in intervals for cell in range(*span)})


def test_a_union_leaves_its_arguments_as_they_were() -> None:
    starts, ends = np.array([5, 0]), np.array([6, 9])
    union(starts, ends)
    assert (starts.tolist(), ends.tolist()) == ([5, 0], [6, 9])
