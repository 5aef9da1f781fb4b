"""A plan: what the ranks of one deployment do, as a JSON file that all of them read.

It is an object {ag, eg, backend, seed, cases, jobs}; `realrun.worker` lists the jobs. Results are
JSON lines {index, ranks}: the number of the job, and one object a rank.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from realrun.backends.shared_memory import LinkSpeed
from simdep import files
from simdep.checks import InputError
from simdep.file_kinds import PLAN, RUNS
from simdep.schedule import Schedule


@dataclass(frozen=True)
class PlannedCase:
    """What a rank needs to know of a case.

    `synthetic` are microseconds by kind, where timed waits stand in for computation.
    """

    model: str  # a name or the path of a config.json
    scale: float
    seq_len: int
    schedule: Schedule
    link: str
    speed: LinkSpeed
    synthetic: Mapping[str, float] = field(default_factory=dict)

    @property
    def weights(self) -> tuple[str, float, int, bool]:
        """Cases that agree in this use the same weights."""
        return self.model, self.scale, self.schedule.layers, bool(self.synthetic)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> PlannedCase:
        schedule, speed = Schedule.from_dict(row["schedule"]), LinkSpeed(**row["speed"])
        return cls(**{**row, "schedule": schedule, "speed": speed})

    def to_dict(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return fields | {"schedule": self.schedule.to_dict(), "speed": asdict(self.speed)}


@dataclass(frozen=True)
class Plan:
    """Cases by id, and jobs: each names its kind, mostly its case, and the kind's parameters."""

    ag: int
    eg: int
    cases: Mapping[str, PlannedCase]
    jobs: Sequence[Mapping[str, Any]]
    backend: str = "auto"
    seed: int = 0

    def to_json(self) -> str:
        cases = {case_id: case.to_dict() for case_id, case in self.cases.items()}
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(fields | {"cases": cases})

    @classmethod
    def load(cls, path: Path) -> Plan:
        """The plan in a file that `to_json` made; raises InputError for any other content."""
        row = files.read_json(path, PLAN)
        with files.context(path, PLAN):
            try:
                cases = {name: PlannedCase.from_dict(case) for name, case in row["cases"].items()}
                return cls(**{**row, "cases": cases})
            except (TypeError, KeyError, AttributeError):
                raise InputError("a part of the plan is missing or of another type") from None


def results_of(path: Path) -> list[dict[str, Any]]:
    """The results in a file, in order; a line whose writing was cut off is no result."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    results = []
    for number, line in enumerate(lines, 1):
        if line.endswith("\n"):
            with files.context(path, RUNS):
                results.append(_result(line, number))
    return results


def _result(line: str, number: int) -> dict[str, Any]:
    """One result; raises InputError for a line that is none."""
    try:
        row = files.parse_json(line)
    except InputError:
        row = None
    if not isinstance(row, dict) or not {"index", "ranks"} <= row.keys():
        rule = "expected a result; the runs were written by something else, or damaged"
        raise InputError(f"line {number}: {rule}")
    return row


def drop_unfinished(path: Path) -> None:
    """Take a line whose writing was cut off from the end of a results file."""
    if path.exists():
        content = path.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            os.truncate(path, complete)


def append_result(path: Path, index: int, ranks: list[dict[str, Any]]) -> None:
    with path.open("a") as file:
        file.write(json.dumps({"index": index, "ranks": ranks}) + "\n")
