"""Whatever a file, a flag or an axis holds: a scenario is read, or refused in a short sentence."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simdep.checks import MAX_LETTERS, InputError, sentence
from simdep.cli.scenario_args import add_scenario_flags, stated
from simdep.planning.axes import Axis, axis_names
from simdep.scenario.fields import FIELDS, TABLES, override
from simdep.scenario.spec import Scenario

INPUTS = settings(max_examples=300, deadline=None)
BASE = {
    "model": "deepseek-v2-lite",
    "layers": 2,
    "deployment": {"hardware": "h20", "ag": 1, "eg": 1},
}
keys = st.sampled_from([*{part for field in FIELDS.values() for part in field.path}, "x", ""])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 9),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.text(max_size=9),
    st.text("0123456789.,:/=-", max_size=9),
    st.sampled_from(
        ["ag", "bf16", "zipf:1.2", "asas", "AG.0", "inter-node", "\x1b[31m", "z" * 999]
    ),
    st.just(date(1979, 5, 27)),
)
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


def accepted(read: Callable[[], Any]) -> Any:
    """What a reader makes of its input; None if it refuses it, in one short sentence."""
    try:
        return read()
    except ValueError as error:
        text = sentence(error)
        assert text and text.isprintable() and len(text) <= MAX_LETTERS
        return None


@INPUTS
@given(st.dictionaries(st.sampled_from([*TABLES, "model", "layers", "scale", "x"]), nested))
@example({"deployment": {"link": {"alpha_us": {}}}})
@example({"ranks": {"far_link": {"gbytes_per_s": 1}}})
@example({"schedule": {"chunks": [[[1]]]}})
def test_any_tables_are_read_or_refused(tables: dict[str, Any]) -> None:
    scenario = accepted(lambda: Scenario.from_dict(BASE | tables))
    assert scenario is None or scenario.layers >= 1


@INPUTS
@given(st.dictionaries(st.sampled_from(list(FIELDS)), nested, max_size=6))
def test_any_values_of_fields_are_read_or_refused(values: dict[str, Any]) -> None:
    scenario = accepted(lambda: Scenario.from_dict(override(BASE, values)))
    assert scenario is None or scenario.given >= {"model", "hardware"}


@INPUTS
@given(
    st.sampled_from([*axis_names(), "x"]),
    st.text("0123456789.,:-+elinog AS", max_size=16) | st.text(max_size=5),
)
@example("r1", "1..9" + "9" * 5000)
@example("r1", "log:1..9:999999999")
@example("link.gbytes_per_s", "lin:1e300..1e308:4")
@example("ag:eg", "1:" + "9" * 5000 + "..2:1")
@example("ag:eg", "1:9999999..9999999:1")
def test_any_axis_is_read_or_refused(name: str, values: str) -> None:
    axis = accepted(lambda: Axis.parse(f"{name}={values}"))
    assert axis is None or axis.values


@INPUTS
@given(
    st.sampled_from([field for field in FIELDS.values() if field.option]),
    st.text("0123456789.,:-+e=AG\n", max_size=16) | st.text(max_size=5),
)
def test_any_flag_is_read_or_refused(field: Any, text: str) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_scenario_flags(parser)
    try:
        values = stated(parser.parse_args([f"{field.option}={text}"]))
    except (argparse.ArgumentError, InputError) as error:
        assert str(error)
        return
    assert values.keys() <= {field.name}


@pytest.mark.parametrize("depth", [5, 500])
def test_a_value_nested_deep_is_refused(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    with pytest.raises(InputError):
        Scenario.from_dict(BASE | {"workload": {"samples": value}})
