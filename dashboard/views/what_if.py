"""What if: up to four policies on a scenario of your choice, simulated side by side, and the best
configuration found.

The address holds the whole question. Computing stands in `dashboard.answers`, drawing here. What
has no answer is told in one sentence, in place of what needs the answer. Times are microseconds
until they are drawn.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboard import answers
from dashboard.answers import Question
from dashboard.form import DEPLOYED, SERVED, FormField, draw, scenario_fields, write_fields
from dashboard.widgets import decimals, literal, show_figure, tile
from simdep.analysis import figures
from simdep.analysis.metrics import METRICS
from simdep.checks import InfeasibleError
from simdep.hardware.extrapolation import Assumption, assumption_sentences
from simdep.planning.choice import Choice
from simdep.planning.comparison import SHOWN_METRICS
from simdep.policies import POLICIES
from simdep.prediction import Prediction
from simdep.scenario.field import OneOf
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
SOLVED = "solved"  # the question that was solved last, in the state of the session
PROVEN_PCT = 1e-6  # a gap that is rounding
HEAT_METRICS = {  # what the heat map can show
    METRICS[key].label: METRICS[key] for key in ("makespan_us", "throughput_tokens_per_s")
}


def main() -> None:
    began = time.perf_counter()
    st.title("What if")
    question = answers.question_of(draw_form())
    choices = draw_policies()
    try:
        scenario = answers.scenario_of(question)
    except ValueError as error:
        st.error(literal(error))
        return
    predictions = predicted(question, choices)
    if predictions:
        draw_timelines(question, {letter: choices[letter] for letter in predictions})
        draw_table(predictions)
    draw_configurations(question)
    draw_assumptions(scenario, predictions)
    st.caption(f"Answered in {1e3 * (time.perf_counter() - began):.0f} ms.")


def predicted(question: Question, choices: Mapping[str, str]) -> dict[str, Prediction]:
    """The policies that have an answer; the others are told."""
    predictions = {}
    for letter, choice in choices.items():
        try:
            predictions[letter] = answers.answer(question, choice)
        except (ValueError, InfeasibleError) as error:
            st.error(literal(f"{letter.upper()}: {error}"))
    return predictions


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


def draw_timelines(question: Question, choices: Mapping[str, str]) -> None:
    labels = [answers.answer(question, choice).schedule.label for choice in choices.values()]
    st.subheader("Timelines, simulated")
    show_figure(
        st,
        answers.timelines(question, tuple(choices.items())),
        "timelines",
        f"Gantt chart of {', '.join(labels)}, one under the other in every stream",
    )


def draw_table(predictions: Mapping[str, Prediction]) -> None:
    table = answers.policy_table(predictions)
    settings = decimals(["speed-up"], "%.3f")
    for key in SHOWN_METRICS:
        form = "%.0f" if METRICS[key].unit == "tokens/s" else "%.1f"
        settings |= decimals([METRICS[key].heading], form)
    st.dataframe(table, column_config=settings)
    for letter, prediction in predictions.items():
        if prediction.changes:
            st.caption(literal(f"{letter.upper()}: {'; '.join(prediction.changes)}."))


def draw_configurations(question: Question) -> None:
    st.subheader("Every configuration of FinDEP, and the best of all")
    left, right = st.columns([1, 3])
    order = draw(left, choice_field("cuts_order", "AG order", ("asas", "aass")))
    metric = HEAT_METRICS[draw(left, choice_field("cuts_value", "Shown", tuple(HEAT_METRICS)))]
    try:
        points = answers.configurations(question, order)
    except ValueError as error:
        left.error(literal(error))
    else:
        best = points.sort_values("makespan_us", kind="stable").iloc[0]
        shortest = f"{figures.human_time(best['makespan_us'])}, simulated"
        tile(left, "Best of them", f"r1={best['r1']:g}, r2={best['r2']:g}", shortest)
        left.caption("The best cell is framed. r1 divides the samples of an AG GPU.")
        shown = points.rename(columns={metric.key: metric.heading})
        figure = figures.heat_map(shown, "r2", "r1", metric.heading, best=metric.better)
        show_figure(right, figure, "cuts", f"{metric.heading} of FinDEP {order} over r1 and r2")
    hint = "Search every order and configuration of these samples, with a proof."
    if left.button("Solve", key="solve", help=hint):
        st.session_state[SOLVED] = question
    if st.session_state.get(SOLVED) == question:
        draw_solution(question)


def choice_field(key: str, label: str, options: tuple[str, ...]) -> FormField:
    declared = OneOf(name=key, table="", label=label, help=label.lower(), choices=options)
    return FormField(key, declared, options[0], options)


def draw_solution(question: Question) -> None:
    """What the solver found, and a button that shows it among the policies."""
    try:
        solution = answers.solved(question)
    except (ValueError, InfeasibleError) as error:
        st.error(literal(error))
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
        f"Show it as policy {letter.upper()}", key="put", on_click=show, args=(letter, choice)
    )
    columns[3].caption(
        f"{solution.evaluated:,} evaluations of {solution.configurations:,} configurations in "
        f"{solution.solve_ms:.0f} ms."
    )


def show(letter: str, choice: Choice) -> None:
    """Show a policy under a letter of the form."""
    parameters = {f"{letter}_{name}": getattr(choice, name) for name in ("r1", "r2", "order")}
    write_fields({letter: choice.policy, **parameters})


def draw_assumptions(scenario: Scenario, predictions: Mapping[str, Prediction]) -> None:
    """What the numbers rest on: everything here is simulated, and some of it on assumed costs."""
    name = scenario.deployment.hardware.name
    st.subheader("Where the numbers come from")
    st.caption(
        literal(
            f"All times are simulated, with the costs of hardware profile {name}; none is measured."
        )
    )
    assumed: list[Assumption] = []
    for prediction in predictions.values():
        assumed += prediction.assumed
    notes = assumption_sentences(assumed)
    if notes:
        st.caption("Assumed, because the profile has no measurement or published figure for it:")
        st.markdown("\n".join(f"- {literal(note)}" for note in notes[:MAX_NOTES]))
    if len(notes) > MAX_NOTES:
        st.caption(f"and {len(notes) - MAX_NOTES} more")


main()
