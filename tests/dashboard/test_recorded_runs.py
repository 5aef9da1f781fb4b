"""The dashboard: a recorded run is shown as it is, and a broken one is told in a sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import apps
import pytest
from apps import figure, tiles
from apps import first_page as page
from pages import open_page, serving, severe_messages
from places import ROOT
from schedules import findep, naive
from streamlit.testing.v1 import AppTest

from dashboard import runs
from simdep.costs import StageTimes
from simdep.hardware.profile import load_hardware
from simdep.schedule import Schedule
from simdep.simulation.engine import simulate_schedule
from simdep.timeline import Timeline
from simdep.traces.export import save_timelines

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

APP = ROOT / "dashboard" / "app.py"
COSTS = StageTimes(attention=1000, shared=300, a2e=200, expert=400, e2a=200)
WORKLOAD = {"model": "tiny", "layers": 2, "seq_len": 64, "m_a": 4, "ag": 2, "eg": 2, "scale": 0.5}
FIRST = "000: naive, tiny@0.5, 2 layers, m_a=4, seq_len=64, 2+2 ranks"
SECOND = "001: findep AASS r1=2 r2=2, tiny@0.5, 2 layers, m_a=4, seq_len=64, 2+2 ranks"


def measure(predicted: Timeline) -> Timeline:
    """The same tasks on two ranks, a quarter longer, by another clock."""
    rows = predicted.rows[["task", "start_us", "end_us"]].itertuples(index=False)
    times = [
        (task, rank, 7000 + 1.25 * start, 7000 + 1.25 * end)
        for task, start, end in rows
        for rank in (0, 1)
    ]
    return Timeline.from_times(predicted.schedule, "real", times)


def record(run: Path, *schedules: Schedule) -> None:
    """A run folder as `realrun validate` writes it, with one more schedule whose timelines were not
    recorded."""
    rows: list[dict[str, Any]] = []
    for index, schedule in enumerate(schedules):
        case = run / "cases" / f"{index:03d}"
        case.mkdir(parents=True)
        predicted = simulate_schedule(schedule, COSTS)
        measured = measure(predicted)
        schedule.save(case / "schedule.json")
        save_timelines(case / "predicted.csv", predicted)
        save_timelines(case / "measured.csv", measured)
        rows.append(
            row(schedule.label, predicted.makespan_us, measured.makespan_us)
            | {"files": f"cases/{index:03d}"}
        )
    rows.append(row("only makespans", 90_000, 60_000))
    result = {
        "schedules": rows,
        "median_abs_error_pct": 20.0,
        "p95_abs_error_pct": 47.0,
        "spearman": None,
    }
    result |= {
        "regret_pct": 1.25,
        "environment": {"torch": "2.13", "threads": 2},
        "created": "2026-11-22",
    }
    (run / "result.json").write_text(json.dumps(result))
    load_hardware("a6000").save(run / "profile.json")


def row(label: str, predicted_us: float, measured_us: float) -> dict[str, Any]:
    error = 100 * (predicted_us / measured_us - 1)
    makespans = {"predicted_us": predicted_us, "measured_us": measured_us, "error_pct": error}
    return {
        **WORKLOAD,
        "label": label,
        **makespans,
        "ci_us": [0.9 * measured_us, 1.1 * measured_us],
    }


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cpu"
    record(folder, naive(2), findep(2, 2, 2, "AASS"))
    monkeypatch.setenv("SIMDEP_TRACES", str(tmp_path))
    return folder


def told(app: AppTest) -> str:
    """The only error on the page."""
    (error,) = apps.told(app.error)
    return error


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_a_case_is_drawn_with_measured_lanes_under_the_simulated_one(run: Path) -> None:
    gantt = figure(page(), 0)
    assert (
        gantt["layout"]["yaxis"]["ticktext"]
        == ["simulated", "measured rank 0", "measured rank 1"] * 4
    )
    bars = [task for trace_ in gantt["data"] for task in trace_.get("customdata", [])]
    assert len(bars) == 3 * len(naive(2))
    assert {name for name, *_ in bars} == {task.name for task in naive(2)}


def test_the_first_case_is_shown_and_another_can_be_chosen(run: Path) -> None:
    app = page()
    assert app.selectbox(key="case").options == [FIRST, SECOND]
    assert tiles(app)["Makespan, simulated"][0] == "4.2 ms"
    app.selectbox(key="case").select(SECOND).run()
    assert figure(app, 0)["layout"]["title"]["text"] == "findep AASS r1=2 r2=2"
    assert tiles(app)["Makespan, simulated"][0] != "4.2 ms"
    assert not app.warning


def test_makespans_and_busy_times_are_told_with_source_and_unit(run: Path) -> None:
    shown = tiles(page())
    assert shown["Makespan, simulated"] == ("4.2 ms", "from the profile's costs")
    assert shown["Makespan, measured (median)"] == ("5.25 ms", "95 %: 4.725 ms to 5.775 ms")
    assert shown["Error of the simulation"] == ("-20.0 %", "1.05 ms shorter")
    assert shown["AG busy, measured"] == ("61.9 %", "simulated 61.9 %")
    assert shown["E2A busy, measured"] == ("9.5 %", "simulated 9.5 %")


def test_tasks_are_compared_with_the_biggest_difference_first(run: Path) -> None:
    table = page().dataframe[0].value
    assert sorted(table.index) == sorted(task.name for task in naive(2))
    assert table["error (µs)"].abs().is_monotonic_decreasing
    first = table.loc["A[1.0]"]
    assert (
        first["simulated start (µs)"],
        first["simulated end (µs)"],
        first["simulated (µs)"],
    ) == (2100, 3100, 1000)
    assert (first["measured start (µs)"], first["measured end (µs)"], first["measured (µs)"]) == (
        2625,
        3875,
        1250,
    )
    assert (first["error (µs)"], first["start error (µs)"]) == (-250, -525)


def test_all_schedules_of_the_run_are_points_and_rows(run: Path) -> None:
    app = page()
    points = figure(app, 1)["data"][-1]["customdata"]
    assert [name.split(",")[0] for name, *_ in points] == [
        "naive",
        "findep AASS r1=2 r2=2",
        "only makespans",
    ]
    assert list(app.dataframe[1].value["error (%)"]) == pytest.approx([-20, -20, 50])
    assert [heading.value for heading in app.subheader][1] == "All 3 schedules of the run"


def test_statistics_of_the_run_are_shown_as_far_as_they_are_known(run: Path) -> None:
    shown = tiles(page())
    assert shown["Error, median"][0] == "20.0 %"
    assert shown["Error, 95th percentile"][0] == "47.0 %"
    assert shown["Rank correlation"][0] == "not known"
    assert shown["Regret"][0] == "1.2 %"


def test_environment_and_costs_are_shown_with_their_origin(run: Path) -> None:
    _, _, environment, costs = (frame.value for frame in page().dataframe)
    assert dict(environment.itertuples(index=False)) == {
        "created": "2026-11-22",
        "torch": "2.13",
        "threads": "2",
    }
    profile = load_hardware("a6000")
    assert list(costs["operation"]) == [cost.op for cost in profile.costs]
    assert list(costs["label"]) == [cost.label for cost in profile.costs]
    assert list(costs["source"]) == [cost.source for cost in profile.costs]


def test_every_recorded_case_of_the_repository_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIMDEP_TRACES", raising=False)
    for case in page().selectbox(key="case").options:
        app = page(case=case)
        assert not app.exception
        assert not app.error
        assert app.metric


def test_an_address_chooses_run_and_case(run: Path) -> None:
    record(run.parent / "later", naive(3))
    app = page(run="cpu", case=SECOND)
    assert (app.selectbox(key="run").value, app.selectbox(key="case").value) == ("cpu", SECOND)
    assert page(run="later").selectbox(key="run").value == "later"


def test_an_address_that_asks_for_what_is_not_recorded_is_told_and_the_first_shown(
    run: Path,
) -> None:
    app = page(run="gone", case="007: [x](y)")
    texts = [str(warning.value).replace("\\", "") for warning in app.warning]
    assert texts == [
        "The address asks for run: 'gone' is not recorded; the page shows 'cpu'.",
        f"The address asks for case: '007: [x](y)' is not recorded; the page shows '{FIRST}'.",
    ]
    assert app.selectbox(key="case").value == FIRST
    assert len(app.get("plotly_chart")) == 2


def test_changing_the_run_is_no_bad_address(run: Path) -> None:
    record(run.parent / "later", findep(1, 1, 3))
    app = page(run="cpu", case=SECOND)
    app.selectbox(key="run").select("later").run()
    assert str(app.selectbox(key="case").value).startswith("000: findep ASAS r1=1 r2=3")
    assert not app.warning
    assert not app.error


def test_another_folder_of_runs_can_be_given(run: Path, tmp_path: Path) -> None:
    record(tmp_path / "other" / "gpu", naive(1))
    app = page()
    app.text_input(key="traces").set_value(str(tmp_path / "other")).run()
    assert app.selectbox(key="run").options == ["gpu"]
    app.text_input(key="traces").set_value(str(tmp_path / "nowhere")).run()
    assert (
        told(app)
        == f"{tmp_path / 'nowhere'} is not a folder; give the one that holds the recorded runs"
    )
    assert not app.exception


@pytest.mark.parametrize("folder", ["/nowhere", "n" * 900, "/etc/passwd", "/" + "a/" * 400])
def test_a_bad_folder_is_told_in_a_sentence(run: Path, folder: str) -> None:
    app = page(traces=folder)
    sentences = [str(each.value) for each in (*app.error, *app.warning)]
    assert len(sentences) == 1
    assert len(sentences[0]) <= 300


def test_a_folder_without_runs_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMDEP_TRACES", str(tmp_path))
    assert told(page()) == f"{tmp_path} holds no recorded run; make one with realrun validate"


def test_a_run_without_recorded_timelines_still_shows_its_makespans(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    for each in result["schedules"]:
        each.pop("files", None)
    (run / "result.json").write_text(json.dumps(result))
    app = page()
    assert app.info[0].value == "No timelines were recorded with this run, only makespans."
    assert len(app.get("plotly_chart")) == 1


def test_a_file_that_changes_is_read_again(run: Path) -> None:
    app = page()
    result = run / "result.json"
    edit(result, '"median_abs_error_pct": 20.0', '"median_abs_error_pct": 30.0')
    os.utime(result, (1, 1))
    app.run()
    assert tiles(app)["Error, median"][0] == "30.0 %"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('{"schedules"', '{"schedules', "line 1, column"),
        ('"schedules"', '"schedule"', "schedules is missing; a result lists at least one"),
        (
            '"predicted_us": 4200',
            '"predicted_us": "fast"',
            "schedules[0].predicted_us='fast'; expected a finite number",
        ),
        (
            '"measured_us": 5250.0',
            '"measured_us": 0',
            "schedules[0].measured_us=0; expected a finite number >",
        ),
        ('"ci_us": [4725.0, ', '"ci_us": [', "schedules[0].ci_us=[5775"),
        (
            '"error_pct": -',
            '"error_pct": NaN, "x": -',
            "schedules[0].error_pct=nan; expected a finite number",
        ),
        ('"label": "naive"', '"label": 7', "schedules[0].label=7; expected a text"),
    ],
)
def test_a_malformed_result_is_told_with_file_and_field(
    run: Path, old: str, new: str, complaint: str
) -> None:
    edit(run / "result.json", old, new)
    message = told(page())
    assert message.startswith(f"{run / 'result.json'}: ")
    assert complaint in message


@pytest.mark.parametrize("name", ["../../../secret", "/etc", "cases/../../other", "link"])
def test_timelines_are_read_within_the_folder_of_the_run(run: Path, name: str) -> None:
    """Also where a link leads out of it."""
    record(run.parent / "other", naive(1))
    (run / "link").symlink_to(run.parent / "other" / "cases" / "000")
    edit(run / "result.json", '"files": "cases/000"', f'"files": "{name}"')
    message = told(page())
    assert message.startswith(f"{run / 'result.json'}: schedules[0].files='")
    assert message.endswith("; expected a folder within that of the run")


def test_a_file_too_large_for_a_page_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_FILE_BYTES", 1000)
    assert told(page()).endswith("; a page reads at most 1 kB")


def test_a_missing_result_is_told(run: Path) -> None:
    (run / "result.json").unlink()
    assert told(page()) == f"{run / 'result.json'} is missing; it holds the run's makespans"


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("measured.csv", "A[0.0],", "A[9.9],", "row 1 (A[9.9])"),
        ("measured.csv", "end_us", "end", "column end_us is missing"),
        ("predicted.csv", "1000", "soon", "expected a finite number"),
        ("schedule.json", '"streams"', '"streams": {}, "x"', "there is no task in it"),
        ("schedule.json", '"format": 1', '"format": 2', "schedule format 2 is not known"),
    ],
)
def test_a_malformed_case_is_told_and_the_run_still_shown(
    run: Path, name: str, old: str, new: str, complaint: str
) -> None:
    edit(run / "cases" / "000" / name, old, new)
    app = page()
    assert told(app).startswith(str(run / "cases" / "000" / name))
    assert complaint in told(app)
    assert len(app.get("plotly_chart")) == 1  # the scatter of all schedules


def test_a_missing_timeline_is_told(run: Path) -> None:
    (run / "cases" / "000" / "measured.csv").unlink()
    assert f"{run / 'cases' / '000' / 'measured.csv'} is missing" in told(page())


def test_an_empty_timeline_is_told(run: Path) -> None:
    (run / "cases" / "000" / "measured.csv").write_text("")
    assert told(page()).startswith(f"{run / 'cases' / '000' / 'measured.csv'}: ")


def test_a_missing_or_malformed_profile_is_told_and_the_rest_shown(run: Path) -> None:
    profile = run / "profile.json"
    profile.write_text("{}")
    app = page()
    assert str(profile) in told(app)
    assert len(app.get("plotly_chart")) == 2
    profile.unlink()
    assert told(page()) == f"{profile} is missing; it holds the costs that the simulation used"


@pytest.fixture
def address(run: Path) -> Iterator[str]:
    """Where a real Streamlit serves the dashboard for the recorded run."""
    with serving(APP) as url:
        yield url


@pytest.mark.browser
def test_a_browser_draws_every_bar_and_complains_about_nothing(
    address: str, browser: Chrome
) -> None:
    from selenium.webdriver.common.by import By

    bars = 3 * len(findep(2, 2, 2, "AASS"))
    open_page(browser, f"{address}?{urlencode({'case': SECOND})}", bars)
    shown = browser.find_element(By.CSS_SELECTOR, "[data-testid=stMetricValue]")
    assert shown.text.endswith(" ms")
    assert severe_messages(browser) == []
