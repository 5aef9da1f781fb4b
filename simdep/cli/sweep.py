"""The command `sweep`: a scenario with some of its parameters varied, as a table, a file and a
plot."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simdep import __version__
from simdep.checks import condensed, known
from simdep.cli import scenario_args as given
from simdep.cli.output import check_paths, emit, table, tell
from simdep.cli.parser import add_json
from simdep.cli.scenario_args import add_scenario_flags
from simdep.planning.axes import SPLIT, WORDS, Axis

if TYPE_CHECKING:
    import pandas as pd

    from simdep.planning.sweep import Sweep

HELP = "every combination of some parameters of a scenario, to a table and a plot"
EXAMPLES = """
simdep sweep scenario.toml --vary r1=1,2,4 --vary r2=1..16 --html sweep.html
simdep sweep scenario.toml --vary ag:eg=1:7..7:1 --vary seq_len=1024,2048,4096 --out splits.csv
simdep sweep scenario.toml --vary link.gbytes_per_s=log:10..400:9 --vary policy=pppipe,findep --json
simdep sweep scenario.toml --vary ag:eg=1:7..7:1 --vary samples=1,2,4,8 --solve --html solved.html
"""
FORMATS = (".csv", ".parquet")
SAVE_EVERY_S = 10.0
TEXTS = {*WORDS, Axis(SPLIT, ()).column, "reason"}
MOST_SHOWN, MOST_PICTURES, MOST_NOTES = 40, 12, 10
STOPPED = 130  # exit code after Ctrl-C, as shells have it


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

    def load(self, force: bool) -> list[dict[str, Any]]:
        """The rows that are there; raises ValueError, unless `force`, for those of another
        sweep."""
        import pandas as pd

        if self.path.suffix not in FORMATS:
            raise ValueError(f"--out {self.path}: write a table as {' or '.join(FORMATS)}")
        if force or not self.path.exists():
            return []
        try:
            same = json.loads(self.beside.read_text()) == json.loads(json.dumps(self.key))
        except (OSError, ValueError):
            same = False
        if not same:
            raise ValueError(
                f"--out {self.path} holds something else; give another name, or --force to begin again"
            )
        if self.path.suffix == ".csv":
            found = pd.read_csv(self.path, dtype=str, keep_default_na=False)
            return [
                {str(name): _read(str(name), text) for name, text in row.items() if text}
                for row in found.to_dict("records")
            ]
        rows = pd.read_parquet(self.path).to_dict("records")
        return [
            {str(name): value for name, value in row.items() if not pd.isna(value)} for row in rows
        ]

    def save(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write both files, each whole or not at all."""
        import pandas as pd

        part = self.path.with_name(self.path.name + ".part")
        columns = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
        frame = pd.DataFrame(list(rows), columns=columns)
        if self.path.suffix == ".csv":
            frame.to_csv(part, index=False)
        else:
            frame.to_parquet(part, index=False)
        self.beside.write_text(json.dumps(self.key) + "\n")
        part.replace(self.path)


def _read(column: str, text: str) -> Any:
    """A value of a table as it was written: digits are whole numbers, the others are exact, words
    stay words."""
    if column in TEXTS:
        return text
    if text in ("True", "False"):
        return text == "True"
    return int(text) if text.lstrip("-").isdigit() else float(text)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_json(parser)
    add_scenario_flags(parser)
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="1,2,4 or 1..8 or 0..64:8 or lin:0..1:5 or log:10..400:9; may be repeated, all combinations are taken",
    )
    parser.add_argument(
        "--solve", action="store_true", help="find the best policy, order and cut of every point"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write .csv or .parquet; goes on if it holds a part of it",
    )
    parser.add_argument(
        "--force", action="store_true", help="begin again where --out holds something else"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with plots and the table"
    )
    parser.add_argument(
        "--value",
        default="throughput_tokens_per_s_per_gpu",
        metavar="COLUMN",
        help="to plot, default %(default)s",
    )


def run(args: argparse.Namespace) -> int:
    """`simdep sweep`: evaluate every point, keep what is done, print the best."""
    from simdep.planning.sweep import RESULTS, Sweep

    known(args.value, RESULTS, "column to plot")
    sweep = Sweep(given.tables(args), tuple(map(Axis.parse, args.vary)), args.solve)
    if not args.vary:
        raise ValueError(
            "nothing varies: give --vary NAME=VALUES, such as --vary r1=1,2,4 --vary seq_len=1024,4096"
        )
    check_paths(args)
    store = Store(args.out, _key(sweep)) if args.out else None
    rows = store.load(args.force) if store else []
    skipped, began = len(rows), time.perf_counter()
    said: dict[str, None] = {}
    finished = _evaluate(sweep, rows, store, said)
    seconds = time.perf_counter() - began
    notes = condensed(said)
    tell(
        notes[:MOST_NOTES]
        + ([f"and {len(notes) - MOST_NOTES} more"] if len(notes) > MOST_NOTES else [])
    )
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
        print(f"simdep: stopped at {len(rows):,} of {len(sweep):,} points{kept}", file=sys.stderr)
        return STOPPED
    if rows and all(row.get("reason") for row in rows):
        raise ValueError(f"no point of the sweep has an answer; the first: {rows[0]['reason']}")
    return 0


def _evaluate(
    sweep: Sweep, rows: list[dict[str, Any]], store: Store | None, notes: dict[str, None]
) -> bool:
    """Add the points that are missing to `rows`; False if Ctrl-C ended that early."""
    from tqdm import tqdm

    from simdep.planning.sweep import run

    saved = time.perf_counter()
    finished = True
    bar = tqdm(
        total=len(sweep), initial=len(rows), unit="point", desc="sweep", disable=None, leave=False
    )
    try:
        for block in run(sweep, len(rows), notes):
            rows += block
            bar.update(len(block))
            if store and time.perf_counter() - saved > SAVE_EVERY_S:
                store.save(rows)
                saved = time.perf_counter()
    except KeyboardInterrupt:
        finished = False
    finally:
        bar.close()
    if store:
        store.save(rows)
    return finished


def _key(sweep: Sweep) -> dict[str, Any]:
    """What makes a table one of the same sweep: its parameters, the files that they name, and the
    version."""
    words = [sweep.base.get("model"), *(value for axis in sweep.axes for value in axis.values)]
    words += [
        value
        for part in sweep.base.values()
        if isinstance(part, Mapping)
        for value in part.values()
    ]
    files = [word for word in words if isinstance(word, str) and Path(word).is_file()]
    digests = {word: hashlib.sha256(Path(word).read_bytes()).hexdigest() for word in files}
    return sweep.to_dict() | {"files": digests, "version": __version__}


def _text(
    sweep: Sweep, rows: Sequence[Mapping[str, Any]], told: Mapping[str, Any], value: str
) -> list[str]:
    reasons = Counter(str(row["reason"]) for row in rows if row.get("reason"))
    good = [row for row in rows if row.get(value) is not None]
    done = "solved" if sweep.solve else "simulated"
    head = f"{told['done']:,} of {told['points']:,} points, {done} in {told['seconds']:.1f} s"
    lines = [
        head + (f", {told['taken_from_out']:,} of them before" if told["taken_from_out"] else "")
    ]
    if reasons:
        listed = [
            {"points": count, "reason": reason} for reason, count in reasons.most_common(MOST_NOTES)
        ]
        lines.append(f"Points without an answer: {reasons.total():,}\n{table(listed)}")
    if good:
        best = (min if value.endswith("_us") else max)(good, key=lambda row: row[value])
        lines.append(f"Best by {value}\n{table([best])}")
    if len(rows) <= MOST_SHOWN:
        lines.append(table(rows))
    else:
        lines.append(f"The first {MOST_SHOWN} points\n{table(rows[:MOST_SHOWN])}")
    return lines


def _write_html(path: Path, sweep: Sweep, rows: Sequence[Mapping[str, Any]], value: str) -> None:
    import pandas as pd

    from simdep.analysis import figures  # plotly, only to draw

    frame = pd.DataFrame(list(rows))
    sections = []
    for heading, part in _pictures(sweep, frame):
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
    groups = itertools.islice(frame.groupby(rest, sort=False), MOST_PICTURES)
    return [
        (", ".join(f"{name} {v}" for name, v in zip(rest, values, strict=True)), part)
        for values, part in groups
    ]


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
        return figures.heat(
            frame, x.column, others[0].column, value, best="min" if value.endswith("_us") else "max"
        )
    return figures.lines(frame, x.column, value, others[0].column if others else None)
