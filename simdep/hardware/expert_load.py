"""Skewed routing: what the busiest rank of an expert-parallel group computes where some experts are
popular.

Popularity follows a power law, as the benchmarks of aiconfigurator sample it. Weights of the
experts are drawn from a density x^-exponent, from 1 to 0.8 n for n tokens (0.01 to 2 where there
are fewer routed tokens than experts), scaled to all routed tokens and rounded. A token goes to an
expert at most once; routed tokens beyond that go to experts with room. The benchmarks time the rank
with the most routed tokens, over a few draws. What counts here is the mean over `DRAWS`.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from simdep.arrays import Array

DRAWS = 200  # of the popularity of all experts, always the same ones
_MAX_SHARE = 0.8  # of the tokens: the largest weight of an expert; the smallest is 1
_SPARSE_WEIGHTS = (0.01, 2.0)  # smallest and largest, with fewer routed tokens than experts
_POWER_LAW = re.compile(r"power_law_([0-9]+(?:\.[0-9]+)?)")


def power_law_exponent(distribution: str) -> float | None:
    """The exponent of a distribution called `power_law_EXPONENT`; None for any other, such as
    balanced."""
    match = _POWER_LAW.fullmatch(distribution)
    return float(match[1]) if match else None


@cache
def busiest_rank(
    tokens: int, top_k: int, experts: int, ranks: int, exponent: float
) -> tuple[float, float]:
    """Mean routed tokens and mean activated experts of the rank with the most routed tokens.

    A last rank may hold fewer experts.
    """
    local = -(-experts // ranks)
    padded = np.zeros((DRAWS, local * ranks))
    padded[:, :experts] = drawn_loads(tokens, top_k, experts, exponent)
    loads = padded.reshape(DRAWS, ranks, local)
    busiest = loads[np.arange(DRAWS), loads.sum(axis=2).argmax(axis=1)]
    return float(busiest.sum(axis=1).mean()), float((busiest > 0).sum(axis=1).mean())


@cache
def drawn_loads(tokens: int, top_k: int, experts: int, exponent: float) -> Array:
    """Routed tokens of every expert in every draw: [draw, expert]."""
    routed_tokens = tokens * top_k
    uniform, tie_break = np.random.default_rng(0).random((2, DRAWS, experts))
    low, high = _SPARSE_WEIGHTS
    if routed_tokens > experts:
        low, high = 1.0, max(1.0, _MAX_SHARE * tokens)
    weights = _power_law_weights(uniform, low, high, exponent)
    loads = np.round(weights * (routed_tokens / weights.sum(axis=1, keepdims=True)))
    _give_back_rounding(loads, routed_tokens, tie_break)
    return _at_most(loads, tokens)


def _power_law_weights(uniform: Array, low: float, high: float, exponent: float) -> Array:
    """Samples of a density x^-exponent from low to high, by its inverse distribution."""
    weights: Array
    if exponent == 1:
        weights = low * (high / low) ** uniform
        return weights
    rest = 1 - exponent
    weights = (low**rest + uniform * (high**rest - low**rest)) ** (1 / rest)
    return weights


def _give_back_rounding(loads: Array, routed_tokens: int, tie_break: Array) -> None:
    """Make loads [draw, expert] sum to the routed tokens of a draw, in place.

    What rounding left over goes to the largest; what it took too much the smallest give back.
    """
    left = routed_tokens - loads.sum(axis=1)
    order = np.lexsort((tie_break, -loads))
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(loads.shape[1])[None, :], axis=1)
    loads += (place < left[:, None]).astype(float)
    giving = place >= loads.shape[1] + left[:, None]
    owed = (giving & (loads == 0)).sum(axis=1)  # by experts that have nothing to give
    loads -= (giving & (loads > 0)).astype(float)
    loads[np.arange(len(loads)), loads.argmax(axis=1)] -= owed


def _at_most(loads: Array, tokens: int) -> Array:
    """Loads with what exceeds `tokens` spread over the experts that have room."""
    kept = np.minimum(loads, tokens)
    room = tokens - kept
    excess = (loads - kept).sum(axis=1, keepdims=True)
    spread: Array = excess / np.maximum(room.sum(axis=1, keepdims=True), 1)
    return kept + room * spread
