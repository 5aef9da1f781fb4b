"""Answers to what-if questions: functions of plain values, cached by them.

What is cached is shared by all visitors and never changed. What has no answer raises InputError or
InfeasibleError, one sentence. Times are microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dashboard.widgets import changed
from simdep.analysis import figures
from simdep.analysis.per_rank import shown_tracks
from simdep.checks import InputError
from simdep.planning.axes import Axis
from simdep.planning.choice import Choice, simulate_choice, solve_samples
from simdep.planning.comparison import comparison_rows, readable_row
from simdep.planning.solver import Solution
from simdep.planning.sweep import Sweep
from simdep.planning.sweep_rows import sweep_rows
from simdep.prediction import Prediction
from simdep.scenario.fields import FIELDS, override
from simdep.scenario.spec import Scenario

MAX_R1, MAX_R2 = 16, 16  # of the grid of configurations
MAX_PAGE_BARS = 2000  # of the timelines: half of what a page of its own has, for a quick answer
MAX_TRACKS = 32  # of a timeline of every rank

# (field, value) of every field that is stated, and when files that are named there changed
Question = tuple[tuple[str, Any], ...]


def question_of(values: Mapping[str, Any]) -> Question:
    """The question of a form: its fields by name, those that are None left open."""
    stated = {name: value for name, value in values.items() if value is not None}
    files = [Path(value) for value in stated.values() if isinstance(value, str)]
    return (*stated.items(), ("changed", changed(*files)))


def tables_of(question: Question) -> dict[str, Any]:
    """A question in the form of a scenario file."""
    values = {}
    for name, value in question:
        if name in FIELDS:
            values[name] = FIELDS[name].parse(value) if isinstance(value, str) else value
    return override({}, values)


@st.cache_resource(max_entries=64, show_spinner=False)
def scenario_of(question: Question) -> Scenario:
    """The scenario of a question, with the schedule left open."""
    return Scenario.from_dict(tables_of(question))


@st.cache_resource(max_entries=256, show_spinner=False)
def answer(question: Question, choice: str) -> Prediction:
    """A policy, such as `findep:r1=2`, simulated on the scenario of a question."""
    return simulate_choice(Choice.parse(choice), scenario_of(question))


@st.cache_resource(max_entries=32, show_spinner=False)
def timelines(question: Question, choices: tuple[tuple[str, str], ...]) -> go.Figure:
    """The timelines of policies, each by its letter, on one axis."""
    shown = [shown_tracks(answer(question, choice).simulated, MAX_TRACKS) for _, choice in choices]
    titles = [letter.upper() for letter, _ in choices]
    figure = figures.gantt_chart(*shown, titles=titles, max_bars=MAX_PAGE_BARS)
    return figure.update_layout(
        title_text="", margin_t=figure.layout.margin.t - 24, height=figure.layout.height - 24
    )


@st.cache_resource(max_entries=32, show_spinner=False)
def configurations(question: Question, order: str) -> pd.DataFrame:
    """Every configuration (r1, r2) of FinDEP that the samples allow, with what it gives; raises
    ValueError if none is possible."""
    workload = scenario_of(question).workload
    samples, tokens = workload.samples, workload.samples * workload.tokens_per_sample
    r1 = tuple(count for count in range(1, min(samples, MAX_R1) + 1) if samples % count == 0)
    r2 = tuple(range(1, min(tokens, MAX_R2) + 1))
    base = tables_of(question) | {"schedule": {"policy": "findep", "order": order}}
    rows: list[dict[str, Any]] = []
    for block in sweep_rows(Sweep(base, (Axis("r1", r1), Axis("r2", r2)))):
        rows += block
    points = pd.DataFrame(rows)
    if "makespan_us" not in points:
        raise InputError(points["reason"].iloc[0])
    return points


@st.cache_resource(max_entries=32, show_spinner=False)
def solved(question: Question) -> Solution:
    """The best policy, order and configuration for the samples of a question."""
    return solve_samples(scenario_of(question))


def policy_table(predictions: Mapping[str, Prediction]) -> pd.DataFrame:
    """A row a policy, by its letter: what `simdep compare` shows."""
    rows = comparison_rows(list(predictions.values()))
    letters = pd.Index([letter.upper() for letter in predictions])
    return pd.DataFrame(list(map(readable_row, rows)), index=letters)
