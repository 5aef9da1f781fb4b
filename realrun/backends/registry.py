"""The backends by name, and which of them this host can use."""

from __future__ import annotations

import warnings

from realrun.backends.base import Device
from realrun.backends.gloo import CpuDevice, free_host_bytes
from realrun.backends.nccl import CudaDevice, free_gpu_bytes, usable_gpus
from simdep.checks import InputError

BACKEND_DTYPES = {"gloo": "fp32", "nccl": "bf16"}  # what the ranks of a backend compute in


def choose_backend(requested: str, local_ranks: int) -> str:
    """gloo or nccl; `auto` is nccl where every rank can have a GPU, and warns where only some can.

    Raises InputError where nccl is requested and this host has too few GPUs.
    """
    gpus = usable_gpus()
    if requested == "auto":
        if gpus >= local_ranks:
            return "nccl"
        if gpus:
            warnings.warn(
                f"{local_ranks} ranks and {gpus} GPUs: the ranks run on CPUs", stacklevel=2
            )
        return "gloo"
    if requested == "nccl" and gpus < local_ranks:
        raise InputError(
            f"backend nccl needs a GPU for each of {local_ranks} ranks; this host has {gpus}"
        )
    return requested


def open_device(backend: str, local_rank: int) -> Device:
    """The device of a rank; `local_rank` counts the ranks of this host."""
    return CudaDevice(local_rank) if backend == "nccl" else CpuDevice()


def free_bytes(backend: str, local_rank: int) -> int:
    """Free memory for a rank: that of its GPU, or what all ranks of a CPU host share."""
    return free_gpu_bytes(local_rank) if backend == "nccl" else free_host_bytes()
