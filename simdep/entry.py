"""The way into a program and out of it: from its first import on, Ctrl-C ends it with one line and
exit code 130, whatever its streams are."""

from __future__ import annotations

import contextlib
import importlib
import io
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
        _open_streams()
        code: int = importlib.import_module(module).main()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done and said
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        code = INTERRUPTED
    finally:
        _drop_unwritable()
    if code == INTERRUPTED:
        _leave()
    return code


def _open_streams() -> None:
    """Make streams that the caller closed lead nowhere: else files that are opened take their
    places, and what is for stderr goes to stdout. Letters that stdout does not know are escaped.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.fstat(descriptor)
                continue
            if os.open(os.devnull, os.O_RDWR) == descriptor:  # the lowest one that is free
                setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_unwritable() -> None:
    """Flush the streams; what can't be written is dropped, so that the exit code stays."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
