"""The command line of simdep: finds the command, runs it, and makes an error one sentence.

A command is a module of this package. It has HELP, EXAMPLES, `add_flags(parser)` and
`run(args) -> exit code`, and imports what it runs inside `run`: --help answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence

from simdep.checks import InfeasibleError, InputError, sentence
from simdep.cli import (
    compare,
    costs,
    explain,
    fit,
    hardware,
    policies,
    replay,
    reproduce,
    simulate,
    solve,
    sweep,
)
from simdep.cli.parser import Parser, add_commands
from simdep.entry import INTERRUPTED
from simdep.files import shown_path
from simdep.version import VERSION

ABOUT = """Predict how disaggregated MoE inference runs, before it runs.

Data goes to stdout, messages to stderr. Exit codes: 0 good, 1 internal error, 2 bad input, 3
infeasible, 130 interrupted by Ctrl-C.
"""
COMMANDS = {
    "simulate": simulate,
    "explain": explain,
    "policies": policies,
    "compare": compare,
    "sweep": sweep,
    "solve": solve,
    "hardware": hardware,
    "fit": fit,
    "costs": costs,
    "reproduce": reproduce,
    "replay": replay,
}
_OF_STREAMS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
EXTRAS = {  # packages that are optional
    "plotly": "figures",
    "torch": "real",
    "psutil": "real",
    "rich": "real",
}


def run_command(prog: str, command: Callable[[], int]) -> int:
    """Run a command; an error becomes one sentence on stderr and its exit code.

    2 for bad input (ValueError), 3 for InfeasibleError, 1 for a run that could not go on
    (RuntimeError, OSError), 130 for Ctrl-C.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            code = command()
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (KeyboardInterrupt, Exception) as error:
            code, message = _exit_code(error)
            with contextlib.suppress(OSError):  # stderr is on a full disk
                print(f"{prog}: {message}", file=sys.stderr)
            return code
    for note in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"{prog}: note: {sentence(note)}", file=sys.stderr)
    return code


def _exit_code(error: BaseException) -> tuple[int, str]:
    """The exit code of an error, and its sentence; raises an error that is a fault of simdep."""
    if _is_interrupt(error):
        is_own = isinstance(error, KeyboardInterrupt)
        return INTERRUPTED, (sentence(error) if is_own else "") or "interrupted"
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return 2, f"this needs {error.name}; pip install 'simdep[{EXTRAS[error.name]}]'"
    if isinstance(error, (MemoryError, OverflowError, RecursionError)):
        return 2, f"this is too large to compute ({type(error).__name__})"
    if isinstance(error, ValueError):
        return 2, sentence(error)
    if isinstance(error, InfeasibleError):
        return 3, sentence(error, max_lines=5)
    if isinstance(error, (RuntimeError, OSError)):
        return 1, _of_stream(error) or sentence(error, max_lines=20)
    raise error


def _of_stream(error: Exception) -> str:
    """The sentence of an error of stdout; empty for others."""
    if isinstance(error, OSError) and error.errno in _OF_STREAMS and error.filename is None:
        return f"the output can't be written: {os.strerror(error.errno).lower()}"
    return ""


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: a library that it ends while it loads says something
    else."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code.

    Matrices are small here: threads of BLAS that wait for each other on shared cores make a fit ten
    times as slow.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    args = simdep_parser().parse_args(argv)
    return run_command("simdep", lambda: _run(args))


def simdep_parser() -> Parser:
    """The parser of every command and its flags."""
    examples = "\n".join(f"  {line}" for line in simulate.EXAMPLES.strip().splitlines())
    parser = Parser(
        "simdep",
        description=ABOUT,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"simdep {VERSION}")
    add_commands(parser, COMMANDS)
    return parser


def _run(args: argparse.Namespace) -> int:
    """Run a command; an error in a value begins with the flag or the file that holds it."""
    try:
        done: int = args.run(args)
    except ValueError as error:
        raise _placed(error, args) from None
    return done


def _placed(error: ValueError, args: argparse.Namespace) -> ValueError:
    """The error with the flag or the scenario file at fault, where it names neither."""
    text, scenario = str(error), getattr(args, "scenario", None)
    key = re.match(r"(?:unknown )?(\w+)[=.\[ ]", text)
    if (isinstance(error, InputError) and error.place) or text.startswith("--"):
        return error
    if key and getattr(args, key[1], None) is not None:
        flag = f"--{key[1].replace('_', '-')}"
        return InputError(
            text.replace(key[1], flag, 1) if text.startswith(key[1]) else f"{flag}: {text}"
        )
    return InputError(text, scenario and shown_path(scenario))
