"""One rank between jobs: the layers of one shape at a time, and the schedules that are ready to run
on them."""

from __future__ import annotations

import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from realrun.backends.shared_memory import Shape
from realrun.runtime.executor import AttentionRank, Executor, ExpertRank, SyntheticRank, TimedWait
from realrun.runtime.layers import AttentionLayer, ExpertLayer, owned
from realrun.runtime.world import World
from simdep.scenario.models import load_model
from simdep.schedule import Schedule


class Rank:
    """This rank's memory between jobs. `cases` are those of a plan (`realrun.worker`)."""

    def __init__(self, world: World, cases: dict[str, Any]) -> None:
        self.world, self.cases = world, cases
        self._shape: tuple[Any, ...] = ()
        self.executors: dict[str, Executor] = {}
        self._memory: dict[Any, list[torch.Tensor]] = {}
        self._wait = TimedWait(spin=world.own_core)
        self.draw = np.random.default_rng(world.numerics.seed)  # the same on every rank

    def load(self, case: dict[str, Any]) -> None:
        schedule = Schedule.from_dict(case["schedule"])
        shape = (case["model"], case["scale"], schedule.layers, bool(case["synthetic"]))
        if shape == self._shape:
            return
        self._shape = shape
        self.executors.clear()
        self._memory.clear()
        self.model = load_model(case["model"]).scaled(case["scale"])
        place, numerics = self.world.place, self.world.numerics
        self.layers: list[Any] = []  # frees the old ones first
        for layer in range(0 if case["synthetic"] else schedule.layers):
            if place.on_ag:
                self.layers.append(AttentionLayer(self.model, layer, numerics))
            else:
                mine = owned(self.model.experts, place.eg, place.index)
                self.layers.append(ExpertLayer(self.model, layer, mine, numerics))

    def executor(self, case_id: str) -> Executor:
        case = self.cases[case_id]
        self.load(case)
        if case_id not in self.executors and case["synthetic"]:
            schedule, shape = Schedule.from_dict(case["schedule"]), Shape(*case["shape"])
            self.executors[case_id] = self.synthetic(case, schedule, case["synthetic"], shape)
        elif case_id not in self.executors:
            world, schedule = self.world, Schedule.from_dict(case["schedule"])
            clock = world.clock()
            link = world.link(clock, case["link"], Shape(*case["shape"]))
            arenas = self.arenas(case, schedule.tokens)
            if world.place.on_ag:
                work: AttentionRank | ExpertRank = self.attention(
                    schedule, case["seq_len"], arenas[world.place.index]
                )
            else:
                work = ExpertRank(
                    self.model, self.layers, world.numerics, [] if link.carries_payload else arenas
                )
            executor = Executor(
                schedule, world.place, work, link, clock, world.links, self.model.experts
            )
            executor.learn()
            self.executors[case_id] = executor
        return self.executors[case_id]

    def synthetic(
        self, case: dict[str, Any], schedule: Schedule, durations: dict[str, float], shape: Shape
    ) -> Executor:
        """Timed waits for computation, messages of the size that balanced routing gives them."""
        world, model, place = self.world, self.model, self.world.place
        clock = world.clock()
        link = world.link(clock, case["link"], shape)
        rows = {t.name: max(1, t.tokens * model.top_k // place.eg) for t in schedule}
        scratch = torch.zeros(
            max(rows.values()),
            model.hidden,
            device=world.numerics.device,
            dtype=world.numerics.dtype,
        )
        work = SyntheticRank(
            durations, lambda task: [scratch[: rows[task.name]]] * len(place.peers), self._wait
        )
        executor = Executor(schedule, place, work, link, clock, world.links, model.experts)
        executor.prepare()
        return executor

    def attention(self, schedule: Schedule, seq_len: int, arena: torch.Tensor) -> AttentionRank:
        place, numerics = self.world.place, self.world.numerics
        return AttentionRank(schedule, place, self.model, self.layers, numerics, seq_len, arena)

    def arenas(self, case: dict[str, Any], tokens: int) -> list[torch.Tensor]:
        """Memory for the copies that each AG rank sends and gets back: its own, or that of all,
        shared by all ranks."""
        place, numerics, model = self.world.place, self.world.numerics, self.model
        shared = case["link"] == "shm" and self.world.backend == "gloo"
        shape = (2, tokens * model.top_k, model.hidden)
        if (shape, shared) not in self._memory:
            if shared:
                elements = [math.prod(shape)] * place.ag + [0] * place.eg
                found = [
                    tensor.view(shape)
                    for tensor in self.world.share(elements, numerics.dtype)[: place.ag]
                ]
            else:
                found = [
                    torch.zeros(shape, device=numerics.device, dtype=numerics.dtype)
                ] * place.ag
            self._memory[shape, shared] = found
        return self._memory[shape, shared]

    def once(self, executor: Executor, case: dict[str, Any]) -> dict[str, Any]:
        self.world.tune(case["link"], Shape(*case["shape"]))
        before = sentinel_ns()
        executor.open()
        lost = lost_ns()
        self.world.start_together()
        stamps = executor.run()
        self.world.meet()  # what follows is not to disturb ranks on the same core that still run
        lost = lost_ns() - lost
        row = {"computed": stamps.computed, "posted": stamps.posted, "arrived": stamps.arrived}
        return row | {"lost_ns": lost, "sentinel_ns": [before, sentinel_ns()]}


def lost_ns() -> int:
    """Nanoseconds that this thread was ready to run while its core did something else, or the host
    took the core away.

    0 where the kernel does not tell.
    """
    try:
        queued = int(
            Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text().split()[1]
        )
        cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        rows = (line.split() for line in Path("/proc/stat").read_text().splitlines())
        stolen = sum(int(row[8]) for row in rows if row[0] in cores)
        return queued + stolen * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0


def sentinel_ns() -> int:
    """Nanoseconds of a fixed loop, the best of four: the speed of the core at the moment."""
    best = 1 << 62
    for _ in range(4):
        start = time.perf_counter_ns()
        for _ in range(1000):
            pass
        best = min(best, time.perf_counter_ns() - start)
    return best
