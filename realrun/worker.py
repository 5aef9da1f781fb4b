"""What every rank does: walk one list of jobs together, and let rank 0 write each result before the next job begins.

A plan is a JSON object {ag, eg, backend, seed, cases, jobs}. `cases` maps an id to {model, scale, seq_len, schedule,
link, shape, synthetic}; a job is one of

    {"job": "learn", "case": id}                       get a case's schedule ready: walk it once, task by task
    {"job": "run", "case": id}                         execute it once
    {"job": "stages", "case": id, "samples": [...], "chunks": [...]}    time attention, combine, shared experts for
                                                       numbers of samples, routed experts for tokens of a chunk
    {"job": "link", "case": id, "chunks": [...]}       time trains of messages in each direction, alone and in duplex
    {"job": "interference", "case": id, "chunk": n}    time computation and transfers alone, and beside each other
    {"job": "host", "case": id, "chunks": [...]}       time what hosts do between tasks, for tokens of a chunk
    {"job": "operations"}                              time matrix products, attention cores and experts of any shape
    {"job": "output", "case": id, "folder": path}      save the output of the case's last run, one file an AG rank

Results are JSON lines {"index", "ranks": [one object a rank]}; a job whose line is there is not done again.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from realrun.executor import AttentionRank, Executor, ExpertRank, Stamps, SyntheticRank, TimedWait, place_of
from realrun.layers import AttentionLayer, Expert, ExpertLayer, owned
from realrun.ranks import World, die_with_parent
from realrun.shaped import Shape
from simdep.models import load_model
from simdep.policies import findep, naive
from simdep.schedule import Kind, Schedule

REPEATS = 5  # timed calls of each calibration point in one job; the first is not kept
STAGES = ("attention", "shared", "expert")
HOST_LAYERS, HOST_TASK_US = 4, 300.0
TRAIN = 4  # back-to-back messages of a link measurement


def main(plan_path: str, results_path: str) -> None:
    """Entry of a spawned rank."""
    die_with_parent()
    plan = json.loads(Path(plan_path).read_text())
    work(plan, Path(results_path))


def work(plan: dict[str, Any], results: Path) -> None:
    """Do every job of a plan that has no line in rank 0's `results` yet."""
    with World(plan["ag"], plan["eg"], plan["seed"], plan["backend"]) as world, torch.inference_mode():
        lines = results.read_text().splitlines() if results.exists() else []
        done = world.all_gather({"done": [json.loads(line)["index"] for line in lines]})[0]["done"]
        rank = Rank(world, plan["cases"])
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection of torch's many objects costs as much as a task
        for index, job in enumerate(plan["jobs"]):
            if index in done:
                continue
            rows = world.all_gather(rank.do(job))
            if world.place.rank == 0:
                with results.open("a") as file:
                    file.write(json.dumps({"index": index, "ranks": rows}) + "\n")


class Rank:
    """This rank's memory between jobs: the layers of one shape at a time, and the schedules learnt on them."""

    def __init__(self, world: World, cases: dict[str, Any]) -> None:
        self._world, self._cases = world, cases
        self._shape: tuple[Any, ...] = ()
        self._executors: dict[str, Executor] = {}
        self._memory: dict[Any, list[torch.Tensor]] = {}
        self._wait = TimedWait(spin=world.own_core)
        self._draw = np.random.default_rng(world.numerics.seed)  # the same on every rank

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """One job; returns what this rank has to tell, ready for JSON."""
        doers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "learn": self._learn, "run": self._run, "output": self._output, "stages": self._stages, "host": self._host,
            "link": self._link, "interference": self._interference, "operations": self._operations,
        }  # fmt: skip
        return doers[job["job"]](job)

    def _load(self, case: dict[str, Any]) -> None:
        schedule = Schedule.from_dict(case["schedule"])
        shape = (case["model"], case["scale"], schedule.layers, bool(case["synthetic"]))
        if shape == self._shape:
            return
        self._shape = shape
        self._executors.clear()
        self._memory.clear()
        self._model = load_model(case["model"]).scaled(case["scale"])
        place, numerics = self._world.place, self._world.numerics
        self._layers: list[Any] = []  # frees the old ones first
        for layer in range(0 if case["synthetic"] else schedule.layers):
            if place.on_ag:
                self._layers.append(AttentionLayer(self._model, layer, numerics))
            else:
                mine = owned(self._model.experts, place.eg, place.index)
                self._layers.append(ExpertLayer(self._model, layer, mine, numerics))

    def _executor(self, case_id: str) -> Executor:
        case = self._cases[case_id]
        self._load(case)
        if case_id not in self._executors and case["synthetic"]:
            schedule, shape = Schedule.from_dict(case["schedule"]), Shape(*case["shape"])
            self._executors[case_id] = self._synthetic(case, schedule, case["synthetic"], shape)
        elif case_id not in self._executors:
            world, schedule = self._world, Schedule.from_dict(case["schedule"])
            clock = world.clock()
            link = world.link(clock, case["link"], Shape(*case["shape"]))
            arenas = self._arenas(case, schedule.tokens)
            if world.place.on_ag:
                work: AttentionRank | ExpertRank = self._attention(schedule, case["seq_len"], arenas[world.place.index])
            else:
                work = ExpertRank(self._model, self._layers, world.numerics, [] if link.carries_payload else arenas)
            executor = Executor(schedule, world.place, work, link, clock, world.links, self._model.experts)
            executor.learn()
            self._executors[case_id] = executor
        return self._executors[case_id]

    def _synthetic(
        self, case: dict[str, Any], schedule: Schedule, durations: dict[str, float], shape: Shape
    ) -> Executor:
        """Timed waits for computation, messages of the size that balanced routing gives them."""
        world, model, place = self._world, self._model, self._world.place
        clock = world.clock()
        link = world.link(clock, case["link"], shape)
        rows = {t.name: max(1, t.tokens * model.top_k // place.eg) for t in schedule}
        scratch = torch.zeros(
            max(rows.values()), model.hidden, device=world.numerics.device, dtype=world.numerics.dtype
        )
        work = SyntheticRank(durations, lambda task: [scratch[: rows[task.name]]] * len(place.peers), self._wait)
        executor = Executor(schedule, place, work, link, clock, world.links, model.experts)
        executor.prepare()
        return executor

    def _host(self, job: dict[str, Any]) -> dict[str, Any]:
        """Runs with short timed waits, one a chunk size: what is between their tasks is the host's."""
        case = self._cases[job["case"]]
        self._load(case)
        runs = {}
        for tokens in job["chunks"]:
            schedule = findep(HOST_LAYERS, 2, 2, "AASS", tokens=2 * tokens)
            executor = self._synthetic(case, schedule, dict.fromkeys(STAGES, HOST_TASK_US), Shape(0.0, 1e6))
            runs[tokens] = self._once(executor, case)
        return {"runs": runs}

    def _attention(self, schedule: Schedule, seq_len: int, arena: torch.Tensor) -> AttentionRank:
        place, numerics = self._world.place, self._world.numerics
        return AttentionRank(schedule, place, self._model, self._layers, numerics, seq_len, arena)

    def _arenas(self, case: dict[str, Any], tokens: int) -> list[torch.Tensor]:
        """Memory for the copies that each AG rank sends and gets back: its own, or that of all, shared by all ranks."""
        place, numerics, model = self._world.place, self._world.numerics, self._model
        shared = case["link"] == "shm" and self._world.backend == "gloo"
        shape = (2, tokens * model.top_k, model.hidden)
        if (shape, shared) not in self._memory:
            if shared:
                elements = [math.prod(shape)] * place.ag + [0] * place.eg
                found = [tensor.view(shape) for tensor in self._world.share(elements, numerics.dtype)[: place.ag]]
            else:
                found = [torch.zeros(shape, device=numerics.device, dtype=numerics.dtype)] * place.ag
            self._memory[shape, shared] = found
        return self._memory[shape, shared]

    def _learn(self, job: dict[str, Any]) -> dict[str, Any]:
        self._executor(job["case"])
        return {}

    def _run(self, job: dict[str, Any]) -> dict[str, Any]:
        return self._once(self._executor(job["case"]), self._cases[job["case"]])

    def _once(self, executor: Executor, case: dict[str, Any]) -> dict[str, Any]:
        self._world.tune(case["link"], Shape(*case["shape"]))
        before = sentinel_ns()
        executor.open()
        lost = lost_ns()
        self._world.start_together()
        stamps = executor.run()
        self._world.meet()  # what follows is not to disturb ranks on the same core that still run
        lost = lost_ns() - lost
        row = {"computed": stamps.computed, "posted": stamps.posted, "arrived": stamps.arrived}
        return row | {"lost_ns": lost, "sentinel_ns": [before, sentinel_ns()]}

    def _output(self, job: dict[str, Any]) -> dict[str, Any]:
        executor, place = self._executor(job["case"]), self._world.place
        if isinstance(executor.work, AttentionRank):
            np.save(Path(job["folder"]) / f"{job['case']}-{place}.npy", executor.work.output().float().cpu().numpy())
        return {}

    def _stages(self, job: dict[str, Any]) -> dict[str, Any]:
        """Time the stages of both groups side by side, one size after another, as they work side by side in a run.

        They share the memory of the copies and the outer caches, which one group alone would have to itself.
        """
        case, place = self._cases[job["case"]], self._world.place
        self._executor(job["case"])  # so that the experts know how real tokens are routed
        samples, chunks = job["samples"], job["chunks"]
        arenas = self._arenas(case, max(max(samples) * case["seq_len"], *chunks))
        sizes = [size * case["seq_len"] for size in samples] if place.on_ag else chunks
        calls = {
            n: self._attention_calls(n, case, arenas) if place.on_ag else self._expert_calls(n, arenas) for n in sizes
        }
        times: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for repeat in range(REPEATS):
            for step in range(max(len(samples), len(chunks))):
                size = sizes[step % len(sizes)]
                self._world.meet()
                for stage, us in next(calls[size]).items():
                    times[stage][size] += [us] if repeat else []
        return {"times": times}

    def _attention_calls(
        self, tokens: int, case: dict[str, Any], arenas: Sequence[torch.Tensor]
    ) -> Iterator[dict[str, float]]:
        """Microseconds by stage of an AG rank's work on one micro-batch, layer after layer."""
        schedule = naive(len(self._layers), tokens=tokens, shared=self._model.has_shared)
        rank = self._attention(schedule, case["seq_len"], arenas[self._world.place.index])
        rank.compute(schedule["A[0.0]"])
        if self._model.has_shared:
            rank.compute(schedule["S[0.0]"])
        for layer in itertools.cycle(range(len(self._layers))):
            h, combined = self._timed(rank.combined, 0)
            task = replace(schedule["A[0.0]"], layer=layer)
            _, attended = self._timed(rank.attend, task, h)
            times = {"combine": combined, "attention": attended}
            if self._model.has_shared:
                times["shared"] = self._timed(rank.compute, replace(task, kind=Kind.SHARED))[1]
            yield times

    def _expert_calls(self, tokens: int, arenas: Sequence[torch.Tensor]) -> Iterator[dict[str, float]]:
        """Microseconds of an EG rank's work on a chunk, whose copies lie in the arenas of the AG ranks."""
        place, known = self._world.place, self._routings(tokens)
        while True:
            layer, counts = known[self._draw.integers(len(known))]
            sizes = [sum(rows) for rows in counts]
            first = [
                min(place.index * a.shape[1] // place.eg, a.shape[1] - n) for a, n in zip(arenas, sizes, strict=True)
            ]
            sent, returned = (
                [arena[side, at : at + n] for arena, at, n in zip(arenas, first, sizes, strict=True)] for side in (0, 1)
            )
            yield {"expert": self._timed(self._layers[layer], sent, counts, returned)[1]}

    def _routings(self, tokens: int) -> list[tuple[int, Sequence[Sequence[int]]]]:
        """(layer, copies from each AG rank for each own expert) of chunks of this many tokens.

        They are those of the schedules learnt so far, else, for a size that no schedule has, balanced draws.
        """
        known: list[tuple[int, Sequence[Sequence[int]]]] = []
        for executor in self._executors.values():
            if not isinstance(executor.work, ExpertRank):
                continue
            sizes = {place_of(task): task.tokens for task in executor.schedule.streams["EG"]}
            known += [(at[0], rows) for at, rows in executor.work.known.items() if sizes[at] == tokens]
        if known:
            return known
        model, place = self._model, self._world.place
        mine = owned(model.experts, place.eg, place.index)
        shares = [1 / model.experts] * model.experts
        draws = [self._draw.multinomial(tokens * model.top_k, shares, size=place.ag) for _ in self._layers]
        return [(layer, routed[:, mine.start : mine.stop].tolist()) for layer, routed in enumerate(draws)]

    def _timed(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, float]:
        """(result, microseconds) of a call, the device's work included."""
        self._world.synchronize()
        start = time.perf_counter_ns()
        result = call(*args, **kwargs)
        self._world.synchronize()
        return result, (time.perf_counter_ns() - start) / 1e3

    def _link(self, job: dict[str, Any]) -> dict[str, Any]:
        case = self._cases[job["case"]]
        self._load(case)
        place, numerics = self._world.place, self._world.numerics
        found = []
        for tokens in job["chunks"]:
            rows = max(1, tokens * self._model.top_k // place.eg)
            shape = (TRAIN, len(place.peers), rows, self._model.hidden)
            pieces = torch.zeros(shape, device=numerics.device, dtype=numerics.dtype)
            size = rows * place.ag * self._model.hidden * pieces.element_size()
            for streams in (["A2E"], ["E2A"], ["A2E", "E2A"]):
                beside = self._beside(case, pieces, streams, 0)
                found.append({"streams": streams, "bytes": size} | beside)
        return {"trains": found}

    def _interference(self, job: dict[str, Any]) -> dict[str, Any]:
        """Computation alone, transfers in both directions alone, and both, on all ranks at once."""
        case = self._cases[job["case"]]
        self._load(case)
        numerics, place = self._world.numerics, self._world.place
        rows = max(1, job["chunk"] * self._model.top_k // place.eg)
        shape = (job["messages"], len(place.peers), rows, self._model.hidden)
        pieces = torch.zeros(shape, device=numerics.device, dtype=numerics.dtype)
        size = rows * place.ag * self._model.hidden * pieces.element_size()
        both = ["A2E", "E2A"]
        return {
            "bytes": size,
            "compute": self._beside(case, pieces, [], job["products"]),
            "transfer": self._beside(case, pieces, both, 0),
            "both": self._beside(case, pieces, both, job["products"]),
        }

    def _beside(
        self, case: dict[str, Any], pieces: torch.Tensor, streams: Sequence[str], products: int
    ) -> dict[str, Any]:
        """Post all messages of some streams at once, then compute; nanoseconds of posts, arrivals and products.

        `pieces` are [messages, peers, rows, hidden]; a product is [64, 256] x [256, 256] and stays in a core's cache.
        """
        numerics, (_, outgoing, incoming) = self._world.numerics, self._world.place.streams
        x, weight = (torch.randn(n, 256).to(numerics.device, numerics.dtype) for n in (64, 256))
        clock = self._world.clock()
        self._world.tune(case["link"], Shape(*case["shape"]))
        link = self._world.link(clock, case["link"], Shape(*case["shape"]))
        messages = [(str(i), i, list(piece)) for i, piece in enumerate(pieces)]
        expected = zip(messages, pieces, strict=True) if incoming in streams else ()
        clock.start()
        link.open([(name, tag, list(torch.empty_like(piece))) for (name, tag, _), piece in expected])
        self._world.start_together()
        for message in messages if outgoing in streams else []:
            link.post(message)
        marks = [clock.mark()]
        for _ in range(products):
            F.linear(x, weight)
            marks.append(clock.mark())
        posted, arrived = link.close()
        row = {"posted": list(posted.values()), "arrived": list(arrived.values())}
        return row | {"products": [clock.read(mark) for mark in marks]}

    def _operations(self, job: dict[str, Any]) -> dict[str, Any]:
        """Matrix products [m, k] x [k, n], causal attention cores and experts, each over a range of sizes."""
        numerics = self._world.numerics
        rows: list[tuple[str, float, list[float]]] = []

        def new(*shape: int) -> torch.Tensor:
            return torch.randn(*shape).to(numerics.device, numerics.dtype)

        def time_all(op: str, work: float, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
            self._world.meet_group()
            rows.append((op, work, [self._timed(call, *args, **kwargs)[1] for _ in range(REPEATS)][1:]))

        for m in job["rows"]:
            for k, n in job["matrices"]:
                time_all("gemm", m * k * n, F.linear, new(m, k), new(n, k))
            for hidden, width in job["experts"]:
                time_all("expert", 3 * m * hidden * width, Expert(hidden, width, numerics, "operation"), new(m, hidden))
        for batch, seq_len, heads, dim in job["attention"]:
            q, k, v = (new(batch, heads, seq_len, dim) for _ in range(3))
            work = 2 * batch * heads * seq_len * seq_len * dim
            time_all("attention", work, F.scaled_dot_product_attention, q, k, v, is_causal=True)
        return {"operations": rows}


def lost_ns() -> int:
    """Nanoseconds that this thread was ready to run while its core did something else, or the host took the core away.

    0 where the kernel does not tell.
    """
    try:
        queued = int(Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text().split()[1])
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


def stamps_of(row: dict[str, Any]) -> Stamps:
    """The stamps that a "run" job returned for a rank."""
    return Stamps([(name, start, end) for name, start, end in row["computed"]], row["posted"], row["arrived"])


if __name__ == "__main__":
    main(*sys.argv[1:])
