"""A job: what a policy schedules, with everything that it may look at, costs of tasks included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from simdep.checks import InputError
from simdep.costs import Costs, StageTimes
from simdep.policies.orders import Partition, chunk_tokens, share_out
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import task_costs
from simdep.schedule import Kind, Task

MAX_TASKS = 200_000  # of a schedule


@dataclass(frozen=True)
class Job:
    """`layers` layers of the micro-batches and chunks of `partition` (tokens of one AG GPU), with
    `shared` experts or not.

    `split` says whether chunks are cut by token or by expert: then those of a micro-batch are as
    many groups of experts, whatever their tokens. `merge_last`: the last layer is not cut. `costs`,
    in microseconds, is None where nobody knows them, `scenario` for a bare scheduling problem.
    """

    layers: int
    partition: Partition
    order: str = "ASAS"
    shared: bool = True
    shared_on: str = "ag"
    split: str = "token"
    merge_last: bool = False
    costs: Costs | None = None
    scenario: Scenario | None = None

    @classmethod
    def of(cls, scenario: Scenario, costs: Costs | None = None) -> Job:
        """What a scenario asks for, by its `costs` if they are at hand.

        Raises InputError for a chunk without a token, for groups of experts that do not divide
        those of a GPU, and for more than `MAX_TASKS` tasks.
        """
        _check_size(scenario.layers, scenario.r1, scenario.r2)
        return cls(
            layers=scenario.layers,
            partition=_partition(scenario),
            order=scenario.order,
            shared=scenario.model.has_shared,
            shared_on=scenario.deployment.shared_on,
            split=scenario.split,
            merge_last=scenario.merge_last,
            costs=costs or task_costs(scenario),
            scenario=scenario,
        )

    @classmethod
    def regular(
        cls,
        layers: int,
        r1: int,
        r2: int,
        order: str = "ASAS",
        *,
        tokens: int | None = None,
        shared: bool = True,
        costs: Costs | None = None,
    ) -> Job:
        """A bare problem: r1 equal micro-batches of `tokens` tokens (default r2) in chunks as equal
        as these allow."""
        if layers < 1:
            raise InputError(f"layers={layers}: a schedule has at least 1 layer")
        _check_size(layers, r1, r2)
        if r1 < 1:
            raise InputError(f"r1={r1}: the AG works on at least 1 micro-batch")
        partition = (chunk_tokens(r2 if tokens is None else tokens, r2),) * r1
        return cls(layers, partition, order, shared, costs=costs)

    @property
    def r1(self) -> int:
        return len(self.partition)

    @property
    def r2(self) -> int:
        """Chunks of the most finely cut micro-batch."""
        return max(map(len, self.partition))

    @property
    def micro_batches(self) -> range:
        return range(self.r1)

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        """Tokens of every micro-batch."""
        return tuple(map(sum, self.partition))

    def chunks(self, layer: int, mb: int) -> int:
        """How many chunks a micro-batch has in a layer."""
        return 1 if self.merge_last and layer == self.layers - 1 else len(self.partition[mb])

    @property
    def is_regular(self) -> bool:
        """Whether all micro-batches are cut alike, into chunks as equal as whole tokens allow, in
        every layer."""
        return self._is_even and not self.merge_last and len(set(self.tokens)) == 1

    @property
    def times(self) -> StageTimes:
        """Microseconds of a task of each kind in an inner layer, of the first micro-batch and its
        first chunk.

        Shared experts count where the AG computes them. Raises InputError where costs are not
        known.
        """
        if self.costs is None:
            raise InputError(
                "this policy looks at the costs of its tasks; give a scenario or stage times"
            )
        kinds = [Kind.ATTENTION, Kind.EXPERT, Kind.A2E, Kind.E2A]
        if self.shared and self.shared_on == "ag":
            kinds.append(Kind.SHARED)
        return StageTimes(**{kind.label: self.costs(self._inner_task(kind)) for kind in kinds})

    def _inner_task(self, kind: Kind) -> Task:
        """The task of a kind in an inner layer, of the first micro-batch and its first chunk."""
        layer, first = min(1, self.layers - 1), self.partition[0]
        if not kind.is_chunked:
            return Task(kind, layer, 0, tokens=sum(first))
        if self.split == "token":
            return Task(kind, layer, 0, 0, first[0])
        return Task(kind, layer, 0, 0, sum(first), groups=len(first))

    @property
    def _is_even(self) -> bool:
        """Whether every micro-batch has as many chunks, each as equal as whole tokens allow."""
        if len(set(map(len, self.partition))) > 1:
            return False
        even = (chunk_tokens(sum(chunks), len(chunks)) for chunks in self.partition)
        return self.split == "expert" or self.partition == tuple(even)

    def label(self, policy: str, *parameters: str) -> str:
        """`findep ASAS r1=2 r2=3`: the name of the schedule, with whatever is not regular about its
        partition."""
        texts = {
            "r1": f"r1={self.r1}",
            "r2": f"r2={self.r2}",
            "order": " ".join(self.order.upper().split()),
        }
        words = [policy, *(texts[parameter] for parameter in parameters)]
        if len(set(self.tokens)) > 1:
            words.append(f"micro-batches {_listed(self.tokens)}")
        if not self._is_even:
            different = dict.fromkeys(self.partition)
            words.append(f"chunks {';'.join(map(_listed, different))}")
        if self.split == "expert" and self.r2 > 1:
            words.append("by expert")
        if self.merge_last:
            words.append("last layer uncut")
        return " ".join(words)


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def task_count(layers: int, r1: int, r2: int) -> int:
    """Tasks of a schedule at most: attention and shared experts of each micro-batch in each layer,
    two transfers and the experts of each chunk."""
    return layers * r1 * (2 + 3 * r2)


def _check_size(layers: int, r1: int, r2: int) -> None:
    tasks = task_count(layers, r1, r2)
    if tasks > MAX_TASKS:
        place = f"layers={layers}, r1={r1}, r2={r2}"
        raise InputError(f"{place}: a schedule of {tasks:,} tasks; expected at most {MAX_TASKS:,}")


def _partition(scenario: Scenario) -> Partition:
    samples = scenario.micro_batches or (scenario.m_a,) * scenario.r1
    tokens = [each * scenario.workload.tokens_per_sample for each in samples]
    if scenario.split == "expert":
        local = scenario.model.local_experts(scenario.deployment.eg)
        if local % scenario.r2:
            divisors = ", ".join(str(n) for n in range(1, local + 1) if local % n == 0)
            rule = f"groups do not divide the {local} experts of a GPU; use {divisors}"
            raise InputError(f"r2={scenario.r2} {rule}")
        return tuple((n, *(0,) * (scenario.r2 - 1)) for n in tokens)
    if scenario.chunks:
        return tuple(
            share_out(n, shares) for n, shares in zip(tokens, scenario.chunks, strict=True)
        )
    return tuple(chunk_tokens(n, scenario.r2) for n in tokens)
