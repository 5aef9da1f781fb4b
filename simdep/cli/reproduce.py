"""The command `reproduce`: published measurements beside predictions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simdep.cli.output import check_paths, emit, table
from simdep.cli.parser import add_json

if TYPE_CHECKING:
    import pandas as pd

    from simdep.analysis.figures import Section
    from simdep.validation.reproduce.result import PublishedPoint, Reproduction

HELP = "predict published measurements of real systems"
EXAMPLES = """
simdep reproduce
simdep reproduce findep --json
simdep reproduce fastafd --measured mine.csv --html mine.html
"""
_VALUES = ("value", "step_ms", "unit")  # columns of a point that `published` shows


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_json(parser)
    parser.add_argument(
        "name", nargs="?", default="all", help="findep, fastafd, eps-moe or all (default: all)"
    )
    parser.add_argument(
        "--measured",
        type=Path,
        metavar="FILE.csv",
        help="predict these measurements instead; columns as in the shipped table",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with plots and tables"
    )


def run(args: argparse.Namespace) -> int:
    """`simdep reproduce [NAME]`: published against predicted, and a page where --html names one."""
    from simdep.validation.reproduce import reproduce

    check_paths(args)
    reproductions = reproduce(args.name, args.measured)
    results = [reproduction.to_dict() for reproduction in reproductions]
    result: dict[str, list[Any]] = {"rows": [], "summary": []}
    for one in results:
        result["rows"] += one["rows"]
        result["summary"] += one["summary"]
    emit(args, result, [_text(reproduction) for reproduction in reproductions])
    if args.html:
        _write_page(args.html, reproductions)
        print(f"simdep: page written to {args.html}", file=sys.stderr)
    return 0


def _text(reproduction: Reproduction) -> str:
    from simdep.validation.reproduce.result import error_summary

    parts = [
        f"{reproduction.publication.title}\n{reproduction.publication.source}",
        table([_point_row(point) for point in reproduction.points]),
    ]
    for role in ("calibrated", "predicted"):
        summary = error_summary(reproduction.with_role(role))
        if summary.mape_pct is not None:
            mape, worst = f"{summary.mape_pct:.2f} %", f"{summary.worst_pct:.1f} %"
            parts.append(f"{role}: {summary.n} figures, MAPE {mape}, worst {worst}")
    parts.append("Checks\n" + table([asdict(check) for check in reproduction.checks]))
    parts.append("Parameters\n" + table([asdict(value) for value in reproduction.parameters]))
    parts += _listed("Roles", _reasons(reproduction.points))
    parts += _listed("Remarks", reproduction.remarks)
    return "\n\n".join(parts)


def _listed(heading: str, lines: Sequence[str]) -> list[str]:
    """A part with one line for each; none for no lines."""
    if not lines:
        return []
    return [heading + "\n" + "\n".join(f"- {line}" for line in lines)]


def _reasons(points: Iterable[PublishedPoint]) -> list[str]:
    """The roles of points with their reasons, every pair once."""
    reasons = [f"{point.role}: {point.reason}" for point in points if point.reason]
    return list(dict.fromkeys(reasons))


def _point_row(point: PublishedPoint) -> dict[str, Any]:
    return {
        **_configuration(point),
        "role": point.role,
        "published": point.published,
        "predicted": point.predicted,
        "error_pct": point.error_pct,
        "unit": point.unit,
        **point.others,
    }


def _configuration(point: PublishedPoint) -> dict[str, Any]:
    """The columns of a point that say what was measured."""
    return {key: value for key, value in point.columns.items() if key not in _VALUES}


def _write_page(path: Path, reproductions: Iterable[Reproduction]) -> None:
    from simdep.analysis import figures  # plotly, only to draw

    sections = []
    for reproduction in reproductions:
        sections += _sections(reproduction)
    figures.write_html(path, "simdep: published against predicted", sections)


def _sections(reproduction: Reproduction) -> list[Section]:
    import pandas as pd

    from simdep.analysis import figures  # plotly, only to draw

    publication = reproduction.publication
    name = publication.name
    sections = [figures.Section(publication.title, publication.source)]
    for unit, points in _drawn(reproduction.points).items():
        figure = figures.agreement_scatter(pd.DataFrame(points), unit)
        sections.append(figures.Section(f"{name}: {unit}", figure=figure))
    tables = {
        "checks": [asdict(check) for check in reproduction.checks],
        "parameters": [asdict(parameter) for parameter in reproduction.parameters],
        "points": [_point_row(point) for point in reproduction.points],
    }
    for heading, rows in tables.items():
        sections.append(figures.Section(f"{name}: {heading}", table=_page_table(rows)))
    for reason in _reasons(reproduction.points):
        sections.append(figures.Section(f"{name}: role", reason))
    for remark in reproduction.remarks:
        sections.append(figures.Section(f"{name}: remark", remark))
    return sections


def _drawn(points: Iterable[PublishedPoint]) -> dict[str, list[dict[str, Any]]]:
    """Points with a published and a predicted value above 0, by unit in alphabetical order."""
    by_unit: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        if (point.predicted or 0) <= 0 or (point.published or 0) <= 0:
            continue
        row = {
            "label": _label(point),
            "role": point.role,
            "published": point.published,
            "predicted": point.predicted,
        }
        by_unit.setdefault(point.unit, []).append(row)
    return dict(sorted(by_unit.items()))


def _page_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a page shows them: no empty columns, yes and no for true and false."""
    import pandas as pd

    # as objects, so that a count beside an empty cell stays a whole number
    frame = pd.DataFrame(list(rows), dtype=object).dropna(axis="columns", how="all")
    return frame.where(frame.notna(), "").map(_page_cell)


def _page_cell(cell: Any) -> Any:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return cell


def _label(point: PublishedPoint) -> str:
    parts = [f"{key} {value}" for key, value in _configuration(point).items() if value is not None]
    return ", ".join(parts)
