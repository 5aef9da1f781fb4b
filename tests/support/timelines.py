"""Timelines as Hypothesis draws them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from schedules import findep

from simdep.timeline import Timeline

findep_schedules = st.builds(
    findep,
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["ASAS", "AASS"]),
    shared=st.booleans(),
)


@st.composite
def measured_timelines(draw: st.DrawFn, times: st.SearchStrategy[Any]) -> Timeline:
    """A timeline of one to three ranks whose times know nothing of streams or dependencies."""
    schedule = draw(findep_schedules)
    ranks = range(draw(st.integers(1, 3)))
    rows = []
    for task in schedule:
        for rank in ranks:
            start = draw(times)
            rows.append((task.name, rank, start, start + abs(draw(times))))
    return Timeline.from_times(schedule, "real", rows)
