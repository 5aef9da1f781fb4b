"""Stage times of many pipeline configurations, in columns: what every fast evaluator works on.

A pipeline configuration is the granularity of the work of an AG GPU: r1 equal micro-batches of m_a
samples, each in runs of equal chunks. Its stage times are those of one micro-batch, so that r1 is
not part of them. Microseconds; whole numbers stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simdep.arrays import Array
from simdep.costs import StageTimes

ColumnIndex = slice | NDArray[np.bool_] | NDArray[np.intp]
# Where a run has chunks (None: everywhere), then for A2E, EG and E2A: one chunk, all chunks
ChunkRun = tuple[NDArray[np.bool_] | None, Array, Array, Array, Array, Array, Array]


@dataclass(frozen=True)
class StageTable:
    """Stage times of n configurations: `attention` [layers, n], or [1, n] for layers that are
    alike, `shared` [n]; `counts`, `a2e`, `expert` and `e2a` [runs, n].

    A micro-batch has runs, in this order, of `counts` equal chunks each; a run may be empty. Where
    the EG computes the shared experts, they are part of the expert of a last run of one chunk, and
    `shared` is 0.
    """

    attention: Array
    shared: Array
    counts: Array
    a2e: Array
    expert: Array
    e2a: Array

    @classmethod
    def of(cls, times: Sequence[StageTimes], r2: Sequence[int]) -> StageTable:
        """Configurations of r2 equal chunks in layers that are alike."""
        stages = [(t.attention, t.shared, t.a2e, t.expert, t.e2a) for t in times]
        attention, shared, a2e, expert, e2a = np.array(stages, float).reshape(-1, 5).T
        counts = np.array([r2], float)
        return cls(attention[None], shared, counts, a2e[None], expert[None], e2a[None])

    @classmethod
    def concatenated(cls, tables: Sequence[StageTable]) -> StageTable:
        """The configurations of several tables of as many layers, one after the other."""
        if len(tables) == 1:
            return tables[0]
        layers = max(len(table.attention) for table in tables)
        runs = max(len(table.counts) for table in tables)
        attention = [np.broadcast_to(t.attention, (layers, len(t))) for t in tables]
        chunks = {
            name: np.concatenate([_padded(getattr(t, name), runs) for t in tables], axis=1)
            for name in ("counts", "a2e", "expert", "e2a")
        }
        shared = np.concatenate([t.shared for t in tables])
        return cls(np.concatenate(attention, axis=1), shared, **chunks)

    def __len__(self) -> int:
        return len(self.shared)

    def __getitem__(self, columns: ColumnIndex) -> StageTable:
        return StageTable(*(getattr(self, f.name)[..., columns] for f in fields(self)))

    @property
    def trimmed(self) -> StageTable:
        """Without the runs that are empty in every configuration."""
        used = self.counts.any(axis=1)
        if used.all():
            return self
        chunks = (self.counts[used], self.a2e[used], self.expert[used], self.e2a[used])
        return StageTable(self.attention, self.shared, *chunks)

    def repeated(self, times: int) -> StageTable:
        """All configurations, `times` times over."""
        return StageTable(*(np.tile(getattr(self, f.name), times) for f in fields(self)))

    @cached_property
    def runs(self) -> list[ChunkRun]:
        """Of every run: where it has chunks, and the time of one and of all of them by stage."""
        runs: list[ChunkRun] = []
        for n, a2e, expert, e2a in zip(self.counts, self.a2e, self.expert, self.e2a, strict=True):
            used = None if n.all() else n > 0
            runs.append((used, a2e, n * a2e, expert, n * expert, e2a, n * e2a))
        return runs


def _padded(rows: Array, runs: int) -> Array:
    """Rows of few runs [few, n] as [runs, n], with empty runs at the end."""
    missing = runs - len(rows)
    return np.concatenate([rows, np.zeros((missing, rows.shape[1]))]) if missing else rows
