"""A sweep: one scenario with some of its fields varied, in every combination.

A point is a value for every axis. `simdep.planning.sweep_rows` simulates or solves points.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from simdep.checks import InputError
from simdep.hardware.profile import HardwareProfile, load_hardware
from simdep.planning.axes import SPLIT, Axis
from simdep.planning.choice import Choice
from simdep.scenario.fields import override
from simdep.scenario.models import ModelSpec, load_model
from simdep.scenario.spec import Scenario

MAX_POINTS = 1_000_000
CHOSEN = ("policy", "order", "r1", "r2", "m_a")  # what a sweep that solves finds by itself
_CONTRADICTIONS = ((SPLIT, ("ag", "eg", "gpus")), ("gpus", ("ag", "eg")), ("m_a", ("samples",)))
Point = Mapping[str, Any]  # axis name -> value
Loaded = TypeVar("Loaded", HardwareProfile, ModelSpec)


@dataclass(frozen=True)
class Sweep:
    """A scenario in the form of `Scenario.from_dict`, and what of it varies; the last axis varies
    fastest.

    `solve` finds the best configuration and order of every point (`simdep.planning.solver`), for
    its samples if these are given. Raises InputError for axes that contradict each other.
    """

    base: Mapping[str, Any]
    axes: tuple[Axis, ...]
    solve: bool = False

    def __post_init__(self) -> None:
        names = [axis.name for axis in self.axes]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"--vary {name} is given twice; list its values in one")
            if self.solve and name in CHOSEN:
                raise InputError(f"--solve chooses {name} by itself; do not vary it")
        for name, others in _CONTRADICTIONS:
            varied = [other for other in others if other in names]
            if name in names and varied:
                raise InputError(
                    f"--vary {name} and --vary {varied[0]} contradict each other; leave one out"
                )
        if len(self) > MAX_POINTS:
            raise InputError(f"--vary: {len(self):,} points; a sweep has at most {MAX_POINTS:,}")

    def __len__(self) -> int:
        return math.prod(len(axis.values) for axis in self.axes)

    def points(self) -> Iterator[dict[str, Any]]:
        """Every combination of values."""
        names = [axis.name for axis in self.axes]
        for values in itertools.product(*(axis.values for axis in self.axes)):
            yield dict(zip(names, values, strict=True))

    def scenario(
        self,
        point: Point,
        hardware_named: Callable[[str], HardwareProfile] = load_hardware,
        model_named: Callable[[str], ModelSpec] = load_model,
    ) -> Scenario:
        """The scenario of a point; raises InputError where its values do not fit.

        A varied policy has as many GPUs and its own parameters where nothing varies them, as in
        `simdep compare`. The last arguments give the profile and the model of a name.
        """
        return self.under_policy(self.stated(point, hardware_named, model_named), point)

    def stated(
        self,
        point: Point,
        hardware_named: Callable[[str], HardwareProfile] = load_hardware,
        model_named: Callable[[str], ModelSpec] = load_model,
    ) -> Scenario:
        """The scenario of a point, whose policy is left aside."""
        values = {name: value for name, value in point.items() if name not in (SPLIT, "policy")}
        if SPLIT in point:
            values["ag"], values["eg"] = map(int, point[SPLIT].split(":"))
        data = override(self.base, values)
        return Scenario.from_dict(
            data,
            _loaded(data.get("deployment", {}).get("hardware"), hardware_named),
            _loaded(data.get("model"), model_named),
        )

    def under_policy(self, scenario: Scenario, point: Point) -> Scenario:
        """The `stated` scenario of a point under the policy of the point, if policies vary."""
        policy = point.get("policy")
        if policy is None:
            return scenario
        choice = Choice(policy, point.get("order"), point.get("r1"), point.get("r2"))
        return choice.of(scenario).scenario

    def samples(self, point: Point, scenario: Scenario) -> int | None:
        """The samples of a point that is solved, None where memory alone limits them."""
        stated = "samples" in point or "samples" in self.base.get("workload", {})
        return scenario.workload.samples if stated else None

    def to_dict(self) -> dict[str, Any]:
        """What makes it the same sweep, ready for JSON."""
        axes = {axis.name: list(axis.values) for axis in self.axes}
        return {"scenario": self.base, "vary": axes, "solve": self.solve}


def _loaded(name: Any, load: Callable[[str], Loaded]) -> Loaded | None:
    """What a name stands for; None for what is no name."""
    return load(name) if isinstance(name, str) and name else None
