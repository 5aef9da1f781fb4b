"""Answers to what-if questions: functions of plain values, cached by them.

What is cached is shared by all visitors and never changed; each cache is bounded by what it holds.
So is what one visit may ask for, in tasks, which are counted before anything is simulated. What has
no answer raises InputError or InfeasibleError, one sentence. Times are microseconds.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dashboard.caches import keep_bytes, keep_last
from dashboard.server_files import check_name
from dashboard.widgets import changed
from simdep.analysis import figures
from simdep.analysis.per_rank import shown_tracks
from simdep.checks import InputError
from simdep.hardware.extrapolation import Assumption
from simdep.planning.axes import Axis
from simdep.planning.choice import Choice, simulate_choice, solve_samples
from simdep.planning.comparison import comparison_row, readable_row, with_speedups
from simdep.planning.memory_fixes import missing_memory
from simdep.planning.solver import Solution
from simdep.planning.sweep import Sweep
from simdep.planning.sweep_rows import simulated_together, sweep_rows
from simdep.policies import set_up
from simdep.policies.job import task_count
from simdep.scenario.fields import FIELDS, override
from simdep.scenario.spec import Scenario

MAX_R1, MAX_R2 = 16, 16  # of the grid of configurations
MAX_TRACKS = 32  # of a timeline of every rank
# Of a page, all policies together: some 2 s and 200 MB
MAX_PAGE_TASKS = 200_000
# Of the grid, where it is simulated all at once: some 2 s
MAX_GRID_TASKS = 5_000_000
RANKED_WORK = 6  # what a task costs that is simulated rank by rank, in others; and a quarter a GPU

# (field, value) of every field that is stated, and when files that are named there changed
Question = tuple[tuple[str, Any], ...]


def question_of(values: Mapping[str, Any]) -> Question:
    """The question of a form: its fields by name, those that are None left open."""
    stated = {name: value for name, value in values.items() if value is not None}
    files = [Path(value) for value in stated.values() if isinstance(value, str)]
    return (*stated.items(), ("changed", changed(*files)))


def tables_of(question: Question) -> dict[str, Any]:
    """A question in the form of a scenario file; raises InputError for a file of the server that
    visitors may not name."""
    values = {}
    for name, value in question:
        if name in FIELDS:
            if isinstance(value, str):
                check_name(name, value)
            values[name] = FIELDS[name].parse(value) if isinstance(value, str) else value
    return override({}, values)


@keep_last(16)
def scenario_of(question: Question) -> Scenario:
    """The scenario of a question, with the schedule left open."""
    return Scenario.from_dict(tables_of(question))


def digest(question: Question) -> str:
    """A name of what a question states, the same for everyone."""
    stated = {name: value for name, value in question if name in FIELDS}
    return f"{zlib.crc32(json.dumps(stated, sort_keys=True).encode()):08x}"


@dataclass(frozen=True)
class Answer:
    """A policy on a scenario: its results as a row of a comparison, what it assumes,
    the tracks of it that are drawn, and, where the scenario does not fit into memory, that
    sentence."""

    results: dict[str, Any]
    assumed: tuple[Assumption, ...]
    drawn: figures.Drawn
    missing_memory: str

    @property
    def nbytes(self) -> int:
        return self.drawn.nbytes


def work_of(question: Question, choice: str) -> int:
    """What a policy costs to simulate, in tasks, known before that is done."""
    scenario = set_up(Choice.parse(choice).of(scenario_of(question)).scenario).scenario
    return _weight(scenario) * task_count(scenario.layers, scenario.r1, scenario.r2)


def _weight(scenario: Scenario) -> int:
    """What a task costs."""
    if scenario.ranks is None:
        return 1
    return max(RANKED_WORK, scenario.deployment.gpus // 4)


def check_work(work: int, left: int) -> None:
    """Raise InputError where a policy is more work than a page has left for it."""
    if work > left:
        raise InputError(
            f"simulating {work:,} tasks takes too long for a page, which has {left:,} of "
            f"{MAX_PAGE_TASKS:,} left; choose fewer layers, r1 or r2, or fewer policies, or use "
            "`simdep simulate`"
        )


@keep_bytes(50_000_000)
def answer(question: Question, choice: str) -> Answer:
    """A policy, such as `findep:r1=2`, simulated on the scenario of a question."""
    prediction = simulate_choice(Choice.parse(choice), scenario_of(question))
    return Answer(
        results=comparison_row(prediction),
        assumed=prediction.assumed,
        drawn=figures.Drawn.of(shown_tracks(prediction.simulated, MAX_TRACKS)),
        missing_memory=missing_memory(prediction),
    )


@keep_bytes(50_000_000)
def timelines(question: Question, choices: tuple[tuple[str, str], ...]) -> figures.Gantt:
    """The timelines of policies, each by its letter, on one axis."""
    drawn = [answer(question, choice).drawn for _, choice in choices]
    return figures.Gantt.of(*drawn, titles=[letter.upper() for letter, _ in choices], heading=False)


@keep_last(32)
def configurations(question: Question, order: str) -> pd.DataFrame:
    """Every configuration (r1, r2) of FinDEP that the samples allow, with what it gives; raises
    InputError if none is possible, and for too many tasks of all of them."""
    scenario = scenario_of(question)
    samples, tokens = scenario.workload.samples, scenario.tokens
    r1 = [count for count in range(1, min(samples, MAX_R1) + 1) if samples % count == 0]
    r2 = range(1, min(tokens, MAX_R2) + 1)
    base = tables_of(question) | {"schedule": {"policy": "findep", "order": order}}
    _check_grid(Scenario.from_dict(base), r1, r2)
    rows: list[dict[str, Any]] = []
    for block in sweep_rows(Sweep(base, (Axis("r1", tuple(r1)), Axis("r2", tuple(r2))))):
        rows += block
    points = pd.DataFrame(rows)
    if "makespan_us" not in points:
        raise InputError(points["reason"].iloc[0])
    return points


def _check_grid(scenario: Scenario, r1: Sequence[int], r2: Sequence[int]) -> None:
    """Raise InputError where all configurations are too many tasks for a page."""
    tasks = sum(task_count(scenario.layers, parts, chunks) for parts in r1 for chunks in r2)
    work = _weight(scenario) * tasks
    if work <= MAX_PAGE_TASKS:
        return
    most = MAX_GRID_TASKS if simulated_together(scenario) else MAX_PAGE_TASKS
    if work > most:
        raise InputError(
            f"the {len(r1) * len(r2)} configurations have {work:,} tasks, and a page simulates at "
            f"most {most:,}; choose fewer layers, or use `simdep sweep`"
        )


@keep_last(32)
def solved(question: Question) -> Solution:
    """The best policy, order and configuration for the samples of a question."""
    return solve_samples(scenario_of(question))


def policy_table(answers: Mapping[str, Answer]) -> pd.DataFrame:
    """A row a policy, by its letter: what `simdep compare` shows, and whether it fits first."""
    rows = with_speedups(each.results for each in answers.values())
    table = pd.DataFrame(
        list(map(readable_row, rows)), index=pd.Index([letter.upper() for letter in answers])
    )
    table.insert(1, "memory", table.pop("memory"))
    return table


def assumed(answers: Mapping[str, Answer]) -> list[Assumption]:
    """What the answers rest on besides measurements."""
    found: list[Assumption] = []
    for each in answers.values():
        found += each.assumed
    return found
