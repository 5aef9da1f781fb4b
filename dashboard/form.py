"""The fields of a form, with a widget each.

A field takes its label, choices, bounds and explanation from its declaration in
`simdep.scenario.fields`, so that a new field of a scenario appears in the form by itself.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.address import MAX_TEXT, OPEN, FormField, keep, read
from simdep.hardware.profile import hardware_names
from simdep.scenario.field import Boolean, Field, Integer, OneOf
from simdep.scenario.fields import FIELDS
from simdep.scenario.models import builtin_models

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


def choice_field(key: str, label: str, options: tuple[str, ...]) -> FormField:
    """A list of a page's own; the first option is shown at first."""
    declared = OneOf(name=key, table="", label=label, help=label.lower(), choices=options)
    return FormField(key, declared, options[0], options)


def draw(place: Any, field: FormField) -> Any:
    """The widget of a field; its value, None where it is left open."""
    shown = read(field)
    common: dict[str, Any] = {
        "key": field.key,
        "help": field.hint,
        "on_change": _take,
        "args": (field,),
    }
    if field.options:
        typed = () if shown in field.options else (shown,)
        common["accept_new_options"] = field.free
        value = place.selectbox(field.label, (*field.options, *typed), **common)
        return None if value == OPEN else value
    common |= {"value": None, "placeholder": field.declared.default_text}
    if field.declared.is_number:
        is_integer = isinstance(field.declared, Integer)
        low = field.declared.low if isinstance(field.declared, Integer) else 0.0
        step = 1 if is_integer else 1.0
        return place.number_input(field.label, min_value=low, step=step, **common)
    text = place.text_input(field.label, max_chars=MAX_TEXT, **common) or ""
    return text.strip() or None


def _take(field: FormField) -> None:
    """Write what a widget was changed to into the address."""
    keep(field, st.session_state[field.key])
