"""The registry: every policy by its name, and its parameters.

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
from simdep.checks import InputError
from simdep.costs import Costs
from simdep.policies.job import Job
from simdep.scenario.spec import Scenario
from simdep.schedule import Schedule

PARAMETERS = ("r1", "r2", "order", "merge_last")
Make = Callable[[Job], Schedule]


@dataclass(frozen=True)
class Policy:
    """A way to order and divide the work, and where it comes from.

    `parameters` are those of `PARAMETERS` that a job may choose; a policy without r1 works on `r1`
    micro-batches, and one without r2 does not divide them. `splits` are the ways in which its
    chunks may be cut. `setup` is what the deployment of its paper has besides (fields of
    `simdep.scenario.spec.Deployment`), and its r1 where that may be chosen.
    """

    name: str
    make: Make
    summary: str
    source: str
    colocated: bool = False
    parameters: tuple[str, ...] = ()
    r1: int = 1
    splits: tuple[str, ...] = ("token",)
    setup: Mapping[str, Any] = field(default_factory=dict)

    def schedule(self, job: Job) -> Schedule:
        """The schedule of a job; raises InputError for a parameter that the policy does not
        have."""
        self.check(job)
        return self.make(job)

    def setup_on(self, *, sms_known: bool) -> dict[str, Any]:
        """`setup`, with SMs of communication only where those of the GPU are known."""
        if sms_known:
            return dict(self.setup)
        return {key: value for key, value in self.setup.items() if not key.startswith("comm_sms")}

    def check(self, job: Job) -> None:
        """Raise ValueError, naming the parameter, for a job that the policy can't schedule."""
        if "r1" not in self.parameters and job.r1 != self.r1:
            count = "one micro-batch" if self.r1 == 1 else f"{self.r1} micro-batches"
            rule = f"policy {self.name} has {count}; use r1={self.r1}{self._or_policy('pppipe')}"
            raise InputError(f"r1={job.r1}: {rule}")
        if "r2" not in self.parameters and job.r2 != 1:
            rule = f"policy {self.name} does not divide micro-batches"
            raise InputError(f"r2={job.r2}: {rule}; use r2=1{self._or_policy('findep')}")
        if "order" not in self.parameters and job.order.upper() not in ("ASAS", self.name.upper()):
            rule = f"policy {self.name} has no order to choose; leave it out, or use findep"
            raise InputError(f"order {job.order!r}: {rule}")
        if job.split not in self.splits:
            rule = f"policy {self.name} cuts chunks by {' or '.join(self.splits)}"
            raise InputError(f"split={job.split!r}: {rule}")
        if job.merge_last and "merge_last" not in self.parameters:
            rule = f"policy {self.name} has no chunks of the last layer to merge; leave it out"
            raise InputError(f"merge_last: {rule}")

    def _or_policy(self, other: str) -> str:
        """The end of an error that names another policy, which is for two groups."""
        return "" if self.colocated else f", or policy {other}"


POLICIES: dict[str, Policy] = {}


def register(
    *,
    source: str,
    name: str = "",
    colocated: bool = False,
    parameters: tuple[str, ...] = (),
    r1: int = 1,
    splits: tuple[str, ...] = ("token",),
    setup: Mapping[str, Any] | None = None,
) -> Callable[[Make], Make]:
    """Decorator: make a function from Job to Schedule a policy (fields as of `Policy`).

    Its name defaults to the function's, with hyphens; its summary is the first paragraph of the
    docstring. Raises InputError for a function without one, a parameter that does not exist, and a
    name that another function has.
    """
    for parameter in parameters:
        checks.known(parameter, PARAMETERS, "parameter")

    def add(make: Make) -> Make:
        title = name or make.__name__.replace("_", "-")
        summary = " ".join((inspect.getdoc(make) or "").partition("\n\n")[0].split())
        if not summary:
            rule = "its first sentence says in `simdep policies` what it does"
            raise InputError(f"policy {title} has no docstring; {rule}")
        known = POLICIES.get(title)
        if known and _origin(known.make) != _origin(make):
            place = known.make.__module__
            raise InputError(f"policy {title} exists already, from {place}; give another name")
        POLICIES[title] = Policy(
            title, make, summary, source, colocated, parameters, r1, splits, setup or {}
        )
        return make

    return add


def find(name: str) -> Policy:
    """The policy of a name; raises InputError for an unknown one."""
    return POLICIES[checks.known(name, POLICIES, "policy")]


def load_policy(text: str) -> Policy:
    """The policy that a flag names: one by its name, or `FILE.py:NAME`, whose module runs first.

    Raises InputError for a file that can't be run or does not register that name.
    """
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py"):
        return find(text)
    path = Path(file)
    spec = importlib.util.spec_from_file_location(f"policy_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"policy {text!r}: there is no file {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"policy {text!r}: {file} does not run: {reason}") from error
    if name not in POLICIES:
        raise InputError(f"policy {text!r}: {file} registers no policy {name!r}")
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
    """The schedule of a policy without a scenario: r1 equal micro-batches of `tokens` tokens
    (default r2), each in r2 chunks.

    Raises InputError for an unknown policy or a parameter that it does not have.
    """
    chosen = find(policy)
    job = Job.regular(layers, r1, r2, order, tokens=tokens, shared=shared, costs=costs)
    shared_on = chosen.setup.get("shared_on", "ag")
    return chosen.schedule(replace(job, split=chosen.splits[0], shared_on=shared_on))


def schedule_for(scenario: Scenario, costs: Costs | None = None) -> Schedule:
    """The schedule of a scenario, by its `costs` where these matter.

    Raises InputError where policy and scenario do not go together.
    """
    policy = find(scenario.policy)
    if not scenario.has_model:
        sizes = (scenario.layers, scenario.r1, scenario.r2, scenario.order)
        return build(policy.name, *sizes, costs=costs or scenario.stage_times)
    if policy.colocated and not scenario.deployment.colocated:
        rule = "colocated: give deployment.gpus in place of ag and eg"
        raise InputError(f"policy {policy.name} is {rule}")
    if scenario.deployment.colocated and not policy.colocated:
        raise InputError(f"policy {policy.name} is for ag and eg, not gpus")
    is_open = scenario.split == "token" and "split" not in scenario.given
    if is_open and scenario.split not in policy.splits:
        scenario = replace(scenario, split=policy.splits[0], chunks=())
    return policy.schedule(Job.of(scenario, costs))


def _origin(make: Make) -> tuple[str, str]:
    return make.__module__, make.__qualname__
