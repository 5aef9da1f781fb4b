"""Kernels computed from a data sheet, for GPUs that nobody has measured: peaks times the share that
others reach."""

from __future__ import annotations

from simdep.hardware.forms import Terms
from simdep.hardware.gpus import Gpu
from simdep.hardware.kernels import Kernel

# Shares of the data sheet's peaks that fitted kernels of A100, H100, H200 and B200 reach, and their
# start-up.
COMPUTE_SHARE = 0.75  # of dense FLOP/s in a large GEMM; 0.77 to 0.80 fitted
MEMORY_SHARE = 0.8  # of the memory bandwidth
LAUNCH_US = 5.0
LINK_SHARE = 0.75  # of one direction of the link between GPUs, in large messages
LINK_START_US = 10.0


def kernels_of(gpu: Gpu) -> tuple[Kernel, ...]:
    """GEMM, attention, experts and point-to-point kernels of a GPU from its data sheet, all
    labelled assumed."""
    why = f"{gpu.figures['memory'].source}, {COMPUTE_SHARE:.0%} of its FLOP/s and {MEMORY_SHARE:.0%} of its bandwidth"
    byte = 1e6 / (gpu.figures["memory_bandwidth"].value * MEMORY_SHARE)
    peaks = {"bf16": "bf16_dense", "fp16": "bf16_dense"} | (
        {"fp8": "fp8_dense"} if "fp8_dense" in gpu.figures else {}
    )
    found = []
    for dtype, key in peaks.items():
        mac = 2e6 / (gpu.figures[key].value * COMPUTE_SHARE)
        race = {"macs": mac, "bytes": byte}
        found.append(
            Kernel("gemm", {"dtype": dtype}, Terms({"one": LAUNCH_US}, race, 2), "assumed", why)
        )
        experts = Terms(
            {"one": 3 * LAUNCH_US, "copy_bytes": byte}, {"macs": mac, "weight_bytes": byte}, 2
        )
        found.append(Kernel("moe_experts", {"dtype": dtype}, experts, "assumed", why))
    mac = 2e6 / (gpu.figures["bf16_dense"].value * COMPUTE_SHARE)
    for op, moved in (
        ("attention_prefill", "bytes"),
        ("mla_prefill", "bytes"),
        ("attention_decode", "kv_bytes"),
    ):
        found.append(
            Kernel(op, {}, Terms({"one": LAUNCH_US}, {"macs": mac, moved: byte}, 2), "assumed", why)
        )
    found.append(
        Kernel(
            "mla_decode",
            {},
            Terms({"one": LAUNCH_US}, {"macs": mac, "kv_bytes": byte}, 2),
            "assumed",
            why,
        )
    )
    link = 1e6 / (gpu.figures["gpu_link"].value * LINK_SHARE)
    wire = f"{gpu.figures['gpu_link'].source}, {LINK_SHARE:.0%} of it"
    found.append(
        Kernel(
            "p2p",
            {"link": "intra-node"},
            Terms({"one": LINK_START_US, "bytes": link}),
            "assumed",
            wire,
        )
    )
    return tuple(found)
