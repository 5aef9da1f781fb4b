"""One rank between jobs: the layers of one shape at a time, and the schedules that are ready to run
on them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from realrun.backends.shared_memory import LinkSpeed
from realrun.plan import PlannedCase
from realrun.runtime.executor import Executor
from realrun.runtime.layers import AttentionLayer, ExpertLayer
from realrun.runtime.stamps import Stamps
from realrun.runtime.work import AttentionRank, ExpertRank, ScheduleWork, SyntheticRank, TimedWait
from realrun.runtime.world import World
from simdep.scenario.models import ModelSpec, load_model
from simdep.scenario.routing import rank_experts
from simdep.schedule import Schedule, Task

_SENTINEL_TURNS, _SENTINEL_LOOPS = 4, 1000


@dataclass(frozen=True)
class RankRun:
    """One run as a rank measured it.

    `lost_ns` is how long it was kept from its core, `sentinel_ns` the time of a fixed loop before
    and after the run.
    """

    stamps: Stamps
    lost_ns: int
    sentinel_ns: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        return self.stamps.to_dict() | {"lost_ns": self.lost_ns, "sentinel_ns": self.sentinel_ns}


@dataclass
class _Loaded:
    """The weights of this rank for one shape, and what is built on them."""

    weights: tuple[str, float, int, bool]
    model: ModelSpec
    layers: list[Any] = field(default_factory=list)  # AttentionLayer or ExpertLayer
    executors: dict[str, Executor] = field(default_factory=dict)
    buffers: dict[tuple[int, bool], list[Tensor]] = field(default_factory=dict)


class Rank:
    """This rank's memory between jobs."""

    def __init__(self, world: World, cases: Mapping[str, PlannedCase]) -> None:
        self.world, self.cases = world, cases
        self._loaded: _Loaded | None = None
        self._wait = TimedWait(spin=world.own_core)
        self.draw = np.random.default_rng(world.numerics.seed)  # the same on every rank

    @property
    def model(self) -> ModelSpec:
        """The model that is loaded."""
        return self._shape.model

    @property
    def layers(self) -> list[Any]:
        """This rank's part of the layers that are loaded: AttentionLayer or ExpertLayer."""
        return self._shape.layers

    @property
    def executors(self) -> dict[str, Executor]:
        """The executors of the loaded shape that are ready, by case."""
        return self._shape.executors

    @property
    def _shape(self) -> _Loaded:
        assert self._loaded is not None, "load a case first"
        return self._loaded

    def load(self, case: PlannedCase) -> None:
        """Hold the weights of a case; those of another shape, and all built on them, are freed."""
        if self._loaded is not None and self._loaded.weights == case.weights:
            return
        self._loaded = None  # frees the old weights before new ones are drawn
        model = load_model(case.model).scaled(case.scale)
        self._loaded = _Loaded(case.weights, model)
        if not case.synthetic:
            for layer in range(case.schedule.layers):
                self._loaded.layers.append(self._layer(model, layer))

    def _layer(self, model: ModelSpec, layer: int) -> AttentionLayer | ExpertLayer:
        place, numerics = self.world.place, self.world.numerics
        if place.on_ag:
            return AttentionLayer(model, layer, numerics)
        experts = rank_experts(model.experts, place.eg, place.index)
        return ExpertLayer(model, layer, experts, numerics)

    def executor(self, case_id: str) -> Executor:
        """The executor of a case, made ready if it is not; all ranks call it."""
        case = self.cases[case_id]
        self.load(case)
        if case_id not in self.executors:
            self.executors[case_id] = self._new_executor(case)
        return self.executors[case_id]

    def _new_executor(self, case: PlannedCase) -> Executor:
        if case.synthetic:
            return self.synthetic(case, case.schedule, case.synthetic, case.speed)
        buffers = self.buffers(case, case.schedule.tokens)
        work: ScheduleWork
        if self.world.place.on_ag:
            buffer = buffers[self.world.place.index]
            work = self.attention(case.schedule, case.seq_len, buffer)
        elif self.world.shares_payload(case.link):
            work = ExpertRank(self.model, self.layers, self.world.numerics, buffers)
        else:
            work = ExpertRank(self.model, self.layers, self.world.numerics)
        executor = self._on_link(case, case.schedule, work, case.speed)
        executor.record_routing()
        return executor

    def synthetic(
        self,
        case: PlannedCase,
        schedule: Schedule,
        durations: Mapping[str, float],
        speed: LinkSpeed,
    ) -> Executor:
        """Timed waits for computation, messages of the size that balanced routing gives them."""
        model, numerics, place = self.model, self.world.numerics, self.world.place
        most = max(self._balanced(task) for task in schedule)
        scratch = torch.zeros(most, model.hidden, device=numerics.device, dtype=numerics.dtype)

        def pieces(task: Task) -> list[Tensor]:
            return [scratch[: self._balanced(task)]] * len(place.peers)

        work = SyntheticRank(durations, pieces, self._wait)
        executor = self._on_link(case, schedule, work, speed)
        executor.prepare()
        return executor

    def _balanced(self, task: Task) -> int:
        """Routed tokens of one AG rank for one EG rank, if all get as many."""
        return max(1, task.tokens * self.model.top_k // self.world.place.eg)

    def _on_link(
        self, case: PlannedCase, schedule: Schedule, work: ScheduleWork, speed: LinkSpeed
    ) -> Executor:
        world = self.world
        clock = world.device.clock()
        link = world.link(clock, case.link, speed)
        return Executor(schedule, world.place, work, link, clock, world.channel, self.model.experts)

    def attention(self, schedule: Schedule, seq_len: int, buffer: Tensor) -> AttentionRank:
        """The work of this AG rank on a schedule, with the layers that are loaded."""
        place, numerics = self.world.place, self.world.numerics
        return AttentionRank(schedule, place, self.model, self.layers, numerics, seq_len, buffer)

    def buffers(self, case: PlannedCase, tokens: int) -> list[Tensor]:
        """Memory for the routed tokens that each AG rank sends and gets back.

        It is that of all AG ranks, shared by all ranks, or this rank's own. All ranks call it.
        """
        shared = self.world.shares_payload(case.link)
        # Schedules of one size take turns in the same memory, as their layers do
        key = (tokens, shared)
        if key not in self._shape.buffers:
            self._shape.buffers[key] = self._new_buffers(tokens * self.model.top_k, shared)
        return self._shape.buffers[key]

    def _new_buffers(self, routed: int, shared: bool) -> list[Tensor]:
        place, numerics, hidden = self.world.place, self.world.numerics, self.model.hidden
        if not shared:
            buffer = torch.zeros(2, routed, hidden, device=numerics.device, dtype=numerics.dtype)
            return [buffer] * place.ag
        elements = [2 * routed * hidden] * place.ag + [0] * place.eg
        tensors = self.world.share(elements, numerics.dtype)[: place.ag]
        return [tensor.view(2, routed, hidden) for tensor in tensors]

    def measure(self, executor: Executor, case: PlannedCase) -> RankRun:
        """Run a schedule once, started on all ranks at the same moment."""
        self.world.tune(case.link, case.speed)
        # The loop runs before and after, so that a core that slows down within a run shows
        before = sentinel_ns()
        executor.open()
        lost = lost_ns()
        self.world.synchronized_start()
        stamps = executor.run()
        # What follows is not to disturb ranks on the same core that still run
        self.world.barrier()
        lost = lost_ns() - lost
        return RankRun(stamps, lost, (before, sentinel_ns()))


def lost_ns() -> int:
    """Nanoseconds that this thread was ready to run while its core did something else, or the host
    took the core away; 0 where the kernel does not count them."""
    statistics = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    try:
        queued = int(statistics.read_text().split()[1])
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return 0
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    stolen = 0
    for line in lines:
        name, *ticks = line.split()
        if name in cores:
            stolen += int(ticks[7])
    return queued + stolen * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def sentinel_ns() -> int:
    """Nanoseconds of a fixed loop, the best of four: the speed of the core at the moment."""
    best = 1 << 62
    for _ in range(_SENTINEL_TURNS):
        start = time.perf_counter_ns()
        for _ in range(_SENTINEL_LOOPS):
            pass
        best = min(best, time.perf_counter_ns() - start)
    return best
