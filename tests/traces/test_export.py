"""A file of timelines has the format of its suffix."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from schedules import findep, naive

from simdep.simulation.engine import simulate_schedule
from simdep.traces.export import save_timelines
from simdep.traces.perfetto import chrome_trace


def test_json_and_gzipped_json_hold_the_same_trace(tmp_path: Path) -> None:
    timeline = simulate_schedule(findep(2, 2, 2), lambda task: 0.1 + task.tokens)
    save_timelines(tmp_path / "a.json", timeline)
    save_timelines(tmp_path / "A.JSON.GZ", timeline)
    plain = (tmp_path / "a.json").read_bytes()
    assert gzip.decompress((tmp_path / "A.JSON.GZ").read_bytes()) == plain
    assert json.loads(plain) == chrome_trace(timeline)


@pytest.mark.parametrize("name", ["t.html", "t.gz", "t", "t.json.zip"])
def test_an_unknown_suffix_is_refused_with_the_choices(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rule = f"{path}: suffix {path.suffix!r} is not one of .json, .json.gz, .csv, .parquet"
    with pytest.raises(ValueError, match=f"^{re.escape(rule)}$"):
        save_timelines(path, simulate_schedule(naive(1), lambda task: 2))
    assert not path.exists()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_holds_one_timeline(tmp_path: Path, suffix: str) -> None:
    timeline = simulate_schedule(naive(1), lambda task: 2)
    with pytest.raises(
        ValueError,
        match=rf"t{suffix}: {suffix} holds one timeline, not 2; write \.json for several$",
    ):
        save_timelines(tmp_path / f"t{suffix}", timeline, timeline)


def test_nothing_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"t\.json: there is no timeline to write; give at least one$"
    ):
        save_timelines(tmp_path / "t.json")
