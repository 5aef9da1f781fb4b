"""The address of a page: it reproduces what is seen, and what is wrong in it is told."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from apps import SMALL, address_of, figure, page, tiles, told
from streamlit.testing.v1 import AppTest

WALKS, SHORT_WALKS, ACTIONS = 30, 6, 10
NUMBERS = {
    "seq_len": (256, 512, 1000, None),
    "samples": (4, 6, 8),
    "layers": (4, 8, 30),
    "eg": (2, 5, 8),
    "link.gbytes_per_s": (25.0, 50.0, None),
    "b_r1": (1, 2, None),
    "c_r1": (1, 2, None),
    "c_r2": (1, 4, 7, None),
}
CHOICES = {
    "phase": ("decode", "prefill"),
    "model": ("deepseek-v2", "mixtral-8x7b"),
    "dispatch": ("per-gpu", "default"),
    "a": ("naive", "findep"),
    "b": ("pppipe", "none"),
    "c": ("findep", "ep", "lookahead"),
    "d": ("none", "findep", "eps-moe"),
    "cuts_order": ("aass", "asas"),
    "cuts_value": ("throughput", "makespan"),
}
BUTTONS = (
    "solve",
    "put",
    "solve",
    "put",
    *(f"timelines_{name}" for name in ("Earlier", "Later", "Closer", "Wider", "Reset")),
)


@pytest.fixture(autouse=True)
def no_recorded_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMDEP_TRACES", str(tmp_path))


def act(app: AppTest, draw: random.Random) -> None:
    """One thing that a reader may do."""
    kind = draw.choice(("number", "choice", "button", "order"))
    if kind == "number":
        _change(app.number_input, draw.choice(list(NUMBERS)), NUMBERS, draw)
    elif kind == "choice":
        _change(app.selectbox, draw.choice(list(CHOICES)), CHOICES, draw)
    elif kind == "button":
        pressed = draw.choice(BUTTONS)
        if pressed in {button.key for button in app.button}:
            app.button(key=pressed).click()
    elif "c_order" in {text.key for text in app.text_input}:
        app.text_input(key="c_order").set_value(draw.choice(("aass", "")))
    app.run()
    assert not app.exception


def _change(
    widgets: Any, key: str, values: dict[str, tuple[Any, ...]], draw: random.Random
) -> None:
    if key in {widget.key for widget in widgets}:
        widgets(key=key).set_value(draw.choice(values[key]))


def seen(app: AppTest) -> list[Any]:
    """What a page says and shows, but for how long it took."""
    shown = [[frame.value.to_csv() for frame in app.dataframe], list(tiles(app).items())]
    shown += [figure(app, number) for number in range(len(app.get("plotly_chart")))]
    shown += [told(app.error), [text for text in told(app.markdown)]]
    return shown


def walk(number: int) -> None:
    """Ten random actions give an address that shows the same in a new session."""
    draw = random.Random(number)
    app = page(**SMALL)
    for _ in range(ACTIONS):
        act(app, draw)
    app.run()  # what was told of the last action is no part of the address
    again = page(**address_of(app))
    assert not again.warning
    assert seen(again) == seen(app)


@pytest.mark.parametrize("number", range(SHORT_WALKS))
def test_the_address_of_a_walk_shows_the_same_in_a_new_session(number: int) -> None:
    walk(number)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(SHORT_WALKS, WALKS))
def test_the_address_of_every_walk_shows_the_same_in_a_new_session(number: int) -> None:
    walk(number)


NUMBER_FAULTS = ("many", "1e309", "-5", "nan", "0x10", "9" * 5000, "1.5e", "-")
CHOICE_FAULTS = ("training", "[x](y)", "<script>alert(1)</script>", "a" * 5000, " ")
BAD: list[tuple[str, str]] = [
    *((key, fault) for key in ("seq_len", "ag", "c_r2") for fault in NUMBER_FAULTS),
    *(("link.gbytes_per_s", fault) for fault in ("fast", "nan", "inf", "-1", "1e400", "1e31")),
    *((key, fault) for key in ("phase", "b", "cuts_order") for fault in CHOICE_FAULTS),
    ("layers", "100001"),
    ("samples", "4.5"),
    ("duplex", "both"),
    ("dispatch", "\x00"),
    ("model", "m" * 5000),
    ("model", "nothing\x00"),
    ("stragglers", "AG.0"),
    ("stragglers", "AG.0=" + "9" * 900),
    ("batches", "1,2,x"),
    ("window", "5"),
    ("window", "9-5"),
    ("window", "nan-nan"),
    ("window", "1e20-2e20"),
    ("window", "5-1e999"),
    ("window", "-5--1"),
    ("solved", "x" * 2000),
    ("solved", "yes"),
    ("c_order", "o" * 1001),
    ("seqlen", "512"),
    ("\u202e", "\u202e"),
]


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_bad_address_is_told_in_a_sentence_and_the_form_can_be_used(key: str, value: str) -> None:
    app = page(**SMALL | {key: value})
    (sentence,) = told(app.warning)
    assert len(sentence) <= 300
    assert sentence.count(". ") == 0
    assert sentence.isprintable()
    assert not app.error
    assert len(app.dataframe[0].value) == 3
    app.number_input(key="seq_len").set_value(600).run()
    assert not app.exception
    assert not app.warning
    assert key == "seq_len" or value not in address_of(app).values()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "m" * 900),
        ("hardware", "/etc/passwd"),
        ("hardware", "abacus.json"),
        ("routing", "zipf:x"),
        ("routing", "missing.csv"),
        ("eg", "4000"),
        ("layers", "100000"),
        ("c_r2", "1000000000"),
        ("c_order", "A0 A1"),
        ("c_r1", "64"),
        ("stragglers", "AG.99=2"),
        ("memory_gbytes", "1e-9"),
    ],
)
def test_what_has_no_answer_is_told_in_a_sentence_each(key: str, value: str) -> None:
    app = page(**SMALL | {key: value})
    sentences = told(app.error)
    assert sentences
    assert all(len(sentence) <= 300 and sentence.isprintable() for sentence in sentences)
    app.number_input(key="seq_len").set_value(600).run()
    assert not app.exception
