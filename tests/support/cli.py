"""Commands in this process: their exit code, and what they said."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from places import ROOT

from realrun.cli import main as realrun
from simdep.cli.run import main as simdep


def run(command: str, *more: str) -> int:
    """The exit code of a command line such as `simdep simulate --r1 2`."""
    program, *words = command.split()
    main = {"simdep": simdep, "realrun": realrun}[program]
    try:
        return main([*words, *more])
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        return stop.code


def started(words: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """A command line such as `simdep simulate --r1 2` as a program of its own, in a folder."""
    program, *rest = words
    return subprocess.Popen(
        [sys.executable, "-m", program, *rest],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def one_sentence(capsys: pytest.CaptureFixture[str], holds: str) -> None:
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert holds in said.err


def refused(capsys: pytest.CaptureFixture[str], command: str, *more: str) -> str:
    """The one sentence of a command that refuses its input, checked: exit code 2, printable, short,
    and nothing on stdout."""
    assert run(command, *more) == 2
    printed = capsys.readouterr()
    sentence = printed.err.removesuffix("\n")
    assert printed.out == ""
    assert sentence.isprintable()
    assert len(sentence) <= 300
    assert not any(raw in sentence for raw in RAW), sentence
    return sentence


RAW = (  # what parsers and the system say, and users should not read
    "Errno",
    "Traceback",
    "codec can't",
    "C error",
    "Expecting",
    "Expected '",
    "recursion",
    "NoneType",
    "object of type",
    "unhashable",
    "not iterable",
    "not subscriptable",
)
