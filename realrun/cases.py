"""A case: one schedule of one layer shape on one number of ranks, to be predicted and really
run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from realrun.backends.registry import free_bytes
from realrun.backends.shared_memory import MAX_MESSAGES, LinkSpeed
from realrun.plan import PlannedCase
from realrun.runtime.layers import owned
from simdep import checks, files
from simdep.file_kinds import CASES
from simdep.hardware.profile import Cost, HardwareProfile
from simdep.policies import schedule_for
from simdep.scenario.models import GQA, MLA, load_model
from simdep.scenario.spec import Scenario
from simdep.schedule import Schedule

_NEEDED = ("model", "layers", "seq_len", "m_a", "ag", "eg", "policy")
SHAPED = ("shm", "shaped")  # links whose speed the runner keeps
UNMEASURED = HardwareProfile("unmeasured", "", ())
PROCESS_BYTES = 400_000_000  # of a rank before it holds a layer: Python, torch, gloo; measured as resident memory


@dataclass(frozen=True)
class Case:
    """The fields of one object of a schedules file. `scale` multiplies every width of the model."""

    model: str
    layers: int
    seq_len: int
    m_a: int
    ag: int
    eg: int
    policy: str
    order: str = "asas"
    r1: int = 1
    r2: int = 1
    scale: float = 1.0
    custom: Schedule | None = None  # runs instead of the policy's
    dtype: str = "fp32"  # what the backend computes in
    synthetic: Mapping[str, float] | None = (
        None  # microseconds by kind: timed waits in place of computation
    )
    link: str = "shm"  # what carries messages between CPU ranks; see `realrun.place.LINKS`
    link_alpha_us: float = LinkSpeed.alpha_us
    link_mbytes_per_s: float = LinkSpeed.mbytes_per_s

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The fields that a user may give."""
        return tuple(
            name
            for name in cls.__dataclass_fields__
            if name not in ("custom", "dtype", "link", "synthetic")
        )

    @classmethod
    def from_dict(cls, row: Any, where: str = "") -> Case:
        """A checked case; raises ValueError that begins with `where`, the place that it was read
        from."""
        try:
            given = {key: value for key, value in checks.mapping(row, cls.names(), "case").items()}
            given = {key: value for key, value in given.items() if value is not None}
            for key in _NEEDED:
                if key not in given:
                    raise ValueError(f"{key} is missing")
            case = cls(**given)
            return case.checked()
        except ValueError as error:
            raise ValueError(f"{where}: {error}" if where else str(error)) from None

    def checked(self) -> Case:
        """This case; raises ValueError naming the field at fault."""
        model = load_model(self.model)
        if isinstance(model.attention, GQA) and (model.attention.q_rank or model.attention.window):
            form = "low-rank queries" if model.attention.q_rank else "a sliding window"
            raise ValueError(
                f"model={self.model!r} has {form}, which realrun does not compute; simdep predicts it"
            )
        if model.moe_every > 1:
            raise ValueError(
                f"model={self.model!r} alternates dense layers, which realrun does not compute"
            )
        checks.number(self.link_alpha_us, "link_alpha_us")
        checks.number(self.link_mbytes_per_s, "link_mbytes_per_s", above=0)
        messages = len(self.schedule.streams["A2E"]) if "A2E" in self.schedule.streams else 0
        if messages > MAX_MESSAGES:
            raise ValueError(
                f"{messages:,} messages in each direction; a real run has at most {MAX_MESSAGES:,}"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.names()}

    def scenario(self, hardware: HardwareProfile) -> Scenario:
        """The question that the simulator answers about this case."""
        data = {
            "model": self.model,
            "scale": self.scale,
            "layers": self.layers,
            "deployment": {"ag": self.ag, "eg": self.eg},
            "workload": {"seq_len": self.seq_len, "m_a": self.m_a, "dtype": self.dtype},
            "schedule": {"policy": self.policy, "order": self.order, "r1": self.r1, "r2": self.r2},
        }
        scenario = Scenario.from_dict(data, hardware)
        deployment = replace(scenario.deployment, link=self.kept_link, transport=self.transport)
        return replace(scenario, deployment=deployment)

    @property
    def kept_link(self) -> Cost | None:
        """The link whose speed the runner keeps (`SHAPED`), if it is one."""
        if self.link not in SHAPED:
            return None
        source = (
            f"--link {self.link}: {self.link_alpha_us:g} us + {self.link_mbytes_per_s:g} MB/s, "
            "kept by the runner"
        )
        return Cost("link", self.link_alpha_us, 1 / self.link_mbytes_per_s, "assumed", source)

    @property
    def transport(self) -> str:
        """What carries messages, as far as costs depend on it: those of the link and of the
        host."""
        carries_at_a_rate = self.link in ("shaped", "tbf")
        return f"{self.link} {self.link_mbytes_per_s:g} MB/s" if carries_at_a_rate else self.link

    @cached_property
    def schedule(self) -> Schedule:
        return self.custom or schedule_for(self.scenario(UNMEASURED))

    @property
    def shape(self) -> tuple[Any, ...]:
        """Cases of one shape share layers and stage costs."""
        return self.ag, self.eg, self.model, self.scale, self.layers, self.seq_len

    @property
    def workload(self) -> tuple[Any, ...]:
        """Cases of one workload do the same work: the fastest of them is the best schedule."""
        return *self.link_group, self.m_a * self.r1

    @property
    def link_group(self) -> tuple[Any, ...]:
        """Cases of one shape over one link."""
        return *self.shape, self.link_alpha_us, self.link_mbytes_per_s

    def planned(self) -> PlannedCase:
        """What a rank needs to know of the case."""
        speed = LinkSpeed(self.link_alpha_us, self.link_mbytes_per_s)
        return PlannedCase(
            self.model,
            self.scale,
            self.seq_len,
            self.schedule,
            self.link,
            speed,
            dict(self.synthetic or {}),
        )

    def rank_bytes(self) -> list[int]:
        """Device memory of each rank, AG ranks first: weights, residual streams, copies in flight,
        attention."""
        scenario = self.scenario(UNMEASURED)
        model, form, samples = scenario.model, scenario.model.attention, self.m_a * self.r1
        copies = samples * self.seq_len * model.top_k * model.hidden
        scores = self.m_a * form.heads * self.seq_len**2 if isinstance(form, MLA) else 0
        heads = self.m_a * self.seq_len * form.heads * 2 * (form.k_dim + form.v_dim)
        wide = self.m_a * self.seq_len * max(2 * model.shared_hidden, model.experts)
        streams = 4 * samples * self.seq_len * model.hidden
        attention = self.layers * model.ag_params + streams + 2 * copies + 2 * scores + heads + wide
        arriving = 2 * copies * self.ag // self.eg
        experts = [
            len(owned(model.experts, self.eg, rank)) * model.expert_params
            for rank in range(self.eg)
        ]
        elements = [attention] * self.ag + [self.layers * weights + arriving for weights in experts]
        return [scenario.workload.element_bytes * count for count in elements]


def load_cases(path: Path) -> list[Case]:
    """The cases of a schedules file, a JSON list of objects; raises ValueError naming the file and
    the object."""
    rows = files.read_json(path, CASES)
    with files.context(path, CASES):
        if not isinstance(rows, list) or not rows:
            raise ValueError("expected a JSON list of at least one object")
        return [Case.from_dict(row, f"schedule {index}") for index, row in enumerate(rows)]


def standard_cases(size: str = "default") -> list[Case]:
    """The schedules that `realrun validate` runs by itself: `quick` (24), `default` (78) or `full`
    (over 150).

    Links are such that communication decides, that it balances computation, and that computation
    decides. They are for 1+1 ranks; where four cores are, `full` has some for 2+2.
    """
    lite = _Family("deepseek-v2-lite", 0.125, 2, 128, 4)
    qwen = _Family("qwen3-30b-a3b", 0.125, 2, 128, 4)
    if size == "quick":
        return [*lite.cases((2, 4), 100), *qwen.cases((2, 4), 300)]
    if size == "default":
        return [
            case
            for rate in (100, 300)
            for family in (lite, qwen)
            for case in family.cases((1, 2, 4, 8), rate)
        ]
    rates = (40, 100, 300, 1500)
    small = [
        case
        for rate in rates
        for family in (lite, qwen)
        for case in family.cases((1, 2, 4, 8), rate)
    ]
    whole = _Family("deepseek-v2-lite", 1.0, 2, 16, 2)
    wide = [
        case
        for rate in (5, 20, 200)
        for case in whole.cases((1, 2, 4), rate)
        if case.r1 * case.r2 <= 4
    ]
    more = lite.cases((1, 2, 4), 300) if len(os.sched_getaffinity(0)) >= 4 else []
    return [*small, *wide, *(replace(case, ag=2, eg=2) for case in more)]


@dataclass(frozen=True)
class _Family:
    """One layer shape and the samples of one AG rank: every policy, order and degree on it."""

    model: str
    scale: float
    layers: int
    seq_len: int
    samples: int

    def cases(self, cuts: Sequence[int], mbytes_per_s: float) -> Iterator[Case]:
        degrees = [("naive", "asas", 1, 1), ("pppipe", "asas", 2, 1), ("pppipe", "asas", 4, 1)]
        degrees += [
            ("findep", order, r1, r2)
            for order in ("asas", "aass")
            for r1 in (1, 2, 4)
            for r2 in cuts
        ]
        degrees += [("findep", "A0 A1 S0 A2 S1 A3 S2 S3", 4, r2) for r2 in cuts]
        shared = load_model(self.model).has_shared
        for policy, order, r1, r2 in degrees:
            # Without shared experts there is one order, and uncut micro-batches are what pppipe
            # does
            if (order != "asas" and (r1 == 1 or not shared)) or (
                policy == "findep" and r2 == 1 and not shared
            ):
                continue
            if self.samples % r1:
                continue
            yield Case(
                self.model,
                self.layers,
                self.seq_len,
                self.samples // r1,
                1,
                1,
                policy,
                order,
                r1,
                r2,
                self.scale,
                link_mbytes_per_s=mbytes_per_s,
            )


def check_memory(cases: Sequence[Case]) -> None:
    """Raise InfeasibleError, with the bytes needed, for a case that does not fit into the free
    memory.

    Ranks on the CPU share the host's memory; on GPUs, each rank needs room on its own.
    """
    for index, case in enumerate(cases):
        on_gpus = case.dtype != "fp32"
        needed = (
            case.rank_bytes()
            if on_gpus
            else [sum(case.rank_bytes()) + PROCESS_BYTES * (case.ag + case.eg)]
        )
        for rank, need in enumerate(needed):
            free = free_bytes("nccl" if on_gpus else "gloo", rank)
            if need > free:
                place = f"GPU {rank}" if on_gpus else "this host"
                raise checks.InfeasibleError(
                    f"schedule {index}: {case.layers} layers of {case.model} at scale {case.scale:g} on "
                    f"{case.ag}+{case.eg} ranks need {need:,} bytes of memory on {place} and {free:,} are free; "
                    "use fewer layers or a smaller scale"
                )
