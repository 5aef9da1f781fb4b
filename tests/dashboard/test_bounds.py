"""What a visit may ask for is bounded and known before it is simulated; what does not fit into
memory is said first; files are read where they may be."""

from __future__ import annotations

from pathlib import Path

import pytest
import streamlit as st
from apps import SMALL, figure, page, tiles, told

from dashboard import answers
from dashboard.answers import MAX_PAGE_TASKS
from dashboard.server_files import FLAG
from simdep.hardware.profile import load_hardware

HUGE = {"layers": "160", "samples": "64", "b": "none"}


@pytest.fixture(autouse=True)
def no_recorded_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMDEP_TRACES", str(tmp_path))


def test_too_many_tasks_are_refused_before_they_are_simulated() -> None:
    cuts = {"a": "findep", "c": "findep", "d": "findep"}
    cuts |= {f"{letter}_{name}": "64" for letter in "acd" for name in ("r1", "r2")}
    app = page(**HUGE | cuts)
    tasks = 160 * 64 * (2 + 3 * 64)
    for letter, sentence in zip("ACD", told(app.error), strict=False):
        assert sentence.startswith(f"{letter}: simulating {tasks:,} tasks takes too long")
        assert len(sentence) <= 300
    assert not app.dataframe


def test_policies_of_a_page_share_the_tasks() -> None:
    """Two of 61 layers with 16 micro-batches in 33 chunks are one too many."""
    cuts = {"layers": "61", "samples": "16", "a": "findep", "b": "findep", "c": "none"}
    cuts |= {"a_r1": "16", "a_r2": "33", "b_r1": "16", "b_r2": "34"}
    tasks = [61 * 16 * (2 + 3 * r2) for r2 in (33, 34)]
    assert sum(tasks) > MAX_PAGE_TASKS > max(tasks) - 1
    (sentence,) = told(page(**cuts).error)
    assert f"B: simulating {tasks[1]:,} tasks" in sentence
    assert f"{MAX_PAGE_TASKS - tasks[0]:,} of {MAX_PAGE_TASKS:,} left" in sentence


@pytest.mark.parametrize("choice", ["naive", "pppipe:r1=2", "findep:r1=2,r2=3", "lookahead:r1=4"])
def test_tasks_are_known_before_they_are_simulated(choice: str) -> None:
    question = answers.question_of(
        {"model": "deepseek-v2", "layers": 3, "hardware": "h20", "ag": 3, "eg": 5, "samples": 4}
    )
    work = answers.work_of(question, choice)
    tasks = len(answers.answer(question, choice).drawn.rows)
    assert tasks <= work <= 1.5 * tasks


def test_a_grid_of_too_many_tasks_is_refused() -> None:
    app = page(**SMALL | {"layers": "60"}, stragglers="EG.1=1.5", c="none")
    (sentence,) = told(app.error)
    assert "configurations have" in sentence
    assert len(sentence) <= 300
    assert len(app.dataframe[0].value) == 2


MISSING = {"layers": "59", "samples": "4", "seq_len": "512", "eg": "2"}


def test_what_does_not_fit_is_said_above_the_answer_with_the_ways_out() -> None:
    app = page(**MISSING)
    sentences = told(app.error)
    for letter, sentence in zip("ABC", sentences, strict=False):
        assert sentence.startswith(f"{letter}: it does not fit into memory: a GPU of the EG needs ")
        assert "; it fits with eg = " in sentence
        assert len(sentence) <= 300
    kinds = [element.type for element in app.main]
    assert kinds.index("error") < kinds.index("dataframe")
    assert kinds.index("error") < kinds.index("plotly_chart")
    assert all(text.endswith(" missing") for text in app.dataframe[0].value["memory"])
    assert list(app.dataframe[0].value)[:2] == ["policy", "memory"]


def test_a_way_out_that_is_taken_fits() -> None:
    sentence = told(page(**MISSING).error)[0]
    eg = sentence.partition("eg = ")[2].split()[0]
    app = page(**MISSING | {"eg": eg}, b="none", c="none")
    assert not app.error


def test_none_is_the_best_where_none_fits() -> None:
    app = page(**MISSING)
    assert "Best of them" not in tiles(app)
    assert (
        told(app.error)[-1] == "None of the configurations fits into memory, so none is the best."
    )
    assert len(app.get("plotly_chart")) == 1


def test_the_best_is_one_that_fits() -> None:
    """In one part, a sample of all AG GPUs is too much."""
    app = page(layers="59", samples="16", b="none", c="none")
    cells = figure(app, 1)["data"][0]
    best = tiles(app)["Best of them"][0]
    fits = page(layers="59", samples="16", a="findep", b="none", c="none", **_cut(best))
    assert not fits.error
    assert any("do not fit into memory" in text for text in told(app.caption))
    assert "bdata" in cells["z"]


def _cut(text: str) -> dict[str, str]:
    parts = (part.partition("=") for part in text.split(", "))
    return {f"a_{name}": value for name, _, value in parts}


def test_solving_what_does_not_fit_says_the_ways_out() -> None:
    app = page(**MISSING)
    app.button(key="solve").click().run()
    assert "it fits with" in told(app.error)[-1]
    assert "Best of all" not in tiles(app)


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that others than this machine can reach."""
    option = st.get_option
    monkeypatch.setattr(
        st, "get_option", lambda name: "0.0.0.0" if name == "server.address" else option(name)
    )


@pytest.mark.usefixtures("public")
def test_a_page_for_others_reads_no_file_of_its_server(tmp_path: Path) -> None:
    profile = tmp_path / "mine.json"
    load_hardware("h20").save(profile)
    for field, value in {"hardware": str(profile), "model": "/etc", "routing": "a.csv"}.items():
        (sentence,) = told(page(**SMALL | {field: value}).error)
        assert sentence.startswith(f"{field}='")
        assert sentence.endswith(f"unless it was started with {FLAG}=1")


@pytest.mark.usefixtures("public")
def test_whoever_starts_the_server_may_allow_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FLAG, "1")
    profile = tmp_path / "mine.json"
    load_hardware("h20").save(profile)
    assert not page(**SMALL | {"hardware": str(profile)}).error
