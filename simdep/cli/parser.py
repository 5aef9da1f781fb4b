"""The parser of a command line, and what every command adds to it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from simdep.checks import MAX_LETTERS, sentence, shortened


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one sentence and ends with exit code 2."""

    def error(self, message: str) -> NoReturn:
        text = f"{shortened(sentence(message), MAX_LETTERS - 60)}; see {self.prog} --help"
        print(f"{self.prog}: {text}", file=sys.stderr)
        raise SystemExit(2)


def add_command(commands: Any, name: str, summary: str, examples: str = "") -> Parser:
    """The parser of a command: its summary, and its examples, a line each."""
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"examples:\n{lines}" if lines else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_commands(parser: argparse.ArgumentParser, modules: Mapping[str, Any]) -> None:
    """The commands of a program: each is a module with HELP, EXAMPLES, `add_flags` and `run`."""
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )
    for name, module in modules.items():
        command = add_command(commands, name, module.HELP, module.EXAMPLES)
        module.add_flags(command)
        command.set_defaults(run=module.run)


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag of every command that has a result."""
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
