"""What the address of a page holds: its fields, which are read and written here alone.

A field takes its value from the address when the page is first drawn, within the bounds of its
declaration. Every change goes back into the address, so that the address reproduces what is seen.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dashboard.widgets import literal
from simdep import checks
from simdep.checks import InputError, known
from simdep.scenario.field import Field

OPEN = "default"  # the text of a field that states nothing
MAX_TEXT = 1000  # letters of a value
MAX_COMPLAINT = 180  # letters of what an error says of a value


@dataclass(frozen=True)
class FormField:
    """A field of a page: its key in the address, what it declares, and what it shows at first.

    With `options` it is a list to choose from, and with `free` other texts may be typed there. A
    field that is left open is None, or `OPEN` where that is an option.
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
        if text in self.options:
            return text
        if len(text) > MAX_TEXT:
            raise InputError(f"{self.key} has {len(text):,} letters; expected at most {MAX_TEXT:,}")
        if text == OPEN and not self.options:
            return None
        value = self.declared.parse(text)
        self.declared.check(value)
        if self.options and not self.free:
            known(text, self.options, self.key)
        return value if self.declared.is_number else text


def read(field: FormField) -> Any:
    """What the widget of a field holds: at first what the address asks for.

    A choice that is no longer among the options gives way to the first one.
    """
    if field.key not in st.session_state:
        st.session_state[field.key] = asked(field)
    elif field.options and not field.free and st.session_state[field.key] not in field.options:
        set_field(field, field.default)
    return st.session_state[field.key]


def asked(field: FormField) -> Any:
    """What the address asks for; a value that breaks the field's rule is told in a sentence, and
    taken out of the address."""
    text = st.query_params.get(field.key)
    if text is None:
        return field.default
    try:
        return field.parse(text)
    except InputError as error:
        complaint = checks.shortened(checks.sentence(error), MAX_COMPLAINT)
        st.warning(literal(f"The address asks for {field.key}: {complaint}; {_instead(field)}."))
        del st.query_params[field.key]
        return field.default


def _instead(field: FormField) -> str:
    if field.default in (None, OPEN):
        return "the field is left open"
    return f"the page shows {checks.shown(field.default)}"


def set_field(field: FormField, value: Any) -> None:
    """Set a field, in the state of its widget and in the address."""
    st.session_state[field.key] = value
    keep(field, value)


def keep(field: FormField, value: Any) -> None:
    """Write a value into the address; what a page shows at first needs no place there."""
    stated = None if value == "" else value
    if stated == field.default:
        st.query_params.pop(field.key, None)
    else:
        st.query_params[field.key] = OPEN if stated is None else str(stated)


def tell_unknown(keys: Collection[str]) -> None:
    """Say in a sentence what else the address asks for, and take it out of it."""
    unknown = [key for key in st.query_params if key not in keys]
    for key in unknown:
        del st.query_params[key]
    if unknown:
        names = checks.printable(checks.listed(unknown))
        complaint = checks.shortened(names, MAX_COMPLAINT)
        st.warning(literal(f"The address asks for {complaint}, which this page does not have."))
