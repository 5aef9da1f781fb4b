"""A bad input ends its command within 10 s and 1 GB: 300 of them as programs of their own.

Slow: `pytest -m slow tests/border/test_limits.py -s` prints the table; a sample runs in CI.
"""

from __future__ import annotations

import os
import shlex
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from bad_inputs import FLAGS, READERS, VALUES, WORDS, WRITES_WHAT_IS_MISSING, may_mean
from cli import started
from foreign import EVENTS, GEMM, KINDS, broken

MAX_SECONDS, MAX_MBYTES = 10.0, 1000.0
SAMPLE, ALL = 12, 300


@dataclass(frozen=True)
class Ended:
    """How a program ended, what it said, how long it took, and how much memory at most."""

    code: int
    out: str
    said: str
    seconds: float
    mbytes: float


def ended(words: list[str], folder: Path) -> Ended:
    """Run a program of its own to its end, or kill it after a while."""
    began = time.perf_counter()
    process = started(words, folder)
    assert process.stdout is not None
    assert process.stderr is not None
    timer = threading.Timer(3 * MAX_SECONDS, process.kill)
    timer.start()
    with process.stdout, process.stderr:
        out, said = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    return Ended(process.returncode, out, said, seconds, usage.ru_maxrss / 1024)


def bad_inputs(count: int, folder: Path) -> list[list[str]]:
    """Command lines, drawn from files that a reader does not take and values that a flag can't
    mean; the files are written into the folder."""
    random = Random(300)
    (folder / "gemm.csv").write_text(GEMM)
    (folder / "events.csv").write_text(EVENTS)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    of_files = []
    for number, (reader, (command, suffix, taken)) in enumerate(READERS.items()):
        contents = {kind: content for kind, (content, _) in KINDS.items() if kind not in taken}
        for kind, content in contents.items():
            path = folder / f"{number}-{kind.replace('.', '-')}{suffix}"
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            of_files.append(shlex.split(command.replace("FILE", path.name)))
        for fault in broken(folder):
            if reader not in WRITES_WHAT_IS_MISSING:
                path = folder / f"{number}-{fault.replace(' ', '-')}{suffix}"
                broken(path)[fault]()
                of_files.append(shlex.split(command.replace("FILE", path.name)))
    of_flags = []
    for command, flag in FLAGS:
        for value in VALUES:
            if not may_mean(flag, value) and "\0" not in value:
                of_flags.append(
                    [*shlex.split(f"{command} {WORDS.get(command, '')}"), f"{flag}={value}"]
                )
    return random.sample(of_files, count // 2) + random.sample(of_flags, count - count // 2)


def check(count: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = []
    results = []
    for words in bad_inputs(count, folder):
        result = ended(words, folder)
        results.append(result)
        is_short = result.said.count("\n") == 1 and len(result.said) <= 301
        is_within = result.seconds <= MAX_SECONDS and result.mbytes <= MAX_MBYTES
        if result.code != 2 or result.out or not is_short or not is_within:
            wrong.append((words, result))
    with capsys.disabled():
        seconds = max(result.seconds for result in results)
        mbytes = max(result.mbytes for result in results)
        print(f"\n{count} bad inputs: at most {seconds:.1f} s and {mbytes:.0f} MB")
    assert not wrong


def test_bad_inputs_end_in_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(SAMPLE, tmp_path, capsys)


@pytest.mark.slow
def test_300_bad_inputs_end_in_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(ALL, tmp_path, capsys)
