"""What if: up to four policies on a scenario of your choice, simulated side by side, and the best
configuration found.

The address holds the whole question. Computing stands in `dashboard.answers`, drawing here. What
has no answer is told in one sentence, in place of what needs the answer. Times are microseconds
until they are drawn.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import answers
from dashboard.address import FormField, asked, keep, set_field, tell_unknown
from dashboard.answers import Answer, Question
from dashboard.form import DEPLOYED, SERVED, choice_field, draw, scenario_fields
from dashboard.widgets import decimals, literal, show_figure, tile
from dashboard.window import WINDOW, draw_chart
from simdep.analysis import figures
from simdep.analysis.metrics import METRICS, Metric
from simdep.checks import InfeasibleError, InputError, sentence, shown
from simdep.hardware.extrapolation import Assumption, assumption_sentences
from simdep.planning.choice import CHOICE_PARAMETERS, Choice
from simdep.planning.comparison import SHOWN_METRICS
from simdep.policies import POLICIES
from simdep.scenario.field import OneOf, Text
from simdep.scenario.fields import FIELDS
from simdep.scenario.spec import Scenario

LETTERS = "abcd"  # of the policies side by side
NO_POLICY = "none"
FIRST_POLICIES = {
    "a": Choice("naive"),
    "b": Choice("pppipe", None, 2),
    "c": Choice("findep", "asas", 2, 4),
}
WIDTHS = (3, 2, 2, 2, 2)  # of the fields that the form shows first
MAX_NOTES = 12
MAX_LINES = 5  # of an error that lists ways out
PROVEN_PCT = 1e-6  # a gap that is rounding
HEAT_METRICS = {  # what the heat map can show
    METRICS[key].label: METRICS[key] for key in ("makespan_us", "throughput_tokens_per_s")
}
ORDER = choice_field("cuts_order", "AG order", ("asas", "aass"))
CELL_VALUE = choice_field("cuts_value", "Shown", tuple(HEAT_METRICS))


@dataclass(frozen=True, kw_only=True)
class _Digest(Text):
    """The digest of a question."""

    def check(self, value: Any) -> str:
        if not re.fullmatch("[0-9a-f]{8}", str(value)):
            raise InputError(f"{self.name}={shown(value)}; expected 8 hexadecimal digits")
        return str(value)


SOLVED = FormField(
    "solved", _Digest(name="solved", table="", label="Solved", help="the question that is solved")
)


def main() -> None:
    began = time.perf_counter()
    st.title("What if")
    tell_unknown(address_keys())
    question = answers.question_of(draw_form())
    choices = draw_policies()
    try:
        scenario = answers.scenario_of(question)
    except ValueError as error:
        st.error(literal(sentence(error)))
        return
    found = answered(question, choices)
    if found:
        draw_memory(found)
        draw_timelines(question, choices, found)
        draw_table(found)
    draw_configurations(question)
    draw_assumptions(scenario, answers.assumed(found))
    st.caption(f"Answered in {1e3 * (time.perf_counter() - began):.0f} ms.")


def address_keys() -> set[str]:
    """What the address of this page may hold."""
    keys = {*scenario_fields(), ORDER.key, CELL_VALUE.key, SOLVED.key, WINDOW.key}
    for letter in LETTERS:
        keys |= {letter, *(f"{letter}_{name}" for name in CHOICE_PARAMETERS)}
    return keys


def answered(question: Question, choices: Mapping[str, str]) -> dict[str, Answer]:
    """The policies that have an answer; the others are told, with those that are too much for a
    page."""
    found, left = {}, answers.MAX_PAGE_TASKS
    for letter, choice in choices.items():
        try:
            work = answers.work_of(question, choice)
            answers.check_work(work, left)
            found[letter] = answers.answer(question, choice)
            left -= work
        except (ValueError, InfeasibleError) as error:
            st.error(literal(f"{letter.upper()}: {sentence(error)}"))
    return found


def draw_memory(found: Mapping[str, Answer]) -> None:
    """Say first which policies do not fit into memory, and what would make them fit."""
    letters: dict[str, list[str]] = {}
    for letter, each in found.items():
        if each.missing_memory:
            letters.setdefault(each.missing_memory, []).append(letter.upper())
    for missing, which in letters.items():
        st.error(literal(f"{', '.join(which)}: {missing}."), icon=":material/memory:")


def draw_form() -> dict[str, Any]:
    """The fields of the scenario, and what they say."""
    fields = scenario_fields()
    values = {}
    for names in (SERVED, DEPLOYED):
        for column, name in zip(st.columns(WIDTHS), names, strict=True):
            values[name] = draw(column, fields[name])
    columns = st.expander("More of the scenario").columns(3)
    others = [name for name in fields if name not in values]
    for number, name in enumerate(others):
        values[name] = draw(columns[number % len(columns)], fields[name])
    return values


def draw_policies() -> dict[str, str]:
    """The policies of the form: letter -> policy with its parameters, as `Choice.parse` reads
    it."""
    choices = {}
    for column, letter in zip(st.columns(len(LETTERS)), LETTERS, strict=True):
        box = column.container(border=True, height="stretch")
        policy = draw(box, policy_field(letter))
        if policy == NO_POLICY:
            continue
        choices[letter] = str(Choice(policy, **draw_parameters(box, letter, policy)))
        box.caption(literal(POLICIES[policy].summary))
    return choices


def draw_parameters(box: Any, letter: str, policy: str) -> dict[str, Any]:
    """The parameters that a policy takes: r1 and r2 beside each other, its order below."""
    numbers = [name for name in ("r1", "r2") if name in POLICIES[policy].parameters]
    columns = box.columns(len(numbers)) if numbers else ()
    parameters: dict[str, Any] = {}
    for column, name in zip(columns, numbers, strict=True):
        parameters[name] = draw(column, parameter_field(letter, name))
    if "order" in POLICIES[policy].parameters:
        parameters["order"] = draw(box, parameter_field(letter, "order"))
    return parameters


def policy_field(letter: str) -> FormField:
    options = tuple(POLICIES) if letter == LETTERS[0] else (NO_POLICY, *POLICIES)
    declared = OneOf(
        name=letter,
        table="schedule",
        label=f"Policy {letter.upper()}",
        help="a policy of `simdep policies`",
        choices=options,
    )
    first = FIRST_POLICIES[letter].policy if letter in FIRST_POLICIES else NO_POLICY
    return FormField(letter, declared, first, options)


def parameter_field(letter: str, name: str) -> FormField:
    """A parameter of a policy, r1, r2 or order; left open, it is the policy's own."""
    first = getattr(FIRST_POLICIES.get(letter, Choice(NO_POLICY)), name)
    return FormField(f"{letter}_{name}", FIELDS[name], first)


def draw_timelines(
    question: Question, choices: Mapping[str, str], found: Mapping[str, Answer]
) -> None:
    labels = [each.results["schedule"] for each in found.values()]
    drawn = tuple((letter, choices[letter]) for letter in found)
    st.subheader("Timelines, simulated")
    alt = f"Gantt chart of {', '.join(labels)}, one under the other in every stream"
    draw_chart("timelines", partial(answers.timelines, question, drawn), alt)


def draw_table(found: Mapping[str, Answer]) -> None:
    table = answers.policy_table(found)
    settings = decimals(["speed-up"], "%.3f")
    for key in SHOWN_METRICS:
        form = "%.0f" if METRICS[key].unit == "tokens/s" else "%.1f"
        settings |= decimals([METRICS[key].heading], form)
    st.dataframe(table, column_config=settings)
    for letter, each in found.items():
        changes = each.results["changes"]
        if changes:
            st.caption(literal(f"{letter.upper()}: {'; '.join(changes)}."))


def draw_configurations(question: Question) -> None:
    st.subheader("Every configuration of FinDEP, and the best of all")
    left, right = st.columns([1, 3])
    order, metric = draw(left, ORDER), HEAT_METRICS[draw(left, CELL_VALUE)]
    try:
        points = answers.configurations(question, order)
    except ValueError as error:
        left.error(literal(sentence(error)))
    else:
        draw_grid(left, right, points, order, metric)
    hint = "Search every order and configuration of these samples, with a proof."
    digest = answers.digest(question)
    left.button("Solve", key="solve", help=hint, on_click=keep, args=(SOLVED, digest))
    if asked(SOLVED) == digest:
        draw_solution(question)


def draw_grid(left: Any, right: Any, points: pd.DataFrame, order: str, metric: Metric) -> None:
    """The configurations that fit into memory as cells, and the best of them."""
    fitting = points[points["memory_fits"].ne(False)]
    answered = fitting.dropna(subset="makespan_us").sort_values("makespan_us", kind="stable")
    if answered.empty:
        left.error("None of the configurations fits into memory, so none is the best.")
        return
    best = answered.iloc[0]
    shortest = f"{figures.human_time(best['makespan_us'])}, simulated"
    tile(left, "Best of them", f"r1={best['r1']:g}, r2={best['r2']:g}", shortest)
    left.caption("The best cell is framed. r1 divides the samples of an AG GPU.")
    if len(fitting) < len(points):
        missing = len(points) - len(fitting)
        left.caption(f"{missing} of {len(points)} do not fit into memory; their cells are empty.")
    values, name = answered[metric.key], metric.heading
    if metric.unit == "us":
        values, name = values / 1e3, f"{metric.label} (ms)"
    cells = points[["r1", "r2"]].join(values.rename(name))
    figure = figures.heat_map(cells, "r2", "r1", name, best=metric.better)
    show_figure(right, figure, "cuts", f"{name} of FinDEP {order} over r1 and r2")


def draw_solution(question: Question) -> None:
    """What the solver found, and a button that shows it among the policies."""
    try:
        solution = answers.solved(question)
    except (ValueError, InfeasibleError) as error:
        st.error(literal(sentence(error, MAX_LINES)))
        return
    choice, best = Choice.of_solution(solution), solution.best
    proof = "optimal" if solution.gap_pct < PROVEN_PCT else f"within {solution.gap_pct:.2g} %"
    columns = st.columns([3, 2, 2, 3])
    name = str(choice).replace(":", " ").replace(",", " ")
    tile(columns[0], "Best of all", name, f"m_a={best.m_a}")
    tile(columns[1], "Makespan, simulated", figures.human_time(best.makespan_us), proof)
    bound = figures.human_time(solution.lower_bound_us)
    tile(columns[2], "No order takes less than", bound, "lower bound")
    free = [letter for letter in LETTERS if st.session_state.get(letter) == NO_POLICY]
    letter = free[0] if free else LETTERS[-1]
    columns[3].button(
        f"Show it as policy {letter.upper()}",
        key="put",
        on_click=show_choice,
        args=(letter, choice),
    )
    columns[3].caption(
        f"{solution.evaluated:,} evaluations of {solution.configurations:,} configurations in "
        f"{solution.solve_ms:.0f} ms."
    )


def show_choice(letter: str, choice: Choice) -> None:
    """Show a policy under a letter of the form."""
    set_field(policy_field(letter), choice.policy)
    for name in CHOICE_PARAMETERS:
        set_field(parameter_field(letter, name), getattr(choice, name))


def draw_assumptions(scenario: Scenario, assumed: Sequence[Assumption]) -> None:
    """What the numbers rest on: everything here is simulated, and some of it on assumed costs."""
    name = scenario.deployment.hardware.name
    st.subheader("Where the numbers come from")
    st.caption(
        literal(
            f"All times are simulated, with the costs of hardware profile {name}; none is measured."
        )
    )
    notes = assumption_sentences(assumed)
    if notes:
        st.caption("Assumed, because the profile has no measurement or published figure for it:")
        st.markdown("\n".join(f"- {literal(note)}" for note in notes[:MAX_NOTES]))
    if len(notes) > MAX_NOTES:
        st.caption(f"and {len(notes) - MAX_NOTES} more")


main()
