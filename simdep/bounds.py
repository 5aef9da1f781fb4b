"""Lower bounds on the makespan of any schedule of a cut: whatever the order of the streams, none is faster.

Each bound is the load of one stream with the least that has to come before it (head) and after it (tail), or the
longest chain of dependencies. A micro-batch needs G in a layer, from the start of its attention to its last E2A, and at
least H = max(G, attention + shared) before its next layer. So no task of the last layer starts before the H of all
layers before it, and each of these bounds holds twice: for all layers from 0 on, and for the last one from then on.

    AG     all attention and shared experts; or all but the shared experts of the last layer, and then G - attention,
           since only those need not precede the last attention
    A2E    attention, all A2E, the shortest E and E2A; EG and E2A likewise
    chain  the H of all layers
"""

from __future__ import annotations

import numpy as np

from simdep.fastpath import Array, Batch


def makespans(batch: Batch, layers: int, r1: int) -> Array:
    """A lower bound for every configuration of a batch [n], in its unit of time."""
    attention = np.broadcast_to(batch.attention, (layers, len(batch)))
    transfers = _through(batch)
    chain = np.maximum(attention + transfers, attention + batch.shared)
    before = chain[:-1].sum(axis=0)
    last = _of_layers(batch, attention[-1:], transfers, r1)
    bounds = (_of_layers(batch, attention, transfers, r1), before + last, before + chain[-1])
    found: Array = np.max(np.stack(bounds), axis=0)
    return found


def _of_layers(batch: Batch, attention: Array, transfers: Array, r1: int) -> Array:
    """What some layers take, the first of which may begin at 0."""
    layers, total = len(attention), r1 * attention.sum(axis=0)
    shared = r1 * batch.shared
    bounds = [total + layers * shared, total + (layers - 1) * shared + transfers]
    stages = (batch.a2e, batch.expert, batch.e2a)
    shortest = [_shortest(batch, stage) for stage in stages]
    for at, stage in enumerate(stages):
        load = layers * r1 * (batch.counts * stage).sum(axis=0)
        others = sum(shortest[:at] + shortest[at + 1 :], np.zeros(len(batch)))
        bounds.append(attention[0] + load + others)
    found: Array = np.max(np.stack(bounds), axis=0)
    return found


def _through(batch: Batch) -> Array:
    """The least time from the end of an attention to its last E2A: every stage takes all chunks, one by one."""
    stages = (batch.a2e, batch.expert, batch.e2a)
    shortest = [_shortest(batch, stage) for stage in stages]
    loads = [(batch.counts * stage).sum(axis=0) for stage in stages]
    bounds = [loads[at] + sum(shortest[:at] + shortest[at + 1 :], np.zeros(len(batch))) for at in range(len(stages))]
    found: Array = np.max(np.stack(bounds), axis=0)
    return found


def _shortest(batch: Batch, stage: Array) -> Array:
    """The shortest chunk of every configuration."""
    found: Array = np.where(batch.counts > 0, stage, np.inf).min(axis=0)
    return found
