"""A field of a scenario is declared once: files, flags, axes, the form, the schema and the
reference page follow from its declaration."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT

from dashboard.form import scenario_fields
from simdep.checks import InputError
from simdep.cli.scenario_args import add_scenario_flags, stated
from simdep.costs import StageTimes
from simdep.planning.axes import Axis, axis_names
from simdep.scenario import field as kinds
from simdep.scenario.field import Field, Integer
from simdep.scenario.fields import FIELDS, checked_fields, override
from simdep.scenario.reference import json_schema, reference_markdown
from simdep.scenario.spec import NO_HARDWARE, NO_MODEL, Scenario

PAGE = ROOT / "simdep" / "docs" / "scenario.md"
SERVED: dict[str, Any] = {
    "model": "deepseek-v2-lite",
    "layers": 2,
    "deployment": {"hardware": "h20", "ag": 1, "eg": 1},
}
STAGES = {"attention": 4, "a2e": 1, "expert": 2, "e2a": 1}


def parsed_flags(*flags: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_scenario_flags(parser)
    return stated(parser.parse_args(flags))


def test_a_declared_field_is_found_everywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    field = Integer(
        name="fan_speed",
        table="deployment",
        label="Fan speed",
        help="speed of the fans",
        default=40,
        low=10,
        unit="rpm",
        column="fan_speed_rpm",
    )
    path = tmp_path / "scenario.toml"
    path.write_text(
        'model = "deepseek-v2-lite"\n'
        '[deployment]\nhardware = "h20"\nag = 1\neg = 1\nfan_speed = 50\n'
    )
    with pytest.raises(InputError, match=r"scenario\.toml: unknown key of deployment 'fan_speed'"):
        Scenario.load(path)
    monkeypatch.setitem(FIELDS, field.name, field)

    assert "fan_speed" in Scenario.load(path).given
    assert checked_fields(tomllib.loads(path.read_text()))["fan_speed"] == 50
    with pytest.raises(InputError, match="fan_speed=9; expected an integer >= 10"):
        checked_fields({"deployment": {"fan_speed": 9}})
    assert parsed_flags("--fan-speed", "50") == {"fan_speed": 50}
    axis = Axis.parse("fan_speed=40..60:10")
    assert (axis.values, axis.column) == ((40, 50, 60), "fan_speed_rpm")
    widget = scenario_fields()["fan_speed"]
    assert (widget.label, widget.parse("50")) == ("Fan speed (rpm)", 50)
    schema = json_schema()["properties"]["deployment"]["properties"]["fan_speed"]
    assert (schema["type"], schema["minimum"], schema["default"]) == ("integer", 10, 40)
    assert (
        "| `fan_speed` | `--fan-speed` | integer >= 10 | rpm | 40 | speed of the fans |"
        in reference_markdown()
    )


def test_the_reference_page_is_made_from_the_declarations() -> None:
    """If this fails, in one line: python -c "from simdep.scenario.reference import *;
    print(reference_markdown(), end='')" > simdep/docs/scenario.md"""
    assert PAGE.read_text() == reference_markdown()


@pytest.mark.parametrize("block", PAGE.read_text().split("```toml\n")[1:])
def test_every_file_of_the_reference_page_is_a_scenario(block: str, tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(block.partition("```")[0])
    assert Scenario.load(path).given


# Three ways to state a field


def text_of(value: Any) -> str:
    """A value as a flag or an axis gives it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def values_of(field: Field) -> st.SearchStrategy[Any]:
    """Values that a file may give, of those that a single word can give, too."""
    if isinstance(field, Integer):
        return st.integers(field.low, field.high)
    if isinstance(field, kinds.Number):
        high = field.high or field.below or 1e9
        return st.floats(field.above or 0, high, exclude_min=True, exclude_max=True)
    if isinstance(field, kinds.Boolean):
        return st.booleans()
    if isinstance(field, kinds.OneOf):
        return st.sampled_from(field.choices)
    return st.text("abc.:", min_size=1)


single = st.sampled_from([field for field in FIELDS.values() if field.can_vary])


def tables_of(field: Field, value: Any) -> dict[str, Any]:
    *outer, key = field.path
    tables: dict[str, Any] = {key: value}
    for name in reversed(outer):
        tables = {name: tables}
    return tables


@given(st.data())
def test_file_flag_and_axis_give_a_field_the_same_value(data: st.DataObject) -> None:
    field = data.draw(single)
    value = data.draw(values_of(field))
    assert checked_fields(tables_of(field, value)) == {field.name: value}
    assert override({}, {field.name: value}) == tables_of(field, value)
    text = text_of(value)
    assert Axis.parse(f"{field.name}={text}").values == (value,)
    if isinstance(field, kinds.Boolean):
        flag = field.option if value else field.option.replace("--", "--no-", 1)
        assert parsed_flags(flag) == {field.name: value}
    elif field.option:
        assert parsed_flags(f"{field.option}={text}") == {field.name: value}


@given(st.data())
def test_the_schema_accepts_what_a_file_may_hold(data: st.DataObject) -> None:
    field = data.draw(single)
    tables = tables_of(field, data.draw(values_of(field)))
    jsonschema.validate(tables, json_schema())
    broken = tables_of(field, {"x": 1})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, json_schema())


@pytest.mark.parametrize("field", [f for f in FIELDS.values() if not f.can_vary], ids=str)
def test_the_schema_accepts_lists_and_tables(field: Field) -> None:
    examples: dict[type[Field], Any] = {
        kinds.Integers: [[3, 1], "3,1"],
        kinds.Shares: [[1, 3], [[1, 3], [2, 2]], "1,3/2,2"],
        kinds.Factors: [{"AG.3": 1.3}],
    }
    for value in examples[type(field)]:
        jsonschema.validate(tables_of(field, value), json_schema())
        assert checked_fields(tables_of(field, value))


@pytest.mark.parametrize("field", FIELDS.values(), ids=lambda field: field.name)
def test_every_field_has_a_flag_or_is_a_stage_time_and_explains_itself(field: Field) -> None:
    assert field.option or field.table == "costs"
    assert field.help and field.label and field.rule
    assert field.default is None or field.check(field.default) == field.default
    if not isinstance(field, kinds.Integers | kinds.Factors | kinds.Shares):
        assert field.name in axis_names()


def test_flags_that_other_programs_call_are_there() -> None:
    options = {field.option for field in FIELDS.values()}
    assert options >= {
        *("--model", "--scale", "--hardware", "--ag", "--eg", "--gpus", "--layers", "--phase"),
        *("--seq-len", "--samples", "--m-a", "--dtype", "--dispatch", "--link-gbytes-per-s"),
        *("--link-alpha-us", "--shared-on", "--duplex", "--memory-gbytes", "--policy", "--order"),
        *("--r1", "--r2", "--micro-batches", "--chunks", "--split", "--merge-last", "--per-rank"),
        *("--routing", "--batches", "--straggler", "--gpus-per-node", "--nics-per-node"),
    }


def test_a_repeated_straggler_flag_slows_every_rank_that_it_names() -> None:
    flags = parsed_flags("--straggler", "AG.0=1.2", "--straggler", "EG.1=2")
    assert flags == {"stragglers": {"AG.0": 1.2, "EG.1": 2.0}}


def test_counts_of_a_routing_may_stand_in_the_file() -> None:
    field = FIELDS["routing"]
    assert isinstance(field, kinds.Counts)
    assert checked_fields({"ranks": {"routing": [3, 1]}}) == {"routing": [3, 1]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"fields": 1}, "unknown key of scenario 'fields'"),
        ({"scenario": {}}, "unknown key of scenario 'scenario'"),
        ({"deployment": {"link": {"speed": 1}}}, "unknown key of link 'speed'"),
        ({"ranks": {"far_link": 3}}, "far_link=3; expected a table of gbytes_per_s, alpha_us"),
        ({"costs": {"atention": 3}}, "unknown key of costs 'atention'; did you mean 'attention'?"),
        ({"costs": 3}, "costs=3; expected a table of attention, projection, core, shared"),
        ({"deployment": {"contention": 0.5}}, "contention=0.5; expected a number >= 0 and < 0.5"),
    ],
)
def test_a_key_or_a_value_that_is_none_of_a_field_is_refused(data: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        checked_fields(data)
    assert str(error.value).startswith(message)


# Scenarios in Python


def test_fields_by_name_make_the_scenario_of_a_file() -> None:
    by_name = Scenario.of("deepseek-v2-lite", "h20", layers=2, ag=1, eg=1)
    by_tables = Scenario.from_dict(SERVED)
    assert by_name == by_tables
    assert by_name.given == by_tables.given


def test_a_model_and_a_profile_may_be_given_as_they_are() -> None:
    known = Scenario.from_dict(SERVED)
    again = Scenario.of(known.model, known.deployment.hardware, layers=2, ag=1, eg=1)
    assert again == known


def test_tables_may_be_given_by_name() -> None:
    scenario = Scenario.of(
        "deepseek-v2-lite",
        "h20",
        ag=2,
        eg=2,
        link={"gbytes_per_s": 50},
        ranks={"gpus_per_node": 4},
    )
    assert scenario.deployment.link is not None
    assert scenario.ranks is not None and scenario.ranks.nodes is not None


def test_an_unknown_field_is_refused_by_its_name() -> None:
    with pytest.raises(InputError, match="unknown field of a scenario 'seqlen'; did you mean"):
        Scenario.of("deepseek-v2-lite", "h20", ag=1, eg=1, seqlen=3)


# Stage times


def test_stage_times_need_no_model() -> None:
    scenario = Scenario.of(costs=STAGES, r1=2)
    assert scenario.stage_times == StageTimes(attention=4, a2e=1, expert=2, e2a=1)
    assert (scenario.model, scenario.deployment.hardware) == (NO_MODEL, NO_HARDWARE)
    assert (scenario.has_model, scenario.layers, scenario.r1) == (False, 1, 2)


def test_stage_times_may_stand_beside_a_model() -> None:
    scenario = Scenario.from_dict(SERVED | {"costs": STAGES})
    assert scenario.has_model
    assert scenario.stage_times == StageTimes(attention=4, a2e=1, expert=2, e2a=1)


def test_halves_of_attention_stand_for_both() -> None:
    costs = {"projection": 3, "core": 1, "a2e": 1, "expert": 2, "e2a": 1}
    times = Scenario.of(costs=costs).stage_times
    assert times is not None and times.attention == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chunks": "1,3"}, "chunks needs a model and hardware; stage times alone have no sizes"),
        ({"seq_len": 8}, "seq_len needs a model and hardware"),
        ({"ag": 2, "eg": 2}, "ag needs a model and hardware"),
        ({"per_rank": True}, "a simulation of every rank needs ag and eg"),
        (
            {"ag": 1, "eg": 1, "gpus_per_node": 2},
            "gpus_per_node needs a link of each class; give a model and hardware",
        ),
        (
            {"ag": 1, "eg": 1, "routing": "zipf:1"},
            "routing 'zipf:1' needs the experts of a model",
        ),
    ],
)
def test_stage_times_alone_have_no_sizes(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        Scenario.of(costs=STAGES, **fields)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"attention": 1}, "stage times: a2e is missing; only shared may be left out"),
        ({**STAGES, "core": 1}, "stage times: give attention, or in its place both"),
        ({**STAGES, "a2e": -1}, "costs.a2e=-1; expected a finite number >= 0"),
    ],
)
def test_stage_times_that_are_not_whole_are_refused(costs: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        Scenario.of(costs=costs)
    assert str(error.value).startswith(message)


def test_per_rank_decides_over_the_other_fields_of_ranks() -> None:
    table = {"stragglers": {"AG.0": 2}}
    assert Scenario.from_dict(SERVED | {"ranks": table}).ranks is not None
    assert Scenario.from_dict(SERVED | {"ranks": {}}).ranks is not None
    assert Scenario.from_dict(SERVED | {"ranks": table | {"per_rank": False}}).ranks is None


# Scenarios as people see them


def test_a_scenario_is_one_line() -> None:
    scenario = Scenario.of("deepseek-v2", "h20", ag=3, eg=5, samples=4, r1=2, r2=4)
    assert repr(scenario) == (
        "<Scenario deepseek-v2 on 3+5 h20: 4 x prefill 2048, findep asas r1=2 r2=4>"
    )
    assert repr(Scenario.of(costs=STAGES)) == (
        "<Scenario of stage times: 1 layers, findep asas r1=1 r2=1>"
    )


def test_of_many_divisors_the_nearest_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"r1=7 does not divide the 720000000 samples .* use 6 or 8"
    ):
        Scenario.of("deepseek-v2", "h20", ag=3, eg=5, samples=720_000_000, r1=7)
