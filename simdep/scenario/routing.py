"""Routing: how many routed tokens every expert gets, and so what every EG rank has to do.

Experts are placed contiguously. EG rank g of eg holds the experts from g E // eg up to (g + 1) E //
eg, as many on each as whole experts allow. Routed tokens are relative: only their proportions
count. "Power law" has two meanings, and each has its own name:

- `zipf(experts, s)`: the popularity of the x-th most popular expert is x^-s; which expert that is
  is drawn by a seed;
- `power_law(experts, s)`: the loads themselves are drawn from a density x^-s, as the tables of
  measured MoE kernels have it (`simdep.hardware.expert_load`), a draw a layer.

An expert gets a token at most once. So under either, what would be more than 1 / top_k of all
routed tokens goes to the others.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdep import checks, files
from simdep.arrays import Array
from simdep.checks import InputError, shown
from simdep.file_kinds import ROUTING
from simdep.hardware.expert_load import DRAWS, drawn_loads

_Cell = tuple[int, int, int]  # layer, AG rank, expert
_MAX_COUNTS = 10_000_000  # layers times ranks times experts
_TOLERANCE = 1e-6  # of shares, for rounding
_COLUMNS = ("layer", "rank", "expert", "rows")
_ALIASES = {"layer_id": "layer", "rank_id": "rank", "expert_id": "expert", "count": "rows"}
_LAWS = ("balanced", "zipf", "power-law")


@dataclass(frozen=True, eq=False)
class Routing:
    """`routed_tokens[layer, source, expert]`; an axis of length 1 stands for every layer, or for
    every AG rank.

    Layers count from 0 among those with experts and repeat where a schedule has more of them.
    Raises InputError for numbers that are negative or not finite, and for a layer and source
    without any.
    """

    routed_tokens: Array
    label: str

    def __post_init__(self) -> None:
        tokens = self.routed_tokens
        if tokens.ndim != 3 or not tokens.size:
            shape = f"its rows have the shape {tokens.shape}"
            raise InputError(f"{shape}; expected [layer, source, expert]")
        wrong = np.argwhere(~np.isfinite(tokens) | (tokens < 0) | (tokens > checks.MAX_NUMBER))
        if len(wrong):
            layer, source, expert = wrong[0]
            place = f"layer {layer}, rank {source}, expert {expert}"
            rule = f"expected a number from 0 to {checks.MAX_NUMBER:g}"
            raise InputError(f"{place}: rows={tokens[tuple(wrong[0])]:g}; {rule}")
        empty = np.argwhere(tokens.sum(axis=2) == 0)
        if len(empty):
            raise InputError(f"layer {empty[0, 0]} has no rows for any expert")

    @property
    def layers(self) -> int:
        return int(self.routed_tokens.shape[0])

    @property
    def sources(self) -> int:
        """AG ranks that have routed tokens of their own; 1 where all are alike."""
        return int(self.routed_tokens.shape[1])

    @property
    def experts(self) -> int:
        return int(self.routed_tokens.shape[2])

    def loads(self, eg: int, groups: int = 1) -> Array:
        """Routed tokens of every EG rank over those under equal loads: [layer, source, eg *
        groups], mean 1.

        With `groups`, the experts of a rank are cut into groups of their own: rank 0's first, then
        rank 1's. Raises InputError for more ranks or groups than experts.
        """
        parts = eg * groups
        if parts > self.experts:
            cut = f" with {groups} groups of experts" if groups > 1 else ""
            raise InputError(f"eg={eg}{cut}: routing {self.label} has only {self.experts} experts")
        starts = expert_bounds(self.experts, eg, groups)[:-1]
        of_parts = np.add.reduceat(self.routed_tokens, starts, axis=2)
        loads: Array = of_parts * parts / self.routed_tokens.sum(axis=2, keepdims=True)
        return loads

    def check_top_k(self, top_k: int, lines: Mapping[_Cell, int] | None = None) -> None:
        """Raise InputError for an expert with more than 1 / `top_k` of the routed tokens of its
        layer: the `top_k` experts of a token differ.

        `lines` are those of a file that the routed tokens stand on.
        """
        shares = self.routed_tokens / self.routed_tokens.sum(axis=2, keepdims=True)
        excessive = np.argwhere(shares * top_k > 1 + _TOLERANCE).tolist()
        if not excessive:
            return
        layer, source, expert = excessive[0]
        line = (lines or {}).get((layer, source, expert))
        place = f"line {line}" if line else f"layer {layer}"
        share = f"expert {expert} gets {shares[layer, source, expert]:.3g} of all rows"
        rule = f"expected at most 1/{top_k}, as the {top_k} experts of a token differ"
        raise InputError(f"{place}: {share}; {rule}")

    def imbalance(self, eg: int) -> Array:
        """Routed tokens of the most loaded EG rank over the mean, layer by layer."""
        of_experts = self.routed_tokens.sum(axis=1)
        of_ranks = np.add.reduceat(of_experts, expert_bounds(self.experts, eg)[:-1], axis=1)
        imbalance: Array = of_ranks.max(axis=1) / of_ranks.mean(axis=1)
        return imbalance


def rank_experts(experts: int, eg: int, rank: int) -> range:
    """The experts of an EG rank: consecutive, as evenly shared as whole experts allow."""
    return range(rank * experts // eg, (rank + 1) * experts // eg)


def expert_bounds(experts: int, eg: int, groups: int = 1) -> NDArray[np.int64]:
    """Where the experts of every EG rank (or of every group of them) begin, and the number of
    experts at the end."""
    starts = []
    for rank in range(eg):
        local = rank_experts(experts, eg, rank)
        starts += [local.start + group * len(local) // groups for group in range(groups)]
    return np.array([*starts, experts], np.int64)


def balanced(experts: int) -> Routing:
    """Every expert gets as many routed tokens; ranks do too where eg divides the experts."""
    return Routing(np.ones((1, 1, experts)), "balanced")


def zipf(
    experts: int, exponent: float, *, top_k: int = 1, layers: int = 1, seed: int = 0
) -> Routing:
    """The x-th most popular expert is x^-exponent as popular as the first; a layer draws which
    expert that is."""
    popularity = np.arange(1, experts + 1) ** -float(exponent)
    shares = _capped(popularity / popularity.sum(), 1 / top_k)
    random = np.random.default_rng(seed)
    drawn = np.stack([random.permutation(shares) for _ in range(layers)])
    return Routing(drawn[:, None, :], f"zipf {exponent:g}")


def power_law(
    experts: int, exponent: float, *, top_k: int, tokens: int, layers: int = 1, seed: int = 0
) -> Routing:
    """Loads drawn from a density x^-exponent between 1 and 0.8 n, for `tokens` (n) tokens of all AG
    ranks.

    Layer t is draw seed + t of the `simdep.hardware.expert_load.DRAWS` that skewed kernels take
    too, so that both mean the same.
    """
    drawn = drawn_loads(tokens, top_k, experts, float(exponent))
    of_layers = drawn[(seed + np.arange(layers)) % DRAWS]
    return Routing(of_layers[:, None, :], f"power law {exponent:g}")


def from_counts(counts: Any, label: str = "given") -> Routing:
    """Routed tokens of every expert: [expert], [layer][expert] or [layer][AG rank][expert].

    Raises InputError for anything else.
    """
    try:
        tokens = np.asarray(counts, dtype=float)
    except (TypeError, ValueError):
        raise InputError("rows are lists of numbers, all of one length") from None
    if tokens.ndim == 1:
        tokens = tokens[None, None, :]
    elif tokens.ndim == 2:
        tokens = tokens[:, None, :]
    return Routing(tokens, label)


def read_routing(path: Path, top_k: int = 1) -> Routing:
    """Routed tokens from a file; what is not listed is 0.

    A .json file holds lists as in `from_counts`, a .csv file the columns expert, rows and, if it
    differs, layer and rank (of the AG), or layer_id, expert_id and count as serving engines have
    them. Raises InputError naming the file, and the row at fault: also for an expert that gets more
    than one of the `top_k` routed tokens of every token.
    """
    if path.suffix == ".json":
        counts = files.read_json(path, ROUTING)
        with files.context(path, ROUTING):
            routing = from_counts(counts, path.name)
            routing.check_top_k(top_k)
            return routing
    table = files.read_csv(path, ROUTING)
    with files.context(path, ROUTING):
        cells = _cells(table)
        routing = from_counts(_grid(cells), path.name)
        routing.check_top_k(top_k, {cell: line for cell, (line, _) in cells.items()})
        return routing


def _grid(cells: Mapping[_Cell, tuple[int, float]]) -> Array:
    shape = [1 + max(indices) for indices in zip(*cells, strict=True)]
    if math.prod(shape) > _MAX_COUNTS:
        raise InputError(f"it has more than {_MAX_COUNTS:,} layers x ranks x experts")
    grid = np.zeros(shape)
    for cell, (_, tokens) in cells.items():
        grid[cell] = tokens
    return grid


def _cells(table: files.CsvTable) -> dict[_Cell, tuple[int, float]]:
    """The line and the routed tokens of every layer, rank and expert of a table."""
    names = _column_names(table)
    cells: dict[_Cell, tuple[int, float]] = {}
    for line, texts in table.records():
        row = dict(zip(names, texts.values(), strict=True))
        try:
            layer, rank, expert = (int(row.get(name, 0)) for name in _COLUMNS[:3])
            tokens = float(row["rows"])
        except ValueError:
            numbers = checks.shown_text(",".join(texts.values()))
            raise InputError(f"line {line}: {numbers}; expected numbers") from None
        checks.number(tokens, f"line {line}: rows")
        for name, index in (("layer", layer), ("rank", rank), ("expert", expert)):
            checks.integer(index, f"line {line}: {name}", 0, _MAX_COUNTS)
        cell = layer, rank, expert
        if cell in cells:
            place = f"layer {layer}, rank {rank}, expert {expert}"
            raise InputError(f"line {line}: {place} is there already, in line {cells[cell][0]}")
        cells[cell] = line, tokens
    if not cells:
        raise InputError("there are no rows")
    return cells


def _column_names(table: files.CsvTable) -> list[str]:
    """The columns of a table by the names that simdep has for them."""
    names = [_ALIASES.get(name, name) for name in table.columns]
    for name in names:
        checks.known(name, _COLUMNS, "column")
    for name in ("expert", "rows"):
        if name not in names:
            expected = "a routing has expert, rows and maybe layer and rank"
            raise InputError(f"column {name} is missing; {expected}")
    duplicate = files.first_duplicate(names)
    if duplicate:
        raise InputError(f"column {duplicate} is there under two names")
    return names


def _capped(shares: Array, limit: float) -> Array:
    """Shares that sum to 1, none above `limit`: what is above goes to the others in proportion."""
    if limit * len(shares) <= 1:
        return np.full_like(shares, 1 / len(shares))
    kept = shares.copy()
    while (kept > limit * (1 + 1e-12)).any():
        full = kept >= limit
        free = np.where(full, 0, kept)
        left = 1 - limit * full.sum()
        kept = np.where(full, limit, free * left / free.sum())
    return kept


def is_file(text: str) -> bool:
    """Whether a text names a file, for `read_routing` to read or to refuse."""
    return Path(text).suffix in (".csv", ".json") or os.path.isfile(text)


def parse_law(text: str, experts: int, *, top_k: int, tokens: int, layers: int) -> Routing:
    """A routing from `balanced`, `zipf:1.2` or `power-law:1.2`, with a seed as in `zipf:1.2:7`.

    `tokens` are those of a chunk of all AG ranks, `layers` those that draw their own popularity.
    Raises InputError for another law, and for an exponent or a seed that is no number >= 0.
    """
    law, *numbers = text.split(":")
    checks.known(law, _LAWS, "routing")
    if law == "balanced" and not numbers:
        return balanced(experts)
    exponent_and_seed = _exponent_and_seed(numbers)
    if law == "balanced" or exponent_and_seed is None:
        forms = "balanced, zipf:EXPONENT[:SEED], power-law:EXPONENT[:SEED], or a .csv or .json file"
        raise InputError(f"routing {shown(text)}; write {forms}")
    exponent, seed = exponent_and_seed
    if law == "zipf":
        return zipf(experts, exponent, top_k=top_k, layers=layers, seed=seed)
    return power_law(experts, exponent, top_k=top_k, tokens=tokens, layers=layers, seed=seed)


def _exponent_and_seed(numbers: list[str]) -> tuple[float, int] | None:
    """The numbers of a law; None if they are not an exponent and maybe a seed, both at least 0."""
    if len(numbers) == 1:
        numbers = [*numbers, "0"]
    try:
        exponent, seed = numbers
        return checks.number(float(exponent), "exponent"), checks.integer(int(seed), "seed", 0)
    except ValueError:
        return None
