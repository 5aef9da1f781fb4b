"""The scenario that a command is given: its file, its flags (which win), or both.

Every field of `simdep.scenario.fields` has a flag; `--stage-times` gives those of the table costs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simdep import files
from simdep.checks import InputError
from simdep.costs import parse_stages
from simdep.file_kinds import SCENARIO
from simdep.scenario.field import Boolean, Factors, Field
from simdep.scenario.fields import FIELDS, TABLES, checked_fields, fields_of, override

if TYPE_CHECKING:
    from simdep.scenario.spec import Scenario

# Without a model nothing has a size: these fields then mean nothing.
_SIZES = ("micro_batches", "chunks", "split", "merge_last")
_MACHINE = ("scenario", "deployment", "workload")  # tables that a model and its hardware fill


def add_scenario_flags(
    parser: argparse.ArgumentParser, *, schedule: bool = True, usage: str = ""
) -> None:
    """SCENARIO.toml, and a flag for each of its fields; without `schedule` only for those of model,
    deployment and workload. `usage` is what stands before the file."""
    parser.usage = f"%(prog)s {usage}[SCENARIO.toml] [flags]"
    parser.add_argument(
        "scenario",
        nargs="?",
        type=Path,
        metavar="SCENARIO.toml",
        help="a scenario file; each of the following flags overrides a field of it",
    )
    for name, table in TABLES.items():
        if not schedule and name not in _MACHINE:
            continue
        group = parser.add_argument_group(table.title, table.note)
        for field in fields_of(name):
            if field.option:
                add_field_flag(group, field)
        if name == "costs":
            _add_stage_times(group)


def scenario(args: argparse.Namespace) -> Scenario:
    """The scenario; raises InputError where there is none, or that names the field at fault."""
    from simdep.scenario.spec import Scenario

    data = tables(args)
    try:
        return Scenario.from_dict(data)
    except InputError as error:
        if error.place:  # it names another file
            raise
        raise InputError(error, _place(args)) from None
    except ValueError as error:
        raise InputError(error, _place(args)) from None


def tables(args: argparse.Namespace) -> dict[str, Any]:
    """Its nested tables; raises InputError where neither a file, a model nor stage times are given,
    and for a field of the file that is at fault."""
    flags = stated(args)
    stage_times = getattr(args, "stage_times", None)
    if stage_times is not None:
        _check_alone(args, flags)
    elif args.scenario is None and "model" not in flags:
        needed = "give SCENARIO.toml, or --model with --hardware, --ag and --eg"
        raise InputError(f"nothing to {args.command}: {needed}")
    if "policy" in flags:
        from simdep.policies import load_policy

        # A flag may name a module of the user's own, a file may not.
        flags["policy"] = load_policy(flags["policy"]).name
    data = override(_read(args.scenario) if args.scenario else {}, flags)
    return data if stage_times is None else data | {"costs": parse_stages(stage_times)}


def _add_stage_times(group: Any) -> None:
    """The flag of the table costs, in place of one for each of its fields."""
    group.add_argument(
        "--stage-times",
        metavar="KIND=US,...",
        help="microseconds per task: attention (or projection and core), shared, a2e, expert, e2a",
    )


def _check_alone(args: argparse.Namespace, flags: Mapping[str, Any]) -> None:
    """Raise InputError for a model, its hardware or a size beside stage times."""
    if args.scenario is not None:
        raise InputError("--stage-times replaces model and hardware; leave out scenario")
    has_ranks = any(FIELDS[name].table == "ranks" for name in flags)
    for name in flags:
        field = FIELDS[name]
        allowed = name == "layers" or (has_ranks and name in ("ag", "eg"))
        if field.table in _MACHINE and not allowed:
            raise InputError(f"--stage-times replaces model and hardware; leave out {field.option}")
        if name in _SIZES:
            raise InputError(
                f"{field.option}: --stage-times say nothing of sizes; give a model and hardware"
            )


def stated(args: argparse.Namespace) -> dict[str, Any]:
    """The fields that flags state, by name; raises InputError for one out of its bounds."""
    values = {}
    for field in FIELDS.values():
        value = getattr(args, _attribute(field), None)
        if value is not None:
            field.check(value)
            values[field.name] = value
    return values


def _read(path: Path) -> dict[str, Any]:
    """The tables of a file, its fields checked."""
    data = files.read_toml(path, SCENARIO)
    with files.context(path, SCENARIO):
        checked_fields(data)
    return data


def _place(args: argparse.Namespace) -> str:
    """Where the fields of a scenario come from."""
    if args.scenario is None:
        return ""
    options = [FIELDS[name].option for name in stated(args)]
    return f"{args.scenario} with {', '.join(options)}" if options else str(args.scenario)


def _attribute(field: Field) -> str:
    return field.name.replace(".", "_")


def add_field_flag(group: Any, field: Field) -> None:
    """The flag of one field."""
    default = f" (default: {field.default_text})" if field.default_text else ""
    words: dict[str, Any] = {"dest": _attribute(field), "help": field.help + default}
    if isinstance(field, Boolean):
        words |= {"action": argparse.BooleanOptionalAction, "default": None}
    else:
        words |= {"type": _reader(field), "metavar": field.placeholder}
    if isinstance(field, Factors):
        words |= {"action": _Merge}
    group.add_argument(field.option, **words)


class _Merge(argparse.Action):
    """Puts together the factors of a flag that is repeated."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        before: Mapping[str, float] = getattr(namespace, self.dest) or {}
        setattr(namespace, self.dest, {**before, **values})


def _reader(field: Field) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return field.parse(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read
