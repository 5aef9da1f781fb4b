"""What it runs on: a hardware profile is a list of costs and of kernels, each with its origin.

A kernel (`simdep.hardware.kernels`) gives the time of an operation by its shape, a cost by one
amount of work. Where a profile has both, the more specific goes first (`simdep.scenario`).

A cost is `alpha_us + beta_us * work` microseconds (FinDEP, Eq. 1-4); one that also has `points`
goes through these measured (work, microseconds) and follows the line only beyond them. What counts
as work is fixed by the operation:

    gemm, attention       multiply-accumulates of one matrix product, of one attention core
    expert                multiply-accumulates of one expert on the tokens routed to it
    a2e, e2a, link        bytes that one EG rank receives (a2e) or sends (e2a); link stands for both
                          directions
    host.gap              none: microseconds before a computation
    host.receive          none: microseconds of a computation for each message that it needs
    host.post             bytes of a message (as for a2e): microseconds that sending it takes of the
                          computing stream
    host.contention       none: share of the computing speed that one transfer in flight takes away
    stage.<kind>          tokens of one AG rank; a whole task, measured for one shape of layer (see
                          `Cost.shape`)
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np

from simdep import checks, files
from simdep.arrays import Array
from simdep.checks import InputError, shown
from simdep.file_kinds import PROFILE
from simdep.hardware.datasheet import datasheet_kernels
from simdep.hardware.gpus import Gpu, find_gpu, gpus
from simdep.hardware.kernels import LABELS, Kernel, kernel_from_dict

_FORMAT = 2  # version of the JSON form; format 1 had no kernels, but an unlabelled memory_bytes
STAGE_OPERATIONS = ("stage.attention", "stage.combine", "stage.shared", "stage.expert")
HOST_OPERATIONS = ("host.gap", "host.receive", "host.post", "host.contention")
COST_OPERATIONS = (
    "gemm",
    "attention",
    "expert",
    "a2e",
    "e2a",
    "link",
    *HOST_OPERATIONS,
    *STAGE_OPERATIONS,
)


@dataclass(frozen=True)
class LineFit:
    """How well a line fits its measurements: confidence intervals (95 %), R2, error and range of
    the work."""

    alpha_ci_us: tuple[float, float]
    beta_ci_us: tuple[float, float]
    r2: float
    mape_pct: float
    points: int
    work_range: tuple[float, float]


@dataclass(frozen=True)
class Cost:
    """One line of a profile. `ag` and `eg` (0: any) and `shape` ("": any) say what it was measured
    for."""

    op: str
    alpha_us: float
    beta_us: float
    label: str
    source: str
    ag: int = 0
    eg: int = 0
    shape: str = ""
    points: tuple[tuple[float, float], ...] = ()
    fit: LineFit | None = None

    def __call__(self, work: float, startups: float = 1.0) -> float:
        """Microseconds for an amount of work; without points, the line pays its start-up `startups`
        times.

        Between two points the logarithm of time is linear in the logarithm of work; beyond them the
        line goes on from the nearest one.
        """
        if not self.points:
            return self.alpha_us * startups + self.beta_us * work
        if isinstance(work, np.ndarray):  # type: ignore[unreachable]
            return self._through_points(work)  # type: ignore[unreachable]
        above = bisect.bisect_left(self.points, (work, 0.0))
        if above == len(self.points) or work < self.points[0][0]:
            nearest, us = self.points[min(above, len(self.points) - 1)]
            return max(0.0, us + self.beta_us * (work - nearest))
        (low, low_us), (high, high_us) = self.points[max(0, above - 1)], self.points[above]
        if low == high:
            return high_us
        part = math.log(work / low) / math.log(high / low)
        return float(low_us * (high_us / low_us) ** part)

    def _through_points(self, work: Array) -> Array:
        """Microseconds for many amounts of work, as for each of them."""
        x, y = np.array(self.points).T
        above = np.searchsorted(x, work)
        beyond = (above == len(x)) | (work < x[0])
        above = np.minimum(above, len(x) - 1)
        us: Array = np.maximum(0.0, y[above] + self.beta_us * (work - x[above]))
        low, high = np.maximum(0, above - 1)[~beyond], above[~beyond]
        on_first = low == high
        high = np.where(on_first, 1 % len(x), high)
        part = np.log(work[~beyond] / x[low]) / np.log(x[high] / x[low])
        us[~beyond] = np.where(on_first, y[low], y[low] * (y[high] / y[low]) ** part)
        return us


@dataclass(frozen=True)
class HardwareProfile:
    """Costs and kernels of one kind of machine, and the environment in which they were measured.

    `gpu` names its entry in `simdep.hardware.gpus`; `speed_factor` multiplies the computing times
    of kernels, for one machine that is slower or faster than the one that was measured (1: the
    paper's model, none).
    """

    name: str
    description: str
    costs: tuple[Cost, ...]
    kernels: tuple[Kernel, ...] = ()
    gpu: str = ""
    speed_factor: float = 1
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def machine(self) -> Gpu | None:
        """The GPU that it is a profile of, if that is known."""
        return find_gpu(self.gpu or self.name)

    @property
    def transports(self) -> list[str]:
        """The transports with costs of links or hosts of their own: what `shape` names there."""
        names = set()
        for cost in self.costs:
            if cost.op in ("a2e", "e2a", "link") or cost.op.startswith("host."):
                names.add(cost.shape)
        return sorted(names - {""})

    def kernel(self, op: str, **attributes: str) -> Kernel | None:
        """The first kernel of an operation that agrees with all the attributes given; None if there
        is none."""
        for kernel in self.kernels:
            if kernel.op == op and kernel.matches(attributes):
                return kernel
        return None

    def find(self, op: str, *, ag: int = 0, eg: int = 0, shape: str = "") -> Cost | None:
        """The cost of an operation for exactly this deployment and shape, else the one for any;
        None if neither."""
        for wanted in ((ag, eg, shape), (0, 0, shape), (ag, eg, ""), (0, 0, "")):
            for cost in self.costs:
                if cost.op == op and (cost.ag, cost.eg, cost.shape) == wanted:
                    return cost
        return None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "format": _FORMAT,
            "name": self.name,
            "description": self.description,
            "gpu": self.gpu,
            "speed_factor": self.speed_factor,
            "environment": self.environment,
            "costs": [asdict(cost) for cost in self.costs],
            "kernels": [kernel.to_dict() for kernel in self.kernels],
        }

    def save(self, path: Path) -> None:
        """Write the JSON form, with a line for each cost and kernel."""
        members = []
        for key, value in self.to_dict().items():
            members.append(f" {json.dumps(key)}: {_json_value(value)}")
        files.write(path, "{\n" + ",\n".join(members) + "\n}\n")


def _json_value(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"


def load_hardware(name: str) -> HardwareProfile:
    """A profile by its name, or from a JSON file; raises InputError for an unknown name or a
    malformed file.

    A GPU without a profile of measured or published costs has one computed from its data sheet.
    """
    path = Path(name)
    if files.names_file(name):
        data = files.read_json(path, PROFILE)
        with files.context(path, PROFILE):
            return profile_from_dict(data)
    shipped = _shipped()
    name = checks.known(name.lower(), {**shipped, **gpus()}, "hardware")
    if name in shipped:
        return profile_from_dict(json.loads(shipped[name].read_text()))
    kernels = datasheet_kernels(gpus()[name])
    return HardwareProfile(name, "computed from its data sheet", (), kernels, gpu=name)


def hardware_names() -> list[str]:
    """The names of the profiles that ship with simdep."""
    return sorted({*_shipped(), *gpus()})


def _shipped() -> dict[str, Traversable]:
    """The files of profiles that ship with simdep, by name."""
    entries = (resources.files("simdep") / "data" / "hardware").iterdir()
    profiles = [entry for entry in entries if entry.name.endswith(".json")]
    return {entry.name.removesuffix(".json"): entry for entry in profiles}


def profile_from_dict(data: Any) -> HardwareProfile:
    """A profile from its JSON form; raises InputError naming the field at fault."""
    names = ("format", *(field.name for field in fields(HardwareProfile)))
    checks.mapping(data, (*names, "memory_bytes", "figures"), "profile")
    if data.get("format") not in (1, _FORMAT):
        version = shown(data.get("format"))
        raise InputError(f"profile format {version} is not known; expected 1 or {_FORMAT}")
    costs, kernels = data.get("costs", ()), data.get("kernels", ())
    are_lists = isinstance(costs, (list, tuple)) and isinstance(kernels, (list, tuple))
    if not are_lists or not (costs or kernels):
        raise InputError(
            "costs and kernels are missing; a profile lists at least one cost or kernel"
        )
    environment = data.get("environment", {})
    if not isinstance(environment, Mapping):
        raise InputError(f"environment={shown(environment)}; expected a table")
    return HardwareProfile(
        name=checks.string(data.get("name"), "name"),
        description=str(data.get("description", "")),
        costs=tuple(_cost(row, f"costs[{index}]") for index, row in enumerate(costs)),
        kernels=tuple(
            kernel_from_dict(row, f"kernels[{index}]") for index, row in enumerate(kernels)
        ),
        gpu=str(data.get("gpu", "")),
        speed_factor=checks.number(data.get("speed_factor", 1), "speed_factor", above=0),
        environment=environment,
    )


def _cost(row: Any, place: str) -> Cost:
    checks.mapping(row, tuple(field.name for field in fields(Cost)), place)
    for key in ("op", "alpha_us", "beta_us", "label", "source"):
        if key not in row:
            raise InputError(f"{place}.{key} is missing")
    return Cost(
        op=checks.known(row["op"], COST_OPERATIONS, f"{place}.op"),
        alpha_us=checks.number(row["alpha_us"], f"{place}.alpha_us"),
        beta_us=checks.number(row["beta_us"], f"{place}.beta_us"),
        label=checks.known(row["label"], LABELS, f"{place}.label"),
        source=checks.string(row["source"], f"{place}.source"),
        ag=checks.integer(row.get("ag", 0), f"{place}.ag", 0),
        eg=checks.integer(row.get("eg", 0), f"{place}.eg", 0),
        shape=str(row.get("shape", "")),
        points=_points(row.get("points", ()), f"{place}.points"),
        fit=_line_fit(row.get("fit"), f"{place}.fit"),
    )


def _points(rows: Any, place: str) -> tuple[tuple[float, float], ...]:
    if not isinstance(rows, (list, tuple)):
        raise InputError(f"{place}={shown(rows)}; expected a list of pairs [work, microseconds]")
    points: list[tuple[float, float]] = []
    for row in rows:
        if not isinstance(row, (list, tuple)) or len(row) != 2:
            raise InputError(f"{place}: {shown(row)}; expected a pair [work, microseconds]")
        work, us = (checks.number(value, place, above=0) for value in row)
        if points and work <= points[-1][0]:
            raise InputError(f"{place}: work does not increase from point to point")
        points.append((work, us))
    return tuple(points)


def _line_fit(row: Any, place: str) -> LineFit | None:
    if row is None:
        return None
    names = tuple(field.name for field in fields(LineFit))
    checks.mapping(row, names, place)
    for name in names:
        if name not in row:
            raise InputError(f"{place}.{name} is missing")
    return LineFit(
        alpha_ci_us=checks.pair(row["alpha_ci_us"], f"{place}.alpha_ci_us"),
        beta_ci_us=checks.pair(row["beta_ci_us"], f"{place}.beta_ci_us"),
        r2=checks.finite(row["r2"], f"{place}.r2"),
        mape_pct=checks.number(row["mape_pct"], f"{place}.mape_pct"),
        points=checks.integer(row["points"], f"{place}.points"),
        work_range=checks.pair(row["work_range"], f"{place}.work_range"),
    )
