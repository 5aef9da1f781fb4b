"""The page "What if": policies side by side on a scenario of the reader's choice, told as the
simulator tells it."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np
import pytest
from apps import SMALL, address_of, figure, page, tiles, told
from pages import open_page, serving, severe_messages
from places import ROOT
from streamlit.testing.v1 import AppTest

from dashboard.form import scenario_fields
from simdep.analysis import figures
from simdep.hardware.profile import load_hardware
from simdep.planning.problem import Problem
from simdep.planning.solver import solve
from simdep.policies import schedule_for
from simdep.prediction import simulate
from simdep.scenario.field import Integer
from simdep.scenario.fields import FIELDS
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.simulation.engine import simulate_schedule

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture(autouse=True)
def no_recorded_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first page, which every visit begins with, has nothing to draw."""
    monkeypatch.setenv("SIMDEP_TRACES", str(tmp_path))


SMALL_SCENARIO = {
    "model": "deepseek-v2",
    "layers": 4,
    "deployment": {"hardware": "h20", "ag": 3, "eg": 5},
    "workload": {"seq_len": 512, "samples": 4},
}


def simulated_us(**schedule: Any) -> float:
    """The makespan of the small scenario by the reference engine."""
    scenario = Scenario.from_dict(SMALL_SCENARIO | {"schedule": schedule})
    return simulate_schedule(schedule_for(scenario), ScenarioCosts(scenario)).makespan_us


def test_the_first_answer_needs_no_choice() -> None:
    app = page()
    assert not app.error
    assert not app.warning
    assert list(app.dataframe[0].value["policy"]) == [
        "naive",
        "pppipe r1=2",
        "findep ASAS r1=2 r2=4",
    ]


def test_the_numbers_are_those_of_the_engine() -> None:
    table = page(**SMALL).dataframe[0].value
    expected = [
        simulated_us(policy="naive"),
        simulated_us(policy="pppipe", r1=2),
        simulated_us(policy="findep", r1=2, r2=4),
    ]
    assert list(table["makespan (us)"]) == expected
    assert list(table["speed-up"]) == pytest.approx([expected[0] / each for each in expected])
    tokens = 4 * 512 * 3
    assert list(table["throughput (tokens/s)"]) == pytest.approx(
        [1e6 * tokens / each for each in expected]
    )
    assert list(table["throughput per GPU (tokens/s)"]) == pytest.approx(
        [1e6 * tokens / each / 8 for each in expected]
    )


def test_timelines_share_one_axis_with_the_lanes_of_a_stream_together() -> None:
    gantt = figure(page(**SMALL, d="findep", d_r1="4"), 0)
    assert gantt["layout"]["yaxis"]["ticktext"] == list("ABCD") * 4
    assert gantt["layout"]["xaxis"]["title"]["text"] == "time since the first start (ms)"


def test_a_policy_asks_for_no_more_degrees_than_it_takes() -> None:
    app = page(**SMALL)
    assert {
        field.key for field in app.number_input if field.key[:2] in ("a_", "b_", "c_", "d_")
    } == {"b_r1", "c_r1", "c_r2"}
    assert [field.key for field in app.text_input if field.key[1:] == "_order"] == ["c_order"]


def test_the_address_holds_the_whole_question() -> None:
    order = "A0 A1 S1 S0"
    app = page(
        **SMALL,
        a="findep",
        a_r1="2",
        a_r2="3",
        a_order=order,
        b="none",
        c="none",
        ag="2",
        **{"link.gbytes_per_s": "50"},
    )
    assert app.number_input(key="ag").value == 2
    assert app.number_input(key="link.gbytes_per_s").value == 50
    assert list(app.dataframe[0].value["policy"]) == [f"findep {order} r1=2 r2=3"]


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("seq_len", "many", "seq_len: seq_len='many'; expected an integer; the page shows 2048."),
        ("ag", "0", "ag: ag=0; expected an integer >= 1; the page shows 3."),
        (
            "layers",
            "[x](y)",
            "layers: layers='[x](y)'; expected an integer; the field is left open.",
        ),
        (
            "phase",
            "training",
            "phase: unknown phase 'training'; use decode, prefill; the page shows 'prefill'.",
        ),
        (
            "link.gbytes_per_s",
            "nan",
            "link.gbytes_per_s: link.gbytes_per_s=nan; expected a finite number;",
        ),
        ("seq_len", "1e309", "seq_len: seq_len='1e309'; expected an integer;"),
        ("model", "m" * 5000, "model: model has 5,000 letters; expected at most 1,000;"),
        ("stragglers", "AG.0", "write a rank and a factor, such as AG.3=1.3;"),
        ("c_r2", "-1", "c_r2: r2=-1; expected an integer >= 1; the page shows 4."),
    ],
)
def test_a_bad_value_in_the_address_is_told_and_ignored(
    key: str, value: str, complaint: str
) -> None:
    app = page(**{key: value})
    (warning,) = told(app.warning)
    assert complaint in warning
    assert not app.error
    assert len(app.dataframe[0].value) == 3


def test_a_policy_that_does_not_fit_is_told_and_the_others_shown() -> None:
    app = page(**SMALL, b_r1="3", c_order="A0 A1 S0")
    assert told(app.error) == [
        "B: r1=3 does not divide the 4 samples of an AG GPU; use 1, 2 or 4",
        "C: order 'A0 A1 S0': S1 is missing for r1=2",
    ]
    assert list(app.dataframe[0].value["policy"]) == ["naive"]


def test_an_impossible_scenario_is_told_and_the_form_keeps_its_values() -> None:
    app = page(**SMALL, eg="4000")
    assert told(app.error) == ["eg=4000: model deepseek-v2 has only 160 experts"]
    assert not app.dataframe
    app.number_input(key="eg").set_value(5).run()
    assert not app.error
    assert app.number_input(key="seq_len").value == 512
    assert len(app.dataframe[0].value) == 3


def test_a_profile_of_ones_own_can_be_named_and_is_read_again_when_it_changes(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.json"
    load_hardware("h20").save(file)
    first = list(page(**SMALL, hardware=str(file)).dataframe[0].value["makespan (us)"])
    assert first[0] == simulated_us(policy="naive")
    replace(load_hardware("h20"), speed_factor=2.0).save(file)
    os.utime(file, (1e9, 1e9))
    again = page(**SMALL, hardware=str(file))
    assert again.dataframe[0].value["makespan (us)"].iloc[0] > 1.5 * first[0]


def test_hardware_that_nobody_knows_is_told() -> None:
    (text,) = told(page(hardware="abacus").error)
    assert text.startswith("unknown hardware 'abacus'; use ")


def test_half_a_link_is_told() -> None:
    assert told(page(**{"link.alpha_us": "5"}).error) == [
        "link.alpha_us=5 needs a speed: give link.gbytes_per_s too"
    ]


def test_the_heat_map_holds_every_cut_that_the_samples_allow() -> None:
    app = page(**SMALL)
    cells = figure(app, 1)["data"][0]
    assert (cells["y"], cells["x"]) == (["1", "2", "4"], [str(n) for n in range(1, 17)])
    best = {metric.label: (metric.value, metric.delta) for metric in app.metric}["Best of them"]
    r1, r2 = (int(part.partition("=")[2]) for part in best[0].split(", "))
    fastest = min(
        (simulated_us(policy="findep", r1=r1, r2=r2), r1, r2)
        for r1 in (1, 2, 4)
        for r2 in range(1, 17)
    )
    assert fastest[1:] == (r1, r2)
    assert best[1] == f"{figures.human_time(fastest[0])}, simulated"


def test_the_heat_map_shows_throughput_as_well() -> None:
    makespans, rates = (
        figure(page(**SMALL, cuts_value=value), 1) for value in ("makespan", "throughput")
    )
    assert rates["data"][0]["colorbar"]["title"]["text"] == "throughput (tokens/s)"
    tokens = 4 * 512 * 3
    cells = zip(numbers(makespans["data"][0]["z"]), numbers(rates["data"][0]["z"]), strict=True)
    assert all(rate == pytest.approx(1e3 * tokens / ms) for ms, rate in cells)
    assert makespans["layout"]["shapes"] == rates["layout"]["shapes"]  # the same cell is the best


def numbers(z: Any) -> list[float]:
    """The cells of a heat map, as Plotly packs them."""
    return [float(value) for value in np.frombuffer(base64.b64decode(z["bdata"]), dtype=z["dtype"])]


def test_solving_shows_the_best_its_bound_and_its_gap() -> None:
    app = page(**SMALL)
    assert "Best of all" not in tiles(app)
    app.button(key="solve").click().run()
    assert not app.exception
    assert not app.error
    found = solve(Problem.of(Scenario.from_dict(SMALL_SCENARIO), 4))
    shown = tiles(app)
    assert shown["Best of all"][0].startswith(found.best.policy)
    assert shown["Makespan, simulated"][0] == figures.human_time(found.best.makespan_us)
    assert shown["No order takes less than"][0] == figures.human_time(found.lower_bound_us)
    assert shown["Makespan, simulated"][1] in ("optimal", f"within {found.gap_pct:.2g} %")


def test_a_solution_belongs_to_its_question() -> None:
    app = page(**SMALL)
    app.button(key="solve").click().run()
    app.number_input(key="seq_len").set_value(600).run()
    assert "Best of all" not in tiles(app)


def test_the_best_can_be_put_beside_the_other_policies() -> None:
    app = page(**SMALL)
    app.button(key="solve").click().run()
    app.button(key="put").click().run()
    assert not app.exception
    table = app.dataframe[0].value
    assert len(table) == 4
    best = table.iloc[3]
    assert figures.human_time(best["makespan (us)"]) == tiles(app)["Makespan, simulated"][0]
    assert best["makespan (us)"] <= table["makespan (us)"].min() * (1 + 1e-9)
    assert app.selectbox(key="d").value in ("findep", "lookahead")


def test_the_address_of_the_best_shows_the_best() -> None:
    """Also where its widgets did not exist when it was put there."""
    app = page(**SMALL)
    app.button(key="solve").click().run()
    app.button(key="put").click().run()
    app.run()
    again = page(**address_of(app))
    assert list(again.dataframe[0].value["makespan (us)"]) == list(
        app.dataframe[0].value["makespan (us)"]
    )


def test_a_field_whose_address_was_refused_can_be_changed() -> None:
    app = page(**SMALL | {"seq_len": "1e309"})
    app.number_input(key="seq_len").set_value(512).run()
    assert not app.exception
    assert not app.warning
    assert app.dataframe[0].value["makespan (us)"].iloc[0] == simulated_us(policy="naive")


def test_a_field_that_is_declared_appears_in_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its label, its unit and what holds where it is left open."""
    field = Integer(
        name="power",
        table="deployment",
        label="Power",
        help="power of the deployment",
        default=1,
        unit="W",
    )
    monkeypatch.setitem(FIELDS, "power", field)
    widget = page(**SMALL).number_input(key="power")
    assert (widget.label, widget.help) == ("Power (W)", "Power of the deployment. Default: 1.")
    assert widget.value is None
    assert widget.placeholder == "1"


def test_every_field_of_the_form_is_one_of_a_scenario_and_none_takes_the_place_of_another() -> None:
    fields = scenario_fields()
    assert {"layers", "dispatch", "a2e_dtype", "memory_gbytes", "routing"} < set(fields)
    assert not {"gpus", "m_a", "r1", "policy", "costs.attention"} & set(fields)
    assert all(fields[name].declared is FIELDS[name] for name in fields)


def test_ranks_that_differ_are_simulated_one_by_one() -> None:
    app = page(**SMALL | {"layers": "1"}, stragglers="EG.1=1.5", c="none")
    data = SMALL_SCENARIO | {"layers": 1, "ranks": {"stragglers": {"EG.1": 1.5}}}
    expected = [
        simulate(Scenario.from_dict(data | {"schedule": schedule})).makespan_us
        for schedule in ({"policy": "naive"}, {"policy": "pppipe", "r1": 2})
    ]
    assert list(app.dataframe[0].value["makespan (us)"]) == expected
    assert len(figure(app, 0)["layout"]["yaxis"]["ticktext"]) == 2 * (3 + 5 + 5 + 5)


def test_a_name_that_no_file_can_have_is_told() -> None:
    assert told(page(model="m" * 900).error)[0].startswith("unknown model ")


def test_what_can_not_be_solved_is_told() -> None:
    app = page(**SMALL, duplex="half")
    assert not app.error
    app.button(key="solve").click().run()
    (text,) = told(app.error)
    assert "does not model half_duplex" in text


def test_memory_that_is_missing_is_told() -> None:
    table = page(**SMALL | {"layers": "59"}, eg="2").dataframe[0].value
    assert all(text.endswith(" missing") for text in table["memory"])
    assert set(page(**SMALL).dataframe[0].value["memory"]) == {"fits"}


def test_colocated_policies_are_shown_on_as_many_gpus() -> None:
    app = page(**SMALL, b="none", c="none", d="ep")
    assert list(app.dataframe[0].value["policy"]) == ["naive", "ep"]
    assert any(text.startswith("D: 3+5 GPUs became 8 colocated GPUs") for text in told(app.caption))
    assert figure(app, 0)["layout"]["yaxis"]["ticktext"] == ["A"] * 4 + ["D"] * 2


def test_numbers_are_called_simulated_and_assumed_costs_are_listed() -> None:
    app = page(**SMALL)
    captions = told(app.caption)
    assert any(
        "All times are simulated, with the costs of hardware profile h20" in text
        for text in captions
    )
    link = page(**SMALL, **{"link.gbytes_per_s": "25", "link.alpha_us": "20"})
    assert any(
        "link of 20 us and 25 GB/s given in the scenario" in text for text in told(link.markdown)
    )


def test_the_page_says_how_long_its_answer_took() -> None:
    assert told(page(**SMALL).caption)[-1].startswith("Answered in ")


def test_both_pages_have_a_place_in_the_navigation() -> None:
    app = AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=60).run()
    assert [title.value for title in app.title] == ["Predicted and measured"]
    app.switch_page("views/what_if.py").run()
    assert [title.value for title in app.title] == ["What if"]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where a real Streamlit serves the dashboard."""
    with serving(ROOT / "dashboard" / "app.py") as url:
        yield url


@pytest.mark.browser
def test_a_browser_draws_the_page_and_the_address_follows_the_form(
    address: str, browser: Chrome
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    bars = 4 * (5 + 2 * 5 + 2 * (2 + 3 * 2) + 5)  # naive, pppipe r1=2, findep r1=r2=2, ep
    open_page(browser, f"{address}what-if?{urlencode(SMALL | {'d': 'ep', 'c_r2': '2'})}", bars)
    plots = browser.find_elements(By.CSS_SELECTOR, "[data-testid=stPlotlyChart]")
    assert len(plots) == 2
    more = browser.find_element(By.CSS_SELECTOR, ".st-key-c_r1 [data-testid=stNumberInputStepUp]")
    browser.execute_script("arguments[0].click()", more)
    WebDriverWait(browser, 60).until(lambda page: "c_r1=3" in page.current_url)
    messages = severe_messages(browser)
    assert [text for text in messages if "/what-if/_stcore/" not in text] == []  # looked at first
