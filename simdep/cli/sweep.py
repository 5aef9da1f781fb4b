"""The command `sweep`: a scenario with some of its parameters varied, as a table, a file and a
plot."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simdep import files
from simdep.checks import InputError, known
from simdep.cli import scenario_args as given
from simdep.cli.output import check_paths, emit, table, tell
from simdep.cli.parser import add_json
from simdep.cli.scenario_args import add_scenario_flags
from simdep.file_kinds import SWEEP, SWEEP_KEY
from simdep.hardware.extrapolation import Assumption, assumption_sentences
from simdep.planning.axes import Axis, text_columns
from simdep.version import VERSION

if TYPE_CHECKING:
    import pandas as pd

    from simdep.planning.sweep import Sweep

HELP = "simulate or solve every combination of values of some fields"
EXAMPLES = """
simdep sweep scenario.toml --vary r1=1,2,4 --vary r2=1..16 --html sweep.html
simdep sweep scenario.toml --vary ag:eg=1:7..7:1 --vary seq_len=1024,2048,4096 --out splits.csv
simdep sweep scenario.toml --vary link.gbytes_per_s=log:10..400:9 --vary policy=pppipe,findep --json
simdep sweep scenario.toml --vary ag:eg=1:7..7:1 --vary samples=1,2,4,8 --solve --html solved.html
"""
SUFFIXES = (".csv", ".parquet")
SAVE_EVERY_S = 10.0
TEXTS = {*text_columns(), "schedule", "reason"}
MAX_SHOWN, MAX_PICTURES, MAX_NOTES = 40, 12, 10


AxisValues = tuple[Any, ...]  # a value of every axis
TableRow = Mapping[str, Any]


@dataclass(frozen=True)
class Store:
    """A table on disk, and beside it what it is a table of: a sweep goes on where it was left, or
    is refused.

    The table is `--out`; the sweep stands in a file of its name with `.sweep.json` added.
    """

    path: Path
    key: Mapping[str, Any]

    @property
    def beside(self) -> Path:
        return self.path.with_name(self.path.name + ".sweep.json")

    def load(self, sweep: Sweep, force: bool) -> dict[AxisValues, TableRow]:
        """The rows that are there by their point; raises InputError, unless `force`, for those of
        another sweep.

        Rows that are of no point of the sweep, or of a point that has several, are left out, and
        stderr says so.
        """
        if self.path.suffix not in SUFFIXES:
            raise InputError(f"--out {self.path}: write a table as {' or '.join(SUFFIXES)}")
        if force or not self.path.exists():
            return {}
        if not self._is_of_same_sweep():
            rule = "holds something else; give another name, or --force to begin again"
            raise InputError(f"--out {files.shown_path(self.path)} {rule}")
        with files.context(self.path, SWEEP):
            rows = list(self._rows())
        columns = [axis.column for axis in sweep.axes]
        known = {tuple(point.values()) for point in sweep.points()}
        found = Counter(_point(row, columns) for row in rows)
        foreign = sum(count for point, count in found.items() if point not in known)
        repeated = [point for point, count in found.items() if count > 1 and point in known]
        if foreign:
            tell([f"{self.path}: {foreign:,} rows are of no point of this sweep and are left out"])
        if repeated:
            cells = zip(columns, repeated[0], strict=True)
            named = ", ".join(f"{column}={value}" for column, value in cells)
            points = f"{len(repeated):,} points have several rows and are computed anew"
            tell([f"{self.path}: {points}, first {named}"])
        kept = {}
        for row in rows:
            point = _point(row, columns)
            if found[point] == 1 and point in known:
                kept[point] = row
        return kept

    def _is_of_same_sweep(self) -> bool:
        """Whether the file beside the table has the parameters of this sweep."""
        if not self.beside.exists():
            return False
        key = files.read_json(self.beside, SWEEP_KEY)
        return bool(key == json.loads(json.dumps(self.key)))

    def _rows(self) -> Iterator[TableRow]:
        """The rows of the table that hold a result, without their empty cells."""
        count = 0
        for row in self._all_rows():
            if "makespan_us" in row or "reason" in row:
                yield row
            else:
                count += 1
        if count:
            tell([f"{self.path}: {count:,} rows hold no result and are left out"])

    def _all_rows(self) -> Iterator[TableRow]:
        if self.path.suffix == ".csv":
            for line, row in files.read_csv(self.path, SWEEP).records():
                try:
                    yield {name: _read(name, text) for name, text in row.items() if text}
                except ValueError:
                    raise InputError(f"line {line}: expected numbers") from None
            return
        for cells in files.read_parquet(self.path, SWEEP).to_dict("records"):
            yield {str(name): value for name, value in cells.items() if not _is_empty(value)}

    def save(self, rows: Sequence[TableRow]) -> None:
        """Write both files, each whole or not at all."""
        import pandas as pd

        columns = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
        frame = pd.DataFrame(list(rows), columns=columns)
        files.write(self.beside, json.dumps(self.key) + "\n")
        with files.replacing(self.path) as file:
            if self.path.suffix == ".csv":
                frame.to_csv(file, index=False)
            else:
                frame.to_parquet(file, index=False)


def _point(row: TableRow, columns: Sequence[str]) -> AxisValues:
    return tuple(row.get(column) for column in columns)


def _is_empty(value: Any) -> bool:
    """Whether a cell of a Parquet table is empty."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _read(column: str, text: str) -> Any:
    """A value of a table as it was written: digits are whole numbers, the others are exact, words
    stay words."""
    if column in TEXTS:
        return text
    if text in ("True", "False"):
        return text == "True"
    if text.lstrip("-").isdigit():
        return int(text)
    if not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_json(parser)
    add_scenario_flags(parser, usage="--vary NAME=VALUES ")
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="values of a field: 1,2,4 or 1..8 or 0..64:8 or log:10..400:9; may be repeated",
    )
    parser.add_argument(
        "--solve",
        action="store_true",
        help="find the best policy, order, m_a, r1 and r2 of every point",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the table as .csv or .parquet; an interrupted sweep continues from it",
    )
    parser.add_argument(
        "--force", action="store_true", help="overwrite --out if it holds another sweep"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with plots and the table"
    )
    parser.add_argument(
        "--value",
        default="throughput_tokens_per_s_per_gpu",
        metavar="COLUMN",
        help="column to plot (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """`simdep sweep`: evaluate every point, keep what is done, print the best."""
    from simdep.planning.sweep import Sweep
    from simdep.planning.sweep_rows import NUMBERS

    known(args.value, NUMBERS, "column to plot")
    sweep = Sweep(given.tables(args), tuple(map(Axis.parse, args.vary)), args.solve)
    if not args.vary:
        raise InputError(
            "nothing varies: give --vary NAME=VALUES, such as --vary r1=1,2,4 --vary "
            "seq_len=1024,4096"
        )
    check_paths(args)
    store = Store(args.out, _key(sweep)) if args.out else None
    done = store.load(sweep, args.force) if store else {}
    skipped, began = len(done), time.perf_counter()
    said: dict[Assumption, None] = {}
    finished = _evaluate(sweep, done, store, said)
    rows = _ordered(sweep, done)
    seconds = time.perf_counter() - began
    notes = assumption_sentences(said)
    if finished and rows and all(row.get("reason") for row in rows):
        raise InputError(f"no point of the sweep has an answer; the first: {rows[0]['reason']}")
    if finished:
        tell(notes[:MAX_NOTES])
        if len(notes) > MAX_NOTES:
            tell([f"and {len(notes) - MAX_NOTES} more"])
    if args.html and rows:
        _write_html(args.html, sweep, rows, args.value)
    told = {"points": len(sweep), "done": len(rows), "seconds": seconds, "taken_from_out": skipped}
    result = told | {"vary": sweep.to_dict()["vary"], "rows": rows, "assumptions": notes}
    emit(args, result, [] if args.json else _text(sweep, rows, told, args.value))
    if not finished:
        kept = (
            f"; the same command goes on with {args.out}"
            if store
            else "; with --out FILE the next one would go on"
        )
        raise KeyboardInterrupt(f"stopped at {len(rows):,} of {len(sweep):,} points{kept}")
    return 0


def _evaluate(
    sweep: Sweep,
    done: dict[AxisValues, TableRow],
    store: Store | None,
    notes: dict[Assumption, None],
) -> bool:
    """Add the points that are missing to `done`; False if Ctrl-C ended that early."""
    from tqdm import tqdm

    from simdep.planning.sweep_rows import sweep_rows

    saved = time.perf_counter()
    finished = True
    missing = [point for point in sweep.points() if tuple(point.values()) not in done]
    bar = tqdm(
        total=len(sweep), initial=len(done), unit="point", desc="sweep", disable=None, leave=False
    )
    remaining = iter(missing)
    try:
        for block in sweep_rows(sweep, missing, notes):
            for row, point in zip(block, remaining, strict=False):  # takes no point too many
                done[tuple(point.values())] = row
            bar.update(len(block))
            if store and time.perf_counter() - saved > SAVE_EVERY_S:
                store.save(_ordered(sweep, done))
                saved = time.perf_counter()
    except KeyboardInterrupt:
        finished = False
    finally:
        bar.close()
    if store:
        store.save(_ordered(sweep, done))
    return finished


def _ordered(sweep: Sweep, done: Mapping[AxisValues, TableRow]) -> list[TableRow]:
    """The rows that are done, in the order of the points."""
    points = (tuple(point.values()) for point in sweep.points())
    return [done[point] for point in points if point in done]


def _key(sweep: Sweep) -> dict[str, Any]:
    """What makes a table one of the same sweep: its parameters, the files that they name, and the
    version."""
    values = [sweep.base.get("model")]
    for axis in sweep.axes:
        values += axis.values
    for part in sweep.base.values():
        if isinstance(part, Mapping):
            values += part.values()
    digests = {}
    for value in values:
        if isinstance(value, str) and os.path.isfile(value):
            digests[value] = hashlib.sha256(files.read_bytes(Path(value))).hexdigest()
    return sweep.to_dict() | {"files": digests, "version": VERSION}


def _text(
    sweep: Sweep, rows: Sequence[Mapping[str, Any]], told: Mapping[str, Any], value: str
) -> list[str]:
    reasons = Counter(str(row["reason"]) for row in rows if row.get("reason"))
    answered = [row for row in rows if row.get(value) is not None]
    good = [row for row in answered if _fits(row)]
    done = "solved" if sweep.solve else "simulated"
    head = f"{told['done']:,} of {told['points']:,} points, {done} in {told['seconds']:.1f} s"
    lines = [
        head + (f", {told['taken_from_out']:,} of them before" if told["taken_from_out"] else "")
    ]
    if reasons:
        listed = [
            {"points": count, "reason": reason} for reason, count in reasons.most_common(MAX_NOTES)
        ]
        lines.append(f"Points without an answer: {reasons.total():,}\n{table(listed)}")
    if len(good) < len(answered):
        missing = f"{len(answered) - len(good):,} of {len(answered):,}"
        lines.append(f"Points that do not fit into memory, none of them the best: {missing}")
    if good:
        best = (min if value.endswith("_us") else max)(good, key=lambda row: row[value])
        lines.append(f"Best by {value}\n{table([best])}")
    if len(rows) <= MAX_SHOWN:
        lines.append(table(rows))
    else:
        lines.append(f"The first {MAX_SHOWN} points\n{table(rows[:MAX_SHOWN])}")
    return lines


def _fits(row: Mapping[str, Any]) -> bool:
    """Whether a point fits into memory, or may do so for all that is known."""
    return row.get("memory_fits") is not False


def _write_html(path: Path, sweep: Sweep, rows: Sequence[Mapping[str, Any]], value: str) -> None:
    import pandas as pd

    from simdep.analysis import figures  # plotly, only to draw

    frame = pd.DataFrame(list(rows))
    fitting = frame.copy()
    if value in frame:
        fitting.loc[[not _fits(row) for row in rows], value] = None
    sections = []
    for heading, part in _pictures(sweep, fitting):
        figure = _picture(sweep, part, value)
        sections.append(
            figures.Section(
                heading or value, "" if figure else "No point here has an answer.", None, figure
            )
        )
    shown = frame.head(1000)
    about = (
        f"The first {len(shown):,} of {len(frame):,} points."
        if len(shown) < len(frame)
        else "All points."
    )
    shown = shown if shown.notna().all(axis=None) else shown.astype(object).where(shown.notna(), "")
    sections.append(figures.Section("Points", f"Simulated. {about}", shown))
    figures.write_html(
        path, f"simdep sweep over {', '.join(axis.name for axis in sweep.axes)}", sections
    )


def _varied(sweep: Sweep) -> list[Axis]:
    """The axes with more than one value: first the two that a picture shows, longest first."""
    varied = [axis for axis in sweep.axes if len(axis.values) > 1] or list(sweep.axes[:1])
    return sorted(varied, key=lambda axis: (not axis.is_number, -len(axis.values)))


def _pictures(sweep: Sweep, frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """A heading and the points of every picture: one for each combination of the axes that it can't
    show."""
    rest = [axis.column for axis in _varied(sweep)[2:]]
    if not rest:
        return [("", frame)]
    pictures = []
    for values, part in itertools.islice(frame.groupby(rest, sort=False), MAX_PICTURES):
        named = zip(rest, values, strict=True)
        pictures.append((", ".join(f"{name} {value}" for name, value in named), part))
    return pictures


def _picture(sweep: Sweep, frame: pd.DataFrame, value: str) -> Any:
    """A heat map of two numbers with at least three values each, else lines; None without any
    value."""
    from simdep.analysis import figures  # plotly, only to draw

    if value not in frame or not frame[value].notna().any():
        return None
    x, *others = _varied(sweep)[:2]
    if (
        others
        and x.is_number
        and others[0].is_number
        and min(len(x.values), len(others[0].values)) > 2
    ):
        return figures.heat_map(
            frame, x.column, others[0].column, value, best="min" if value.endswith("_us") else "max"
        )
    return figures.line_chart(frame, x.column, value, others[0].column if others else None)
