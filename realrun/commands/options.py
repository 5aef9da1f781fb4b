"""Flags that several commands of realrun have, and what they stand for."""

from __future__ import annotations

import argparse
import datetime
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realrun.place import CHOSEN_SPEED, GPU_LINK, LINKS
from simdep import checks, files
from simdep.checks import InputError
from simdep.cli.parser import add_json
from simdep.cli.scenario_args import add_field_flag
from simdep.file_kinds import SCENARIO
from simdep.scenario.fields import FIELDS, override

if TYPE_CHECKING:
    from realrun.cases import Case

DEFAULTS = {  # of a run without a scenario file
    "model": "deepseek-v2-lite",
    "layers": 2,
    "seq_len": 64,
    "ag": 1,
    "eg": 1,
}
SUPPORTED = (  # fields of a scenario that a real run does
    "model",
    "scale",
    "layers",
    "ag",
    "eg",
    "seq_len",
    "samples",
    "m_a",
    "dtype",
    "policy",
    "order",
    "r1",
    "r2",
    "micro_batches",
    "chunks",
    "merge_last",
)
_LINK_HELP = """link between CPU ranks (default: shm). shm keeps the payload in shared memory and
delivers it at a chosen speed; shaped carries it over gloo at that speed; tbf lets the kernel keep
the speed between network namespaces (root only); lo is gloo over loopback, as fast as it goes"""


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of every command."""
    add_json(parser)
    ranks = parser.add_argument_group("Ranks and links")
    ranks.add_argument(
        "--backend",
        default="auto",
        choices=("auto", "gloo", "nccl"),
        help="what carries messages (default: nccl if every rank can have a GPU, else gloo)",
    )
    ranks.add_argument("--link", choices=LINKS, metavar="LINK", help=" ".join(_LINK_HELP.split()))
    ranks.add_argument(
        "--link-mbytes-per-s",
        type=float,
        metavar="MB/S",
        help="speed of the links shm, shaped and tbf (default: 1000)",
    )
    ranks.add_argument(
        "--link-alpha-us",
        type=float,
        metavar="US",
        help="start-up time of a message on these links (default: 50)",
    )
    ranks.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of weights, inputs and the order of runs (default: 0)",
    )


def add_case_flags(parser: argparse.ArgumentParser) -> None:
    """SCENARIO.toml and the flags that override it."""
    parser.add_argument(
        "scenario",
        nargs="?",
        type=Path,
        metavar="SCENARIO.toml",
        help="a scenario, as for simdep; its hardware and its memory are those of this machine",
    )
    defaults = ", ".join(f"{name} {value}" for name, value in DEFAULTS.items())
    note = f"Each overrides the field of the file. Without a file: {defaults}."
    group = parser.add_argument_group("Scenario", note)
    for name in SUPPORTED:
        add_field_flag(group, FIELDS[name])


def add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="run folder; an interrupted run goes on in it (default: runs/DATE)",
    )


def case_of(args: argparse.Namespace) -> Case:
    """The case of SCENARIO.toml and flags; raises InputError naming the field at fault."""
    from realrun.cases import Case
    from simdep.policies import load_policy

    flags = {name: getattr(args, name) for name in SUPPORTED}
    if flags["policy"] is not None:
        # A flag may name a module of the user's own, a file may not
        flags["policy"] = load_policy(flags["policy"]).name
    if args.scenario is None:
        return default_case(flags)
    tables = files.read_toml(args.scenario, SCENARIO)
    with files.context(args.scenario, SCENARIO):
        return Case.from_tables(override(tables, flags), {})


def default_case(fields: Mapping[str, Any]) -> Case:
    """The case without a scenario file, with other fields as they are given."""
    from realrun.cases import Case

    return Case.from_tables(override(override({}, DEFAULTS), fields), {})


def ready_cases(cases: Sequence[Case], args: argparse.Namespace) -> list[Case]:
    """The cases in the precision of their backend and over the link of the flags.

    Raises InputError for flags that do not go together, InfeasibleError for cases that do not fit
    into memory.
    """
    from realrun.backends import netns
    from realrun.limits import check_link_time, check_memory

    checks.integer(args.seed, "--seed", 0)
    ready = [_ready(case, args) for case in cases]
    if any(case.link == "tbf" for case in ready):
        if "RANK" in os.environ:
            raise InputError(
                "--link tbf: torchrun's ranks stand in one network namespace; "
                "start without torchrun"
            )
        netns.check_available()
    check_link_time(ready)
    check_memory(ready)
    return ready


def _ready(case: Case, args: argparse.Namespace) -> Case:
    from realrun.backends.registry import BACKEND_DTYPES, choose_backend
    from realrun.backends.shared_memory import LinkSpeed

    backend = choose_backend(args.backend, case.ag + case.eg)
    if backend == "nccl" and args.link is not None:
        raise InputError(f"--link {args.link}: it is between CPU ranks; GPUs are linked by NCCL")
    link = GPU_LINK if backend == "nccl" else args.link or LINKS[0]
    speed = case.speed
    for flag, field in (("link_mbytes_per_s", "mbytes_per_s"), ("link_alpha_us", "alpha_us")):
        value = getattr(args, flag)
        if value is None:
            continue
        name = f"--{flag.replace('_', '-')}"
        if link not in CHOSEN_SPEED:
            raise InputError(f"{name} {value:g}: the link {link} is as fast as it goes")
        above = 0 if field == "mbytes_per_s" else None
        speed = replace(speed, **{field: checks.number(value, name, above=above)})
    if link not in CHOSEN_SPEED and speed != LinkSpeed():
        warnings.warn(
            f"the link {link} is as fast as it goes, whatever speed a schedule states", stacklevel=2
        )
    return replace(case.on_backend(BACKEND_DTYPES[backend], link), speed=speed)


def run_folder(out: Path | None) -> Path:
    """The folder of --out, or a new one; raises InputError where it is a file."""
    if out is None:
        return Path("runs") / datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    if os.path.isfile(out):
        raise InputError(f"--out {files.shown_path(out)}: it is a file; name a folder")
    checks.string(str(out), "--out")
    files.make_folder(out)
    return out


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; the function takes the jobs done and the jobs in all."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
