"""What it runs on: a hardware profile is a list of costs, each with its origin.

A cost is `alpha_us + beta_us * work` microseconds (FinDEP, Eq. 1-4); one that also has `points` goes through these
measured (work, microseconds) and follows the line only beyond them. What counts as work is fixed by the operation:

    gemm, attention       multiply-accumulates of one matrix product, of one attention core
    expert                multiply-accumulates of one expert on the tokens routed to it
    a2e, e2a, link        bytes that one EG rank receives (a2e) or sends (e2a); link stands for both directions
    host.gap              none: microseconds before a computation
    host.receive          none: microseconds that a computation is held up by each message it needs
    host.post             bytes of a message (as for a2e): microseconds that posting it takes of the computing stream
    host.contention       none: share of the computing speed that one transfer under way takes away
    stage.<kind>          tokens of one AG rank; a whole task, measured for one shape of layer (see `Cost.shape`)
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from simdep import checks

FORMAT = 1  # version of the JSON form
STAGES = ("stage.attention", "stage.combine", "stage.shared", "stage.expert")
HOST = ("host.gap", "host.receive", "host.post", "host.contention")
OPERATIONS = ("gemm", "attention", "expert", "a2e", "e2a", "link", *HOST, *STAGES)
LABELS = ("measured", "published", "datasheet", "assumed")


@dataclass(frozen=True)
class Fit:
    """How well a line fits its measurements: confidence intervals (95 %), R2, error and range of the work."""

    alpha_ci_us: tuple[float, float]
    beta_ci_us: tuple[float, float]
    r2: float
    mape_pct: float
    points: int
    work_range: tuple[float, float]


@dataclass(frozen=True)
class Cost:
    """One line of a profile. `ag` and `eg` (0: any) and `shape` ("": any) say what it was measured for."""

    op: str
    alpha_us: float
    beta_us: float
    label: str
    source: str
    ag: int = 0
    eg: int = 0
    shape: str = ""
    points: tuple[tuple[float, float], ...] = ()
    fit: Fit | None = None

    def __call__(self, work: float, startups: float = 1.0) -> float:
        """Microseconds for an amount of work; without points, the line pays its start-up `startups` times.

        Between two points the logarithm of time is linear in the logarithm of work; beyond them the line goes on from
        the nearest one.
        """
        if not self.points:
            return self.alpha_us * startups + self.beta_us * work
        above = bisect.bisect_left(self.points, (work, 0.0))
        if above == len(self.points) or work < self.points[0][0]:
            nearest, us = self.points[min(above, len(self.points) - 1)]
            return max(0.0, us + self.beta_us * (work - nearest))
        (low, low_us), (high, high_us) = self.points[max(0, above - 1)], self.points[above]
        if low == high:
            return high_us
        part = math.log(work / low) / math.log(high / low)
        return float(low_us * (high_us / low_us) ** part)


@dataclass(frozen=True)
class HardwareProfile:
    """Costs of one kind of machine, with the memory of a GPU and the environment in which they were measured."""

    name: str
    description: str
    costs: tuple[Cost, ...]
    memory_bytes: int | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)

    def find(self, op: str, *, ag: int = 0, eg: int = 0, shape: str = "") -> Cost | None:
        """The cost of an operation for exactly this deployment and shape, else the one for any; None if neither."""
        for wanted in ((ag, eg, shape), (0, 0, shape), (ag, eg, ""), (0, 0, "")):
            for cost in self.costs:
                if cost.op == op and (cost.ag, cost.eg, cost.shape) == wanted:
                    return cost
        return None

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n")


def load_hardware(name: str) -> HardwareProfile:
    """A profile by its name, or from a JSON file; raises ValueError for an unknown name or a malformed file."""
    path = Path(name)
    if path.suffix == ".json":
        try:
            return profile_from_dict(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise ValueError(f"hardware {name}: {error}") from None
    builtin = {entry.name.removesuffix(".json"): entry for entry in _data().iterdir() if entry.name.endswith(".json")}
    return profile_from_dict(json.loads(builtin[checks.known(name.lower(), builtin, "hardware")].read_text()))


def profile_from_dict(data: Any) -> HardwareProfile:
    """A profile from its JSON form; raises ValueError naming the field at fault."""
    keys = ("format", "name", "description", "costs", "memory_bytes", "environment")
    checks.table(data, keys, "profile")
    if data.get("format") != FORMAT:
        raise ValueError(f"profile format {data.get('format')!r} is not known; this version reads format {FORMAT}")
    if not isinstance(data.get("costs"), (list, tuple)) or not data["costs"]:
        raise ValueError("costs is missing; a profile lists at least one cost")
    memory, environment = data.get("memory_bytes"), data.get("environment", {})
    if not isinstance(environment, Mapping):
        raise ValueError(f"environment={environment!r} is not a table")
    return HardwareProfile(
        name=checks.text(data.get("name"), "name"),
        description=str(data.get("description", "")),
        costs=tuple(_cost(row, f"costs[{index}]") for index, row in enumerate(data["costs"])),
        memory_bytes=None if memory is None else checks.whole(memory, "memory_bytes"),
        environment=environment,
    )


def _cost(row: Any, where: str) -> Cost:
    checks.table(row, tuple(Cost.__dataclass_fields__), where)
    for key in ("op", "alpha_us", "beta_us", "label", "source"):
        if key not in row:
            raise ValueError(f"{where}.{key} is missing")
    return Cost(
        op=checks.known(row["op"], OPERATIONS, f"{where}.op"),
        alpha_us=checks.number(row["alpha_us"], f"{where}.alpha_us"),
        beta_us=checks.number(row["beta_us"], f"{where}.beta_us"),
        label=checks.known(row["label"], LABELS, f"{where}.label"),
        source=checks.text(row["source"], f"{where}.source"),
        ag=checks.whole(row.get("ag", 0), f"{where}.ag", 0),
        eg=checks.whole(row.get("eg", 0), f"{where}.eg", 0),
        shape=str(row.get("shape", "")),
        points=_points(row.get("points", ()), f"{where}.points"),
        fit=None if row.get("fit") is None else _fit(row["fit"], f"{where}.fit"),
    )


def _points(rows: Any, where: str) -> tuple[tuple[float, float], ...]:
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, (list, tuple)) and len(row) == 2 for row in rows):
        raise ValueError(f"{where}={rows!r}; it is a list of pairs [work, microseconds]")
    points = tuple((checks.number(x, where, above=0), checks.number(y, where, above=0)) for x, y in rows)
    if any(one[0] >= other[0] for one, other in pairwise(points)):
        raise ValueError(f"{where}: work does not increase from point to point")
    return points


def _fit(row: Any, where: str) -> Fit:
    names = tuple(Fit.__dataclass_fields__)
    checks.table(row, names, where)
    if missing := [name for name in names if name not in row]:
        raise ValueError(f"{where}.{missing[0]} is missing")

    def pair(key: str) -> tuple[float, float]:
        if not isinstance(row[key], (list, tuple)) or len(row[key]) != 2:
            raise ValueError(f"{where}.{key}={row[key]!r}; it is a pair of numbers")
        low, high = (checks.number(value, f"{where}.{key}") for value in row[key])
        return low, high

    return Fit(
        alpha_ci_us=pair("alpha_ci_us"),
        beta_ci_us=pair("beta_ci_us"),
        r2=checks.finite(row["r2"], f"{where}.r2"),
        mape_pct=checks.number(row["mape_pct"], f"{where}.mape_pct"),
        points=checks.whole(row["points"], f"{where}.points"),
        work_range=pair("work_range"),
    )


def _data() -> Any:
    return resources.files("simdep") / "data" / "hardware"
