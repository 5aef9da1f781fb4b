"""Published measurements of real systems beside simdep's predictions: one module a publication.

A module has a `Publication`, with its table of published figures under `simdep/data/published`, and
a function `reproduce_*` that gives a `Reproduction`: point by point, with what was calibrated on
what.
"""

from __future__ import annotations

from pathlib import Path

from simdep import checks
from simdep.validation.reproduce.eps_moe import EPS_MOE, reproduce_eps_moe
from simdep.validation.reproduce.fastafd import FASTAFD, reproduce_fastafd
from simdep.validation.reproduce.findep import FINDEP, reproduce_findep
from simdep.validation.reproduce.result import Reproduction, read_measured

PUBLICATIONS = (FINDEP.name, FASTAFD.name, EPS_MOE.name)
_OF_TABLES = {FINDEP: reproduce_findep, FASTAFD: reproduce_fastafd}  # those that read a user's
_REPRODUCE = {
    FINDEP.name: reproduce_findep,
    FASTAFD.name: reproduce_fastafd,
    EPS_MOE.name: reproduce_eps_moe,
}


def reproduce(name: str = "all", measured: Path | None = None) -> list[Reproduction]:
    """Reproduce one publication or all, or predict the rows of a file `measured`.

    Such a file has the columns of the FinDEP or of the FastAFD table, in any order and among
    others. The columns say which publication it belongs to. Raises InputError for an unknown name
    or a file that is malformed or does not belong to `name`.
    """
    checks.known(name, ("all", *PUBLICATIONS), "reproduction")
    if measured is not None:
        candidates = [each for each in _OF_TABLES if name in ("all", each.name)]
        if not candidates:
            names = " or ".join(publication.name for publication in _OF_TABLES)
            raise checks.InputError(f"--measured {measured}: {name} reads no file; use {names}")
        publication, table = read_measured(measured, candidates)
        return [_OF_TABLES[publication](table)]
    if name != "all":
        return [_REPRODUCE[name]()]
    return [reproduce_one() for reproduce_one in _REPRODUCE.values()]
