"""The command `reproduce`: published measurements beside predictions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simdep.cli.output import check_paths, emit, table, tell
from simdep.cli.parser import add_json

if TYPE_CHECKING:
    from simdep.validation.reproduce.result import Point, Reproduction

HELP = "published measurements of real systems beside predictions"
EXAMPLES = """
simdep reproduce
simdep reproduce findep --json
simdep reproduce fastafd --measured mine.csv --html mine.html
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_json(parser)
    parser.add_argument(
        "name", nargs="?", default="all", help="findep, fastafd, eps-moe or all (default)"
    )
    parser.add_argument(
        "--measured",
        type=Path,
        metavar="FILE.csv",
        help="predict these rows, in the columns of the table",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="the page, default reproduction.html"
    )


def run(args: argparse.Namespace) -> int:
    """`simdep reproduce`: published against predicted."""
    from simdep.validation.reproduce import reproduce

    check_paths(args)
    found = reproduce(args.name, args.measured)
    told = [each.to_dict() for each in found]
    result = {key: [row for each in told for row in each[key]] for key in ("rows", "summary")}
    emit(args, result, [_reproduction_text(each) for each in found])
    page = args.html or Path("reproduction.html")
    try:
        _write_page(page, found)
    except (OSError, ModuleNotFoundError) as error:
        if args.html:
            raise
        tell([f"no page: {error}; --html FILE says where"])
        return 0
    print(f"simdep: page written to {page}", file=sys.stderr)
    return 0


def _point_rows(points: Iterable[Point]) -> list[dict[str, Any]]:
    return [
        {
            **{
                key: value
                for key, value in point.columns.items()
                if key not in ("value", "step_ms", "unit")
            },
            "role": point.role,
            "published": point.published,
            "predicted": point.predicted,
            "error_pct": point.error_pct,
            "unit": point.unit,
            **point.others,
        }
        for point in points
    ]


def _reproduction_text(each: Reproduction) -> str:
    from simdep.validation.reproduce.result import errors

    parts = [f"{each.title}\n{each.source}", table(_point_rows(each.points))]
    for role in ("calibrated", "predicted"):
        told = errors([point for point in each.points if point.role == role])
        if told["mape_pct"] is not None:
            parts.append(
                f"{role}: {told['n']} figures, MAPE {told['mape_pct']:.2f} %, worst {told['worst_pct']:.1f} %"
            )
    parts.append("Checks\n" + table([asdict(check) for check in each.checks]))
    parts.append("Parameters\n" + table([asdict(parameter) for parameter in each.parameters]))
    reasons = dict.fromkeys(
        f"{point.role}: {point.reason}" for point in each.points if point.reason
    )
    parts += ["Roles\n" + "\n".join(f"- {reason}" for reason in reasons)] if reasons else []
    parts += (
        ["Remarks\n" + "\n".join(f"- {remark}" for remark in each.remarks)] if each.remarks else []
    )
    return "\n\n".join(parts)


def _write_page(path: Path, found: Iterable[Reproduction]) -> None:
    import pandas as pd

    from simdep.analysis import figures  # plotly, only to draw

    sections = []
    for each in found:
        drawn = pd.DataFrame(
            {
                "label": _label(point),
                "role": point.role,
                "unit": point.unit,
                "published": point.published,
                "predicted": point.predicted,
            }
            for point in each.points
            if point.predicted and point.predicted > 0 and point.published and point.published > 0
        )
        sections.append(figures.Section(each.title, each.source))
        for unit, group in drawn.groupby("unit") if len(drawn) else ():
            sections.append(
                figures.Section(f"{each.name}: {unit}", figure=figures.agreement(group, str(unit)))
            )
        for heading, rows in (
            ("checks", [asdict(check) for check in each.checks]),
            ("parameters", [asdict(parameter) for parameter in each.parameters]),
            ("points", _point_rows(each.points)),
        ):
            # as objects, so that a count beside an empty cell stays a whole number
            shown = pd.DataFrame(rows, dtype=object).dropna(axis="columns", how="all")
            told = shown.where(shown.notna(), "").map(
                lambda cell: ("no", "yes")[cell] if isinstance(cell, bool) else cell
            )
            sections.append(figures.Section(f"{each.name}: {heading}", table=told))
        reasons = dict.fromkeys(
            f"{point.role}: {point.reason}" for point in each.points if point.reason
        )
        sections += [figures.Section(f"{each.name}: role", reason) for reason in reasons]
        sections += [figures.Section(f"{each.name}: remark", remark) for remark in each.remarks]
    figures.write_html(path, "simdep: published against predicted", sections)


def _label(point: Point) -> str:
    hidden = ("value", "step_ms", "unit")
    return ", ".join(
        f"{key} {value}"
        for key, value in point.columns.items()
        if value is not None and key not in hidden
    )
