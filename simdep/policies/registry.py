"""The registry: every policy by its name, and what it may be asked.

A policy is a function from a Job to a Schedule, with `register` above it; the README shows one of a
user's own, which `--policy my_policy.py:name` runs. That runs the module, so it is read from a flag
alone and never from a scenario file.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from simdep import checks
from simdep.costs import Costs
from simdep.policies.job import Job
from simdep.scenario.spec import Scenario
from simdep.schedule import Schedule

DEGREES = ("r1", "r2", "order", "merge_last")
Make = Callable[[Job], Schedule]


@dataclass(frozen=True)
class Policy:
    """A way to order and cut the work, and where it comes from.

    `takes` are those of `DEGREES` that are free; a policy without r1 works on `r1` micro-batches,
    and one without r2 does not cut them. `splits` are the ways in which its chunks may be cut.
    `setup` holds what the paper's deployment has besides (fields of
    `simdep.scenario.spec.Deployment`), and its r1 where that is free.
    """

    name: str
    make: Make
    summary: str
    source: str
    colocated: bool = False
    takes: tuple[str, ...] = ()
    r1: int = 1
    splits: tuple[str, ...] = ("token",)
    setup: Mapping[str, Any] = field(default_factory=dict)

    def schedule(self, job: Job) -> Schedule:
        """The schedule of a job; raises ValueError for a degree that the policy does not have."""
        self.check(job)
        return self.make(job)

    def setup_on(self, *, sms_known: bool) -> dict[str, Any]:
        """`setup`, with SMs of communication only where those of the GPU are known."""
        return {
            key: value
            for key, value in self.setup.items()
            if sms_known or not key.startswith("comm_sms")
        }

    def check(self, job: Job) -> None:
        """Raise ValueError, naming the degree, for a job that the policy can't be asked."""
        others = "" if self.colocated else ", or policy "
        if "r1" not in self.takes and job.r1 != self.r1:
            has = "one micro-batch" if self.r1 == 1 else f"{self.r1} micro-batches"
            hint = f"{others}pppipe" if others else ""
            raise ValueError(f"r1={job.r1}: policy {self.name} has {has}; use r1={self.r1}{hint}")
        if "r2" not in self.takes and job.r2 != 1:
            hint = f"{others}findep" if others else ""
            raise ValueError(
                f"r2={job.r2}: policy {self.name} does not cut micro-batches; use r2=1{hint}"
            )
        if "order" not in self.takes and job.order.upper() not in ("ASAS", self.name.upper()):
            raise ValueError(
                f"order {job.order!r}: policy {self.name} has no order to choose; leave it out, or use findep"
            )
        if job.split not in self.splits:
            raise ValueError(
                f"split={job.split!r}: policy {self.name} cuts chunks by {' or '.join(self.splits)}"
            )
        if job.merge_last and "merge_last" not in self.takes:
            raise ValueError(
                f"merge_last: policy {self.name} has no chunks of the last layer to merge; leave it out"
            )


POLICIES: dict[str, Policy] = {}


def register(
    *,
    source: str,
    name: str = "",
    colocated: bool = False,
    takes: tuple[str, ...] = (),
    r1: int = 1,
    splits: tuple[str, ...] = ("token",),
    setup: Mapping[str, Any] | None = None,
) -> Callable[[Make], Make]:
    """Decorator: make a function from Job to Schedule a policy (fields as of `Policy`).

    Its name defaults to the function's, with hyphens; its summary is the first paragraph of the
    docstring. Raises ValueError for a function without one, a degree that does not exist, and a
    name that another function has.
    """
    for degree in takes:
        checks.known(degree, DEGREES, "degree")

    def add(make: Make) -> Make:
        word = name or make.__name__.replace("_", "-")
        summary = " ".join((inspect.getdoc(make) or "").partition("\n\n")[0].split())
        if not summary:
            raise ValueError(
                f"policy {word} has no docstring; its first sentence says in `simdep policies` what it does"
            )
        known = POLICIES.get(word)
        if known and (known.make.__module__, known.make.__qualname__) != (
            make.__module__,
            make.__qualname__,
        ):
            raise ValueError(
                f"policy {word} exists already, from {known.make.__module__}; give another name"
            )
        POLICIES[word] = Policy(
            word, make, summary, source, colocated, takes, r1, splits, setup or {}
        )
        return make

    return add


def find(name: str) -> Policy:
    """The policy of a name; raises ValueError for an unknown one."""
    return POLICIES[checks.known(name, POLICIES, "policy")]


def load(word: str) -> Policy:
    """The policy that a flag asks for: a name, or `FILE.py:NAME`, whose module runs first.

    Raises ValueError for a file that can't be run or does not register that name.
    """
    file, colon, name = word.rpartition(":")
    if not colon or not file.endswith(".py"):
        return find(word)
    path = Path(file)
    spec = importlib.util.spec_from_file_location(f"policy_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"policy {word!r}: there is no file {file}")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(
        spec
    )  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"policy {word!r}: {file} does not run: {told}") from error
    if name not in POLICIES:
        raise ValueError(f"policy {word!r}: {file} registers no policy {name!r}")
    return POLICIES[name]


def build(
    policy: str,
    layers: int,
    r1: int = 1,
    r2: int = 1,
    order: str = "ASAS",
    *,
    tokens: int | None = None,
    shared: bool = True,
    costs: Costs | None = None,
) -> Schedule:
    """The schedule of a policy on a bare problem: r1 equal micro-batches of `tokens` tokens
    (default r2), r2 chunks.

    Raises ValueError for an unknown policy or a degree that it does not have.
    """
    asked = find(policy)
    job = Job.regular(layers, r1, r2, order, tokens=tokens, shared=shared, costs=costs)
    return asked.schedule(
        replace(job, split=asked.splits[0], shared_on=asked.setup.get("shared_on", "ag"))
    )


def schedule_for(scenario: Scenario, costs: Costs | None = None) -> Schedule:
    """The schedule that a scenario asks for, by its `costs` where these matter.

    Raises ValueError where policy and scenario do not go together.
    """
    asked = find(scenario.policy)
    if not scenario.has_model:
        cut = (scenario.layers, scenario.r1, scenario.r2, scenario.order)
        return build(asked.name, *cut, costs=costs or scenario.stage_times)
    if asked.colocated != scenario.deployment.colocated:
        rule = (
            "colocated: give deployment.gpus in place of ag and eg"
            if asked.colocated
            else "for ag and eg, not gpus"
        )
        raise ValueError(f"policy {asked.name} is {rule}")
    is_open = scenario.split == "token" and "split" not in scenario.given
    if is_open and len(asked.splits) == 1 and asked.splits[0] != "token":
        scenario = replace(scenario, split=asked.splits[0], chunks=())
    return asked.schedule(Job.of(scenario, costs))
