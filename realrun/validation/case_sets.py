"""The schedules that `realrun validate` runs by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from realrun.cases import Case
from simdep.scenario.models import load_model

LISTED_ORDER = "A0 A1 S0 A2 S1 A3 S2 S3"
_CORES_FOR_PAIRS = 4  # of 2+2 ranks


@dataclass(frozen=True)
class _Granularity:
    policy: str
    order: str
    r1: int
    r2: int

    @property
    def needs_shared(self) -> bool:
        """Whether it is another's twin without shared experts: there is one order then, and
        undivided micro-batches are what pppipe does."""
        other_order = self.order != "asas"
        return other_order or (self.policy == "findep" and self.r2 == 1)

    @property
    def is_twin(self) -> bool:
        """Whether it is another's twin always: one micro-batch has one order."""
        return self.order != "asas" and self.r1 == 1


@dataclass(frozen=True)
class _Family:
    """One layer shape and the samples of one AG rank: every policy, order and granularity on it."""

    model: str
    scale: float
    layers: int
    seq_len: int
    samples: int

    def cases(
        self,
        chunks: Sequence[int],
        mbytes_per_s: float,
        ranks: tuple[int, int] = (1, 1),
        max_pieces: int = 0,
    ) -> Iterator[Case]:
        """The cases over a link of some speed; `max_pieces` bounds r1 * r2."""
        ag, eg = ranks
        shared = load_model(self.model).has_shared
        for granularity in _granularities(chunks):
            if granularity.is_twin or (granularity.needs_shared and not shared):
                continue
            r1, r2 = granularity.r1, granularity.r2
            if self.samples % r1 or (max_pieces and r1 * r2 > max_pieces):
                continue
            yield Case.from_dict(
                {
                    "model": self.model,
                    "scale": self.scale,
                    "layers": self.layers,
                    "seq_len": self.seq_len,
                    "m_a": self.samples // r1,
                    "ag": ag,
                    "eg": eg,
                    "policy": granularity.policy,
                    "order": granularity.order,
                    "r1": r1,
                    "r2": r2,
                    "link_mbytes_per_s": mbytes_per_s,
                }
            )


def _granularities(chunks: Sequence[int]) -> Iterator[_Granularity]:
    yield _Granularity("naive", "asas", 1, 1)
    yield _Granularity("pppipe", "asas", 2, 1)
    yield _Granularity("pppipe", "asas", 4, 1)
    for order in ("asas", "aass"):
        for r1 in (1, 2, 4):
            for r2 in chunks:
                yield _Granularity("findep", order, r1, r2)
    for r2 in chunks:
        yield _Granularity("findep", LISTED_ORDER, 4, r2)


_LITE = _Family("deepseek-v2-lite", 0.125, 2, 128, 4)
_QWEN = _Family("qwen3-30b-a3b", 0.125, 2, 128, 4)
_FULL_WIDTH = _Family("deepseek-v2-lite", 1.0, 2, 16, 2)


def standard_cases(size: str = "default") -> list[Case]:
    """The schedules of a set: `quick` (24), `default` (78) or `full` (over 150).

    Links are such that communication decides, that it balances computation, and that computation
    decides. They are for 1+1 ranks; where four cores are, `full` has some for 2+2.
    """
    if size == "quick":
        return [*_LITE.cases((2, 4), 100), *_QWEN.cases((2, 4), 300)]
    rates = (100, 300) if size == "default" else (40, 100, 300, 1500)
    cases: list[Case] = []
    for rate in rates:
        for family in (_LITE, _QWEN):
            cases += family.cases((1, 2, 4, 8), rate)
    if size == "default":
        return cases
    for rate in (5, 20, 200):
        cases += _FULL_WIDTH.cases((1, 2, 4), rate, max_pieces=4)
    if len(os.sched_getaffinity(0)) >= _CORES_FOR_PAIRS:
        cases += _LITE.cases((1, 2, 4), 300, ranks=(2, 2))
    return cases
