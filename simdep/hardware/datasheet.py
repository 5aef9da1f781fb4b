"""Kernels computed from a data sheet, for GPUs that nobody has measured: peaks times the share that
others reach."""

from __future__ import annotations

from simdep.hardware.forms import Terms
from simdep.hardware.gpus import Gpu
from simdep.hardware.kernels import Kernel

# Shares of the data sheet's peaks that fitted kernels of A100, H100, H200 and B200 reach, and their
# start-up.
_COMPUTE_SHARE = 0.75  # of dense FLOP/s in a large GEMM; 0.77 to 0.80 fitted
_MEMORY_SHARE = 0.8  # of the memory bandwidth
_KERNEL_START_US = 5.0
_LINK_SHARE = 0.75  # of one direction of the link between GPUs, in large messages
_LINK_START_US = 10.0
_POWER = 2.0  # with which computing and memory overlap
_MOVED_BYTES = {  # work that overlaps with the multiply-accumulates of each attention core
    "attention_prefill": "bytes",
    "mla_prefill": "bytes",
    "attention_decode": "kv_bytes",
    "mla_decode": "kv_bytes",
}


def datasheet_kernels(gpu: Gpu) -> tuple[Kernel, ...]:
    """GEMM, attention, experts and point-to-point kernels of a GPU from its data sheet, all
    labelled assumed."""
    figures = gpu.figures
    byte_us = 1e6 / (figures["memory_bandwidth"].value * _MEMORY_SHARE)
    mac_us = {"bf16": _mac_us(gpu, "bf16_dense"), "fp16": _mac_us(gpu, "bf16_dense")}
    if "fp8_dense" in figures:
        mac_us["fp8"] = _mac_us(gpu, "fp8_dense")
    source = (
        f"{figures['memory'].source}, {_COMPUTE_SHARE:.0%} of its FLOP/s "
        f"and {_MEMORY_SHARE:.0%} of its bandwidth"
    )
    kernels = []
    for dtype, us in mac_us.items():
        variant = {"dtype": dtype}
        gemm = Terms({"one": _KERNEL_START_US}, {"macs": us, "bytes": byte_us}, _POWER)
        kernels.append(Kernel("gemm", variant, gemm, "assumed", source))
        experts = Terms(
            {"one": 3 * _KERNEL_START_US, "copy_bytes": byte_us},
            {"macs": us, "weight_bytes": byte_us},
            _POWER,
        )
        kernels.append(Kernel("moe_experts", variant, experts, "assumed", source))
    for operation, moved in _MOVED_BYTES.items():
        core = Terms({"one": _KERNEL_START_US}, {"macs": mac_us["bf16"], moved: byte_us}, _POWER)
        kernels.append(Kernel(operation, {}, core, "assumed", source))
    return (*kernels, _link_kernel(gpu))


def _mac_us(gpu: Gpu, figure: str) -> float:
    """Microseconds of a multiply-accumulate, two floating-point operations."""
    return 2e6 / (gpu.figures[figure].value * _COMPUTE_SHARE)


def _link_kernel(gpu: Gpu) -> Kernel:
    link = gpu.figures["gpu_link"]
    form = Terms({"one": _LINK_START_US, "bytes": 1e6 / (link.value * _LINK_SHARE)})
    source = f"{link.source}, {_LINK_SHARE:.0%} of it"
    return Kernel("p2p", {"link": "intra-node"}, form, "assumed", source)
