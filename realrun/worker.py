"""What every rank does: walk one list of jobs together, and let rank 0 write each result before the next job begins.

A plan is a JSON object {ag, eg, backend, seed, cases, jobs}. `cases` maps an id to {model, scale, seq_len, schedule,
link, shape, synthetic}; a job is one of

    {"job": "run", "case": id}                         execute the case's schedule once (first: learn it)
    {"job": "stages", "case": id, "samples": [...], "chunks": [...]}    time attention, combine, shared experts for
                                                       numbers of samples, routed experts for tokens of a chunk
    {"job": "link", "case": id, "chunks": [...]}       time trains of messages in each direction
    {"job": "host", "case": id, "chunks": [...]}       time what hosts do between tasks, for tokens of a chunk
    {"job": "operations"}                              time matrix products, attention cores and experts of any shape
    {"job": "output", "case": id, "folder": path}      save the output of the case's last run, one file an AG rank

Results are JSON lines {"index", "ranks": [one object a rank]}; a job whose line is there is not done again.
"""

from __future__ import annotations

import gc
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from realrun.executor import AttentionRank, Executor, ExpertRank, Stamps, SyntheticRank, place_of
from realrun.layers import AttentionLayer, Expert, ExpertLayer, owned
from realrun.ranks import World, die_with_parent
from realrun.shaped import Shape
from simdep.models import load_model
from simdep.policies import findep, naive
from simdep.schedule import Kind, Schedule, Task

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
        self._draw = np.random.default_rng(world.numerics.seed)  # the same on every rank

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """One job; returns what this rank has to tell, ready for JSON."""
        doers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "run": self._run, "stages": self._stages, "link": self._link, "operations": self._operations,
            "host": self._host, "output": self._output,
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
            self._executors[case_id] = self._synthetic(case, Schedule.from_dict(case["schedule"]), case["synthetic"])
        elif case_id not in self._executors:
            world, schedule = self._world, Schedule.from_dict(case["schedule"])
            clock = world.clock()
            link = world.link(clock, case["link"], Shape(*case["shape"]))
            arenas = self._arenas(schedule, shared=not link.carries_payload)
            if world.place.on_ag:
                work: AttentionRank | ExpertRank = self._attention(schedule, case["seq_len"], arenas[world.place.index])
            else:
                work = ExpertRank(self._model, self._layers, world.numerics, [] if link.carries_payload else arenas)
            executor = Executor(schedule, world.place, work, link, clock, world.links, self._model.experts)
            executor.learn()
            self._executors[case_id] = executor
        return self._executors[case_id]

    def _synthetic(self, case: dict[str, Any], schedule: Schedule, durations: dict[str, float]) -> Executor:
        """Timed waits for computation, messages of the size that balanced routing gives them."""
        world, model, place = self._world, self._model, self._world.place
        clock = world.clock()
        link = world.link(clock, case["link"], Shape(*case["shape"]))
        rows = {t.name: max(1, t.tokens * model.top_k // place.eg) for t in schedule}
        scratch = torch.zeros(
            max(rows.values()), model.hidden, device=world.numerics.device, dtype=world.numerics.dtype
        )
        work = SyntheticRank(durations, lambda task: [scratch[: rows[task.name]]] * len(place.peers))
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
            executor = self._synthetic(case, schedule, dict.fromkeys(STAGES, HOST_TASK_US))
            runs[tokens] = self._once(executor)
        return {"runs": runs}

    def _attention(self, schedule: Schedule, seq_len: int, arena: torch.Tensor) -> AttentionRank:
        place, numerics = self._world.place, self._world.numerics
        return AttentionRank(schedule, place, self._model, self._layers, numerics, seq_len, arena)

    def _arenas(self, schedule: Schedule, *, shared: bool) -> list[torch.Tensor]:
        """Memory for the copies that each AG rank sends and gets back: its own, or that of all, shared by all ranks."""
        place, numerics, model = self._world.place, self._world.numerics, self._model
        shape = (2, schedule.tokens * model.top_k, model.hidden)
        if (shape, shared) not in self._memory:
            if shared:
                elements = [math.prod(shape)] * place.ag + [0] * place.eg
                found = [tensor.view(shape) for tensor in self._world.share(elements, numerics.dtype)[: place.ag]]
            else:
                found = [torch.zeros(shape, device=numerics.device, dtype=numerics.dtype)] * place.ag
            self._memory[shape, shared] = found
        return self._memory[shape, shared]

    def _run(self, job: dict[str, Any]) -> dict[str, Any]:
        return self._once(self._executor(job["case"]))

    def _once(self, executor: Executor) -> dict[str, Any]:
        executor.open()
        self._world.start_together()
        waited = queued_ns()
        stamps = executor.run()
        waited = queued_ns() - waited
        row = {"computed": stamps.computed, "posted": stamps.posted, "arrived": stamps.arrived}
        return row | {"queued_ns": waited, "sentinel_ns": sentinel_ns()}

    def _output(self, job: dict[str, Any]) -> dict[str, Any]:
        executor, place = self._executor(job["case"]), self._world.place
        if isinstance(executor.work, AttentionRank):
            np.save(Path(job["folder"]) / f"{job['case']}-{place}.npy", executor.work.output().float().cpu().numpy())
        return {}

    def _stages(self, job: dict[str, Any]) -> dict[str, Any]:
        """Time the stages of one group while the other one rests, and then the other's."""
        self._executor(job["case"])  # so that the experts know how real tokens are routed
        seq_len, place = self._cases[job["case"]]["seq_len"], self._world.place
        times: dict[str, dict[int, list[float]]] = {}
        for on_ag in (True, False):
            self._world.meet()
            if place.on_ag != on_ag:
                continue
            for size in job["samples"] if on_ag else job["chunks"]:
                found = self._time_attention(size, seq_len) if on_ag else self._time_experts(size)
                for kind, values in found.items():
                    times.setdefault(kind, {})[size * seq_len if on_ag else size] = values
        return {"times": times}

    def _time_attention(self, samples: int, seq_len: int) -> dict[str, list[float]]:
        schedule = naive(len(self._layers), tokens=samples * seq_len, shared=self._model.has_shared)
        rank = self._attention(schedule, seq_len, self._arenas(schedule, shared=False)[self._world.place.index])
        rank.compute(schedule["A[0.0]"])
        if self._model.has_shared:
            rank.compute(schedule["S[0.0]"])
        times: dict[str, list[float]] = {"attention": [], "combine": [], "shared": []}
        for repeat in range(REPEATS):
            layer = repeat % len(self._layers)
            self._world.meet_group()
            h, combined = self._timed(rank.combined, 0)
            task = Task(Kind.ATTENTION, layer, 0, tokens=samples * seq_len)
            _, attended = self._timed(rank.attend, task, h)
            times["combine"].append(combined)
            times["attention"].append(attended)
            if self._model.has_shared:
                task = Task(Kind.SHARED, layer, 0, tokens=samples * seq_len)
                times["shared"].append(self._timed(rank.compute, task)[1])
        return {kind: values[1:] for kind, values in times.items() if values}

    def _time_experts(self, tokens: int) -> dict[str, list[float]]:
        numerics, times = self._world.numerics, []
        known = self._routings(tokens)
        for _ in range(REPEATS):
            layer, counts = known[self._draw.integers(len(known))]
            arrived = [torch.randn(sum(rows), self._model.hidden) for rows in counts]
            arrived = [rows.to(numerics.device, numerics.dtype) for rows in arrived]
            out = [torch.empty_like(rows) for rows in arrived]
            self._world.meet_group()
            times.append(self._timed(self._layers[layer], arrived, counts, out)[1])
        return {"expert": times[1:]}

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
            for stream in ("A2E", "E2A"):
                found.append({"stream": stream, "bytes": size} | self._train(stream, pieces, case))
        return {"trains": found}

    def _train(self, stream: str, pieces: torch.Tensor, case: dict[str, Any]) -> dict[str, Any]:
        clock = self._world.clock()
        link = self._world.link(clock, case["link"], Shape(*case["shape"]))
        messages = [(str(i), i, list(piece)) for i, piece in enumerate(pieces)]
        clock.start()
        sends = (stream == "A2E") == self._world.place.on_ag
        link.open([] if sends else messages)
        self._world.start_together()
        for message in messages if sends else []:
            link.post(message)
        posted, arrived = link.close()
        return {"posted": list(posted.values()), "arrived": list(arrived.values())}

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


def queued_ns() -> int:
    """Nanoseconds that this thread has been ready to run while its core did something else; 0 where unknown."""
    try:
        return int(Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text().split()[1])
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
