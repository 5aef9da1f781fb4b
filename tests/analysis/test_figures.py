"""Figures: what is drawn, where, and what the HTML page holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from schedules import findep, naive

from simdep.analysis import figures
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
    """Every bar of a figure: trace, lane, left edge, width and colour."""
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
        for bar in figure.data
    )


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
    assert [bar.name for bar in figure.data] == [
        "attention (A)",
        "shared (S)",
        "A2E",
        "expert (E)",
        "E2A",
    ]
    assert len(drawn(figure)) == len(predicted.rows) + len(measured.rows)
    assert figure.layout.barmode == "overlay"
    assert all(bar.marker.line.width == 0 for bar in figure.data)


def test_every_timeline_starts_at_0(predicted: Timeline) -> None:
    bars = drawn(figures.gantt_chart(predicted, measured_like(predicted, late_us=1e9)))
    assert bars.groupby("y")["left"].min()[[0, 1, 2]].tolist() == [0, 0, 0]


def test_hover_gives_the_task_its_rank_and_its_times_with_unit(predicted: Timeline) -> None:
    bar = figures.gantt_chart(predicted).data[0]
    assert list(bar.customdata[1]) == ["A[0.1]", 0, 100, 200, 100]
    assert bar.hovertemplate.count("µs") == 3
    assert "attention" in bar.hovertemplate


@pytest.mark.parametrize(("attention", "unit", "end"), [(100, "µs", 230), (1000, "ms", 1.13)])
def test_the_axis_names_the_unit_that_its_numbers_have(
    attention: float, unit: str, end: float
) -> None:
    figure = figures.gantt_chart(simulate_schedule(naive(1), StageTimes(attention, 40, 20, 40, 30)))
    assert figure.layout.xaxis.title.text == f"time since the first start ({unit})"
    assert figure.data[-1].customdata[0][3] == pytest.approx(end)


def test_the_end_of_every_timeline_is_marked_with_its_makespan(predicted: Timeline) -> None:
    figure = figures.gantt_chart(predicted, measured_like(predicted))
    texts = [note.text for note in figure.layout.annotations]
    span = predicted.makespan_us
    assert f"simulated<br><b>{span} µs</b>" in texts
    assert f"measured<br><b>{2 * span / 1000:.4g} ms</b>" in texts


def test_a_later_micro_batch_is_paler() -> None:
    figure = figures.gantt_chart(simulate_schedule(findep(1, 3, 1), COSTS))
    light = [sum(bytes.fromhex(color[1:])) for color in figure.data[0].marker.color]
    assert figure.data[0].marker.color[0] == figures.COLORS["attention"]
    assert light == sorted(set(light))
    assert "shade: micro-batch 0 (full) to 2 (pale)" in figure.layout.title.subtitle.text


def test_every_kind_has_a_colour_of_its_own() -> None:
    assert set(figures.COLORS) == {kind.label for kind in Kind}
    assert len(set(figures.COLORS.values())) == len(Kind)


def test_a_few_bars_carry_their_number_and_many_do_not(predicted: Timeline) -> None:
    few = figures.gantt_chart(predicted)
    many = figures.gantt_chart(simulate_schedule(findep(30, 2, 4), COSTS))
    assert few.data[2].text[1] == "0.0.1"
    assert {bar.textposition for bar in few.data} == {"inside"}
    assert {bar.textposition for bar in many.data} == {"none"}
    assert "number in a bar" not in many.layout.title.subtitle.text


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
    bar = figures.gantt_chart(Timeline.from_times(schedule, "real", times)).data[1]
    assert list(bar.base) == [50, 120]
    assert list(bar.customdata[1]) == ["A2E[0.0.1]", 0, 60, 140, 80]


def test_too_many_bars_are_joined_by_kind_without_losing_busy_time() -> None:
    timeline = simulate_schedule(findep(60, 4, 8), COSTS)
    figure = figures.gantt_chart(timeline, measured_like(timeline, ranks=1))
    bars = drawn(figure)
    assert len(timeline.rows) * 2 > figures.MAX_BARS >= len(bars)
    assert {bar.textposition for bar in figure.data} == {"none"}
    lasting = (
        (timeline.rows["end_us"] - timeline.rows["start_us"]).groupby(timeline.rows["kind"]).sum()
    )
    shown = bars.groupby("trace")["width"].sum() * 1000
    for kind in {task.kind for task in timeline.schedule}:
        name = kind.value if kind.is_transfer else f"{kind.label} ({kind.value})"
        assert shown[name] == pytest.approx(3 * lasting[kind.label])
    assert re.search(
        r"tasks shorter than \S+ (µs|ms) are drawn joined", figure.layout.title.subtitle.text
    )
    assert any(" to " in task for bar in figure.data for task, *_ in bar.customdata)


def test_joined_bars_of_a_lane_do_not_overlap() -> None:
    bars = drawn(figures.gantt_chart(simulate_schedule(findep(100, 4, 8), COSTS))).sort_values(
        ["y", "left"]
    )
    ends = (bars["left"] + bars["width"]).groupby(bars["y"]).shift()
    assert (bars["left"] - ends).min() > -1e-9


def ends(figure: go.Figure) -> list[tuple[str, str]]:
    """Texts of the ends of timelines, left to right, and the side of the line that they stand
    on."""
    notes = [note for note in figure.layout.annotations if note.yref == "y domain"]
    return [(note.text, note.xanchor) for note in sorted(notes, key=lambda note: note.x)]


def test_ends_that_lie_close_together_share_one_text(predicted: Timeline) -> None:
    longer = measured_like(predicted)
    figure = figures.gantt_chart(predicted, longer, predicted, titles=tuple("abc"))
    both, late = (
        f"<b>{figures.human_time(timeline.makespan_us)}</b>" for timeline in (predicted, longer)
    )
    assert ends(figure) == [(f"a, c<br>{both}, {both}", "right"), (f"b<br>{late}", "left")]
    assert sum(shape.type == "line" for shape in figure.layout.shapes) == 3


def test_the_legend_makes_room_for_ends_that_stand_under_it(predicted: Timeline) -> None:
    alone, beside = (
        figures.gantt_chart(predicted),
        figures.gantt_chart(predicted, measured_like(predicted, ranks=1)),
    )
    assert alone.layout.legend.y == 1
    inside = beside.layout.height - beside.layout.margin.t - beside.layout.margin.b
    assert inside * (beside.layout.legend.y - 1) == pytest.approx(34)


def test_the_unit_can_be_that_of_other_figures(predicted: Timeline) -> None:
    assert figures.gantt_chart(predicted).layout.xaxis.title.text.endswith("(µs)")
    figure = figures.gantt_chart(predicted, unit_us=1e3)
    assert figure.layout.xaxis.title.text.endswith("(ms)")
    assert drawn(figure)["width"].max() < 1


def test_fewer_bars_can_be_asked_for() -> None:
    timeline = simulate_schedule(findep(60, 2, 2), COSTS)
    assert len(drawn(figures.gantt_chart(timeline))) == len(timeline.rows) > 500
    assert len(drawn(figures.gantt_chart(timeline, max_bars=500))) <= 500


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
