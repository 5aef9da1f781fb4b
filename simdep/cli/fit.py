"""The command `fit`: a hardware profile from measurements."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from simdep.cli.measurements import is_packaged, measured_tables
from simdep.cli.output import check_paths, emit, table
from simdep.cli.parser import add_json

HELP = "make a hardware profile from measurements"
EXAMPLES = """
simdep fit gemm.csv attention.csv --out mine.json
simdep fit all_gpus.csv --gpu h100 --form roofline --out h100.json
simdep fit aiconfigurator:l40s --out l40s.json
"""
_FITS = ("fit", "held_out", "linear", "least_squares")  # of which `fit` shows errors


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_json(parser)
    parser.add_argument(
        "data",
        nargs="+",
        metavar="DATA.csv",
        help="measurements, or aiconfigurator:GPU; see README",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.json", help="the profile to write"
    )
    parser.add_argument("--gpu", default="", help="the rows of this GPU, where a file has several")
    parser.add_argument(
        "--name", default="", help="of the profile; default the GPU, or the name of the file"
    )
    parser.add_argument(
        "--form",
        default="auto",
        help="auto (default: what predicts shapes left out best), table, roofline, knee, linear or least-squares",
    )
    parser.add_argument(
        "--source", default="", help="what the profile says about the origin of its values"
    )


def run(args: argparse.Namespace) -> int:
    """`simdep fit`: a profile from measurements."""
    from simdep.calibration import aiconfigurator
    from simdep.calibration.accuracy import fit_profile
    from simdep.hardware.gpus import find_gpu

    given = args.gpu or next(
        (word.removeprefix(aiconfigurator.PREFIX) for word in args.data if is_packaged(word)), ""
    )
    name = args.name or given or Path(args.data[0]).stem
    check_paths(args)
    if args.out.suffix != ".json":
        raise ValueError(f"--out {args.out}: a profile is a .json file")
    tables = [each for word in args.data for each in measured_tables(word)]
    gpu = find_gpu(given)
    profile, told = fit_profile(
        tables, gpu.name if gpu and not args.name else name, args.gpu or "", args.form, args.source
    )
    if gpu and not profile.gpu:
        profile = replace(profile, gpu=gpu.name)
    profile.save(args.out)
    print(f"simdep: {args.out} holds {len(profile.kernels)} kernels", file=sys.stderr)
    rows = [
        {"kernel": row["kernel"], "form": row["form"], "n": (row["fit"] or {}).get("n")}
        | {f"{key}_mape_pct": (row[key] or {}).get("mape_pct") for key in _FITS}
        for row in told
    ]
    emit(args, {"profile": str(args.out), "kernels": told}, [table(rows)])
    return 0
