"""Costs of a scenario: the work of a task from the model (FinDEP, Eq. 1-4), priced with a hardware
profile.

It takes the most specific cost that the profile has: a measured whole stage, else a measured
expert, else a kernel of the operation, else a line of its multiply-accumulates, as in the paper.
Microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import numpy as np

from simdep.costs import HostOverheads, free
from simdep.hardware.kernels import Kernel
from simdep.hardware.links import link_cost
from simdep.hardware.profile import Cost, HardwareProfile
from simdep.scenario import work
from simdep.scenario.models import MLA
from simdep.scenario.spec import Scenario
from simdep.schedule import Kind, Task

DTYPE_WORDS = {
    "bf16": ("bf16", "fp16"),
    "fp8": ("fp8", "fp8_block"),
    "fp32": ("fp32",),
}  # as measurements call them
_BALANCED = {"distribution": "balanced"}


@dataclass(frozen=True)
class ScenarioCosts:
    """Task times of a scenario on its hardware profile. Raises ValueError where the profile lacks a
    needed cost.

    Methods that take tokens also take an array of them, and then give one
    (`simdep.planning.problem`).
    """

    scenario: Scenario
    _prices: dict[tuple[str, tuple[float, ...]], float] = field(
        default_factory=dict, repr=False, compare=False
    )
    _used: dict[str, Cost | Kernel] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, task: Task) -> float:
        if task.kind in (Kind.ATTENTION, Kind.PROJECTION):
            combine = self.combine(task.tokens) if task.layer else 0
            if task.kind is Kind.PROJECTION:
                return self.projection(task.tokens, task.layer) + combine
            return self.attention(task.tokens, task.layer) + combine
        if task.kind is Kind.CORE:
            return self.core(task.tokens, task.layer)
        if task.kind is Kind.SHARED:
            return self.shared(task.tokens)
        if task.kind is Kind.EXPERT:
            return self.expert(task.tokens, task.groups)
        return self.transfer(task.kind, task.tokens, task.groups)

    def attention(self, tokens: float, layer: int = 0) -> float:
        """Projections and attention core of `tokens` tokens (t_a of FinDEP, with the model's own
        projections).

        `layer` counts layers with experts; dense layers that stand before each one are part of its
        attention.
        """
        measured = self._stage("attention", tokens)
        if measured is not None:
            return measured
        own = self._own_layer(layer)
        return self._attention(tokens, own) + self._dense_before(tokens, own)

    def attention_class(self, layer: int) -> tuple[bool, tuple[int, ...]]:
        """What the attention of a layer depends on besides its tokens: layers of one class cost the
        same.

        Whether rows come back before it, and how far it and the dense layers before it attend.
        """
        model, context = self.scenario.model, self.scenario.workload.seq_len
        own = self._own_layer(layer)
        layers = range(own - model.moe_every + 1, own + 1)
        return layer > 0, tuple(model.attention.reach(each, context) for each in layers)

    def combine(self, tokens: float) -> float:
        """What gathering the rows that came back adds to attention from the second layer on; 0
        unless measured."""
        measured = self._stage("combine", tokens)
        return 0 if measured is None else measured

    def projection(self, tokens: float, layer: int = 0) -> float:
        """The part of attention before its core: dense layers that stand before it, then its
        projections.

        With `core` it is attention. Raises ValueError for a profile that measured attention as a
        whole.
        """
        self._check_halves(tokens)
        before = self.products(work.projections(self.scenario.model, tokens)[:-1])
        return before + self._dense_before(tokens, self._own_layer(layer))

    def core(self, tokens: float, layer: int = 0) -> float:
        """The rest of attention: its core and the output projection; raises ValueError as
        `projection`."""
        self._check_halves(tokens)
        output = self.products(work.projections(self.scenario.model, tokens)[-1:])
        return self._core(tokens, self._own_layer(layer)) + output

    def shared(self, tokens: float) -> float:
        """Shared experts of `tokens` tokens: t_s = 3 N_shared t_gm(m_a S M H), two wide products on
        kernels.

        On the EG each of its GPUs takes an equal part of the tokens of the AG.
        """
        where = self.scenario.deployment
        if where.shared_on == "eg":
            tokens = tokens * where.ag / where.eg
        measured = self._stage("shared", tokens)
        if measured is not None:
            return measured
        slower = self._fewer_sms if where.shared_on == "ag" else 1.0
        parts = work.shared(self.scenario.model, tokens, fused=self._has_kernel("gemm"))
        return sum((self._product(part, slower) for part in parts), 0.0)

    def expert(self, tokens: float, groups: int = 1) -> float:
        """Routed experts of one EG GPU on a chunk of `tokens` tokens of every AG GPU, balanced
        routing (Eq. 3).

        Of `groups` groups of these experts, one: its share of the experts, with the rows that they
        get of all tokens. `expert_gemm` of the deployment says whether one grouped kernel computes
        them or plain products, an expert each.
        """
        measured = self._stage("expert", tokens)
        if measured is not None and groups > 1:
            name = self._profile.name
            raise ValueError(
                f"hardware {name} has measured the experts of a layer as a whole; cut chunks by token"
            )
        if measured is not None:
            return measured
        choices = {"grouped": (self._grouped,), "plain": (self._plain,)}
        means = choices.get(self.scenario.deployment.expert_gemm, (self._grouped, self._plain))
        return reduce(np.minimum, (mean(tokens, groups) for mean in means))

    def expert_gemm(self, tokens: float, groups: int = 1) -> str:
        """How the experts of a chunk are computed at the lower cost: grouped or plain."""
        return (
            "grouped" if self._grouped(tokens, groups) <= self._plain(tokens, groups) else "plain"
        )

    def _grouped(self, tokens: float, groups: int) -> float:
        """By the profile's kernel for experts, where it has neither a measured expert nor that: as
        `_plain`."""
        model, where = self.scenario.model, self.scenario.deployment
        each, kernel = self._profile.find("expert"), self._expert_kernel()
        if each is not None:
            self._used[each.op] = each
            rows = tokens * where.ag * model.top_k / model.experts
            return self._local_experts(groups) * each(
                rows * model.expert_params, self.touched(tokens)
            )
        if kernel is None:
            return self._plain(tokens, groups)
        return self._beside_experts * self._us(
            kernel,
            _BALANCED,
            num_tokens=tokens * where.ag,
            hidden_size=model.hidden,
            inter_size=model.expert_hidden,
            topk=model.top_k,
            num_experts=model.experts,
            moe_ep_size=where.eg * groups,
        )

    def _plain(self, tokens: float, groups: int) -> float:
        """The products of an expert, one expert after the other."""
        model, where = self.scenario.model, self.scenario.deployment
        rows = tokens * where.ag * model.top_k / model.experts
        one = sum(
            (
                self._product(each, self._beside_experts)
                for each in work.expert_products(model, rows)
            ),
            0.0,
        )
        return self._local_experts(groups) * one

    def _local_experts(self, groups: int) -> float:
        """Experts of an EG GPU, the fullest one, that belong to one of `groups` groups."""
        return -(-self.scenario.model.experts // self.scenario.deployment.eg) / groups

    def products(self, products: Iterable[work.Product]) -> float:
        """Matrix products of attention or shared experts, one after the other."""
        return sum((self._product(product, self._fewer_sms) for product in products), 0.0)

    def touched(self, tokens: float) -> float:
        """Expected share of the experts that get a token of a chunk, balanced routing."""
        return work.touched_share(self.scenario.model, tokens * self.scenario.deployment.ag)

    def transfer(self, kind: Kind, tokens: float, groups: int = 1) -> float:
        """A2E or E2A of a chunk of `tokens` tokens of every AG GPU, or of their rows for one of
        `groups` expert groups.

        A line is a cost of the bytes of an EG GPU, as FinDEP fits it; a point-to-point kernel that
        of the port of a GPU, so that the busier end decides. One colocated GPU sends nothing, in no
        time.
        """
        where = self.scenario.deployment
        if where.colocated and where.gpus == 1:
            return 0
        link = self.link(kind)
        return link(self.transfer_bytes(tokens, kind, busier=link.op == "p2p", groups=groups))

    def transfer_bytes(
        self, tokens: float, kind: Kind = Kind.A2E, *, busier: bool = False, groups: int = 1
    ) -> float:
        """Bytes that one EG GPU receives (A2E) or sends (E2A) for a chunk, balanced: z = (E / eg)
        m_e M elements.

        `busier`: those of a GPU of the group whose GPUs handle more. Colocated, rows for a GPU's
        own experts stay.
        """
        model, where = self.scenario.model, self.scenario.deployment
        size = self.scenario.row_bytes(kind is Kind.A2E)
        sent = work.transfer(model, tokens, where.ag, where.eg, where.dispatch, groups)
        remote = (where.gpus - 1) / where.gpus if where.colocated else 1
        eg_bytes, ag_bytes = sent.eg_bytes(size), sent.ag_bytes(size)
        return remote * (np.maximum(eg_bytes, ag_bytes) if busier else eg_bytes)

    def link(self, kind: Kind) -> Cost:
        """The cost that prices a direction: the scenario's own link, else the profile's for this
        split (or nearest)."""
        where = self.scenario.deployment
        if where.link is not None:
            return where.link
        return self._links[kind]

    @property
    def host(self) -> HostOverheads:
        """What the hosts of the profile add to the paper's model; nothing where it holds no such
        cost."""
        where = self.scenario.deployment
        terms = ("gap", "receive", "post", "contention")
        gap, receive, post, slow = (
            self._profile.find(f"host.{term}", ag=where.ag, eg=where.eg, shape=where.transport)
            for term in terms
        )
        return HostOverheads(
            gap_us=gap(0) if gap else 0,
            receive_us=receive(0) if receive else 0,
            post_us=(lambda task: post(self.transfer_bytes(task.tokens, groups=task.groups)))
            if post
            else free,
            contention=where.contention if where.contention is not None else slow(0) if slow else 0,
            half_duplex=where.duplex == "half",
        )

    @property
    def prices(self) -> list[dict[str, Any]]:
        """What the times asked for so far rest on: label, source, and how far from measurements it
        is known to lie.

        Errors are in percent: of a kernel on shapes left out of its fit (where it has none, on
        those of it), of a line on its own points; None where nothing was measured.
        """
        links = {cost.op: cost for cost in map(self.link, (Kind.A2E, Kind.E2A))}
        return [_price(name, each) for name, each in sorted((self._used | links).items())]

    @property
    def notes(self) -> list[str]:
        """What was assumed because the profile has no measurement or published figure for it."""
        used = {
            cost.source: None
            for cost in map(self.link, (Kind.A2E, Kind.E2A))
            if cost.label == "assumed"
        }
        return list(used)

    @property
    def _profile(self) -> HardwareProfile:
        return self.scenario.deployment.hardware

    @property
    def _dtype(self) -> str:
        return self.scenario.workload.dtype

    @cached_property
    def _links(self) -> dict[Kind, Cost]:
        where = self.scenario.deployment
        kinds = (Kind.A2E, Kind.E2A)
        return {
            kind: link_cost(
                self._profile, kind, where.ag, where.eg, where.transport, where.link_class
            )
            for kind in kinds
        }

    @cached_property
    def _slowdown(self) -> float:
        """Matrix products take longer by the SMs that communication holds."""
        machine, taken = self._profile.machine, self.scenario.deployment.comm_sms
        if not taken:
            return 1.0
        if machine is None or taken >= machine.sms:
            known = f"{machine.sms} SMs" if machine else "no known number of SMs"
            raise ValueError(
                f"comm_sms={taken}: the GPU of hardware {self._profile.name} has {known}"
            )
        return machine.sms / (machine.sms - taken)

    @property
    def _fewer_sms(self) -> float:
        """The same for what is not experts: 1 where communication runs beside these alone."""
        return self._slowdown if self.scenario.deployment.comm_sms_from == "all" else 1.0

    @property
    def _beside_experts(self) -> float:
        """The same for experts: 1 on an EG, whose GPUs give no SMs away."""
        return self._slowdown if self.scenario.deployment.colocated else 1.0

    def _check_halves(self, tokens: float) -> None:
        if self._stage("attention", tokens) is not None:
            name = self._profile.name
            raise ValueError(
                f"hardware {name} has measured attention as a whole, which a policy that cuts it can't use"
            )

    def _own_layer(self, layer: int) -> int:
        """The layer of the model that holds the experts of layer `layer` of the schedule."""
        model = self.scenario.model
        return (
            model.moe_every * (layer + 1) - 1 + (model.dense_layers if model.moe_every == 1 else 0)
        )

    def _dense_before(self, tokens: float, own: int) -> float:
        """Layers without experts between two layers with them, attention and feed-forward
        network."""
        model, total = self.scenario.model, 0.0
        for before in range(own - model.moe_every + 1, own):
            dense = work.dense(model, tokens, fused=self._has_kernel("gemm"))
            total += self._attention(tokens, before) + self.products(dense)
        return total

    def _attention(self, tokens: float, layer: int) -> float:
        return self.products(work.projections(self.scenario.model, tokens)) + self._core(
            tokens, layer
        )

    def _core(self, tokens: float, layer: int) -> float:
        model, load = self.scenario.model, self.scenario.workload
        decode = load.phase == "decode"
        core = work.core(model, tokens, load.seq_len, layer, decode=decode)
        latent = isinstance(model.attention, MLA)
        op = f"{'mla' if latent else 'attention'}_{load.phase}"
        words = (
            {"queries": "mha" if core.heads == core.kv_heads else "gqa"}
            if op == "attention_decode"
            else {}
        )
        kernel = self._kernel(op, **words)
        if kernel is None:
            return self._cost("attention")(core.unmasked_macs)
        shape: dict[str, float] = {"num_heads": core.heads}
        if not latent:
            shape |= {"num_key_value_heads": core.kv_heads, "head_dim": core.k_dim}
        if decode:
            return self._us(kernel, batch_size=core.batch, kv_len=core.reach, **shape)
        # A window is priced as the samples of its length that have as many (query, key) pairs
        batch = core.batch * core.pairs / (core.reach * (core.reach + 1) / 2)
        slower = (
            self._fewer_sms if self.scenario.deployment.colocated else 1.0
        )  # on an AG, products alone are slower
        return slower * self._us(kernel, batch_size=batch, isl=core.reach, **shape)

    def _product(self, product: work.Product, slower: float) -> float:
        kernel = self._kernel("gemm", dtype=self._dtype)
        if kernel is None:
            return product.count * self._cost("gemm")(product.m * product.k * product.n)
        return product.count * slower * self._us(kernel, m=product.m, n=product.n, k=product.k)

    def _has_kernel(self, op: str) -> bool:
        return any(kernel.op == op for kernel in self._profile.kernels)

    def _kernel(self, op: str, **words: str) -> Kernel | None:
        """The profile's kernel, of any of the data types that stand for the wanted one."""
        for dtype in DTYPE_WORDS.get(words.get("dtype", ""), ("",)):
            wanted = words | ({"dtype": dtype} if dtype else {})
            kernel = self._profile.kernel(op, **wanted)
            if kernel is not None:
                return kernel
        return None

    def _expert_kernel(self) -> Kernel | None:
        """The kernel of grouped experts with a gate: one measured under balanced routing, else one
        under any."""
        gated = [
            k
            for k in self._profile.kernels
            if k.op == "moe_experts" and "nongated" not in k.variant.get("kernel", "")
        ]
        wanted = [
            {"dtype": dtype} | words
            for words in (_BALANCED, {})
            for dtype in DTYPE_WORDS[self._dtype]
        ]
        return next((kernel for words in wanted for kernel in gated if kernel.matches(words)), None)

    def _us(
        self, kernel: Kernel, words: Mapping[str, str] | None = None, /, **numbers: float
    ) -> float:
        self._used[kernel.op] = kernel
        if any(isinstance(value, np.ndarray) for value in numbers.values()):
            return kernel.many(words, **numbers) * self._profile.speed_factor  # type: ignore[return-value]
        key = (kernel.op, tuple(numbers.values()))
        if key not in self._prices:
            self._prices[key] = kernel.us(words, **numbers) * self._profile.speed_factor
        return self._prices[key]

    def _stage(self, stage: str, tokens: float) -> float | None:
        where = self.scenario.deployment
        cost = self._profile.find(
            f"stage.{stage}", ag=where.ag, eg=where.eg, shape=self.scenario.shape
        )
        if cost is None or not cost.shape:
            return None
        self._used[cost.op] = cost
        return cost(tokens)

    def _cost(self, op: str) -> Cost:
        cost = self._profile.find(op)
        if cost is None:
            kernels = ", ".join(
                dict.fromkeys(
                    f"{k.op} {k.variant.get('dtype', '')}".strip() for k in self._profile.kernels
                )
            )
            has = f"; it has kernels for {kernels}" if kernels else ""
            raise ValueError(
                f"hardware {self._profile.name} has no cost for {op} in {self._dtype}, which model and policy need{has}"
            )
        self._used[op] = cost
        return cost


def _price(name: str, price: Cost | Kernel) -> dict[str, Any]:
    """One entry of `ScenarioCosts.prices`."""
    if isinstance(price, Kernel):
        errors = price.held_out or price.fit
        mape, p95 = (errors.mape_pct, errors.p95_pct) if errors else (None, None)
        return {
            "price": price.name,
            "label": price.label,
            "mape_pct": mape,
            "p95_pct": p95,
            "source": price.source,
        }
    mape = price.fit.mape_pct if price.fit else None
    return {
        "price": name,
        "label": price.label,
        "mape_pct": mape,
        "p95_pct": None,
        "source": price.source,
    }
