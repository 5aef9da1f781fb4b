"""The measurements that a command is given: a CSV file, or a GPU of aiconfigurator-core."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def is_packaged(word: str) -> bool:
    from simdep.calibration import aiconfigurator

    return word.startswith(aiconfigurator.PREFIX)


def measured_tables(word: str) -> list[tuple[str, pd.DataFrame]]:
    """The tables of measurements that a word names: a CSV file, or those of a GPU in
    aiconfigurator-core."""
    from simdep.calibration import aiconfigurator
    from simdep.calibration.measurements import read_csv

    if is_packaged(word):
        return list(aiconfigurator.tables(word.removeprefix(aiconfigurator.PREFIX)))
    return [(Path(word).name, read_csv(Path(word)))]
