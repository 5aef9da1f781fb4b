"""The command `fit`: a hardware profile from measurements."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from simdep import checks
from simdep.checks import InputError
from simdep.cli.output import check_paths, emit, table
from simdep.cli.parser import add_json

HELP = "fit a hardware profile to measurements"
EXAMPLES = """
simdep fit gemm.csv attention.csv --out mine.json
simdep fit all_gpus.csv --gpu h100 --form roofline --out h100.json
simdep fit aiconfigurator:l40s --out l40s.json
"""
_ERRORS = ("fit", "held_out", "linear", "least_squares")  # in the order of the table's columns


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_json(parser)
    parser.add_argument(
        "data",
        nargs="+",
        metavar="DATA.csv",
        help="measurements, or aiconfigurator:GPU",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.json", help="profile to write"
    )
    parser.add_argument("--gpu", help="GPU whose measurements count, where a file has several")
    parser.add_argument(
        "--name", help="name of the profile (default: the GPU, or the name of the file)"
    )
    parser.add_argument(
        "--form",
        default="auto",
        help="table, roofline, knee, linear, least-squares or auto, the best on held-out shapes",
    )
    parser.add_argument("--source", help="origin of the values, for the profile")


def run(args: argparse.Namespace) -> int:
    """`simdep fit DATA... --out FILE.json`: a profile of kernels, with the errors of each fit."""
    from simdep.calibration.accuracy import fit_profile
    from simdep.calibration.sources import load_measurements
    from simdep.hardware.gpus import find_gpu

    check_paths(args)
    if args.out.suffix != ".json":
        raise InputError(f"--out {args.out}: a profile is a .json file")
    for flag in ("gpu", "name", "source"):
        text = getattr(args, flag)
        if text is not None:
            checks.string(text, f"--{flag}")
    gpu_name = args.gpu or _packaged_gpu(args.data)
    gpu = find_gpu(gpu_name)
    name = gpu.name if gpu else gpu_name or Path(args.data[0]).stem
    measurements = []
    for source in args.data:
        measurements += load_measurements(source)
    profile, fits = fit_profile(
        measurements, args.name or name, args.gpu or "", args.form, args.source or ""
    )
    if gpu and not profile.gpu:
        profile = replace(profile, gpu=gpu.name)
    profile.save(args.out)
    print(f"simdep: {args.out} holds {len(profile.kernels)} kernels", file=sys.stderr)
    kernels = [fit.to_dict() for fit in fits]
    shown = [_kernel_row(kernel) for kernel in kernels]
    emit(args, {"profile": str(args.out), "kernels": kernels}, [table(shown)])
    return 0


def _packaged_gpu(sources: Sequence[str]) -> str:
    """The GPU of the first source `aiconfigurator:GPU`; empty where all sources are files."""
    from simdep.calibration.sources import packaged_gpu

    for source in sources:
        gpu = packaged_gpu(source)
        if gpu is not None:
            return gpu
    return ""


def _kernel_row(kernel: Mapping[str, Any]) -> dict[str, Any]:
    row = {"kernel": kernel["kernel"], "form": kernel["form"]}
    row["n"] = kernel["fit"]["n"] if kernel["fit"] else None
    for errors in _ERRORS:
        row[f"{errors}_mape_pct"] = kernel[errors]["mape_pct"] if kernel[errors] else None
    return row
