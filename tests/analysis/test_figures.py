"""Figures: what is drawn, where, and what the HTML page holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from schedules import findep, naive

from simdep.analysis import figures
from simdep.analysis.figures.bars import bars_of as bars_table
from simdep.analysis.figures.bars import joints_of, places_of_tracks
from simdep.analysis.figures.overview import busy_shares, pixel_heights
from simdep.costs import StageTimes
from simdep.schedule import Kind, Schedule
from simdep.simulation.engine import simulate_schedule
from simdep.timeline import Timeline

COSTS = StageTimes(attention=100, shared=30, a2e=20, expert=40, e2a=20)


def measured_like(timeline: Timeline, ranks: int = 2, late_us: float = 0) -> Timeline:
    """The same tasks as measured on several ranks, each a bit longer, by a clock that starts
    elsewhere."""
    rows = timeline.rows[["task", "start_us", "end_us"]].itertuples(index=False)
    times = [
        (task, rank, 5000 + 2 * start, 5000 + 2 * end)
        for task, start, end in rows
        for rank in range(ranks)
    ]
    return Timeline.from_times(
        timeline.schedule, "real", [(t, r, s + late_us, e + late_us) for t, r, s, e in times]
    )


@pytest.fixture
def predicted() -> Timeline:
    return simulate_schedule(findep(2, 2, 2, "AASS"), COSTS)


def drawn(figure: go.Figure) -> pd.DataFrame:
    """Every bar of a figure: trace, track, left edge, width and colour."""
    return pd.concat(
        pd.DataFrame(
            {
                "trace": bar.name,
                "y": bar.y,
                "left": bar.base,
                "width": bar.x,
                "color": bar.marker.color,
            }
        )
        for bar in bars_of(figure)
    )


def bars_of(figure: go.Figure) -> list[go.Bar]:
    return [trace for trace in figure.data if trace.type == "bar"]


def makespans(*pairs: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": f"case {index}",
            "predicted_us": predicted,
            "measured_us": real,
            "ci_low_us": 0.9 * real,
            "ci_high_us": 1.2 * real,
            "error_pct": 100 * (predicted / real - 1),
        }
        for index, (predicted, real) in enumerate(pairs)
    )


def test_lanes_of_a_stream_stand_directly_under_each_other(predicted: Timeline) -> None:
    axis = figures.gantt_chart(predicted, measured_like(predicted)).layout.yaxis
    assert list(axis.ticktext) == ["simulated", "measured rank 0", "measured rank 1"] * 4
    assert list(np.diff(axis.tickvals)) == [1, 1, 1.5] * 3 + [1, 1]
    assert axis.range[0] > axis.range[1]  # the first lane is at the top


def test_a_lane_of_the_only_timeline_needs_no_name(predicted: Timeline) -> None:
    figure = figures.gantt_chart(predicted)
    assert list(figure.layout.yaxis.ticktext) == [""] * 4
    assert [note.text for note in figure.layout.annotations][:4] == [
        f"<b>{s}</b>" for s in predicted.schedule.streams
    ]


def test_titles_name_the_timelines(predicted: Timeline) -> None:
    figure = figures.gantt_chart(predicted, predicted, titles=("before", "after"))
    assert list(figure.layout.yaxis.ticktext) == ["before", "after"] * 4


def test_every_row_is_one_bar_and_every_kind_one_trace(predicted: Timeline) -> None:
    measured = measured_like(predicted)
    figure = figures.gantt_chart(predicted, measured)
    names = [bar.name for bar in bars_of(figure)]
    assert names == ["attention", "shared", "A2E", "expert", "E2A"]
    assert len(drawn(figure)) == len(predicted.rows) + len(measured.rows)
    assert figure.layout.barmode == "overlay"
    assert all(bar.marker.line.width == 0 for bar in bars_of(figure))


def test_every_timeline_starts_at_0(predicted: Timeline) -> None:
    bars = drawn(figures.gantt_chart(predicted, measured_like(predicted, late_us=1e9)))
    assert bars.groupby("y")["left"].min()[[0, 1, 2]].tolist() == [0, 0, 0]


def test_hover_gives_the_task_its_rank_and_its_times_with_unit(predicted: Timeline) -> None:
    bar = bars_of(figures.gantt_chart(predicted))[0]
    assert list(bar.customdata[1]) == ["A[0.1]", 0, 100, 200, 100]
    assert bar.hovertemplate.count("µs") == 3
    assert "attention" in bar.hovertemplate


@pytest.mark.parametrize(("attention", "unit", "end"), [(100, "µs", 230), (1000, "ms", 1.13)])
def test_the_axis_names_the_unit_that_its_numbers_have(
    attention: float, unit: str, end: float
) -> None:
    figure = figures.gantt_chart(simulate_schedule(naive(1), StageTimes(attention, 40, 20, 40, 30)))
    assert figure.layout.xaxis.title.text == f"time since the first start ({unit})"
    assert bars_of(figure)[-1].customdata[0][3] == pytest.approx(end)


def test_the_end_of_every_timeline_is_marked_with_its_makespan(predicted: Timeline) -> None:
    figure = figures.gantt_chart(predicted, measured_like(predicted))
    texts = [note.text for note in figure.layout.annotations]
    span = predicted.makespan_us
    assert f"simulated <b>{span} µs</b>" in texts
    assert f"measured, this run <b>{2 * span / 1000:.4g} ms</b>" in texts


def test_every_kind_has_a_colour_of_its_own() -> None:
    assert set(figures.COLORS) == {kind.label for kind in Kind}
    assert len(set(figures.COLORS.values())) == len(Kind)


def test_a_few_bars_carry_their_number_and_many_do_not(predicted: Timeline) -> None:
    few = figures.gantt_chart(predicted)
    many = figures.gantt_chart(LONG, window_us=(0, LONG.makespan_us / 2))
    assert bars_of(few)[2].text[1] == "0.0.1"
    assert {bar.textposition for bar in bars_of(few)} == {"inside"}
    assert {text for bar in bars_of(many) for text in bar.text} == {""}
    assert "number in a bar" in few.layout.title.subtitle.text
    assert not many.layout.title.subtitle.text


def test_a_receive_posted_early_is_drawn_from_where_its_lane_is_free() -> None:
    """It hovers with its own times."""
    schedule = findep(1, 1, 2, shared=False)
    early = {"A2E[0.0.0]": (50, 120), "A2E[0.0.1]": (60, 140)}
    plain = (
        simulate_schedule(schedule, COSTS)
        .rows[["task", "start_us", "end_us"]]
        .itertuples(index=False)
    )
    times = [(task, 0, *early.get(task, (start, end))) for task, start, end in plain]
    bar = bars_of(figures.gantt_chart(Timeline.from_times(schedule, "real", times)))[1]
    assert list(bar.base) == [50, 120]
    assert list(bar.customdata[1]) == ["A2E[0.0.1]", 0, 60, 140, 80]


def long_timeline() -> Timeline:
    """Of 6,240 tasks: attention, transfers of a hundredth of it, and idle time."""
    return simulate_schedule(findep(60, 4, 8), StageTimes(100, 30, 1.3, 5, 1))


LONG = long_timeline()
LONG_GANTT, LONG_TASKS = figures.Gantt.of(LONG), LONG.by_task()
READY_US = {  # when everything has ended that a task waits for
    task.name: max((LONG_TASKS.end_us[each] for each in task.after), default=0.0)
    for task in LONG.schedule
}


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_a_window_has_the_bars_of_its_tasks_and_no_others(first: float, last: float) -> None:
    low, high = sorted((first * LONG.makespan_us, last * LONG.makespan_us))
    figure = LONG_GANTT.figure((low, high))
    start, end = (1e3 * limit for limit in figure.layout.xaxis.range)
    drawn_tasks = []
    for bar in bars_of(figure):
        names = [task for task, *_ in bar.customdata]
        base, width = np.array(bar.base, float), np.array(bar.x, float)
        times = {"left": 1e3 * base, "right": 1e3 * (base + width)}
        drawn_tasks.append(pd.DataFrame(times, index=names))
    found = pd.concat(drawn_tasks)
    tasks = LONG_TASKS.loc[found.index]
    assert found.index.is_unique
    assert len(found) <= figures.MAX_BARS
    np.testing.assert_allclose(found.left, tasks.start_us, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.right, tasks.end_us, rtol=1e-9, atol=1e-9)
    assert (found.left >= [READY_US[name] * (1 - 1e-12) for name in found.index]).all()
    slack = 1e-9 * LONG.makespan_us
    inside = LONG_TASKS[(LONG_TASKS.start_us < end - slack) & (LONG_TASKS.end_us > start + slack)]
    assert set(inside.index) <= set(found.index)
    assert ((found.left <= end + slack) & (found.right >= start - slack)).all()


def test_a_long_timeline_opens_with_its_first_bars_below_an_overview_of_all() -> None:
    figure = figures.gantt_chart(LONG)
    assert 350 < len(drawn(figure)) <= figures.FIRST_BARS < figures.MAX_BARS < len(LONG.rows)
    assert figure.layout.xaxis.range[0] == 0
    assert figure.layout.xaxis2.range[1] > LONG.makespan_us / 1e3
    frame = next(shape for shape in figure.layout.shapes if shape.name == "window")
    assert (frame.x0, frame.x1) == figure.layout.xaxis.range


def test_a_short_timeline_needs_no_overview(predicted: Timeline) -> None:
    assert "xaxis2" not in figures.gantt_chart(predicted).to_dict()["layout"]


@pytest.mark.parametrize("wanted", [(5.0, 5.0), (9.0, 1.0), (1e12, 2e12)])
def test_a_window_that_shows_nothing_is_the_whole(
    predicted: Timeline, wanted: tuple[float, float]
) -> None:
    figure = figures.gantt_chart(predicted, window_us=wanted)
    assert figure == figures.gantt_chart(predicted)


def busy_us(timeline: Timeline, columns: int) -> np.ndarray:
    """[kind, column]: busy time by summing the overlap of every task with every column."""
    edges = np.linspace(0, timeline.makespan_us, columns + 1)
    kinds = sorted(set(timeline.rows.kind))
    busy = np.zeros((len(kinds), columns))
    for row in timeline.rows.itertuples():
        overlap = np.minimum(edges[1:], row.end_us) - np.maximum(edges[:-1], row.start_us)
        busy[kinds.index(row.kind)] += np.maximum(0, overlap)
    return busy


def test_the_shares_of_an_overview_are_exact() -> None:
    timeline = simulate_schedule(findep(5, 2, 3), COSTS)
    drawn = figures.Drawn.of(timeline)
    places = places_of_tracks([drawn], ["x"])
    kinds = sorted(set(timeline.rows.kind))
    shares = busy_shares(bars_table([drawn], places), kinds, columns=37)
    expected = busy_us(timeline, 37) / (timeline.makespan_us / 37)
    np.testing.assert_allclose(shares.sum(axis=0), expected, atol=1e-9)


@settings(max_examples=200, deadline=None)
@given(arrays(float, (3, 4, 50), elements=st.floats(0, 1)))
def test_whole_pixels_keep_the_area_of_every_kind(shares: np.ndarray) -> None:
    """To a pixel or two over all columns; a column has at most the height of its track."""
    shares /= np.maximum(1, shares.sum(axis=1, keepdims=True))
    heights = pixel_heights(shares, 20)
    assert (heights >= 0).all()
    assert (heights.sum(axis=1) <= 21).all()
    assert np.abs(heights.sum(axis=2) - 20 * shares.sum(axis=2)).max() <= 2


def test_a_track_that_is_always_busy_is_full() -> None:
    shares = np.tile([[[0.815], [0.185]]], (1, 1, 400))
    heights = pixel_heights(shares, 20)
    assert (heights.sum(axis=1) == 20).all()
    np.testing.assert_allclose(heights.mean(axis=2), [[16.3, 3.7]], atol=0.01)


def ends(figure: go.Figure) -> list[tuple[str, float]]:
    """Texts of the ends of timelines, and how many pixels above the chart they stand."""
    notes = [note for note in figure.layout.annotations if note.yref == "y domain"]
    return [(note.text, note.yshift) for note in notes]


def test_the_text_of_every_end_has_a_row_of_its_own(predicted: Timeline) -> None:
    longer = measured_like(predicted)
    figure = figures.gantt_chart(predicted, longer, predicted, titles=tuple("abc"))
    short, late = (
        f"<b>{figures.human_time(timeline.makespan_us)}</b>" for timeline in (predicted, longer)
    )
    assert ends(figure) == [(f"c {short}", 0), (f"b {late}", 16), (f"a {short}", 32)]
    assert sum(shape.type == "line" for shape in figure.layout.shapes) == 3


def test_bars_that_touch_are_joined_under_their_edges() -> None:
    """From the middle of a bar to that of the next one, in runs of a kind."""
    bars = pd.DataFrame(
        {
            "y": [0, 0, 0, 0, 1],
            "kind": ["a", "a", "b", "a", "a"],
            "left": [0.0, 2.0, 4.0, 9.0, 11.0],
            "width": [2.0, 2.0, 4.0, 2.0, 1.0],
        }
    ).assign(end=lambda table: table.left + table.width)
    joints = joints_of(bars)
    assert joints[["y", "kind", "left", "end"]].to_numpy().tolist() == [[0, "a", 1, 6]]


def test_the_unit_can_be_that_of_other_figures(predicted: Timeline) -> None:
    assert figures.gantt_chart(predicted).layout.xaxis.title.text.endswith("(µs)")
    figure = figures.gantt_chart(predicted, unit_us=1e3)
    assert figure.layout.xaxis.title.text.endswith("(ms)")
    assert drawn(figure)["width"].max() < 1


CUTS = pd.DataFrame({"r1": [1, 1, 2, 2], "r2": [1, 2, 1, 2], "us": [4.0, 3.0, 2.5, None]})


def test_a_heat_map_has_a_cell_a_point_and_frames_the_best() -> None:
    figure = figures.heat_map(CUTS, "r2", "r1", "us")
    cells = figure.data[0]
    assert (list(cells.x), list(cells.y)) == (["1", "2"], ["1", "2"])
    assert cells.z[0].tolist() == [4, 3]
    assert np.isnan(cells.z[1][1])
    frame = figure.layout.shapes[0]
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (-0.5, 0.5, 0.5, 1.5)
    assert figures.heat_map(CUTS, "r2", "r1", "us", best="max").layout.shapes[0].y0 == -0.5
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("r2", "r1")


def test_a_heat_map_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="no point to draw has a value"):
        figures.heat_map(CUTS.assign(us=np.nan), "r2", "r1", "us")


def test_lines_are_one_a_value_of_the_other_column() -> None:
    first, second = figures.line_chart(CUTS, "r2", "us", "r1").data
    assert (first.name, list(first.x), list(first.y)) == ("r1 1", [1, 2], [4, 3])
    assert second.name == "r1 2"
    assert first.line.color != second.line.color
    (only,) = figures.line_chart(CUTS.head(2), "r2", "us").data
    assert (only.name, list(only.y)) == ("us", [4, 3])


@pytest.mark.parametrize(
    ("values", "kind"),
    [([1, 10, 100], "log"), ([1, 2, 50], "linear"), (["asas", "aass", "x"], "category")],
)
def test_lines_over_two_decades_have_a_logarithmic_axis(values: list[Any], kind: str) -> None:
    points = pd.DataFrame({"x": values, "us": [1.0, 2.0, 3.0]})
    assert figures.line_chart(points, "x", "us").layout.xaxis.type == kind


def test_labels_are_escaped() -> None:
    plain = naive(1)
    figure = figures.gantt_chart(
        simulate_schedule(Schedule(plain.streams, "<b>&"), COSTS), titles=("<i>",)
    )
    assert figure.layout.title.text == "&lt;b&gt;&amp;"
    assert any("&lt;i&gt;" in note.text for note in figure.layout.annotations)
    assert (
        figures.makespan_scatter(makespans((1, 1)).assign(label="<b>")).data[-1].customdata[0][0]
        == "&lt;b&gt;"
    )


def test_timelines_without_titles_of_their_own_are_refused(predicted: Timeline) -> None:
    with pytest.raises(ValueError, match="1 titles for 2 timelines"):
        figures.gantt_chart(predicted, predicted, titles=("one",))
    with pytest.raises(ValueError, match="0 titles for 0 timelines"):
        figures.gantt_chart()


@pytest.mark.parametrize(("largest", "kind"), [(700, "linear"), (90_000, "log")])
def test_errors_are_drawn_on_logarithmic_axes_when_they_span_more_than_a_decade(
    largest: float, kind: str
) -> None:
    layout = figures.makespan_scatter(makespans((100, 110), (largest, largest))).layout
    assert (layout.xaxis.type, layout.yaxis.type) == (kind, kind)
    assert layout.yaxis.scaleanchor == "x"


def test_a_point_has_its_interval_and_lies_against_diagonal_and_band() -> None:
    lower, upper, diagonal, points = figures.makespan_scatter(
        makespans((100, 200), (300, 400))
    ).data
    assert (list(points.x), list(points.y)) == ([200, 400], [100, 300])
    assert list(points.error_x.array) == pytest.approx([40, 80])
    assert list(points.error_x.arrayminus) == pytest.approx([20, 40])
    assert list(diagonal.x) == list(diagonal.y)
    assert list(lower.y) == pytest.approx(list(0.85 * lower.x))
    assert list(upper.y) == pytest.approx(list(1.15 * upper.x))


def test_errors_of_no_case_are_refused() -> None:
    with pytest.raises(ValueError, match="no cases"):
        figures.makespan_scatter(makespans((1, 1)).head(0))


def test_a_page_holds_all_its_sections_escaped_and_plotly_once(
    tmp_path: Path, predicted: Timeline
) -> None:
    table = pd.DataFrame(
        {
            "name": ["a & b", "<script>alert(1)</script>"],
            "us": [1.5, 12345.678],
            "beta": [1e-8, 0.0],
        }
    )
    sections = [
        figures.Section("One <1>", "A text & more", figure=figures.gantt_chart(predicted)),
        figures.Section("Two", table=table),
        figures.Section("Three", figure=figures.makespan_scatter(makespans((1, 1)))),
    ]
    figures.write_html(tmp_path / "page.html", "Title <x>", sections)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>Title &lt;x&gt;</title>" in page
    assert "<h2>One &lt;1&gt;</h2>" in page
    assert "<p>A text &amp; more</p>" in page
    assert "<td>a &amp; b</td>" in page
    assert '<td class="number">1.50</td><td class="number">1e-08</td>' in page
    assert '<td class="number">12,345.68</td><td class="number">0</td>' in page
    assert "<script>alert" not in page
    assert page.count("Plotly.newPlot(") == 2
    assert 4e6 < len(page) < 8e6  # plotly.js once
    assert page.count('"modeBarButtonsToRemove": ["sendChartToCloud"]') == 2
    assert '<script src="http' not in page


def test_the_same_sections_make_the_same_page(tmp_path: Path, predicted: Timeline) -> None:
    for name in ("a", "b"):
        figures.write_html(
            tmp_path / name, "t", [figures.Section("h", figure=figures.gantt_chart(predicted))]
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
