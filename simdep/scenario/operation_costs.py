"""What one operation of a task takes on the hardware of a scenario.

A kernel of the profile says it, else a line of its multiply-accumulates, as in the paper.

The SMs that communication holds are missing to the computation beside it. Microseconds; sizes may
be arrays.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from simdep.checks import InputError
from simdep.hardware.kernels import Kernel
from simdep.hardware.profile import HardwareProfile
from simdep.scenario import work
from simdep.scenario.estimates import Estimate, total
from simdep.scenario.models import MLA
from simdep.scenario.spec import Scenario

# The data types of measurements that stand for one of a workload
_DTYPES = {
    "bf16": ("bf16", "fp16"),
    "fp8": ("fp8", "fp8_block"),
    "fp32": ("fp32",),
}
_BALANCED = {"distribution": "balanced"}


class OperationCosts:
    """Estimates of the operations of a scenario. Raises InputError where the profile lacks a needed
    cost."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.profile: HardwareProfile = scenario.deployment.hardware

    def products(self, products: Iterable[work.Product], slowdown: float) -> Estimate:
        """Matrix products, one after the other; kernels take `slowdown` times as long."""
        kernel = self._gemm
        if kernel is None:
            return total(self._line("gemm", p.m * p.k * p.n) * p.count for p in products)
        return total(
            self._by_kernel(kernel, m=p.m, n=p.n, k=p.k) * (p.count * slowdown) for p in products
        )

    def core(self, tokens: Any, layer: int) -> Estimate:
        """The attention core of a layer of the model.

        Without a kernel it is a line of the multiply-accumulates of every query with its whole
        context (FinDEP, Eq. 2).
        """
        model, load = self.scenario.model, self.scenario.workload
        is_decode = load.phase == "decode"
        core = work.core(model, tokens, load.seq_len, layer, decode=is_decode)
        kernel = self._attention_kernel(core, is_decode)
        if kernel is None:
            return self._line("attention", core.unmasked_macs)
        sizes: dict[str, Any] = {"num_heads": core.heads}
        if not isinstance(model.attention, MLA):
            sizes |= {"num_key_value_heads": core.kv_heads, "head_dim": core.k_dim}
        if is_decode:
            return self._by_kernel(kernel, batch_size=core.batch, kv_len=core.span, **sizes)
        # A window counts as the samples of its length that have as many (query, key) pairs
        samples = core.batch * core.pairs / (core.span * (core.span + 1) / 2)
        estimate = self._by_kernel(kernel, batch_size=samples, isl=core.span, **sizes)
        # On an AG, products alone are slower
        return estimate * (self.slowdown if self.scenario.deployment.colocated else 1.0)

    def grouped_experts(self, **sizes: Any) -> Estimate | None:
        """The experts of a GPU in one kernel; None where the profile has no such kernel."""
        kernel = self._expert_kernel
        if kernel is None:
            return None
        factor = self.profile.speed_factor
        return Estimate.of_kernel(kernel, factor, _BALANCED, **sizes)

    def stage(self, stage: str, tokens: Any) -> Estimate | None:
        """A whole task on `tokens` tokens, where the profile measured it for this deployment, model
        and shape."""
        deployment = self.scenario.deployment
        cost = self.profile.find(
            f"stage.{stage}", ag=deployment.ag, eg=deployment.eg, shape=self.scenario.shape
        )
        if cost is None or not cost.shape:
            return None
        return Estimate.of_cost(cost, cost(tokens))

    @property
    def is_fused(self) -> bool:
        """Whether products that share an input are launched as one, as engines with kernels do."""
        return any(kernel.op == "gemm" for kernel in self.profile.kernels)

    @property
    def slowdown(self) -> float:
        """How much longer attention and shared experts take by the SMs that communication holds; 1
        where it runs beside experts alone."""
        return self.all_slowdown if self.scenario.deployment.comm_sms_from == "all" else 1.0

    @property
    def expert_slowdown(self) -> float:
        """The same for experts: 1 on an EG, whose GPUs give no SMs away."""
        return self.all_slowdown if self.scenario.deployment.colocated else 1.0

    @cached_property
    def all_slowdown(self) -> float:
        """How much longer products take by the SMs that communication holds."""
        machine, taken = self.profile.machine, self.scenario.deployment.comm_sms
        if not taken:
            return 1.0
        if machine is None or taken >= machine.sms:
            known = f"{machine.sms} SMs" if machine else "no known number of SMs"
            raise InputError(
                f"comm_sms={taken}: the GPU of hardware {self.profile.name} has {known}"
            )
        return machine.sms / (machine.sms - taken)

    def _by_kernel(self, kernel: Kernel, **sizes: Any) -> Estimate:
        return Estimate.of_kernel(kernel, self.profile.speed_factor, **sizes)

    def _line(self, op: str, macs: Any) -> Estimate:
        cost = self.profile.find(op)
        if cost is None:
            raise InputError(self._missing(op))
        return Estimate.of_cost(cost, cost(macs))

    def _missing(self, op: str) -> str:
        kernels: dict[str, None] = {}
        for kernel in self.profile.kernels:
            kernels[f"{kernel.op} {kernel.variant.get('dtype', '')}".strip()] = None
        has = f"; it has kernels for {', '.join(kernels)}" if kernels else ""
        dtype = self.scenario.workload.dtype
        return (
            f"hardware {self.profile.name} has no cost for {op} in {dtype}, "
            f"which model and policy need{has}"
        )

    @cached_property
    def _gemm(self) -> Kernel | None:
        """The kernel of products, of any of the data types that stand for that of the workload."""
        for dtype in _DTYPES[self.scenario.workload.dtype]:
            kernel = self.profile.kernel("gemm", dtype=dtype)
            if kernel is not None:
                return kernel
        return None

    def _attention_kernel(self, core: work.Core, is_decode: bool) -> Kernel | None:
        latent = isinstance(self.scenario.model.attention, MLA)
        op = f"{'mla' if latent else 'attention'}_{self.scenario.workload.phase}"
        if latent or not is_decode:
            return self.profile.kernel(op)
        return self.profile.kernel(op, queries="mha" if core.heads == core.kv_heads else "gqa")

    @cached_property
    def _expert_kernel(self) -> Kernel | None:
        """The kernel of grouped experts with a gate: one measured under balanced routing, else one
        under any."""
        gated = []
        for kernel in self.profile.kernels:
            is_gated = "nongated" not in kernel.variant.get("kernel", "")
            if kernel.op == "moe_experts" and is_gated:
                gated.append(kernel)
        for routing in (_BALANCED, {}):
            for dtype in _DTYPES[self.scenario.workload.dtype]:
                for kernel in gated:
                    if kernel.matches({"dtype": dtype} | routing):
                        return kernel
        return None
