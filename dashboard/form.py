"""The fields of a form: a widget each, whose value the address holds.

A field takes its label, choices, bounds and explanation from its declaration in
`simdep.scenario.fields`, so that a new field of a scenario appears in the form by itself.
`read_address` checks a field in the address before Streamlit sees it; `write_fields` sets fields in
the form and in the address at once. A field that is left open is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitAPIException

from dashboard.widgets import literal
from simdep.checks import InputError, known, shown
from simdep.hardware.profile import hardware_names
from simdep.scenario.field import Boolean, Field, Integer, OneOf
from simdep.scenario.fields import FIELDS
from simdep.scenario.models import builtin_models

OPEN = "default"  # an option that states nothing
MAX_TEXT = 1000  # letters of a value
REFUSED = "refused"  # in the state of a session: fields whose value in the address was refused
# The scenario that the form opens with
OPENING = {
    "model": "deepseek-v2",
    "phase": "prefill",
    "seq_len": 2048,
    "samples": 4,
    "hardware": "h20",
    "ag": 3,
    "eg": 5,
}
SERVED = ("model", "phase", "seq_len", "samples", "layers")
DEPLOYED = ("hardware", "ag", "eg", "link.gbytes_per_s", "link.alpha_us")
FORM_TABLES = ("scenario", "deployment", "workload", "ranks")  # whose fields the form has


@dataclass(frozen=True)
class FormField:
    """A field of a form: its key in the address, what it declares, and what it shows at first.

    With `options` it is a list to choose from, and with `free` other texts may be typed there.
    """

    key: str
    declared: Field
    default: Any = None
    options: tuple[str, ...] = ()
    free: bool = False

    @property
    def label(self) -> str:
        """With the unit, unless the label counts in it."""
        label, unit = self.declared.label, self.declared.unit
        counted = unit.lower() in label.lower().split()
        return f"{label} ({unit})" if unit and not counted else label

    @property
    def hint(self) -> str:
        """What the field is, and what holds where it is left open."""
        default = self.declared.default_text
        sentence = f"{self.declared.help[:1].upper()}{self.declared.help[1:]}."
        return f"{sentence} Default: {default}." if default else sentence

    def parse(self, text: str) -> Any:
        """The value that a text gives, as its widget holds it; raises InputError for one that
        breaks the field's rule."""
        if len(text) > MAX_TEXT:
            raise InputError(f"{self.key} has {len(text):,} letters; expected at most {MAX_TEXT:,}")
        if self.options and not self.free:
            return known(text, self.options, self.key)
        value = self.declared.parse(text)
        self.declared.check(value)
        return value if self.declared.is_number else text


def scenario_fields() -> dict[str, FormField]:
    """The fields of the what-if form, by name: those that it shows first, then all others of a
    scenario that take the place of none of them."""
    first = (*SERVED, *DEPLOYED)
    others = [
        name
        for name, field in FIELDS.items()
        if field.table in FORM_TABLES and name not in first and not set(field.replaces) & set(first)
    ]
    return {name: _form_field(FIELDS[name]) for name in (*first, *others)}


def _form_field(field: Field) -> FormField:
    default = OPENING.get(field.name)
    if field.name == "model":
        return FormField(field.name, field, default, tuple(sorted(builtin_models())), free=True)
    if field.name == "hardware":
        return FormField(field.name, field, default, tuple(hardware_names()), free=True)
    options: tuple[str, ...] = ()
    if isinstance(field, OneOf):
        options = field.choices
    elif isinstance(field, Boolean):
        options = ("true", "false")
    if options and default is None:
        options, default = (OPEN, *options), OPEN
    return FormField(field.name, field, default, options)


def read_address(field: FormField) -> bool:
    """Whether a field may take its value from the address, checked before Streamlit does so.

    A value that breaks the field's rule is told, and taken out of the address.
    """
    refused: set[str] = st.session_state.setdefault(REFUSED, set())
    text = st.query_params.get(field.key)
    if text and field.key not in st.session_state:
        try:
            field.parse(text)
        except InputError as error:
            st.warning(literal(f"The address asks for {field.key}: {error}. {_kept(field)}"))
            refused.add(field.key)
            del st.query_params[field.key]
    return field.key not in refused


def _kept(field: FormField) -> str:
    if field.default in (None, OPEN):
        return "The field is left open."
    return f"The form shows {field.default!r}."


def write_fields(values: Mapping[str, Any]) -> None:
    """Set fields, by key, in the form and in the address; None leaves one open.

    The address is written even for fields that the form does not show yet.
    """
    for key, value in values.items():
        if value is not None:
            st.session_state[key] = value
        with suppress(StreamlitAPIException):  # a widget that is shown writes the address itself
            if value is None:
                st.query_params.pop(key, None)
            else:
                st.query_params[key] = str(value)


def draw(place: Any, field: FormField) -> Any:
    """The widget of a field; its value, None where it is left open."""
    common = {
        "key": field.key,
        "help": field.hint,
        "bind": "query-params" if read_address(field) else None,
    }
    if field.options:
        value = place.selectbox(
            field.label,
            field.options,
            index=field.options.index(field.default),
            accept_new_options=field.free,
            **common,
        )
        return None if value == OPEN else value
    common["placeholder"] = field.declared.default_text
    if field.declared.is_number:
        is_integer = isinstance(field.declared, Integer)
        low = field.declared.low if isinstance(field.declared, Integer) else 0.0
        step = 1 if is_integer else 1.0
        return place.number_input(
            field.label, min_value=low, value=field.default, step=step, **common
        )
    text = place.text_input(field.label, field.default or "", max_chars=MAX_TEXT, **common)
    return text.strip() or None


def choose(place: Any, label: str, options: Sequence[str], key: str) -> str:
    """A list to choose from that the address can set; an unknown value there is told, and the first
    option shown."""
    text = st.query_params.get(key)
    if text is not None and text not in options and key not in st.session_state:
        st.warning(
            literal(
                f"The address asks for {key} {shown(text)}, which is not recorded; "
                f"this is {options[0]!r}."
            )
        )
        del st.query_params[key]
    chosen: str = place.selectbox(label, options, key=key, bind="query-params")
    return chosen
