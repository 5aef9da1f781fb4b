"""What commands refuse: the files that readers meet, and the values that flags meet."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from realrun.cli import realrun_parser
from simdep.cli.run import simdep_parser

SERVED = "--model deepseek-v2-lite --hardware h20 --ag 3 --eg 5 --layers 2 --samples 2 --seq-len 8"
STAGES = "--stage-times attention=9,a2e=1,expert=5,e2a=1"
READERS = {  # the command that reads FILE, its ending, and the kinds that it takes
    "scenario": ("simdep simulate FILE", ".toml", {"scenario.toml"}),
    "compared": (f"simdep explain {SERVED} --against FILE", ".toml", {"scenario.toml"}),
    "swept": ("simdep sweep FILE --vary r1=1,2", ".toml", {"scenario.toml"}),
    "schedule": (f"simdep simulate {STAGES} --schedule FILE", ".json", {"schedule.json"}),
    "model": (f"simdep simulate {SERVED} --model FILE", ".json", {"config.json"}),
    "profile": (f"simdep simulate {SERVED} --hardware FILE", ".json", {"profile.json"}),
    "shown profile": ("simdep hardware show FILE", ".json", {"profile.json"}),
    "routing": (f"simdep simulate {SERVED} --routing FILE", ".csv", {"routing.csv"}),
    "routing lists": (f"simdep simulate {SERVED} --routing FILE", ".json", set()),
    "measurements": ("simdep fit FILE --out out.json", ".csv", {"gemm.csv"}),
    "evaluated": ("simdep costs evaluate FILE --hardware h100", ".csv", {"gemm.csv"}),
    "events": ("simdep replay FILE", ".csv", {"events.csv"}),
    "published": ("simdep reproduce --measured FILE", ".csv", set()),
    "stages": ("simdep solve --stage-times-model FILE", ".toml", {"stages.toml"}),
    "stages in JSON": ("simdep solve --stage-times-model FILE", ".json", set()),
    "swept table": (f"simdep sweep {SERVED} --vary r1=1,2 --out FILE", ".csv", set()),
    "cases": ("realrun validate --schedules FILE", ".json", {"cases.json"}),
    "real schedule": ("realrun run --schedule FILE", ".json", {"schedule.json"}),
    "real profile": ("realrun validate --quick --profile FILE", ".json", {"profile.json"}),
}
WRITES_WHAT_IS_MISSING = {"swept table"}

SERVED = "--model deepseek-v2-lite --hardware h20 --ag 3 --eg 5 --layers 2 --samples 2 --seq-len 8"
SMALL = "--model deepseek-v2-lite --scale 0.0625 --layers 1 --seq-len 16 --m-a 1 --ag 1 --eg 1"
WORDS = {  # of a command that is right without the flag
    "simdep simulate": SERVED,
    "simdep compare": f"naive findep {SERVED}",
    "simdep explain": SERVED,
    "simdep sweep": f"{SERVED} --vary r1=1,2",
    "simdep solve": SERVED,
    "simdep policies": "naive",
    "simdep hardware show": "h20",
    "simdep fit": "gemm.csv --form linear --out out.json",
    "simdep costs evaluate": "gemm.csv --hardware h100",
    "simdep replay": "events.csv",
    "simdep reproduce": "fastafd",
    "realrun run": SMALL,
    "realrun calibrate": SMALL,
    "realrun validate": "--quick",
    "realrun experiment": "orders",
}
VALUES = (
    "x",
    "nan",
    "-1",
    "-0.5",
    "1e309",
    "9" * 30,
    "a\0b",
    "w" * 10_000,
    "\x1b[31m",
    "[x]",
    "{}",
    "=",
    "1,x",
    "folder",
    "nowhere.json",
    "pipe",
    "/dev/zero",
)
FREE = {"--name", "--source"}  # any text
NEW_FILES = {"--out", "--html", "--trace", "--save-schedule"}
LARGE = {  # any number above 0
    "--link-gbytes-per-s",
    "--link-mbytes-per-s",
    "--link-alpha-us",
    "--memory-gbytes",
    "--tolerance",
}


def commands(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, Any]]:
    """The commands of a program, with their parsers."""
    inner: Mapping[str, Any] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner = action.choices
    for word, command in inner.items():
        yield from commands(command, f"{name} {word}")
    if not inner:
        yield name, parser


def flags() -> Iterator[tuple[str, str]]:
    """Every flag that takes a value, with its command."""
    for program, parser in (("simdep", simdep_parser()), ("realrun", realrun_parser())):
        for command, of_command in commands(parser, program):
            for action in of_command._actions:
                if action.option_strings and action.nargs != 0:
                    yield command, action.option_strings[-1]


FLAGS = list(flags())


def may_mean(flag: str, value: str) -> bool:
    """Whether a value is one that the flag takes."""
    if flag in FREE:
        return value.isprintable()
    if flag in NEW_FILES:
        return value.isprintable() and not value.startswith("/dev/") and value != "pipe"
    return flag in LARGE and value == "9" * 30
