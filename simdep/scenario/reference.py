"""What follows from the declaration of fields for people and programs: the reference page, and the
JSON schema of a scenario file."""

from __future__ import annotations

from typing import Any

from simdep.scenario.field import Field
from simdep.scenario.fields import FIELDS, TABLES, fields_of

_TITLE = "A scenario, field by field"
_OPENING = """\
A scenario says which model runs on which GPUs, and in which schedule. It is a TOML file, the flags
of a command, or both; flags win. `model`, `hardware`, `ag` and `eg` (or `gpus`) are needed, unless
stage times are given. Every other field is optional.

This page is made from the declaration of the fields, `simdep/scenario/fields.py`.
"""
EXAMPLE = """\
model = "deepseek-v2"
layers = 8

[deployment]
hardware = "a6000"
ag = 3
eg = 5
link = { alpha_us = 20, gbytes_per_s = 25 }

[workload]
seq_len = 2048
samples = 4

[schedule]
order = "aass"
r1 = 2
r2 = 4
"""
_EXAMPLE_COSTS = """\
Stage times alone are a scenario, too:

```toml
layers = 4

[costs]
attention = 1000
shared = 300
a2e = 50
expert = 200
e2a = 50

[schedule]
r1 = 2
r2 = 2
```
"""
_COLUMNS = ("key", "flag", "values", "unit", "default", "meaning", "sweep column")


def reference_markdown() -> str:
    """The reference page of a scenario, in Markdown."""
    parts = [f"# {_TITLE}\n", _OPENING, f"```toml\n{EXAMPLE}```\n", _EXAMPLE_COSTS]
    for name, table in TABLES.items():
        heading = table.title if name == "scenario" else f"{table.title}: `[{name}]`"
        parts += [f"## {heading}\n", f"{table.note}\n", _table(fields_of(name))]
    parts.append(_axes())
    return "\n".join(parts)


def json_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of the nested tables of a scenario file."""
    schema = _object("A scenario of simdep")
    for field in FIELDS.values():
        place = schema["properties"]
        for depth, key in enumerate(field.path[:-1]):
            title = TABLES[key].title if depth == 0 and key in TABLES else ""
            place = _inner(place, key, title)["properties"]
        own = field.schema() | {"description": field.help}
        own |= {} if field.default is None else {"default": field.default}
        place[field.path[-1]] = own
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _table(fields: list[Field]) -> str:
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *map(_row, fields)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(field: Field) -> tuple[str, ...]:
    flag = field.option or "--stage-times"
    key = field.name if field.table != "costs" else field.path[-1]
    return (
        f"`{key}`",
        f"`{flag}`",
        field.rule.replace("|", "\\|"),
        field.unit,
        field.default_text,
        field.help,
        f"`{field.column_name}`" if field.can_vary else "",
    )


def _axes() -> str:
    return """\
## Axes of a sweep

`simdep sweep --vary NAME=VALUES` varies every field that has a sweep column, by its name: those of
the table `costs` as `costs.attention` and so on. `ag:eg=1:7..7:1` varies both groups together.
"""


def _object(title: str) -> dict[str, Any]:
    described = {"title": title} if title else {}
    return {"type": "object", **described, "properties": {}, "additionalProperties": False}


def _inner(place: dict[str, Any], key: str, title: str) -> dict[str, Any]:
    """The schema of a table in a table; a field of the same key may stand in its place."""
    if key not in place:
        place[key] = _object(title)
    elif place[key].get("type") != "object" and "anyOf" not in place[key]:
        place[key] = {"anyOf": [place[key], _object(title)]}
    inner: dict[str, Any] = place[key]
    return inner["anyOf"][1] if "anyOf" in inner else inner
