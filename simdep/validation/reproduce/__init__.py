"""Published measurements of real systems beside simdep's predictions: one module a publication.

Each module has its table of published figures under `simdep/data/published`, the `COLUMNS` of that
table, and a function `reproduce` that gives a `Reproduction`: point by point, with what was
calibrated on what.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from simdep import checks
from simdep.validation.reproduce import eps_moe, fastafd, findep
from simdep.validation.reproduce.result import Columns, Reproduction, read_measured

Reproduce = Callable[[pd.DataFrame | None], Reproduction]
NAMES = ("findep", "fastafd", "eps-moe")
_OWN: dict[str, tuple[Columns, Reproduce]] = {
    "findep": (findep.TABLE, findep.reproduce),
    "fastafd": (fastafd.TABLE, fastafd.reproduce),
}


def reproduce(name: str = "all", measured: Path | None = None) -> list[Reproduction]:
    """Reproduce one publication or all; with `measured`, predict the rows of that file instead of
    the published ones.

    Such a file has the columns of the FinDEP or of the FastAFD table, in any order and among
    others, which say what it belongs to. Raises ValueError for an unknown name or a file that is
    malformed or does not belong to `name`.
    """
    checks.known(name, ("all", *NAMES), "reproduction")
    if measured is not None:
        tables = {each: own for each, own in _OWN.items() if name in ("all", each)}
        if not tables:
            raise ValueError(
                f"--measured {measured}: {name} reads no file; use {' or '.join(_OWN)}"
            )
        which, table = read_measured(measured, {each: kind for each, (kind, _) in tables.items()})
        return [_OWN[which][1](table)]
    wanted = NAMES if name == "all" else (name,)
    return [eps_moe.reproduce() if each == "eps-moe" else _OWN[each][1](None) for each in wanted]
