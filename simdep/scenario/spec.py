"""A scenario: what is served (model, workload), on what (deployment), cut and ordered how (policy,
order, r1, r2).

`simdep.scenario.file` reads one from a TOML file or flags.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simdep.hardware.profile import Cost, HardwareProfile
from simdep.scenario.imbalance import Ranks
from simdep.scenario.models import ModelSpec

ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp8": 1}
PHASES = ("prefill", "decode")
LINK_CLASSES = ("intra-node", "inter-node")
GROUPS = ("ag", "eg")
COMM_SMS_FROM = ("all", "experts")
EXPERT_GEMMS = ("grouped", "plain", "cheaper")
SPLITS = ("token", "expert")
DUPLEX = ("full", "half")


@dataclass(frozen=True)
class Deployment:
    """`ag` + `eg` GPUs of one kind, and how rows travel between them.

    `link`, if given, replaces the profile's link (cost of the bytes of an EG GPU); `link_class`
    says which of a profile's point-to-point kernels it is otherwise. `transport` names what carries
    messages: costs of link and host that the profile holds for it go first. `dispatch` is one of
    `simdep.scenario.work.DISPATCH`; the data types of rows default to the workload's. `comm_sms` SMs
    of an AG GPU are not there for its matrix products; colocated, for anything that it computes, or
    with `comm_sms_from` "experts" for these alone. `shared_on` is the group that computes the
    shared experts; the directions of a half-`duplex` link share it. `contention`, if given,
    replaces the profile's; `expert_gemm` is how a GPU computes its experts: one grouped kernel,
    plain ones an expert each, or the cheaper of both.

    `colocated`: the same GPUs hold attention and experts (expert parallelism), `ag` = `eg` of them,
    each of which keeps the rows that are routed to its own experts. Raises ValueError if ag and eg
    differ then.
    """

    ag: int
    eg: int
    hardware: HardwareProfile
    link: Cost | None = None
    transport: str = ""
    link_class: str = "intra-node"
    dispatch: str = "per-expert"
    a2e_dtype: str | None = None
    e2a_dtype: str | None = None
    comm_sms: int = 0
    shared_on: str = "ag"
    duplex: str = "full"
    colocated: bool = False
    contention: float | None = None
    expert_gemm: str = "grouped"
    comm_sms_from: str = "all"
    memory_gbytes: float | None = (
        None  # of each GPU for serving, 1e9 bytes each; see simdep.scenario.memory
    )

    def __post_init__(self) -> None:
        if self.colocated and self.ag != self.eg:
            raise ValueError(
                f"ag={self.ag}, eg={self.eg}: colocated, the same GPUs are both; give gpus alone"
            )
        if self.colocated and self.shared_on != "ag":
            raise ValueError(
                f"shared_on={self.shared_on!r}: colocated, there is one group; leave it out"
            )
        if self.comm_sms_from != "all" and not self.colocated:
            raise ValueError(
                f"comm_sms_from={self.comm_sms_from!r}: it is for colocated GPUs; leave it out"
            )
        if self.contention is not None and not 0 <= self.contention < 0.5:
            raise ValueError(
                f"contention={self.contention}; two transfers must leave computation some speed: 0 to 0.5"
            )

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
    dtype: str = "bf16"

    @property
    def tokens_per_sample(self) -> int:
        return self.seq_len if self.phase == "prefill" else 1

    @property
    def element_bytes(self) -> int:
        return ELEMENT_BYTES[self.dtype]


@dataclass(frozen=True)
class Scenario:
    """One question to the simulator.

    `micro_batches`, if any, are the samples of each of r1 micro-batches, else these are equal;
    `chunks` the shares of the tokens of each of its chunks, else r2 of them are equal. `split` says
    whether chunks are cut by token or by expert, `merge_last` that the last layer is not cut.
    Raises ValueError if r1 does not divide the samples or what is listed does not agree with r1, r2
    and the samples, and if eg exceeds the experts. `given` names the fields that a file, a flag, an
    axis or a form stated: a policy's set-up leaves these alone. It is not part of equality.
    """

    model: ModelSpec
    deployment: Deployment
    workload: Workload
    layers: int
    policy: str = "findep"
    order: str = "ASAS"
    r1: int = 1
    r2: int = 1
    ranks: Ranks | None = None  # how ranks differ, where they are simulated one by one
    micro_batches: tuple[int, ...] = ()
    chunks: tuple[tuple[int, ...], ...] = ()
    split: str = "token"
    merge_last: bool = False
    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    def __post_init__(self) -> None:
        samples = self.workload.samples
        if self.micro_batches:
            self._check_micro_batches(samples)
        elif samples % self.r1:
            divisors = [str(n) for n in range(1, samples + 1) if samples % n == 0]
            raise ValueError(
                f"r1={self.r1} does not divide the {samples} samples of an AG GPU; use {_or(divisors)}"
            )
        if self.deployment.eg > self.model.experts:
            raise ValueError(
                f"eg={self.deployment.eg}: model {self.model.name} has only {self.model.experts} experts"
            )
        if self.chunks:
            self._check_chunks()
        if self.ranks is not None and self.deployment.colocated:
            raise ValueError(
                "ranks are told apart in an AG and an EG, not where GPUs are colocated; leave them out"
            )

    def _check_micro_batches(self, samples: int) -> None:
        if len(self.micro_batches) != self.r1:
            raise ValueError(
                f"r1={self.r1}, but micro_batches lists {len(self.micro_batches)}; give one of them"
            )
        if sum(self.micro_batches) != samples or min(self.micro_batches) < 1:
            listed = ",".join(map(str, self.micro_batches))
            raise ValueError(
                f"micro_batches={listed} do not hold the {samples} samples of an AG GPU, each at least 1"
            )

    def _check_chunks(self) -> None:
        if len(self.chunks) != self.r1:
            raise ValueError(
                f"chunks are given for {len(self.chunks)} micro-batches, not for r1={self.r1}"
            )
        if max(map(len, self.chunks)) != self.r2:
            raise ValueError(
                f"r2={self.r2}, but chunks cut a micro-batch into {max(map(len, self.chunks))}; give one"
            )
        if self.split == "expert":
            raise ValueError(
                'chunks and split="expert": groups of experts are equal; give r2 in place of chunks'
            )

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

    def row_bytes(self, a2e: bool) -> int:
        """Bytes of an element of the rows sent to the EG (`a2e`), or back."""
        own = self.deployment.a2e_dtype if a2e else self.deployment.e2a_dtype
        return self.workload.element_bytes if own is None else ELEMENT_BYTES[own]

    @property
    def shape(self) -> str:
        """What a measured stage depends on besides its tokens; the key of stage costs in a
        profile."""
        return f"{self.model.name} {self.workload.phase} seq_len={self.workload.seq_len} {self.workload.dtype}"


def _or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
