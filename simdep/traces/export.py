"""Timelines written to a file, in the format that its suffix names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from simdep import files
from simdep.checks import InputError
from simdep.timeline import Timeline
from simdep.traces.perfetto import chrome_trace
from simdep.traces.table import TABLE_SUFFIXES, write_table

TRACE_SUFFIXES = (".json", ".json.gz", *TABLE_SUFFIXES)


def save_timelines(path: Path, *timelines: Timeline) -> None:
    """Write timelines to `path`: .json or .json.gz takes any number, .csv or .parquet the table of
    one.

    Raises InputError for another suffix, and for more or fewer timelines than the format holds.
    """
    name = path.name.lower()
    if name.endswith(TABLE_SUFFIXES):
        if len(timelines) != 1:
            rule = f"{path.suffix} holds one timeline, not {len(timelines)}"
            raise InputError(f"{rule}; write .json for several", path)
        write_table(path, timelines[0])
        return
    if not name.endswith(TRACE_SUFFIXES):
        rule = f"suffix {path.suffix!r} is not one of {', '.join(TRACE_SUFFIXES)}"
        raise InputError(rule, path)
    if not timelines:
        raise InputError("there is no timeline to write; give at least one", path)
    data = json.dumps(chrome_trace(*timelines)).encode()
    if name.endswith(".gz"):
        data = gzip.compress(data, mtime=0)  # the same bytes for the same timelines
    files.write(path, data)
