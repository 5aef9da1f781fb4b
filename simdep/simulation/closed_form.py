"""Closed forms for the makespan of regular schedules, exact where they say so. Any unit of time;
integers stay exact.

Every function takes the stage times of `simdep.costs.StageTimes`: microseconds of one task of each
kind.
"""

from __future__ import annotations

from simdep.costs import StageTimes


def pingpong(times: StageTimes, layers: int, r1: int) -> float:
    """Makespan of `pppipe` (and, with r1 = 1, of `naive`): exact for any stage times.

    Four FIFO resources with equal micro-batches: S + (m-1) Tmax + (L-1) max(S, m Tmax), where the
    shared experts are part of attention, S is the sum of the four stages and Tmax the longest.
    """
    stages = (times.attention + times.shared, times.a2e, times.expert, times.e2a)
    through, longest = sum(stages), max(stages)
    return through + (r1 - 1) * longest + (layers - 1) * max(through, r1 * longest)


def asas(times: StageTimes, layers: int, r1: int, r2: int) -> float:
    """Makespan of `findep` with order ASAS: exact for any stage times, equal chunks.

    FinDEP's Eq. 13 without its second count of (r2-1) Y (see `paper_eq13`), and with A2E and E2A
    allowed to differ.
    """
    X, _, F, G = _blocks(times, r2)
    return (layers - 1) * max(G, r1 * F) + max(X, G) + (r1 - 1) * F


def paper_eq13(times: StageTimes, layers: int, r1: int, r2: int) -> float:
    """FinDEP's Eq. 13 as printed: too long by (r2-1) Y, since G already holds that term. For
    comparison only."""
    _, Y, _, _ = _blocks(times, r2)
    return asas(times, layers, r1, r2) + (r2 - 1) * Y


def aass_bound(times: StageTimes, layers: int, r1: int, r2: int) -> float:
    """A lower bound on the makespan of `findep` with order AASS; exact for most stage times."""
    X, Y, _, G = _blocks(times, r2)
    return (layers - 1) * max(G, r1 * X, r1 * r2 * Y) + max(
        r1 * X, G + (r1 - 1) * max(times.attention, r2 * Y)
    )


def _blocks(times: StageTimes, r2: int) -> tuple[float, float, float, float]:
    """X: AG time of a micro-batch. Y: slowest chunk stage. F: slowest resource. G: one micro-batch,
    start to return."""
    X = times.attention + times.shared
    Y = max(times.expert, times.a2e, times.e2a)
    F = max(X, r2 * Y)
    G = times.attention + times.a2e + times.expert + times.e2a + (r2 - 1) * Y
    return X, Y, F, G
