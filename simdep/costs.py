"""Costs: how long a task occupies its stream, in microseconds. A cost model is a callable: task -> microseconds.

`StageTimes` gives each kind one number. `ScenarioCosts` derives the work of a task from the model (FinDEP, Eq. 1-4) and
prices it with a hardware profile, taking the most specific cost that the profile has: a measured whole stage, else a
measured expert, else matrix products as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property

from simdep import checks
from simdep.hardware import Cost, HardwareProfile
from simdep.scenario import Scenario
from simdep.schedule import Kind, Task

Costs = Callable[[Task], float]  # microseconds that a task occupies its stream


def _free(_: Task) -> float:
    return 0


@dataclass(frozen=True)
class Host:
    """What hosts and links add to the ideal streams; every term that is left at its default adds nothing.

    Microseconds before each computation, for each message that it needs, and for each that is posted after it; the
    share of speed that one transfer takes from computation; whether the two directions of a link share it (first come,
    first served); and the coefficient of variation of computation times, drawn by `seed` from a lognormal of mean 1.
    """

    gap_us: float = 0
    receive_us: float = 0
    post_us: Costs = _free
    contention: float = 0
    half_duplex: bool = False
    noise: float = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.contention < 0.5:
            raise ValueError(f"contention={self.contention}; two transfers must leave computation some speed: 0 to 0.5")


@dataclass(frozen=True)
class StageTimes:
    """Microseconds of every task by its kind; whole numbers keep the simulation exact."""

    attention: float
    expert: float
    a2e: float
    e2a: float
    shared: float = 0

    def __call__(self, task: Task) -> float:
        value: float = getattr(self, task.kind.label)
        return value

    @classmethod
    def parse(cls, text: str) -> StageTimes:
        """From `attention=1000,shared=300,a2e=50,expert=200,e2a=50`; raises ValueError naming the part at fault."""
        names = {f.name for f in fields(cls)}
        times: dict[str, float] = {}
        for part in text.split(","):
            key, equals, value = (word.strip() for word in part.partition("="))
            checks.known(key, names, "stage")
            if not equals or key in times:
                raise ValueError(f"stage times {text!r}: write each stage once, as {key}=MICROSECONDS")
            try:
                times[key] = checks.number(int(value) if value.isdigit() else float(value), f"stage time {key}")
            except ValueError:
                raise ValueError(f"stage time {key}={value!r}; it is a finite number of at least 0") from None
        for missing in sorted(names - {"shared"} - set(times)):
            raise ValueError(f"stage times {text!r}: {missing} is missing; only shared may be left out")
        return cls(**times)


@dataclass(frozen=True)
class ScenarioCosts:
    """Task times of a scenario on its hardware profile. Raises ValueError where the profile lacks a needed cost."""

    scenario: Scenario

    def __call__(self, task: Task) -> float:
        if task.kind is Kind.ATTENTION:
            return self.attention(task.tokens) + (self._stage("combine", task.tokens) or 0 if task.layer else 0)
        if task.kind is Kind.SHARED:
            return self.shared(task.tokens)
        if task.kind is Kind.EXPERT:
            return self.expert(task.tokens)
        return self.transfer(task.kind, task.tokens)

    def attention(self, tokens: int) -> float:
        """Projections and attention core of `tokens` tokens (t_a of FinDEP, with the model's own projections)."""
        measured = self._stage("attention", tokens)
        if measured is not None:
            return measured
        model, work = self.scenario.model, self.scenario.workload
        gemm, core = self._cost("gemm"), self._cost("attention")
        projections = sum(gemm(tokens * k * n) for k, n in model.attention.projections(model.hidden))
        head_dims = model.attention.heads * (model.attention.k_dim + model.attention.v_dim)
        return projections + core(tokens * work.seq_len * head_dims)

    def shared(self, tokens: int) -> float:
        """Shared experts of `tokens` tokens: t_s = 3 N_shared t_gm(m_a S M H)."""
        measured = self._stage("shared", tokens)
        if measured is not None:
            return measured
        model = self.scenario.model
        each = model.shared_hidden / max(1, model.shared_experts)
        return 3 * model.shared_experts * self._cost("gemm")(tokens * model.hidden * each)

    def expert(self, tokens: int) -> float:
        """Routed experts of one EG GPU on a chunk of `tokens` tokens of every AG GPU, balanced routing (Eq. 3)."""
        measured = self._stage("expert", tokens)
        if measured is not None:
            return measured
        model, eg = self.scenario.model, self.scenario.deployment.eg
        local = -(-model.experts // eg)
        rows = self.copies(tokens) / model.experts
        each = self._profile.find("expert")
        if each is not None:
            return local * each(rows * model.expert_params, self.touched(tokens))
        return 3 * local * self._cost("gemm")(rows * model.hidden * model.expert_hidden)

    def touched(self, tokens: int) -> float:
        """Expected share of the experts that get a token of a chunk, balanced routing: 1 - (1 - k/E)^n."""
        model = self.scenario.model
        return float(1 - (1 - model.top_k / model.experts) ** (tokens * self.scenario.deployment.ag))

    def transfer(self, kind: Kind, tokens: int) -> float:
        """A2E or E2A of a chunk of `tokens` tokens of every AG GPU."""
        return self.link(kind)(self.transfer_bytes(tokens))

    def copies(self, tokens: int) -> int:
        """(token, expert) pairs of a chunk: m_e * E = tokens * ag * top_k."""
        return tokens * self.scenario.deployment.ag * self.scenario.model.top_k

    def transfer_bytes(self, tokens: int) -> float:
        """Bytes that one EG GPU receives, and sends back, for a chunk: z = (E / eg) m_e M elements, balanced."""
        model, work = self.scenario.model, self.scenario.workload
        return self.copies(tokens) * model.hidden * work.element_bytes / self.scenario.deployment.eg

    def link(self, kind: Kind) -> Cost:
        """The cost that prices a direction: the scenario's own link, else the profile's for this split (or nearest)."""
        where = self.scenario.deployment
        if where.link is not None:
            return where.link
        return self._links[kind]

    @property
    def host(self) -> Host:
        """What the hosts of the profile add to the paper's model; nothing where it holds no such cost."""
        where = self.scenario.deployment
        terms = ("gap", "receive", "post", "contention")
        gap, receive, post, slow = (
            self._profile.find(f"host.{term}", ag=where.ag, eg=where.eg, shape=where.transport) for term in terms
        )
        return Host(
            gap_us=gap(0) if gap else 0,
            receive_us=receive(0) if receive else 0,
            post_us=(lambda task: post(self.transfer_bytes(task.tokens))) if post else _free,
            contention=slow(0) if slow else 0,
        )

    @property
    def notes(self) -> list[str]:
        """What was assumed because the profile has no measurement or published figure for it."""
        used = {cost.source: None for cost in map(self.link, (Kind.A2E, Kind.E2A)) if cost.label == "assumed"}
        return list(used)

    @property
    def _profile(self) -> HardwareProfile:
        return self.scenario.deployment.hardware

    @cached_property
    def _links(self) -> dict[Kind, Cost]:
        where = self.scenario.deployment
        kinds = (Kind.A2E, Kind.E2A)
        return {kind: link_cost(self._profile, kind, where.ag, where.eg, where.transport) for kind in kinds}

    def _stage(self, stage: str, tokens: int) -> float | None:
        where = self.scenario.deployment
        cost = self._profile.find(f"stage.{stage}", ag=where.ag, eg=where.eg, shape=self.scenario.shape)
        return None if cost is None or not cost.shape else cost(tokens)

    def _cost(self, op: str) -> Cost:
        cost = self._profile.find(op)
        if cost is None:
            raise ValueError(f"hardware {self._profile.name} has no cost for {op}, which model and policy need")
        return cost


def link_cost(profile: HardwareProfile, kind: Kind, ag: int, eg: int, transport: str = "") -> Cost:
    """The link of a profile for a direction and a split ag:eg.

    A split without a figure of its own takes one interpolated over the AG's share ag / (ag + eg) between those that
    have one (the nearest beyond them), labelled assumed. Raises ValueError for a profile without any link.
    """
    exact = profile.find(kind.label, ag=ag, eg=eg, shape=transport) or profile.find("link", ag=ag, eg=eg)
    if exact is not None:
        return exact
    listed = [c for c in profile.costs if c.op in (kind.label, "link") and c.ag]
    if not listed:
        raise ValueError(f"hardware {profile.name} has no cost for {kind.label} or link; give one as deployment.link")
    share = ag / (ag + eg)
    listed.sort(key=lambda c: c.ag / (c.ag + c.eg))
    shares = [c.ag / (c.ag + c.eg) for c in listed]
    above = next((i for i, s in enumerate(shares) if s >= share), len(listed) - 1)
    below = above if shares[above] <= share else max(0, above - 1)
    low, high = listed[below], listed[above]
    if low is high:
        source = f"link of {profile.name} at {ag}:{eg} assumed from its figure at {low.ag}:{low.eg} ({low.label})"
        return replace(low, op=kind.label, label="assumed", source=source, ag=ag, eg=eg)
    part = (share - shares[below]) / (shares[above] - shares[below])
    between = f"{low.ag}:{low.eg} and {high.ag}:{high.eg}"
    return Cost(
        op=kind.label,
        alpha_us=low.alpha_us + part * (high.alpha_us - low.alpha_us),
        beta_us=low.beta_us + part * (high.beta_us - low.beta_us),
        label="assumed",
        source=f"link of {profile.name} at {ag}:{eg} assumed from its figures at {between} ({low.label})",
        ag=ag,
        eg=eg,
    )
