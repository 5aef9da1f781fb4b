"""Micro-benchmarks of calibration: what the stages of a layer, the hosts, the links and their
interference take.

All ranks run one at the same time. Each function takes a rank and a job of a plan
(`realrun.worker`) and returns what this rank has to tell, ready for JSON;
`realrun.calibration.profile` makes costs of it.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from realrun.backends.shared_memory import Shape
from realrun.runtime.executor import ExpertRank, place_of
from realrun.runtime.layers import Expert, owned
from realrun.runtime.rank import Rank
from simdep.policies import findep, naive
from simdep.schedule import Kind

REPEATS = 5  # timed calls of each calibration point in one job; the first is not kept
STAGES = ("attention", "shared", "expert")
HOST_LAYERS, HOST_TASK_US = 4, 300.0
TRAIN = 4  # back-to-back messages of a link measurement


def stages(rank: Rank, job: dict[str, Any]) -> dict[str, Any]:
    """Time the stages of both groups side by side, one size after another, as they work side by
    side in a run.

    They share the memory of the copies and the outer caches, which one group alone would have to
    itself.
    """
    case, place = rank.cases[job["case"]], rank.world.place
    rank.executor(job["case"])  # so that the experts know how real tokens are routed
    samples, chunks = job["samples"], job["chunks"]
    arenas = rank.arenas(case, max(max(samples) * case["seq_len"], *chunks))
    sizes = [size * case["seq_len"] for size in samples] if place.on_ag else chunks
    calls = {
        n: _attention_calls(rank, n, case, arenas)
        if place.on_ag
        else _expert_calls(rank, n, arenas)
        for n in sizes
    }
    times: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for repeat in range(REPEATS):
        for step in range(max(len(samples), len(chunks))):
            size = sizes[step % len(sizes)]
            rank.world.meet()
            for stage, us in next(calls[size]).items():
                times[stage][size] += [us] if repeat else []
    return {"times": times}


def _attention_calls(
    rank: Rank, tokens: int, case: dict[str, Any], arenas: Sequence[torch.Tensor]
) -> Iterator[dict[str, float]]:
    """Microseconds by stage of an AG rank's work on one micro-batch, layer after layer."""
    schedule = naive(len(rank.layers), tokens=tokens, shared=rank.model.has_shared)
    work = rank.attention(schedule, case["seq_len"], arenas[rank.world.place.index])
    work.compute(schedule["A[0.0]"])
    if rank.model.has_shared:
        work.compute(schedule["S[0.0]"])
    for layer in itertools.cycle(range(len(rank.layers))):
        h, combined = _timed(rank, work.combined, 0)
        task = replace(schedule["A[0.0]"], layer=layer)
        _, attended = _timed(rank, work.attend, task, h)
        times = {"combine": combined, "attention": attended}
        if rank.model.has_shared:
            times["shared"] = _timed(rank, work.compute, replace(task, kind=Kind.SHARED))[1]
        yield times


def _expert_calls(
    rank: Rank, tokens: int, arenas: Sequence[torch.Tensor]
) -> Iterator[dict[str, float]]:
    """Microseconds of an EG rank's work on a chunk, whose copies lie in the arenas of the AG
    ranks."""
    place, known = rank.world.place, _routings(rank, tokens)
    while True:
        layer, counts = known[rank.draw.integers(len(known))]
        sizes = [sum(rows) for rows in counts]
        first = [
            min(place.index * a.shape[1] // place.eg, a.shape[1] - n)
            for a, n in zip(arenas, sizes, strict=True)
        ]
        sent, returned = (
            [arena[side, at : at + n] for arena, at, n in zip(arenas, first, sizes, strict=True)]
            for side in (0, 1)
        )
        yield {"expert": _timed(rank, rank.layers[layer], sent, counts, returned)[1]}


def _routings(rank: Rank, tokens: int) -> list[tuple[int, Sequence[Sequence[int]]]]:
    """(layer, copies from each AG rank for each own expert) of chunks of this many tokens.

    They are those of the schedules learnt so far, else, for a size that no schedule has, balanced
    draws.
    """
    known: list[tuple[int, Sequence[Sequence[int]]]] = []
    for executor in rank.executors.values():
        if not isinstance(executor.work, ExpertRank):
            continue
        sizes = {place_of(task): task.tokens for task in executor.schedule.streams["EG"]}
        known += [(at[0], rows) for at, rows in executor.work.known.items() if sizes[at] == tokens]
    if known:
        return known
    model, place = rank.model, rank.world.place
    mine = owned(model.experts, place.eg, place.index)
    shares = [1 / model.experts] * model.experts
    draws = [
        rank.draw.multinomial(tokens * model.top_k, shares, size=place.ag) for _ in rank.layers
    ]
    return [
        (layer, routed[:, mine.start : mine.stop].tolist()) for layer, routed in enumerate(draws)
    ]


def host(rank: Rank, job: dict[str, Any]) -> dict[str, Any]:
    """Runs with short timed waits, one a chunk size: what is between their tasks is the host's."""
    case = rank.cases[job["case"]]
    rank.load(case)
    runs = {}
    for tokens in job["chunks"]:
        schedule = findep(HOST_LAYERS, 2, 2, "AASS", tokens=2 * tokens)
        executor = rank.synthetic(
            case, schedule, dict.fromkeys(STAGES, HOST_TASK_US), Shape(0.0, 1e6)
        )
        runs[tokens] = rank.once(executor, case)
    return {"runs": runs}


def link(rank: Rank, job: dict[str, Any]) -> dict[str, Any]:
    case = rank.cases[job["case"]]
    rank.load(case)
    place, numerics = rank.world.place, rank.world.numerics
    found = []
    for tokens in job["chunks"]:
        rows = max(1, tokens * rank.model.top_k // place.eg)
        shape = (TRAIN, len(place.peers), rows, rank.model.hidden)
        pieces = torch.zeros(shape, device=numerics.device, dtype=numerics.dtype)
        size = rows * place.ag * rank.model.hidden * pieces.element_size()
        for streams in (["A2E"], ["E2A"], ["A2E", "E2A"]):
            beside = _beside(rank, case, pieces, streams, 0)
            found.append({"streams": streams, "bytes": size} | beside)
    return {"trains": found}


def interference(rank: Rank, job: dict[str, Any]) -> dict[str, Any]:
    """Computation alone, transfers in both directions alone, and both, on all ranks at once."""
    case = rank.cases[job["case"]]
    rank.load(case)
    numerics, place = rank.world.numerics, rank.world.place
    rows = max(1, job["chunk"] * rank.model.top_k // place.eg)
    shape = (job["messages"], len(place.peers), rows, rank.model.hidden)
    pieces = torch.zeros(shape, device=numerics.device, dtype=numerics.dtype)
    size = rows * place.ag * rank.model.hidden * pieces.element_size()
    both = ["A2E", "E2A"]
    return {
        "bytes": size,
        "compute": _beside(rank, case, pieces, [], job["products"]),
        "transfer": _beside(rank, case, pieces, both, 0),
        "both": _beside(rank, case, pieces, both, job["products"]),
    }


def _beside(
    rank: Rank, case: dict[str, Any], pieces: torch.Tensor, streams: Sequence[str], products: int
) -> dict[str, Any]:
    """Post all messages of some streams at once, then compute; nanoseconds of posts, arrivals and
    products.

    `pieces` are [messages, peers, rows, hidden]; a product is [64, 256] x [256, 256] and stays in a
    core's cache.
    """
    numerics, (_, outgoing, incoming) = rank.world.numerics, rank.world.place.streams
    x, weight = (torch.randn(n, 256).to(numerics.device, numerics.dtype) for n in (64, 256))
    clock = rank.world.clock()
    rank.world.tune(case["link"], Shape(*case["shape"]))
    link = rank.world.link(clock, case["link"], Shape(*case["shape"]))
    messages = [(str(i), i, list(piece)) for i, piece in enumerate(pieces)]
    expected = zip(messages, pieces, strict=True) if incoming in streams else ()
    clock.start()
    link.open([(name, tag, list(torch.empty_like(piece))) for (name, tag, _), piece in expected])
    rank.world.start_together()
    for message in messages if outgoing in streams else []:
        link.post(message)
    marks = [clock.mark()]
    for _ in range(products):
        F.linear(x, weight)
        marks.append(clock.mark())
    posted, arrived = link.close()
    row = {"posted": list(posted.values()), "arrived": list(arrived.values())}
    return row | {"products": [clock.read(mark) for mark in marks]}


def operations(rank: Rank, job: dict[str, Any]) -> dict[str, Any]:
    """Matrix products [m, k] x [k, n], causal attention cores and experts, each over a range of
    sizes."""
    numerics = rank.world.numerics
    rows: list[tuple[str, float, list[float]]] = []

    def new(*shape: int) -> torch.Tensor:
        return torch.randn(*shape).to(numerics.device, numerics.dtype)

    def time_all(op: str, work: float, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        rank.world.meet_group()
        rows.append(
            (op, work, [_timed(rank, call, *args, **kwargs)[1] for _ in range(REPEATS)][1:])
        )

    for m in job["rows"]:
        for k, n in job["matrices"]:
            time_all("gemm", m * k * n, F.linear, new(m, k), new(n, k))
        for hidden, width in job["experts"]:
            time_all(
                "expert",
                3 * m * hidden * width,
                Expert(hidden, width, numerics, "operation"),
                new(m, hidden),
            )
    for batch, seq_len, heads, dim in job["attention"]:
        q, k, v = (new(batch, heads, seq_len, dim) for _ in range(3))
        work = 2 * batch * heads * seq_len * seq_len * dim
        time_all("attention", work, F.scaled_dot_product_attention, q, k, v, is_causal=True)
    return {"operations": rows}


def _timed(rank: Rank, call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, float]:
    """(result, microseconds) of a call, the device's work included."""
    rank.world.synchronize()
    start = time.perf_counter_ns()
    result = call(*args, **kwargs)
    rank.world.synchronize()
    return result, (time.perf_counter_ns() - start) / 1e3
