"""What commands print: one JSON object for machines, tables for people."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simdep.checks import InputError, sentence
from simdep.files import check_writable, shown_path

DIGITS, NOTHING = 4, 1e-12  # of numbers in tables: digits, and what is shown as 0


def emit(args: argparse.Namespace, result: Mapping[str, Any], parts: Iterable[str]) -> None:
    """Print the result of a command: one JSON object with --json, else its parts as text, a blank
    line between them."""
    print(
        json.dumps(result, allow_nan=False)
        if args.json
        else "\n\n".join(part for part in parts if part)
    )


FILES = {  # flags of files, and how they end
    "html": (".html",),
    "trace": (".json", ".json.gz", ".csv", ".parquet"),
    "save_schedule": (".json",),
    "out": ("",),
}

_POSITIONAL = {"scenario", "data", "events"}
_NO_FILES = {"name", "source", "run"}  # texts that a profile holds


def check_paths(args: argparse.Namespace, names: Iterable[str] = FILES) -> None:
    """Raise InputError for a file that can't be written, or that the command reads or writes
    otherwise, before anything is computed that would be lost."""
    for name in names:
        suffixes = FILES[name]
        path = getattr(args, name, None)
        if path is None:
            continue
        flag = f"--{name.replace('_', '-')}"
        try:
            check_writable(path)
        except InputError as error:
            raise InputError(f"{flag} {error}") from None
        if not path.name.lower().endswith(suffixes):
            expected = f"expected the name of a {' or '.join(suffixes)} file"
            raise InputError(f"{flag} {shown_path(path)}: {expected}")
        for other, other_flag in _other_files(args, name):
            if _is_same(path, other):
                raise InputError(f"{flag} {shown_path(path)}: {other_flag} is that file")


def _other_files(args: argparse.Namespace, output: str) -> Iterator[tuple[Path, str]]:
    """What a command line names that may be files, but the file `output`; each with its flag."""
    for name, value in vars(args).items():
        if name == output or name in _NO_FILES:
            continue
        flag = "the file to read" if name in _POSITIONAL else f"--{name.replace('_', '-')}"
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, (str, Path)):
                yield Path(word), flag


def _is_same(path: Path, other: Path) -> bool:
    """Whether two paths mean one regular file, be it there or not."""
    try:
        if path.exists():
            return path.is_file() and path.samefile(other)
        return os.path.realpath(path) == os.path.realpath(other)
    except (OSError, ValueError):  # the other is no path
        return False


def tell(notes: Iterable[str]) -> None:
    """What a user should know about the result, on stderr."""
    for note in notes:
        print(f"simdep: note: {sentence(note)}", file=sys.stderr)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table to read; empty for no rows, without columns that say nothing."""
    import pandas as pd

    if not rows:
        return ""
    frame = pd.DataFrame(list(rows)).dropna(axis="columns", how="all")
    shown = frame.map(_cell)
    columns = []
    for name in frame:
        cells = [str(name), *shown[name]]
        width = max(map(len, cells))
        is_number = pd.api.types.is_numeric_dtype(frame[name])
        columns.append([cell.rjust(width) if is_number else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, float) or abs(value) < NOTHING:
        return str(value if not isinstance(value, float) else 0)
    return f"{value:.{DIGITS}g}" if abs(value) < 10**DIGITS else f"{value:,.0f}"
