"""The one writer: whatever ends it, and whenever, an existing file stays whole."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from places import ROOT
from schedules import findep

from simdep import files
from simdep.analysis import figures
from simdep.checks import InputError, RunError
from simdep.hardware.profile import load_hardware
from simdep.simulation.engine import simulate_schedule
from simdep.traces.export import save_timelines

OLD, NEW = "what was there before\n", "what comes after\n" * 1000
CALLS = ("open", "fdopen", "fchmod", "fsync", "replace")  # of the system, in their order


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupted(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "file.json"
    path.write_text(OLD)
    return path


def fail_at(call: str, fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if call == "replace":
        monkeypatch.setattr(Path, "replace", fault)
    else:
        monkeypatch.setattr(f"os.{call}", fault)


@pytest.mark.parametrize("call", CALLS)
def test_a_full_disk_leaves_the_old_file_whole(
    call: str, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_at(call, full_disk, patch)
        with pytest.raises(RunError, match=f"^{old}: .*: no space left on device$"):
            files.write(old, NEW)
    assert old.read_text() == OLD
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_leaves_the_old_file_whole(
    call: str, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_at(call, interrupted, patch)
        with pytest.raises(KeyboardInterrupt):
            files.write(old, NEW)
    assert old.read_text() == OLD
    assert list(old.parent.iterdir()) == [old]


def test_a_write_that_stops_halfway_leaves_the_old_file_whole(old: Path) -> None:
    with pytest.raises(RunError, match="no space left"), files.replacing(old) as file:
        file.write(NEW.encode()[:100])
        full_disk()
    assert old.read_text() == OLD
    assert list(old.parent.iterdir()) == [old]


WRITER = """
import sys
from pathlib import Path
from simdep import files
number = 0
while True:
    number += 1
    files.write(Path(sys.argv[1]), f"{number % 10}" * 200_000)
    print(number, flush=True)
"""


@pytest.mark.parametrize("delay_ms", [0, 1, 2, 3, 5, 8])
def test_a_kill_at_any_moment_leaves_a_whole_file(delay_ms: int, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert writer.stdout is not None
    for _ in range(3):
        writer.stdout.readline()
    time.sleep(delay_ms / 1000)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    text = path.read_text()
    assert len(text) == 200_000
    assert len(set(text)) == 1


def test_a_file_keeps_its_mode(old: Path) -> None:
    old.chmod(0o640)
    files.write(old, NEW)
    assert (old.read_text(), old.stat().st_mode & 0o777) == (NEW, 0o640)


def test_a_new_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    files.write(tmp_path / "new", NEW)
    (tmp_path / "other").write_text("")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_link_stays_a_link(old: Path) -> None:
    link = old.with_name("link.json")
    link.symlink_to(old.name)
    files.write(link, NEW)
    assert link.is_symlink()
    assert old.read_text() == NEW


def test_a_device_is_written_directly() -> None:
    files.write(Path("/dev/null"), NEW)
    assert not Path("/dev/null").is_file()
    with pytest.raises(RunError, match=r"^/dev/full: .*no space left on device$"):
        files.write(Path("/dev/full"), NEW)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "it is a folder; name a file"),
        ("none/file", "there is no folder"),
        ("x" * 300, "file name too long"),
        ("a\0b", "its name is not one of a file"),
    ],
)
def test_a_path_that_no_file_can_have_is_refused(name: str, rule: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rule):
        files.write(tmp_path / name, NEW)


def writers() -> dict[str, tuple[str, Callable[[Path], None]]]:
    """What simdep writes: the ending of the file, and what writes it."""
    schedule = findep(1, 2, 2)
    timeline = simulate_schedule(schedule, lambda task: 10.0)
    frame = pd.DataFrame({"a": [1, 2]})
    return {
        "schedule": (".json", schedule.save),
        "profile": (".json", load_hardware("h20").save),
        "trace": (".json", lambda path: save_timelines(path, timeline)),
        "compressed trace": (".json.gz", lambda path: save_timelines(path, timeline)),
        "timeline": (".csv", lambda path: save_timelines(path, timeline)),
        "parquet": (".parquet", lambda path: save_timelines(path, timeline)),
        "page": (
            ".html",
            lambda path: figures.write_html(path, "t", [figures.Section("s", table=frame)]),
        ),
    }


@pytest.mark.parametrize("what", writers())
def test_every_file_that_simdep_writes_is_written_whole(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix, write = writers()[what]
    path = tmp_path / f"file{suffix}"
    path.write_text(OLD)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full_disk)
        with pytest.raises(RunError, match=f"^{path}: .*: no space left on device$"):
            write(path)
    assert path.read_text() == OLD
    write(path)
    assert path.read_bytes() != OLD.encode()
