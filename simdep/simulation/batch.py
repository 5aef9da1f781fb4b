"""Fast path: the makespans of many configurations at once, equal to those of the engine on the
paper's model.

The configurations of a `StageTable` share r1, the AG's order of a layer and the number of layers.
Chunks of a run pass A2E, E and E2A by closed forms, so that a layer takes a few dozen vector
operations however many chunks there are.

Layers repeat: the next state is the largest of sums of this state and stage times (max-plus
linear). Once every component has grown by the same amount in one layer it does so in all that
follow, so that most configurations are finished by one multiplication after two layers; the others
by a power of the layer's matrix. Whole numbers stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from simdep.arrays import Array
from simdep.costs import IDEAL, HostOverheads
from simdep.schedule import Kind, Step
from simdep.simulation.stage_table import StageTable

CACHED_CONFIGURATIONS = (
    8192  # configurations that are worked on at once: their states stay in a cache
)
# Configurations for which, and layers after which, growth is not waited for to repeat
FEW, PATIENCE = 64, 3
# Roundings of a double by which the growth of components may differ and still count as the same
SAME = 8


def batch_makespans(
    batch: StageTable,
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
        _layers(batch[at : at + CACHED_CONFIGURATIONS], layers, steps, r1, wait_for_shared)
        for at in range(0, len(batch), CACHED_CONFIGURATIONS)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _with_shared_in_attention(batch: StageTable) -> StageTable:
    return replace(
        batch, attention=batch.attention + batch.shared, shared=np.zeros_like(batch.shared)
    )


def _asas(batch: StageTable, layers: int, r1: int) -> Array:
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
    batch: StageTable, layers: int, steps: Sequence[Step], r1: int, wait_for_shared: bool
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
    batch: StageTable,
    layer: int,
    times: int,
    state: Array,
    steps: Sequence[Step],
    wait_for_shared: bool,
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
    batch: StageTable, layer: int, state: Array, steps: Sequence[Step], wait_for_shared: bool
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
    batch: StageTable, sent: Array, a2e: Array, eg: Array, e2a: Array
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
