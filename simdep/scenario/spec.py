"""A scenario: model and workload, the deployment that runs them, and the schedule.

Its fields are declared in `simdep.scenario.fields`; `Scenario.load` reads a file of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from simdep import files
from simdep.checks import InputError, shown
from simdep.costs import StageTimes
from simdep.file_kinds import SCENARIO
from simdep.hardware.profile import Cost, HardwareProfile, load_hardware
from simdep.scenario.fields import (
    ELEMENT_BYTES,
    FIELDS,
    TABLES,
    checked_fields,
    default_of,
    override,
)
from simdep.scenario.imbalance import Ranks, ranks_of
from simdep.scenario.models import GQA, ModelSpec, load_model

NEEDED = "a scenario has a model, hardware, ag and eg"
# What stands for the machine and the model of a scenario whose stage times are given by hand.
NO_HARDWARE = HardwareProfile("none", "stage times are given", ())
NO_MODEL = ModelSpec(
    name="none",
    layers=1,
    dense_layers=0,
    hidden=1,
    dense_hidden=0,
    experts=10**9,
    top_k=1,
    expert_hidden=1,
    shared_experts=1,
    shared_hidden=1,
    norm_topk=False,
    attention=GQA(heads=1, kv_heads=1, head_dim=1),
    source="stage times are given",
)
_WITHOUT_SIZES = ("layers", "policy", "order", "r1", "r2")  # fields that need no model
Made = TypeVar("Made", "Deployment", "Workload", "Scenario")


@dataclass(frozen=True)
class Deployment:
    """`ag` + `eg` GPUs of one kind, and the link between the groups.

    Attributes are fields of the table deployment (`simdep.scenario.fields`), but for these: `link`,
    if any, replaces the link of the profile (the cost of the bytes of an EG GPU), of which
    `link_class` is the class otherwise. `colocated` GPUs hold attention and experts (expert
    parallelism), `ag` = `eg` of them; each keeps the tokens that are routed to its own experts.
    Raises InputError for a colocated deployment with two groups, for `comm_sms_from` where it is
    not colocated, and for a contention of 0.5 or more: two transfers must leave some speed.
    """

    ag: int
    eg: int
    hardware: HardwareProfile
    link: Cost | None = None
    transport: str = default_of("transport")
    link_class: str = default_of("link")
    dispatch: str = default_of("dispatch")
    a2e_dtype: str | None = None
    e2a_dtype: str | None = None
    comm_sms: int = default_of("comm_sms")
    shared_on: str = default_of("shared_on")
    duplex: str = default_of("duplex")
    colocated: bool = False
    contention: float | None = None
    expert_gemm: str = default_of("expert_gemm")
    comm_sms_from: str = default_of("comm_sms_from")
    memory_gbytes: float | None = None

    def __post_init__(self) -> None:
        if self.colocated and self.ag != self.eg:
            raise InputError(
                f"ag={self.ag}, eg={self.eg}: colocated, the same GPUs are both; give gpus alone"
            )
        if self.colocated and self.shared_on != "ag":
            raise InputError(
                f"shared_on={self.shared_on!r}: colocated, there is one group; leave it out"
            )
        if self.comm_sms_from != "all" and not self.colocated:
            raise InputError(
                f"comm_sms_from={self.comm_sms_from!r}: it is for colocated GPUs; leave it out"
            )
        if self.contention is not None and not 0 <= self.contention < 0.5:
            rule = "two transfers must leave computation some speed: 0 to 0.5"
            raise InputError(f"contention={self.contention}; {rule}")

    @property
    def gpus(self) -> int:
        """All of them."""
        return self.ag if self.colocated else self.ag + self.eg


@dataclass(frozen=True)
class Workload:
    """`samples` sequences per AG GPU. Prefill computes seq_len tokens of each, decode one after
    seq_len of context."""

    phase: str
    seq_len: int
    samples: int
    dtype: str = default_of("dtype")

    @property
    def tokens_per_sample(self) -> int:
        return self.seq_len if self.phase == "prefill" else 1

    @property
    def element_bytes(self) -> int:
        return ELEMENT_BYTES[self.dtype]


@dataclass(frozen=True)
class Scenario:
    """A model and a workload on a deployment, in a schedule: all that a simulation needs to know.

    Attributes are fields of the tables scenario and schedule (`simdep.scenario.fields`). Without
    `micro_batches` the samples are divided into r1 equal ones, without `chunks` each of these into
    r2. `ranks`, if any, are simulated one by one. `stage_times`, if any, replace all costs; the
    model and the hardware may then be `NO_MODEL` and `NO_HARDWARE`. `given` names the fields that a
    file, a flag, an axis or a form stated: the set-up of a policy leaves these alone. It is not
    part of equality.

    Raises InputError if r1 does not divide the samples, if micro-batches or chunks do not agree
    with r1, r2 and the samples, and if eg exceeds the experts.
    """

    model: ModelSpec
    deployment: Deployment
    workload: Workload
    layers: int
    policy: str = default_of("policy")
    order: str = default_of("order")
    r1: int = default_of("r1")
    r2: int = default_of("r2")
    ranks: Ranks | None = None  # how ranks differ, where they are simulated one by one
    micro_batches: tuple[int, ...] = ()
    chunks: tuple[tuple[int, ...], ...] = ()
    split: str = default_of("split")
    merge_last: bool = default_of("merge_last")
    stage_times: StageTimes | None = None
    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Scenario:
        """The scenario of a TOML file; raises InputError that begins with the path.

        `simdep/docs/scenario.md` lists what a file may hold.
        """
        data = files.read_toml(Path(path), SCENARIO)
        with files.context(Path(path), SCENARIO):
            return cls.from_dict(data)

    @classmethod
    def of(
        cls,
        model: str | ModelSpec | None = None,
        hardware: str | HardwareProfile | None = None,
        **values: Any,
    ) -> Scenario:
        """The scenario of fields by name, such as `Scenario.of("deepseek-v2", "h20", ag=3, eg=5)`.

        `link`, `ranks` and `costs` may be tables: `link={"gbytes_per_s": 50}`. Raises InputError
        that names the field at fault.
        """
        tables = {name: values.pop(name) for name in TABLES if name in values}
        return cls.from_dict(override(tables, values), hardware, model)

    @classmethod
    def from_dict(
        cls,
        data: Any,
        hardware: str | HardwareProfile | None = None,
        model: str | ModelSpec | None = None,
    ) -> Scenario:
        """The scenario of nested tables, in the form of a file; raises InputError that names the
        field at fault.

        `hardware` and `model`, names or objects, stand in for those of the tables.
        """
        values = checked_fields(data)
        if data.get("ranks") == {}:
            values["per_rank"] = True
        if model is not None:
            values["model"] = model
        if hardware is not None:
            values["hardware"] = hardware
        given = frozenset(values)
        times = _stage_times(values)
        if times is not None and "model" not in values:
            return _without_sizes(values, times, given)
        return _with_sizes(values, times, given)

    def __post_init__(self) -> None:
        samples = self.workload.samples
        if self.micro_batches:
            self._check_micro_batches(samples)
        elif samples % self.r1:
            divides = f"r1={self.r1} does not divide the {samples} samples of an AG GPU"
            raise InputError(f"{divides}; use {_or(_divisors_near(samples, self.r1))}")
        if self.deployment.eg > self.model.experts:
            experts = f"model {self.model.name} has only {self.model.experts} experts"
            raise InputError(f"eg={self.deployment.eg}: {experts}")
        if self.chunks:
            self._check_chunks()
        if self.ranks is not None and self.deployment.colocated:
            raise InputError("ranks of colocated GPUs are not simulated one by one; leave them out")

    def _check_micro_batches(self, samples: int) -> None:
        if len(self.micro_batches) != self.r1:
            raise InputError(
                f"r1={self.r1}, but micro_batches lists {len(self.micro_batches)}; give one of them"
            )
        if sum(self.micro_batches) != samples or min(self.micro_batches) < 1:
            listed = ",".join(map(str, self.micro_batches))
            rule = f"expected integers >= 1 that sum to the {samples} samples of an AG GPU"
            raise InputError(f"micro_batches={listed}; {rule}")

    def _check_chunks(self) -> None:
        if len(self.chunks) != self.r1:
            raise InputError(
                f"chunks are given for {len(self.chunks)} micro-batches, not for r1={self.r1}"
            )
        r2 = max(map(len, self.chunks))
        if r2 != self.r2:
            raise InputError(
                f"r2={self.r2}, but chunks lists {r2} for a micro-batch; give one of them"
            )
        if self.split == "expert":
            raise InputError(
                'chunks and split="expert": groups of experts are equal; give r2 in place of chunks'
            )

    def __repr__(self) -> str:
        deployment, workload = self.deployment, self.workload
        gpus = str(deployment.gpus) if deployment.colocated else f"{deployment.ag}+{deployment.eg}"
        cut = f"{self.policy} {self.order} r1={self.r1} r2={self.r2}"
        if not self.has_model:
            return f"<Scenario of stage times: {self.layers} layers, {cut}>"
        work = f"{workload.samples} x {workload.phase} {workload.seq_len}"
        return f"<Scenario {self.model.name} on {gpus} {deployment.hardware.name}: {work}, {cut}>"

    @property
    def has_model(self) -> bool:
        """Whether the model is known, and with it the tokens and the memory."""
        return self.model != NO_MODEL

    @property
    def m_a(self) -> int:
        """Samples of a micro-batch per AG GPU, of the largest one where they differ."""
        return max(self.micro_batches, default=self.workload.samples // self.r1)

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch per AG GPU, of the largest one where they differ."""
        return self.m_a * self.workload.tokens_per_sample

    @property
    def tokens_routed(self) -> int:
        """Tokens of a chunk of the whole AG, for which a law draws the routing."""
        return max(1, self.deployment.ag * self.tokens // self.r2)

    def sent_element_bytes(self, a2e: bool) -> int:
        """Bytes of an element of the tokens that A2E sends (`a2e`), or E2A returns."""
        dtype = self.deployment.a2e_dtype if a2e else self.deployment.e2a_dtype
        return ELEMENT_BYTES[dtype or self.workload.dtype]

    @property
    def shape(self) -> str:
        """What a measured stage depends on besides its tokens; the key of stage costs in a
        profile."""
        workload = self.workload
        return f"{self.model.name} {workload.phase} seq_len={workload.seq_len} {workload.dtype}"


def _with_sizes(
    values: Mapping[str, Any], times: StageTimes | None, given: frozenset[str]
) -> Scenario:
    """The scenario of a model."""
    if "model" not in values:
        raise InputError(f"model is missing; {NEEDED}")
    ag, eg = _gpus(values)
    model = _model(values["model"]).scaled(values.get("scale", default_of("scale")))
    micro_batches = values.get("micro_batches", ())
    r1 = values.get("r1", len(micro_batches) or default_of("r1"))
    chunks = values.get("chunks", ())
    if len(chunks) == 1:  # it stands for every micro-batch
        chunks = chunks * r1
    hardware = _hardware(values, times)
    _check_transport(values.get("transport", ""), hardware)
    scenario = _made(
        Scenario,
        values,
        model=model,
        deployment=_deployment(values, ag, eg, hardware),
        workload=_workload(values, r1, micro_batches),
        layers=values.get("layers", model.moe_layers),
        r1=r1,
        r2=values.get("r2", max(map(len, chunks), default=default_of("r2"))),
        micro_batches=micro_batches,
        chunks=chunks,
        stage_times=times,
        given=given,
    )
    if not _has_ranks(values):
        return scenario
    ranks = ranks_of(
        values,
        model.experts,
        top_k=model.top_k,
        tokens=scenario.tokens_routed,
        layers=scenario.layers,
        far_link=_link(values, "far_link"),
    )
    ranks.check(ag, eg)
    return replace(scenario, ranks=ranks)


def _without_sizes(values: Mapping[str, Any], times: StageTimes, given: frozenset[str]) -> Scenario:
    """The scenario of stage times alone: there is no model, so nothing has a size."""
    has_ranks = _has_ranks(values)
    allowed = (*_WITHOUT_SIZES, "ag", "eg") if has_ranks else _WITHOUT_SIZES
    for name in values:
        if name not in allowed and FIELDS[name].table not in ("costs", "ranks"):
            raise InputError(f"{name} needs a model and hardware; stage times alone have no sizes")
    if has_ranks and "gpus_per_node" in values:
        raise InputError("gpus_per_node needs a link of each class; give a model and hardware")
    if has_ranks and not {"ag", "eg"} <= values.keys():
        raise InputError("a simulation of every rank needs ag and eg")
    ag, eg = values.get("ag", 1), values.get("eg", 1)
    r1 = values.get("r1", default_of("r1"))
    scenario = _made(
        Scenario,
        values,
        model=NO_MODEL,
        deployment=Deployment(ag, eg, NO_HARDWARE),
        workload=Workload(default_of("phase"), default_of("seq_len"), r1),
        layers=values.get("layers", 1),
        stage_times=times,
        given=given,
    )
    if not has_ranks:
        return scenario
    ranks = ranks_of(values, None, top_k=1, tokens=1, layers=scenario.layers)
    ranks.check(ag, eg)
    return replace(scenario, ranks=ranks)


def _made(kind: type[Made], values: Mapping[str, Any], **derived: Any) -> Made:
    """A dataclass of attributes that are derived from fields, and of those that are fields."""
    names = kind.__dataclass_fields__.keys() - derived.keys()
    return kind(**derived, **{name: values[name] for name in names if name in values})


def _check_transport(transport: str, hardware: HardwareProfile) -> None:
    """Raise InputError for a transport without costs of its own: others would stand in silently."""
    transports = hardware.transports
    if transport and transport not in transports:
        named = ", ".join(transports) or "none"
        rule = f"hardware {hardware.name} has costs of these transports: {named}"
        raise InputError(f"transport={shown(transport)}; {rule}")


def _stage_times(values: Mapping[str, Any]) -> StageTimes | None:
    times = {
        name.removeprefix("costs."): value
        for name, value in values.items()
        if name.startswith("costs.")
    }
    return StageTimes.of(times) if times else None


def _model(model: str | ModelSpec) -> ModelSpec:
    return model if isinstance(model, ModelSpec) else load_model(model)


def _hardware(values: Mapping[str, Any], times: StageTimes | None) -> HardwareProfile:
    hardware = values.get("hardware")
    if isinstance(hardware, HardwareProfile):
        return hardware
    if hardware is not None:
        return load_hardware(hardware)
    if times is None:
        raise InputError("hardware is missing; name a profile or give the path of one")
    return NO_HARDWARE


def _gpus(values: Mapping[str, Any]) -> tuple[int, int]:
    """GPUs that hold attention, and GPUs that hold experts."""
    for name in ("ag", "eg"):
        if "gpus" in values and name in values:
            raise InputError(
                f"gpus and {name} are both given; give gpus for colocated GPUs, else ag and eg"
            )
        if "gpus" not in values and name not in values:
            raise InputError(f"{name} is missing; {NEEDED}")
    if "gpus" in values:
        return values["gpus"], values["gpus"]
    return values["ag"], values["eg"]


def _deployment(
    values: Mapping[str, Any], ag: int, eg: int, hardware: HardwareProfile
) -> Deployment:
    return _made(
        Deployment,
        values,
        ag=ag,
        eg=eg,
        hardware=hardware,
        link=_link(values, "link"),
        link_class=values.get("link", default_of("link")),
        colocated="gpus" in values,
    )


def _workload(values: Mapping[str, Any], r1: int, micro_batches: tuple[int, ...]) -> Workload:
    return _made(
        Workload,
        values,
        phase=values.get("phase", default_of("phase")),
        seq_len=values.get("seq_len", default_of("seq_len")),
        samples=_samples(values, r1, micro_batches),
    )


def _samples(values: Mapping[str, Any], r1: int, micro_batches: tuple[int, ...]) -> int:
    if micro_batches and "m_a" in values:
        raise InputError(
            "m_a and micro_batches are both given; micro_batches lists the samples of each"
        )
    if "samples" in values and "m_a" in values:
        raise InputError("samples and m_a are both given; give one of them: samples = r1 * m_a")
    if "samples" in values:
        return values["samples"]  # type: ignore[no-any-return]
    return sum(micro_batches) or r1 * values.get("m_a", default_of("m_a"))


def _link(values: Mapping[str, Any], name: str) -> Cost | None:
    """The link whose bandwidth and start-up time are given; None without either."""
    rate, alpha = values.get(f"{name}.gbytes_per_s"), values.get(f"{name}.alpha_us")
    if rate is None and alpha is None:
        return None
    if rate is None:
        raise InputError(f"{name}.alpha_us={alpha:g} needs a speed: give {name}.gbytes_per_s too")
    alpha = default_of(f"{name}.alpha_us") if alpha is None else alpha
    source = f"link of {alpha:g} us and {rate:g} GB/s given in the scenario"
    return Cost("link", alpha, 1e-3 / rate, "assumed", source)


def _has_ranks(values: Mapping[str, Any]) -> bool:
    """Whether ranks are simulated one by one."""
    stated = any(FIELDS[name].table == "ranks" for name in values)
    return stated and bool(values.get("per_rank", True))


def _divisors_near(number: int, near: int) -> list[str]:
    """The divisors of a number; of more than twelve, the ones next to `near`."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    divisors = sorted({*small, *(number // n for n in small)})
    if len(divisors) > 12:
        below = [n for n in divisors if n < near]
        divisors = below[-1:] + [n for n in divisors if n > near][:1]
    return list(map(str, divisors))


def _or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
