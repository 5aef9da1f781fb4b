"""Fast path: the makespans of many configurations at once, equal to those of the engine on the paper's model.

A configuration is one cut of the work: stage times of r1 equal micro-batches, each in runs of equal chunks. A `Batch`
holds many that share r1, the AG's order of a layer and the number of layers; arrays have the configurations as their
last axis. Chunks of a run pass A2E, E and E2A by closed forms, so that a layer takes a few dozen vector operations
however finely it is cut.

Layers repeat: the next state is the largest of sums of this state and stage times (max-plus linear). Once every
component has grown by the same amount in one layer it does so in all that follow; such configurations are finished by
one multiplication, the others go on layer by layer. Whole numbers stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simdep.costs import IDEAL, Host, StageTimes
from simdep.schedule import Kind

Array = NDArray[np.float64]
Step = tuple[Kind, int]  # (attention or shared, micro-batch) of the AG's order of a layer
BLOCK = 32768  # configurations that are worked on at once, in a few MB
MOST_PERIOD = 4  # layers after which growth is looked for to repeat
SAME = 8  # roundings of a double, by which the growth of components may differ and still count as the same


@dataclass(frozen=True)
class Batch:
    """Stage times in microseconds: `attention` [layers, n], or [1, n] for layers that are alike, `shared` [n];
    `counts`, `a2e`, `expert` and `e2a` [runs, n].

    A micro-batch is cut into runs, in this order, of `counts` equal chunks each; a run may be empty.
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
        rows = np.array([(t.attention, t.shared, t.a2e, t.expert, t.e2a) for t in times], float).reshape(-1, 5).T
        return cls(rows[0:1], rows[1], np.array([r2], float), rows[2:3], rows[3:4], rows[4:5])

    def __len__(self) -> int:
        return len(self.shared)

    def __getitem__(self, where: slice | NDArray[np.bool_]) -> Batch:
        return Batch(*(getattr(self, name)[..., where] for name in self.__dataclass_fields__))


def makespans(
    batch: Batch, layers: int, steps: Sequence[Step], *, wait_for_shared: bool = False, host: Host = IDEAL
) -> Array:
    """Makespan of every configuration [n] when the AG does `steps` in each layer (see `simdep.policies.parse_order`).

    `wait_for_shared`: A2E waits for the shared experts, as in naive DEP and PPPipe. Raises ValueError for a host with
    any term in use.
    """
    host.refuse("the fast path")
    r1 = 1 + max(mb for _, mb in steps)
    if list(steps) == [(kind, mb) for mb in range(r1) for kind in (Kind.ATTENTION, Kind.SHARED)]:
        if wait_for_shared:
            batch = replace(batch, attention=batch.attention + batch.shared, shared=np.zeros_like(batch.shared))
        if len(batch.counts) == 1 and len(batch.attention) == 1:
            return _asas(batch, layers, r1)
    parts = [_layers(batch[at : at + BLOCK], layers, steps, r1, wait_for_shared) for at in range(0, len(batch), BLOCK)]
    return np.concatenate(parts) if parts else np.empty(0)


def _asas(batch: Batch, layers: int, r1: int) -> Array:
    """`simdep.analytic.asas`, exact for equal chunks."""
    n, a2e, expert, e2a = (part[0] for part in (batch.counts, batch.a2e, batch.expert, batch.e2a))
    slowest = np.maximum(np.maximum(a2e, expert), e2a)
    work = batch.attention[0] + batch.shared
    longest = np.maximum(work, n * slowest)
    through = batch.attention[0] + a2e + expert + e2a + (n - 1) * slowest
    found: Array = (layers - 1) * np.maximum(through, r1 * longest) + np.maximum(work, through) + (r1 - 1) * longest
    return found


def _layers(batch: Batch, layers: int, steps: Sequence[Step], r1: int, wait_for_shared: bool) -> Array:
    """Layer by layer; rows of a state are when AG, A2E, EG and E2A are free, then when each micro-batch is back."""
    found, left = np.empty(len(batch)), np.arange(len(batch))
    # Growth of layers tells that of those to come where their attention is alike
    differ = (batch.attention != batch.attention[-1]).any(axis=1)
    alike = len(differ) - int(differ[::-1].argmax()) if differ.any() else 0
    states = [np.zeros((4 + r1, len(batch)))]
    for layer in range(1, layers + 1):
        states = [*states[-MOST_PERIOD:], _layer(batch, layer - 1, states[-1], steps, wait_for_shared)]
        for period in range(1, 2 if layer == layers else min(MOST_PERIOD, layer - alike) + 1):
            if (layers - layer) % period:
                continue
            grown = states[-1] - states[-1 - period]
            least = grown.min(axis=0)
            done = grown.max(axis=0) - least <= SAME * np.spacing(states[-1].max(axis=0))
            if layer == layers:
                done[:] = True
            if done.any():
                ends = np.maximum(states[-1][0, done], states[-1][3, done])
                found[left[done]] = ends + (layers - layer) // period * least[done]
                left, batch = left[~done], batch[~done]
                states = [state[:, ~done] for state in states]
            if not len(left):
                return found
    return found


def _layer(batch: Batch, layer: int, state: Array, steps: Sequence[Step], wait_for_shared: bool) -> Array:
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


def _chunks(batch: Batch, sent: Array, a2e: Array, eg: Array, e2a: Array) -> tuple[Array, Array, Array]:
    """When A2E, EG and E2A are free after the chunks of a micro-batch that is ready at `sent`.

    In a run of n equal chunks the j-th E ends at the latest of three sums: j E since the stream was free, the first
    A2E and j E, j A2E and one E. Each is linear in j, so only the first and the last E can decide when E2A is done.
    """
    for n, out, work, home in zip(batch.counts, batch.a2e, batch.expert, batch.e2a, strict=True):
        start = np.maximum(sent, a2e)
        first = np.maximum(eg, start + out) + work
        last = np.maximum(np.maximum(eg, start + out) + n * work, start + n * out + work)
        ends = np.maximum(np.maximum(e2a, first) + n * home, last + home)
        if n.all():
            a2e, eg, e2a = start + n * out, last, ends
        else:
            some = n > 0
            a2e = np.where(some, start + n * out, a2e)
            eg, e2a = np.where(some, last, eg), np.where(some, ends, e2a)
    return a2e, eg, e2a
