"""Routing: how many rows every expert gets, and so what every EG rank has to do. Experts are placed
contiguously.

EG rank g of eg holds the experts from g E // eg up to (g + 1) E // eg: as many on each as whole
experts allow. Rows are relative: only their proportions count. "Power law" has two meanings, and
each has its own name:

- `zipf(experts, s)`: the popularity of the x-th most popular expert is x^-s, which expert that is is drawn by a seed;
- `power_law(experts, s)`: the loads themselves are drawn from a density x^-s, as the tables of measured MoE kernels
  have it (`simdep.hardware.expert_load`), a draw a layer.

An expert gets a token at most once. So under either, what would be more than 1 / top_k of all rows
goes to the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdep import checks, files
from simdep.checks import InputError
from simdep.file_kinds import ROUTING
from simdep.hardware.expert_load import DRAWS, drawn_loads

Array = NDArray[np.float64]
Cell = tuple[int, int, int]  # layer, AG rank, expert
MAX_COUNTS = 10_000_000  # layers times ranks times experts
TOLERANCE = 1e-6  # of shares, for rounding
_COLUMNS = ("layer", "rank", "expert", "rows")
_ALIASES = {"layer_id": "layer", "rank_id": "rank", "expert_id": "expert", "count": "rows"}


@dataclass(frozen=True, eq=False)
class Routing:
    """`rows[layer, source, expert]`; an axis of length 1 stands for every layer, or for every AG
    rank.

    Layers count from 0 among those with experts and repeat where a schedule has more of them.
    Raises ValueError for rows that are negative or not finite, and for a layer and source without
    any.
    """

    rows: Array
    label: str

    def __post_init__(self) -> None:
        if self.rows.ndim != 3 or not self.rows.size:
            raise ValueError(
                f"routing {self.label}: rows of shape {self.rows.shape}; they are [layer, source, expert]"
            )
        if not np.isfinite(self.rows).all() or (self.rows < 0).any():
            raise ValueError(f"routing {self.label}: a number of rows is finite and at least 0")
        if empty := np.argwhere(self.rows.sum(axis=2) == 0).tolist():
            raise ValueError(
                f"routing {self.label}: layer {empty[0][0]} has no rows for any expert"
            )

    @property
    def layers(self) -> int:
        return int(self.rows.shape[0])

    @property
    def sources(self) -> int:
        """AG ranks that have rows of their own; 1 where all are alike."""
        return int(self.rows.shape[1])

    @property
    def experts(self) -> int:
        return int(self.rows.shape[2])

    def loads(self, eg: int, groups: int = 1) -> Array:
        """Rows that go to every EG rank over what it gets under equal loads: [layer, source, eg *
        groups], mean 1.

        With `groups`, the experts of a rank are cut into groups of their own: rank 0's first, then
        rank 1's. Raises ValueError for more ranks or groups than experts.
        """
        parts = eg * groups
        if parts > self.experts:
            what = f"eg={eg}" if groups == 1 else f"eg={eg} with {groups} groups of experts"
            raise ValueError(f"{what}: routing {self.label} has only {self.experts} experts")
        sums = np.add.reduceat(self.rows, bounds(self.experts, eg, groups)[:-1], axis=2)
        found: Array = sums * parts / self.rows.sum(axis=2, keepdims=True)
        return found

    def touched(self, eg: int, tokens: float, top_k: int) -> Array:
        """Expected experts of every EG rank that get any of `tokens` tokens, of all sources alike:
        [layer, eg].

        An expert with the share p of all rows gets a token with probability k p: it stays idle with
        (1 - k p)^n.
        """
        rows = self.rows.sum(axis=1)
        chance = np.minimum(1, top_k * rows / rows.sum(axis=1, keepdims=True))
        found: Array = np.add.reduceat(
            1 - (1 - chance) ** tokens, bounds(self.experts, eg)[:-1], axis=1
        )
        return found

    def check_top_k(self, top_k: int, lines: Mapping[Cell, int] | None = None) -> None:
        """Raise InputError for an expert with more than 1 / `top_k` of the rows of its layer: the
        `top_k` experts of a token differ.

        `lines` are those of a file that the rows stand on.
        """
        shares = self.rows / self.rows.sum(axis=2, keepdims=True)
        for at in np.argwhere(shares * top_k > 1 + TOLERANCE).tolist():
            layer, source, expert = at
            line = (lines or {}).get((layer, source, expert))
            place = f"line {line}" if line else f"layer {layer}"
            share = f"expert {expert} gets {shares[layer, source, expert]:.3g} of all rows"
            rule = f"expected at most 1/{top_k}, as the {top_k} experts of a token differ"
            raise InputError(f"{place}: {share}; {rule}")

    def imbalance(self, eg: int) -> Array:
        """Rows of the most loaded EG rank over the mean, layer by layer."""
        sums = np.add.reduceat(self.rows.sum(axis=1), bounds(self.experts, eg)[:-1], axis=1)
        found: Array = sums.max(axis=1) / sums.mean(axis=1)
        return found


def bounds(experts: int, eg: int, groups: int = 1) -> NDArray[np.int64]:
    """Where the experts of every EG rank (or of every group of them) begin, and the number of
    experts at the end."""
    ranks = np.arange(eg + 1) * experts // eg
    inner = [low + np.arange(groups) * (high - low) // groups for low, high in pairwise(ranks)]
    return np.append(np.concatenate(inner), experts)


def balanced(experts: int) -> Routing:
    """Every expert gets as many rows; ranks do too where eg divides the experts."""
    return Routing(np.ones((1, 1, experts)), "balanced")


def zipf(
    experts: int, exponent: float, *, top_k: int = 1, layers: int = 1, seed: int = 0
) -> Routing:
    """The x-th most popular expert is x^-exponent as popular as the first; a layer draws which
    expert that is."""
    popularity = np.arange(1, experts + 1) ** -float(exponent)
    shares = _capped(popularity[None, :] / popularity.sum(), 1 / top_k)[0]
    random = np.random.default_rng(seed)
    rows = np.stack([random.permutation(shares) for _ in range(layers)])
    return Routing(rows[:, None, :], f"zipf {exponent:g}")


def power_law(
    experts: int, exponent: float, *, top_k: int, tokens: int, layers: int = 1, seed: int = 0
) -> Routing:
    """Loads drawn from a density x^-exponent between 1 and 0.8 n, for `tokens` (n) tokens of all AG
    ranks.

    Layer t is draw seed + t of the `simdep.hardware.expert_load.DRAWS` that also price skewed
    kernels, so that both mean the same.
    """
    drawn = drawn_loads(tokens, top_k, experts, float(exponent))
    rows = drawn[(seed + np.arange(layers)) % DRAWS]
    return Routing(rows[:, None, :], f"power law {exponent:g}")


def given(counts: Any, label: str = "given") -> Routing:
    """Rows of every expert: [expert], [layer][expert] or [layer][AG rank][expert]."""
    try:
        rows = np.asarray(counts, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"routing {label}: rows are lists of numbers, all of one length") from None
    if rows.ndim == 2:
        rows = rows[:, None, :]
    return Routing(rows[None, None, :] if rows.ndim == 1 else rows, label)


def load(path: Path, top_k: int = 1) -> Routing:
    """Counts from a file; what is not listed is 0.

    A .json file holds lists as in `given`, a .csv file the columns expert, rows and, if it differs,
    layer and rank (of the AG), or layer_id, expert_id and count as serving engines have them.
    Raises InputError naming the file, and the row at fault: also for an expert that gets more than
    one of the `top_k` rows of every token.
    """
    if path.suffix == ".json":
        counts = files.read_json(path, ROUTING)
        with files.context(path, ROUTING):
            routing = given(counts, path.name)
            routing.check_top_k(top_k)
            return routing
    table = files.read_csv(path, ROUTING)
    with files.context(path, ROUTING):
        cells = _cells(table)
        shape = [1 + max(at[axis] for at in cells) for axis in range(3)]
        if math.prod(shape) > MAX_COUNTS:
            raise InputError(f"it has more than {MAX_COUNTS:,} layers x ranks x experts")
        grid = np.zeros(shape)
        for at, (_, rows) in cells.items():
            grid[at] = rows
        routing = given(grid, path.name)
        routing.check_top_k(top_k, {at: line for at, (line, _) in cells.items()})
        return routing


def _cells(table: files.CsvTable) -> dict[Cell, tuple[int, float]]:
    """The line and the rows of every layer, rank and expert of a table."""
    names = [_ALIASES.get(name, name) for name in table.columns]
    for name in names:
        checks.known(name, _COLUMNS, "column")
    for name in ("expert", "rows"):
        if name not in names:
            expected = "a routing has expert, rows and maybe layer and rank"
            raise InputError(f"column {name} is missing; {expected}")
    if twice := files.first_duplicate(names):
        raise InputError(f"column {twice} is there under two names")
    cells: dict[Cell, tuple[int, float]] = {}
    for line, texts in table.records():
        row = dict(zip(names, texts.values(), strict=True))
        try:
            layer, rank, expert = (int(row.get(name, 0)) for name in _COLUMNS[:3])
            rows = float(row["rows"])
        except ValueError:
            shown = checks.shown_text(",".join(texts.values()))
            raise InputError(f"line {line}: {shown}; expected numbers") from None
        for name, index in (("layer", layer), ("rank", rank), ("expert", expert)):
            checks.integer(index, f"line {line}: {name}", 0, MAX_COUNTS)
        at = layer, rank, expert
        if at in cells:
            place = f"layer {layer}, rank {rank}, expert {expert}"
            raise InputError(f"line {line}: {place} is there already, in line {cells[at][0]}")
        cells[at] = line, rows
    if not cells:
        raise InputError("there are no rows")
    return cells


def _capped(shares: Array, most: float) -> Array:
    """Shares [layer, expert] that sum to 1, none above `most`: what is above goes to the others in
    proportion."""
    if most * shares.shape[1] <= 1:
        return np.full_like(shares, 1 / shares.shape[1])
    kept = shares.copy()
    while (kept > most * (1 + 1e-12)).any():
        full = kept >= most
        free = np.where(full, 0, kept)
        left = 1 - most * full.sum(axis=1, keepdims=True)
        kept = np.where(full, most, free * left / free.sum(axis=1, keepdims=True))
    return kept


def is_file(text: str) -> bool:
    """Whether a text names a file that `load` reads."""
    return Path(text).suffix in (".csv", ".json")


def parse(text: str, experts: int, *, top_k: int, tokens: int, layers: int) -> Routing:
    """A routing from `balanced`, `zipf:1.2` or `power-law:1.2`, with a seed as in `zipf:1.2:7`.

    `tokens` are those of a chunk of all AG ranks, `layers` those that draw their own popularity.
    Raises ValueError for another word, and for an exponent or a seed that is no number of at least
    0.
    """
    word, *numbers = text.split(":")
    checks.known(word, ("balanced", "zipf", "power-law"), "routing")
    if word == "balanced" and not numbers:
        return balanced(experts)
    try:
        exponent, seed = float(numbers[0]), int(numbers[1]) if numbers[1:] else 0
        checks.number(exponent, "exponent")
        checks.integer(seed, "seed", 0)
    except (ValueError, IndexError):
        numbers = []
    if word == "balanced" or len(numbers) not in (1, 2):
        form = "write balanced, zipf:EXPONENT[:SEED], power-law:EXPONENT[:SEED], or a .csv or .json file"
        raise ValueError(f"routing {text!r}; {form}")
    if word == "zipf":
        return zipf(experts, exponent, top_k=top_k, layers=layers, seed=seed)
    return power_law(experts, exponent, top_k=top_k, tokens=tokens, layers=layers, seed=seed)
