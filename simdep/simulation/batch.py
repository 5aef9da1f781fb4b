"""Fast path: the makespans of many configurations at once, equal to those of the engine on the
paper's model.

A configuration is one cut of the work: stage times of r1 equal micro-batches, each in runs of equal
chunks. A `Batch` holds many that share r1, the AG's order of a layer and the number of layers;
arrays have the configurations as their last axis. Chunks of a run pass A2E, E and E2A by closed
forms, so that a layer takes a few dozen vector operations however finely it is cut.

Layers repeat: the next state is the largest of sums of this state and stage times (max-plus
linear). Once every component has grown by the same amount in one layer it does so in all that
follow, so that most configurations are finished by one multiplication after two layers; the others
by a power of the layer's matrix. Whole numbers stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simdep.costs import IDEAL, HostOverheads, StageTimes
from simdep.schedule import Kind, Step

Array = NDArray[np.float64]
BLOCK = 8192  # configurations that are worked on at once: their states stay in a cache
FEW, PATIENCE = (
    64,
    3,
)  # configurations for which, and layers after which, growth is not waited for to repeat
SAME = 8  # roundings of a double, by which the growth of components may differ and still count as the same


@dataclass(frozen=True)
class Batch:
    """Stage times in microseconds: `attention` [layers, n], or [1, n] for layers that are alike,
    `shared` [n]; `counts`, `a2e`, `expert` and `e2a` [runs, n].

    A micro-batch is cut into runs, in this order, of `counts` equal chunks each; a run may be
    empty. Where the EG computes the shared experts, they are part of the expert of a last run of
    one chunk, and `shared` is 0.
    """

    attention: Array
    shared: Array
    counts: Array
    a2e: Array
    expert: Array
    e2a: Array

    @classmethod
    def of(cls, times: Sequence[StageTimes], r2: Sequence[int]) -> Batch:
        """Configurations of r2 equal chunks."""
        rows = (
            np.array([(t.attention, t.shared, t.a2e, t.expert, t.e2a) for t in times], float)
            .reshape(-1, 5)
            .T
        )
        return cls(rows[0:1], rows[1], np.array([r2], float), rows[2:3], rows[3:4], rows[4:5])

    def __len__(self) -> int:
        return len(self.shared)

    def repeated(self, times: int) -> Batch:
        """All configurations, `times` times over."""
        return Batch(*(np.tile(getattr(self, name), times) for name in self.__dataclass_fields__))

    def __getitem__(self, where: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Batch:
        return Batch(*(getattr(self, name)[..., where] for name in self.__dataclass_fields__))

    @cached_property
    def runs(
        self,
    ) -> list[tuple[NDArray[np.bool_] | None, Array, Array, Array, Array, Array, Array]]:
        """Of every run: where it has chunks (None: everywhere), and the time of one and of all of
        them by stage."""
        return [
            (None if n.all() else n > 0, a2e, n * a2e, expert, n * expert, e2a, n * e2a)
            for n, a2e, expert, e2a in zip(
                self.counts, self.a2e, self.expert, self.e2a, strict=True
            )
        ]


def batch_makespans(
    batch: Batch,
    layers: int,
    steps: Sequence[Step],
    *,
    wait_for_shared: bool = False,
    host: HostOverheads = IDEAL,
) -> Array:
    """Makespan of every configuration [n] when the AG does `steps` in each layer (see
    `simdep.policies.parse_order`).

    `wait_for_shared`: A2E waits for the shared experts, as in naive DEP and PPPipe. Raises
    ValueError for a host with any term in use.
    """
    host.refuse("the fast path")
    r1 = 1 + max(mb for _, mb in steps)
    if list(steps) == [(kind, mb) for mb in range(r1) for kind in (Kind.ATTENTION, Kind.SHARED)]:
        if wait_for_shared:
            batch, wait_for_shared = _with_shared_in_attention(batch), False
        if len(batch.counts) == 1 and len(batch.attention) == 1:
            return _asas(batch, layers, r1)
    parts = [
        _layers(batch[at : at + BLOCK], layers, steps, r1, wait_for_shared)
        for at in range(0, len(batch), BLOCK)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _with_shared_in_attention(batch: Batch) -> Batch:
    return replace(
        batch, attention=batch.attention + batch.shared, shared=np.zeros_like(batch.shared)
    )


def _asas(batch: Batch, layers: int, r1: int) -> Array:
    """`simdep.simulation.closed_form.asas`, exact for equal chunks."""
    n, a2e, expert, e2a = (part[0] for part in (batch.counts, batch.a2e, batch.expert, batch.e2a))
    slowest = np.maximum(np.maximum(a2e, expert), e2a)
    work = batch.attention[0] + batch.shared
    longest = np.maximum(work, n * slowest)
    through = batch.attention[0] + a2e + expert + e2a + (n - 1) * slowest
    found: Array = (
        (layers - 1) * np.maximum(through, r1 * longest)
        + np.maximum(work, through)
        + (r1 - 1) * longest
    )
    return found


def _layers(
    batch: Batch, layers: int, steps: Sequence[Step], r1: int, wait_for_shared: bool
) -> Array:
    """Layer by layer until growth repeats, then at once.

    Rows of a state [4 + r1, n] are when AG, A2E, EG and E2A are free, then when each micro-batch is
    back.
    """
    found, left = np.empty(len(batch)), np.arange(len(batch))
    # Layers to come are alike from where their attention is
    differ = (batch.attention != batch.attention[-1]).any(axis=1)
    alike = len(differ) - int(differ[::-1].argmax()) if differ.any() else 0
    state = np.zeros((4 + r1, len(batch)))
    for layer in range(layers):
        if alike <= layer and (len(left) <= FEW or layer >= alike + PATIENCE):
            powered = _powered(batch, layer, layers - layer, state, steps, wait_for_shared)
            found[left] = np.maximum(powered[0], powered[3])
            return found
        before, state = state, _layer(batch, layer, state, steps, wait_for_shared)
        if layer < alike:
            continue
        grown = state - before
        least = grown.min(axis=0)
        done = grown.max(axis=0) - least <= SAME * np.spacing(state.max(axis=0))
        if done.any():
            found[left[done]] = (
                np.maximum(state[0, done], state[3, done]) + (layers - 1 - layer) * least[done]
            )
            left, batch, state = left[~done], batch[~done], state[:, ~done]
    found[left] = np.maximum(state[0], state[3])
    return found


def _powered(
    batch: Batch, layer: int, times: int, state: Array, steps: Sequence[Step], wait_for_shared: bool
) -> Array:
    """The state after the same layer `times` times over: a power of its max-plus matrix, by
    squaring.

    The layer's matrix [to, from, n] holds what it makes of states that are 0 in one row and minus
    infinity elsewhere.
    """
    rows, n = state.shape
    units = np.where(np.eye(rows, dtype=bool), 0.0, -np.inf).repeat(n, axis=1)
    matrix = _layer(batch.repeated(rows), layer, units, steps, wait_for_shared).reshape(
        rows, rows, n
    )
    while True:
        if times % 2:
            state = (matrix + state).max(axis=1)
        times //= 2
        if not times:
            return state
        matrix = np.stack([(row[:, None] + matrix).max(axis=0) for row in matrix])


def _layer(
    batch: Batch, layer: int, state: Array, steps: Sequence[Step], wait_for_shared: bool
) -> Array:
    ag, a2e, eg, e2a = state[:4]
    back = list(state[4:])
    attention = batch.attention[min(layer, len(batch.attention) - 1)]
    sends = Kind.SHARED if wait_for_shared else Kind.ATTENTION
    for kind, mb in steps:
        if kind is Kind.ATTENTION:
            ag = np.maximum(ag, back[mb]) + attention
            back[mb] = ag
        else:
            ag = ag + batch.shared
            back[mb] = np.maximum(back[mb], ag)
        if kind is sends:
            a2e, eg, e2a = _chunks(batch, ag, a2e, eg, e2a)
            back[mb] = np.maximum(back[mb], e2a)
    return np.stack([ag, a2e, eg, e2a, *back])


def _chunks(
    batch: Batch, sent: Array, a2e: Array, eg: Array, e2a: Array
) -> tuple[Array, Array, Array]:
    """When A2E, EG and E2A are free after the chunks of a micro-batch that is ready at `sent`.

    In a run of n equal chunks the j-th E ends at the latest of three sums: j E since the stream was
    free, the first A2E and j E, j A2E and one E. Each is linear in j, so only the first and the
    last E can decide when E2A is done.
    """
    for some, out, all_out, work, all_work, home, all_home in batch.runs:
        start = np.maximum(sent, a2e)
        begun = np.maximum(eg, start + out)  # the first E
        sent_all = start + all_out
        last = np.maximum(begun + all_work, sent_all + work)
        ends = np.maximum(np.maximum(e2a, begun + work) + all_home, last + home)
        if some is None:
            a2e, eg, e2a = sent_all, last, ends
        else:
            a2e, eg, e2a = (
                np.where(some, sent_all, a2e),
                np.where(some, last, eg),
                np.where(some, ends, e2a),
            )
    return a2e, eg, e2a
