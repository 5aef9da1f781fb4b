"""What if: up to four policies on a scenario of your choice, simulated side by side, and the best
cut found.

The address holds the whole question. Computing first, in cached functions of plain values; drawing
last. What has no answer is told in one sentence, in place of what needs the answer. Times are
microseconds until they are drawn.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dashboard.widgets import changed, decimals, literal, tile
from simdep.analysis import figures
from simdep.checks import InfeasibleError
from simdep.hardware.extrapolation import assumption_sentences
from simdep.hardware.profile import hardware_names
from simdep.planning.axes import Axis
from simdep.planning.choice import Choice, simulate_choice, solve_samples
from simdep.planning.solver import Solution
from simdep.planning.sweep import Sweep, run
from simdep.policies import POLICIES
from simdep.prediction import Prediction
from simdep.scenario.fields import DUPLEX, ELEMENT_BYTES, GROUPS, PHASES
from simdep.scenario.memory import memory
from simdep.scenario.models import builtin_models
from simdep.scenario.spec import Scenario
from simdep.units import human_bytes

TITLE = "What if"
SLOTS = "abcd"  # places for policies
NO_POLICY = "none"
MOST_R1, MOST_R2 = 16, 16  # of the heat map
MOST_BARS = 2000  # of the timelines: half of what a page of its own has, for a quick answer
MAKESPAN = "makespan (ms)"
MOST_NOTES = 12
SOLVED = "solved"  # the question that was solved last, in the state of the session
PROVEN_PCT = 1e-6  # a gap that is rounding
ORDER_HINT = "asas, aass, or a list such as A0 A1 S0 A2 S1 S2"
PATHS = "Or the path of a file of your own: type it."
Question = tuple[
    tuple[str, Any], ...
]  # (field, value) of every field of the form, and when files of one's own changed


@dataclass(frozen=True)
class Field:
    """A widget of the form; the address names it by its key. Without options it is a number: `low`
    to `high`.

    `table` is where a scenario holds the value; a default of None leaves it to the scenario.
    """

    key: str
    label: str
    table: str
    default: Any
    options: Sequence[str] = ()
    low: float = 1
    high: float = 10**9
    hint: str | None = None
    others: bool = False  # whether values that are not among the options may be typed

    def read(self, text: str) -> Any:
        """The value that an address gives; raises ValueError, saying what it should be."""
        if self.options:
            if text not in self.options and not self.others:
                raise ValueError(f"one of {', '.join(self.options)}")
            return text
        whole = isinstance(self.low, int)
        kind = "a whole number" if whole else "a number"
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            raise ValueError(f"{kind} from {self.low:g} to {self.high:,g}") from None
        if not self.low <= value <= self.high:
            raise ValueError(f"{kind} from {self.low:g} to {self.high:,g}")
        return value


SERVED = (
    Field(
        "model",
        "Model",
        "scenario",
        "deepseek-v2",
        tuple(sorted(builtin_models())),
        hint=PATHS,
        others=True,
    ),
    Field("phase", "Phase", "workload", "prefill", PHASES, hint="Decode: one new token a sample."),
    Field("seq_len", "Tokens of a sample", "workload", 2048, hint="Decode: of its context."),
    Field("samples", "Samples per AG GPU", "workload", 4, high=4096, hint="m_a = samples / r1"),
    Field(
        "layers",
        "MoE layers",
        "scenario",
        None,
        high=1000,
        hint="Empty: every layer of the model with experts.",
    ),
)
DEPLOYED = (
    Field(
        "hardware",
        "Hardware",
        "deployment",
        "h20",
        tuple(hardware_names()),
        hint=PATHS,
        others=True,
    ),
    Field("ag", "Attention GPUs (AG)", "deployment", 3, high=4096),
    Field("eg", "Expert GPUs (EG)", "deployment", 5, high=4096),
    Field(
        "gbytes_per_s",
        "Link (GB/s)",
        "link",
        None,
        low=0.001,
        high=1e6,
        hint="Empty: as the hardware has it.",
    ),
    Field(
        "alpha_us",
        "Link start-up (µs)",
        "link",
        None,
        low=0.0,
        high=1e6,
        hint="With a link of your own; default 0.",
    ),
)
DETAILS = (
    Field("dtype", "Data type", "workload", "bf16", tuple(ELEMENT_BYTES)),
    Field("shared_on", "Shared experts on", "deployment", "ag", GROUPS),
    Field(
        "duplex",
        "Link duplex",
        "deployment",
        "full",
        DUPLEX,
        hint="Half: A2E and E2A share one medium.",
    ),
)
FIELDS = (*SERVED, *DEPLOYED, *DETAILS)
SHOWN = {
    "makespan": (MAKESPAN, "min"),
    "throughput": ("throughput (tokens/s)", "max"),
}  # of the heat map
VALUE = Field("cuts_value", "Shown", "", "makespan", tuple(SHOWN))
CUTS = Field("cuts_order", "AG order", "", "asas", ("asas", "aass"))
FIRST = {"a": Choice("naive"), "b": Choice("pppipe", None, 2), "c": Choice("findep", "asas", 2, 4)}


def slot_fields(slot: str) -> tuple[Field, ...]:
    """The widgets of a policy: which one, r1, r2; its order is a text."""
    chosen = FIRST.get(slot)
    options = (*POLICIES,) if slot == SLOTS[0] else (NO_POLICY, *POLICIES)
    return (
        Field(slot, f"Policy {slot.upper()}", "", chosen.policy if chosen else NO_POLICY, options),
        Field(
            f"{slot}_r1",
            "r1",
            "",
            chosen.r1 if chosen else None,
            high=64,
            hint="Micro-batches. Empty: its own.",
        ),
        Field(
            f"{slot}_r2",
            "r2",
            "",
            chosen.r2 if chosen else None,
            high=64,
            hint="Chunks of a micro-batch.",
        ),
    )


# Computing: cached by the question; what is cached is shared and never changed.


def data(question: Question) -> dict[str, Any]:
    """A question in the form of `Scenario.from_dict`; raises ValueError for half a link."""
    found: dict[str, Any] = {"deployment": {}, "workload": {}, "link": {}}
    for field in FIELDS:
        value = dict(question)[field.key]
        is_open = field in DETAILS and value == field.default  # a policy may set it up
        if value is not None and not is_open:
            (found if field.table == "scenario" else found[field.table])[field.key] = value
    link = found.pop("link")
    if "gbytes_per_s" in link:
        found["deployment"]["link"] = link
    elif link:
        raise ValueError(
            "a start-up of the link needs its GB/s: give both, or leave both to the hardware"
        )
    return found


@st.cache_resource(max_entries=64, show_spinner=False)
def asked(question: Question) -> Scenario:
    """The scenario of a question, under its defaults of policy; raises ValueError naming the value
    at fault."""
    return Scenario.from_dict(data(question))


@st.cache_resource(max_entries=256, show_spinner=False)
def answer(question: Question, choice: str) -> Prediction:
    """A policy simulated; raises ValueError where it does not fit the scenario."""
    return simulate_choice(Choice.parse(choice), asked(question))


@st.cache_resource(max_entries=32, show_spinner=False)
def timelines(question: Question, choices: tuple[tuple[str, str], ...]) -> go.Figure:
    """The timelines of policies, each by its letter, on one axis."""
    found = [answer(question, choice).simulated for _, choice in choices]
    figure = figures.gantt_chart(
        *found, titles=[slot.upper() for slot, _ in choices], max_bars=MOST_BARS
    )
    return figure.update_layout(
        title_text="", margin_t=figure.layout.margin.t - 24, height=figure.layout.height - 24
    )


@st.cache_resource(max_entries=32, show_spinner=False)
def cuts(question: Question, order: str) -> pd.DataFrame:
    """Every cut (r1, r2) of FinDEP that the samples allow with what it gives; raises ValueError if
    none is possible."""
    scenario = asked(question)
    samples, tokens = (
        scenario.workload.samples,
        scenario.workload.samples * scenario.workload.tokens_per_sample,
    )
    r1 = Axis("r1", tuple(n for n in range(1, min(samples, MOST_R1) + 1) if samples % n == 0))
    r2 = Axis("r2", tuple(range(1, min(tokens, MOST_R2) + 1)))
    base = data(question) | {"schedule": {"policy": "findep", "order": order}}
    points = pd.DataFrame(row for block in run(Sweep(base, (r1, r2))) for row in block)
    if "makespan_us" not in points:
        raise ValueError(points["reason"].iloc[0])
    values = {
        MAKESPAN: points["makespan_us"] / 1e3,
        "throughput (tokens/s)": points["throughput_tokens_per_s"],
    }
    return points.assign(**values)


@st.cache_resource(max_entries=32, show_spinner=False)
def solved(question: Question) -> Solution:
    """The best policy, order and cut for the samples of a question; raises ValueError or
    InfeasibleError without."""
    return solve_samples(asked(question))


def room(scenario: Scenario) -> str:
    """Whether a scenario fits into the memory of its GPUs."""
    missing = memory(scenario).missing_bytes
    return f"{human_bytes(missing)} missing" if missing else "fits"


def table(found: Mapping[str, Prediction]) -> pd.DataFrame:
    """A row a policy, in the units that people read."""
    rows = {slot.upper(): prediction.results for slot, prediction in found.items()}
    first = next(iter(rows.values()))["throughput_tokens_per_s"]
    return pd.DataFrame(
        {
            "": list(rows),
            "policy": [row["schedule"] for row in rows.values()],
            "m_a": [row["m_a"] for row in rows.values()],
            "makespan (ms)": [row["makespan_us"] / 1e3 for row in rows.values()],
            "speed-up over the first": [
                row["throughput_tokens_per_s"] / first for row in rows.values()
            ],
            "throughput (tokens/s)": [row["throughput_tokens_per_s"] for row in rows.values()],
            "per GPU (tokens/s)": [row["throughput_tokens_per_s_per_gpu"] for row in rows.values()],
            "AG bubble (%)": [row["ag_bubble_pct"] for row in rows.values()],
            "EG bubble (%)": [row["eg_bubble_pct"] for row in rows.values()],
            "exposed communication (ms)": [
                row["exposed_communication_us"] / 1e3 for row in rows.values()
            ],
            "memory": [room(prediction.scenario) for prediction in found.values()],
        }
    )


# Drawing.


def main() -> None:
    began = time.perf_counter()
    st.title(TITLE)
    question = draw_form()
    choices = draw_policies()
    try:
        scenario = asked(question)
    except ValueError as error:
        st.error(literal(error))
        return
    found: dict[str, Prediction] = {}
    for slot, choice in choices.items():
        try:
            found[slot] = answer(question, choice)
        except (ValueError, InfeasibleError) as error:
            st.error(literal(f"{slot.upper()}: {error}"))
    if found:
        draw_timelines(question, {slot: choices[slot] for slot in found})
        draw_numbers(found)
    draw_cuts(question)
    draw_origin(scenario, found)
    st.caption(f"Answered in {1e3 * (time.perf_counter() - began):.0f} ms.")


def draw_form() -> Question:
    """The scenario's widgets; fields that say the same as the address, or what is in the form
    since."""
    values: dict[str, Any] = {}
    for fields, widths in ((SERVED, (3, 2, 2, 2, 2)), (DEPLOYED, (3, 2, 2, 2, 2)), (DETAILS, None)):
        row: Any = (
            st.columns(widths)
            if widths
            else st.expander("Data type, shared experts, duplex").columns(3)
        )
        for place, field in zip(row, fields, strict=True):
            values[field.key] = draw_field(place, field)
    values["changed"] = changed(Path(values["model"]), Path(values["hardware"]))
    return tuple(values.items())


def draw_field(place: Any, field: Field) -> Any:
    """One widget that the address can set; a value that it can't have is told, and the default
    shown."""
    text = st.query_params.get(field.key)
    if text and field.key not in st.session_state:
        try:
            field.read(text)
        except ValueError as rule:
            default = "left to the scenario" if field.default is None else repr(field.default)
            st.warning(
                literal(
                    f"The address asks for {field.key} {text!r}; it is {rule}. This is {default}."
                )
            )
    if field.options:
        index = field.options.index(field.default)
        return place.selectbox(
            field.label,
            field.options,
            index=index,
            key=field.key,
            help=field.hint,
            bind="query-params",
            accept_new_options=field.others,
        )
    return place.number_input(
        field.label,
        field.low,
        field.high,
        field.default,
        key=field.key,
        help=field.hint,
        bind="query-params",
        placeholder="default",
        step=1 if isinstance(field.low, int) else 1.0,
    )


def draw_policies() -> dict[str, str]:
    """The policies of the form: letter -> policy with the degrees that it takes, as `Choice.parse`
    reads it."""
    found = {}
    for place, slot in zip(st.columns(len(SLOTS)), SLOTS, strict=True):
        which, *degrees = slot_fields(slot)
        box = place.container(border=True, height="stretch")
        chosen = draw_field(box, which)
        if chosen == NO_POLICY:
            continue
        takes = POLICIES[chosen].parameters
        numbers = [field for field in degrees if field.label in takes]
        row = box.columns(len(numbers)) if numbers else ()
        given = {
            field.label: draw_field(each, field) for each, field in zip(row, numbers, strict=True)
        }
        order = None
        if "order" in takes:
            order = box.text_input(
                "AG order", "asas", key=f"{slot}_order", bind="query-params", help=ORDER_HINT
            )
        box.caption(literal(POLICIES[chosen].summary))
        found[slot] = str(Choice(chosen, order, **given))
    return found


def draw_timelines(question: Question, choices: Mapping[str, str]) -> None:
    names = {slot: answer(question, choice).schedule.label for slot, choice in choices.items()}
    st.subheader("Timelines, simulated")
    st.plotly_chart(
        timelines(question, tuple(choices.items())),
        key="timelines",
        config=figures.CONFIG,
        alt=f"Gantt chart of {', '.join(names.values())}, one under the other in every stream",
    )


def draw_numbers(found: Mapping[str, Prediction]) -> None:
    shown = table(found)
    forms = dict.fromkeys(shown.columns, "%.1f") | {
        "makespan (ms)": "%.3f",
        "speed-up over the first": "%.3f",
    }
    forms |= dict.fromkeys(("throughput (tokens/s)", "per GPU (tokens/s)"), "%.0f") | {"m_a": "%d"}
    settings: dict[str, Any] = {}
    for column in shown.columns[2:-1]:
        settings |= decimals([column], forms[column])
    st.dataframe(shown, column_config=settings, hide_index=True)
    for slot, prediction in found.items():
        if prediction.changes:
            st.caption(literal(f"{slot.upper()}: {'; '.join(prediction.changes)}."))


def draw_cuts(question: Question) -> None:
    st.subheader("Every cut of FinDEP, and the best of all")
    left, right = st.columns([1, 3])
    order = draw_field(left, CUTS)
    value, better = SHOWN[draw_field(left, VALUE)]
    try:
        points = cuts(question, order)
    except ValueError as error:
        left.error(literal(error))
    else:
        best = points.sort_values(MAKESPAN, kind="stable").iloc[0]
        shortest = f"{figures.human_time(best['makespan_us'])}, simulated"
        tile(left, "Best of them", f"r1={best['r1']:g}, r2={best['r2']:g}", shortest)
        left.caption("The best cell is framed. r1 divides the samples of an AG GPU.")
        figure = figures.heat_map(points, "r2", "r1", value, best=better)
        right.plotly_chart(
            figure,
            key="cuts",
            config=figures.CONFIG,
            alt=f"{value} of FinDEP {order} over r1 and r2",
        )
    if left.button(
        "Solve", key="solve", help="Search every order and cut of these samples, with a proof."
    ):
        st.session_state[SOLVED] = question
    if st.session_state.get(SOLVED) == question:
        draw_solution(question)


def draw_solution(question: Question) -> None:
    """What the solver found, and a button that shows it among the policies."""
    try:
        found = solved(question)
    except (ValueError, InfeasibleError) as error:
        st.error(literal(error))
        return
    choice, proof = (
        Choice.of_solution(found),
        "optimal" if found.gap_pct < PROVEN_PCT else f"within {found.gap_pct:.2g} %",
    )
    places = st.columns([3, 2, 2, 3])
    tile(
        places[0],
        "Best of all",
        str(choice).replace(":", " ").replace(",", " "),
        f"m_a={found.best.m_a}",
    )
    tile(places[1], "Makespan, simulated", figures.human_time(found.best.makespan_us), proof)
    tile(
        places[2],
        "No order takes less than",
        figures.human_time(found.lower_bound_us),
        "lower bound",
    )
    slot = next((slot for slot in SLOTS if st.session_state.get(slot) == NO_POLICY), SLOTS[-1])
    places[3].button(
        f"Show it as policy {slot.upper()}", key="put", on_click=put, args=(slot, choice)
    )
    places[3].caption(
        f"{found.evaluated:,} evaluations of {found.configurations:,} configurations in {found.solve_ms:.0f} ms."
    )


def put(slot: str, choice: Choice) -> None:
    """Have a place of the form show a policy."""
    values = {
        slot: choice.policy,
        f"{slot}_r1": choice.r1,
        f"{slot}_r2": choice.r2,
        f"{slot}_order": choice.order,
    }
    for key, value in values.items():
        if value is not None:
            st.session_state[key] = value


def draw_origin(scenario: Scenario, found: Mapping[str, Prediction]) -> None:
    """What the numbers rest on: everything here is simulated, and some of it on assumed costs."""
    name = scenario.deployment.hardware.name
    st.subheader("Where the numbers come from")
    st.caption(
        literal(
            f"All times are simulated, with the costs of hardware profile {name}; none is measured."
        )
    )
    notes = assumption_sentences(
        note for prediction in found.values() for note in prediction.assumed
    )
    if notes:
        st.caption("Assumed, because the profile has no measurement or published figure for it:")
        st.markdown("\n".join(f"- {literal(note)}" for note in notes[:MOST_NOTES]))
    if len(notes) > MOST_NOTES:
        st.caption(f"and {len(notes) - MOST_NOTES} more")


main()
