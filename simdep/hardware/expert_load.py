"""Skewed routing: what the busiest rank of an expert-parallel group computes where some experts are
popular.

Popularity follows a power law, as the benchmarks of aiconfigurator sample it: weights of the
experts are drawn from a density x^-alpha, from 1 to 0.8 n for n tokens (0.01 to 2 where there are
fewer copies than experts), scaled to all copies and rounded; a token goes to an expert at most
once, and copies beyond that to experts with room. They time the rank with the most copies, over a
few draws; what counts here is the mean over `DRAWS`.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np
from numpy.typing import NDArray

DRAWS = 200  # of the popularity of all experts, always the same ones
REACH = 0.8  # of the tokens: the largest weight of an expert; the smallest is 1
FEW = (0.01, 2.0)  # weights where there are fewer copies than experts
_POWER_LAW = re.compile(r"power_law_([0-9]+(?:\.[0-9]+)?)")


def power_law(distribution: str) -> float | None:
    """The exponent of a distribution called `power_law_ALPHA`; None for any other, such as
    balanced."""
    found = _POWER_LAW.fullmatch(distribution)
    return float(found[1]) if found else None


@cache
def busiest_rank(
    tokens: int, top_k: int, experts: int, ranks: int, alpha: float
) -> tuple[float, float]:
    """Mean copies and mean experts touched of the rank with the most copies; a last rank may hold
    fewer experts."""
    local = -(-experts // ranks)
    padded = np.zeros((DRAWS, local * ranks))
    padded[:, :experts] = draws(tokens, top_k, experts, alpha)
    loads = padded.reshape(DRAWS, ranks, local)
    busiest = loads[np.arange(DRAWS), loads.sum(axis=2).argmax(axis=1)]
    return float(busiest.sum(axis=1).mean()), float((busiest > 0).sum(axis=1).mean())


@cache
def draws(tokens: int, top_k: int, experts: int, alpha: float) -> NDArray[np.float64]:
    """Copies of every expert in every draw."""
    copies, random = tokens * top_k, np.random.default_rng(0)
    low, high = (1.0, max(1.0, REACH * tokens)) if copies > experts else FEW
    part, tie = random.random((2, DRAWS, experts))
    if alpha == 1:
        weights = low * (high / low) ** part
    else:
        weights = (low ** (1 - alpha) + part * (high ** (1 - alpha) - low ** (1 - alpha))) ** (
            1 / (1 - alpha)
        )
    loads: NDArray[np.float64] = np.round(weights * (copies / weights.sum(axis=1, keepdims=True)))
    # Rounding leaves some copies over, which go to the largest, or takes too many, which the
    # smallest give back
    left = copies - loads.sum(axis=1)
    order = np.lexsort((tie, -loads))
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(experts)[None, :], axis=1)
    loads += (place < left[:, None]).astype(float)
    giving = place >= experts + left[:, None]
    owed = (giving & (loads == 0)).sum(axis=1)
    loads -= (giving & (loads > 0)).astype(float)
    loads[np.arange(DRAWS), loads.argmax(axis=1)] -= owed
    kept = np.minimum(loads, tokens)
    room = tokens - kept
    spread = (loads - kept).sum(axis=1, keepdims=True) / np.maximum(
        room.sum(axis=1, keepdims=True), 1
    )
    whole: NDArray[np.float64] = kept + room * spread
    return whole
