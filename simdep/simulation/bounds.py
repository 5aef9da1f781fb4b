"""Lower bounds on the makespan of any schedule of a cut: whatever the order of the streams, none is
faster.

Each bound is the load of one stream with the least that has to come before it (head) and after it
(tail), or the longest chain of dependencies. A micro-batch needs G in a layer, from the start of
its attention to its last E2A, and at least H = max(G, attention + shared) before its next layer. So
no task of the last layer starts before the H of all layers before it, and each of these bounds
holds twice: for all layers from 0 on, and for the last one from then on.

    AG     all attention and shared experts; or all but the shared experts of the last layer, and then G - attention,
           since only those need not precede the last attention
    A2E    attention, all A2E, the shortest E and E2A; EG and E2A likewise
    chain  the H of all layers
"""

from __future__ import annotations

import numpy as np

from simdep.simulation.batch import Array, Batch


def makespan_bounds(batch: Batch, layers: int, r1: int) -> Array:
    """A lower bound for every configuration of a batch [n], in its unit of time."""
    attention = batch.attention  # [layers, n], or [1, n] for layers that are alike
    loads, others = _chunks(batch)
    transfers = np.maximum.reduce([load + other for load, other in zip(loads, others, strict=True)])
    chain = attention + np.maximum(transfers, batch.shared)
    before = (layers - 1) * chain[0] if len(chain) == 1 else chain[:-1].sum(axis=0)
    total = layers * attention[0] if len(attention) == 1 else attention.sum(axis=0)

    def of_layers(count: int, first: Array, total: Array) -> Array:
        """What `count` layers take, the first of which may begin at 0."""
        shared = r1 * batch.shared
        ag = r1 * total + np.maximum(count * shared, (count - 1) * shared + transfers)
        streams = [count * r1 * load + other for load, other in zip(loads, others, strict=True)]
        found: Array = np.maximum(ag, first + np.maximum.reduce(streams))
        return found

    last = before + np.maximum(of_layers(1, attention[-1], attention[-1]), chain[-1])
    found: Array = np.maximum(of_layers(layers, attention[0], total), last)
    return found


def _chunks(batch: Batch) -> tuple[list[Array], list[Array]]:
    """Of A2E, E and E2A: what all chunks of a micro-batch take, and the shortest chunk of the two
    others.

    Together, the least time from the end of an attention to its last E2A: a stage takes all chunks,
    one by one.
    """
    stages = (batch.a2e, batch.expert, batch.e2a)
    if len(batch.counts) == 1:
        shortest = [stage[0] for stage in stages]
        loads = [batch.counts[0] * stage[0] for stage in stages]
    else:
        none = batch.counts == 0
        shortest = [np.where(none, np.inf, stage).min(axis=0) for stage in stages]
        loads = [(batch.counts * stage).sum(axis=0) for stage in stages]
    a2e, expert, e2a = shortest
    return loads, [expert + e2a, a2e + e2a, a2e + expert]
