"""Sources of measurements: a CSV file, or the tables that aiconfigurator-core has of a GPU."""

from __future__ import annotations

from pathlib import Path

from simdep.calibration import aiconfigurator
from simdep.calibration.measurements import MeasuredTable, read_measurements


def load_measurements(source: str) -> list[MeasuredTable]:
    """The tables of a source: the path of a CSV file, or `aiconfigurator:GPU`.

    Raises InputError for a malformed file, a missing package, or a GPU that the package does not
    have.
    """
    gpu = packaged_gpu(source)
    if gpu is not None:
        return list(aiconfigurator.packaged_measurements(gpu))
    return [read_measurements(Path(source))]


def packaged_gpu(source: str) -> str | None:
    """The GPU of a source `aiconfigurator:GPU`; None for a CSV file."""
    if not source.startswith(aiconfigurator.PREFIX):
        return None
    return source.removeprefix(aiconfigurator.PREFIX)
