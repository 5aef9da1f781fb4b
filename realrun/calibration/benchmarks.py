"""Micro-benchmarks of calibration: what the stages of a layer, the hosts, the links and their
interference take.

All ranks run one at the same time. Each function takes a rank and a job of a plan
(`realrun.worker`) and returns what this rank measured, ready for JSON;
`realrun.calibration.points` reads it.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from realrun.backends.base import Message
from realrun.backends.shared_memory import LinkSpeed
from realrun.plan import PlannedCase
from realrun.runtime.layers import Expert
from realrun.runtime.rank import Rank
from realrun.runtime.work import ExpertRank, RoutedCounts, chunk_key, slices
from simdep.policies import build
from simdep.scenario.routing import rank_experts
from simdep.schedule import Kind, Schedule

REPEATS = 5  # timed calls of each calibration point in one job; the first is not kept
TIMED_STAGES = ("attention", "shared", "expert")
HOST_LAYERS, HOST_TASK_US = 4, 300.0
TRAIN = 4  # back-to-back messages of a link measurement
_INSTANT = LinkSpeed(0.0, 1e6)
_BOTH = ("A2E", "E2A")
_Job = Mapping[str, Any]


def host_schedule(tokens: int) -> Schedule:
    """What `time_host` runs for chunks of so many tokens."""
    return build("findep", HOST_LAYERS, 2, 2, "AASS", tokens=2 * tokens)


def time_stages(rank: Rank, job: _Job) -> dict[str, Any]:
    """Time the stages of both groups side by side, one size after another, as they work side by
    side in a run.

    They share the memory of the routed tokens and the outer caches, which one group alone would
    have to itself.
    """
    case, place = rank.cases[job["case"]], rank.world.place
    rank.executor(job["case"])  # so that the experts know how real tokens are routed
    samples, chunks = job["samples"], job["chunks"]
    buffers = rank.buffers(case, max(max(samples) * case.seq_len, *chunks))
    calls: dict[int, Iterator[dict[str, float]]] = {}
    if place.on_ag:
        for count in samples:
            tokens = count * case.seq_len
            calls[tokens] = _attention_calls(rank, tokens, case, buffers[place.index])
    else:
        for tokens in chunks:
            calls[tokens] = _expert_calls(rank, tokens, buffers)
    sizes = list(calls)
    times: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for repeat in range(REPEATS):
        for step in range(max(len(samples), len(chunks))):
            size = sizes[step % len(sizes)]
            rank.world.barrier()
            for stage, us in next(calls[size]).items():
                # The first call of a size finds cold caches, which a run does not have
                times[stage][size] += [us] if repeat else []
    return {"times": times}


def _attention_calls(
    rank: Rank, tokens: int, case: PlannedCase, buffer: Tensor
) -> Iterator[dict[str, float]]:
    """Microseconds by stage of an AG rank's work on one micro-batch, layer after layer."""
    schedule = build("naive", len(rank.layers), tokens=tokens, shared=rank.model.has_shared)
    work = rank.attention(schedule, case.seq_len, buffer)
    work.compute(schedule["A[0.0]"])
    if rank.model.has_shared:
        work.compute(schedule["S[0.0]"])
    for layer in itertools.cycle(range(len(rank.layers))):
        h, combined = _timed(rank, work.combined, 0)
        task = replace(schedule["A[0.0]"], layer=layer)
        _, attended = _timed(rank, work.attend, task, h)
        times = {"combine": combined, "attention": attended}
        if rank.model.has_shared:
            _, times["shared"] = _timed(rank, work.compute, replace(task, kind=Kind.SHARED))
        yield times


def _expert_calls(rank: Rank, tokens: int, buffers: Sequence[Tensor]) -> Iterator[dict[str, float]]:
    """Microseconds of an EG rank's work on a chunk, whose tokens lie in the buffers of the AG
    ranks."""
    place, routings = rank.world.place, _routings(rank, tokens)
    while True:
        layer, counts = routings[rank.draw.integers(len(routings))]
        sizes = [sum(of_experts) for of_experts in counts]
        # Each EG rank reads and writes a part of the buffers of its own, as in a run
        first_rows = []
        for buffer, size in zip(buffers, sizes, strict=True):
            rows = buffer.shape[1]
            first_rows.append(min(place.index * rows // place.eg, rows - size))
        sent, returned = (slices(buffers, side, first_rows, sizes) for side in (0, 1))
        _, us = _timed(rank, rank.layers[layer], sent, counts, returned)
        yield {"expert": us}


def _routings(rank: Rank, tokens: int) -> list[tuple[int, RoutedCounts]]:
    """(layer, counts) of chunks of this many tokens for the experts of this rank.

    They are those of the schedules recorded so far, else, for a size that no schedule has, balanced
    draws.
    """
    recorded = _recorded_routings(rank, tokens)
    if recorded:
        return recorded
    model, place = rank.model, rank.world.place
    experts = rank_experts(model.experts, place.eg, place.index)
    shares = [1 / model.experts] * model.experts
    draws = []
    for layer in range(len(rank.layers)):
        routed = rank.draw.multinomial(tokens * model.top_k, shares, size=place.ag)
        draws.append((layer, routed[:, experts.start : experts.stop].tolist()))
    return draws


def _recorded_routings(rank: Rank, tokens: int) -> list[tuple[int, RoutedCounts]]:
    recorded: list[tuple[int, RoutedCounts]] = []
    for executor in rank.executors.values():
        if not isinstance(executor.work, ExpertRank):
            continue
        sizes = {chunk_key(task): task.tokens for task in executor.schedule.streams["EG"]}
        for chunk, counts in executor.work.counts.items():
            if sizes[chunk] == tokens:
                layer, *_ = chunk
                recorded.append((layer, counts))
    return recorded


def time_host(rank: Rank, job: _Job) -> dict[str, Any]:
    """Runs with short timed waits, one a chunk size: what is between their tasks is the host's."""
    case = rank.cases[job["case"]]
    rank.load(case)
    waits = dict.fromkeys(TIMED_STAGES, HOST_TASK_US)
    runs = {}
    for tokens in job["chunks"]:
        executor = rank.synthetic(case, host_schedule(tokens), waits, _INSTANT)
        runs[tokens] = rank.measure(executor, case).to_dict()
    return {"runs": runs}


def time_link(rank: Rank, job: _Job) -> dict[str, Any]:
    """Trains of messages in each direction, alone and in duplex."""
    case = rank.cases[job["case"]]
    rank.load(case)
    trains = []
    for tokens in job["chunks"]:
        pieces = _train(rank, tokens, TRAIN)
        size = _message_bytes(rank, pieces)
        for streams in (["A2E"], ["E2A"], list(_BOTH)):
            train = {"streams": streams, "bytes": size}
            trains.append(train | _transfers_beside(rank, case, pieces, streams, products=0))
    return {"trains": trains}


def time_interference(rank: Rank, job: _Job) -> dict[str, Any]:
    """Computation alone, transfers in both directions alone, and both, on all ranks at once."""
    case = rank.cases[job["case"]]
    rank.load(case)
    pieces, products = _train(rank, job["chunk"], job["messages"]), job["products"]
    return {
        "bytes": _message_bytes(rank, pieces),
        "compute": _transfers_beside(rank, case, pieces, (), products),
        "transfer": _transfers_beside(rank, case, pieces, _BOTH, products=0),
        "both": _transfers_beside(rank, case, pieces, _BOTH, products),
    }


def _train(rank: Rank, tokens: int, messages: int) -> Tensor:
    """The pieces [messages, peers, routed tokens, hidden] of some chunks of `tokens`, balanced."""
    place, numerics, model = rank.world.place, rank.world.numerics, rank.model
    routed = max(1, tokens * model.top_k // place.eg)
    shape = (messages, len(place.peers), routed, model.hidden)
    return torch.zeros(shape, device=numerics.device, dtype=numerics.dtype)


def _message_bytes(rank: Rank, pieces: Tensor) -> int:
    """What a message brings to one EG rank from all AG ranks."""
    _, _, routed, hidden = pieces.shape
    return routed * rank.world.place.ag * hidden * pieces.element_size()


def _transfers_beside(
    rank: Rank, case: PlannedCase, pieces: Tensor, streams: Sequence[str], products: int
) -> dict[str, Any]:
    """Post all messages of some streams at once, then compute; nanoseconds of posts, arrivals and
    products.

    A product is [64, 256] x [256, 256] and stays in a core's cache.
    """
    numerics, place = rank.world.numerics, rank.world.place
    x, weight = (torch.randn(n, 256).to(numerics.device, numerics.dtype) for n in (64, 256))
    clock = rank.world.device.clock()
    rank.world.tune(case.link, case.speed)
    link = rank.world.link(clock, case.link, case.speed)
    outgoing = _messages(pieces) if place.outgoing_stream in streams else []
    incoming = _messages(torch.empty_like(pieces)) if place.incoming_stream in streams else []
    clock.start()
    link.open(incoming)
    rank.world.synchronized_start()
    for message in outgoing:
        link.post(message)
    marks = [clock.mark()]
    for _ in range(products):
        F.linear(x, weight)
        marks.append(clock.mark())
    stamps = link.close()
    return {
        "posted": list(stamps.posted.values()),
        "arrived": list(stamps.arrived.values()),
        "products": [clock.read(mark) for mark in marks],
    }


def _messages(pieces: Tensor) -> list[Message]:
    return [Message(str(place), place, list(piece)) for place, piece in enumerate(pieces)]


def time_operations(rank: Rank, job: _Job) -> dict[str, Any]:
    """Matrix products [m, k] x [k, n], causal attention cores and experts, each over a range of
    sizes: rows (operation, work, microseconds of each call)."""
    numerics = rank.world.numerics
    rows: list[tuple[str, float, list[float]]] = []

    def new(*shape: int) -> Tensor:
        return torch.randn(*shape).to(numerics.device, numerics.dtype)

    def time_all(op: str, work: float, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        # The ranks of a group share the speed of the memory: they compute side by side
        rank.world.group_barrier()
        times = []
        for _ in range(REPEATS):
            _, us = _timed(rank, call, *args, **kwargs)
            times.append(us)
        rows.append((op, work, times[1:]))

    for m in job["rows"]:
        for k, n in job["matrices"]:
            time_all("gemm", m * k * n, F.linear, new(m, k), new(n, k))
        for hidden, width in job["experts"]:
            expert = Expert(hidden, width, numerics, "operation")
            time_all("expert", 3 * m * hidden * width, expert, new(m, hidden))
    for batch, seq_len, heads, dim in job["attention"]:
        q, k, v = (new(batch, heads, seq_len, dim) for _ in range(3))
        work = 2 * batch * heads * seq_len * seq_len * dim
        time_all("attention", work, F.scaled_dot_product_attention, q, k, v, is_causal=True)
    return {"operations": rows}


def _timed(rank: Rank, call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, float]:
    """(result, microseconds) of a call, the device's work included."""
    rank.world.device.synchronize()
    start = time.perf_counter_ns()
    result = call(*args, **kwargs)
    rank.world.device.synchronize()
    return result, (time.perf_counter_ns() - start) / 1e3
