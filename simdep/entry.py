"""The way into a program and out of it: from its first import on, Ctrl-C ends it with one line and
exit code 130."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it


def run_program(name: str, module: str) -> int:
    """Import a module and run its `main`; the exit code."""

    def interrupt(_: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, but end the process within an import: libraries catch what ends
        one, and load no second time."""
        if _is_import(frame):
            os.write(2, f"{name}: interrupted\n".encode())
            _leave()
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGINT, interrupt)
        code: int = importlib.import_module(module).main()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done and said
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        code = INTERRUPTED
    if code == INTERRUPTED:
        _leave()
    return code


def _is_import(frame: FrameType | None) -> bool:
    """Whether a frame is part of an import."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _leave() -> None:
    """End the process now, with exit code 130.

    Python would end it by a signal instead, if Ctrl-C came while it executed text, as it does to
    make a dataclass, whoever caught it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(INTERRUPTED)
