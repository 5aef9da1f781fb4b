"""What every rank does: walk one list of jobs together, and let rank 0 write each result before the
next job begins.

A plan is a JSON object {ag, eg, backend, seed, cases, jobs}. `cases` maps an id to {model, scale,
seq_len, schedule, link, shape, synthetic}; a job is one of

    {"job": "learn", "case": id}                       get a case's schedule ready: walk it once, task by task
    {"job": "run", "case": id}                         execute it once
    {"job": "stages", "case": id, "samples": [...], "chunks": [...]}    time attention, combine, shared experts for
                                                       numbers of samples, routed experts for tokens of a chunk
    {"job": "link", "case": id, "chunks": [...]}       time trains of messages in each direction, alone and in duplex
    {"job": "interference", "case": id, "chunk": n}    time computation and transfers alone, and beside each other
    {"job": "host", "case": id, "chunks": [...]}       time what hosts do between tasks, for tokens of a chunk
    {"job": "operations"}                              time matrix products, attention cores and experts of any shape
    {"job": "output", "case": id, "folder": path}      save the output of the case's last run, one file an AG rank

Results are JSON lines {"index", "ranks": [one object a rank]}; a job whose line is there is not
done again.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from realrun.calibration import benchmarks
from realrun.runtime.executor import AttentionRank
from realrun.runtime.rank import Rank
from realrun.runtime.world import World, die_with_parent


def main(plan_path: str, results_path: str) -> None:
    """Entry of a spawned rank."""
    die_with_parent()
    plan = json.loads(Path(plan_path).read_text())
    work(plan, Path(results_path))


def work(plan: dict[str, Any], results: Path) -> None:
    """Do every job of a plan that has no line in rank 0's `results` yet."""
    with (
        World(plan["ag"], plan["eg"], plan["seed"], plan["backend"]) as world,
        torch.inference_mode(),
    ):
        lines = results.read_text().splitlines() if results.exists() else []
        done = world.all_gather({"done": [json.loads(line)["index"] for line in lines]})[0]["done"]
        rank = Rank(world, plan["cases"])
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection of torch's many objects costs as much as a task
        for index, job in enumerate(plan["jobs"]):
            if index in done:
                continue
            rows = world.all_gather(JOBS[job["job"]](rank, job))
            if world.place.rank == 0:
                with results.open("a") as file:
                    file.write(json.dumps({"index": index, "ranks": rows}) + "\n")


def learn(rank: Rank, job: dict[str, Any]) -> dict[str, Any]:
    """Get a case ready to run."""
    rank.executor(job["case"])
    return {}


def run(rank: Rank, job: dict[str, Any]) -> dict[str, Any]:
    """Run a case once: the stamps of this rank, how long it was kept from its core, and the core's
    speed."""
    return rank.once(rank.executor(job["case"]), rank.cases[job["case"]])


def output(rank: Rank, job: dict[str, Any]) -> dict[str, Any]:
    """Save what the last run of a case computed."""
    executor, place = rank.executor(job["case"]), rank.world.place
    if isinstance(executor.work, AttentionRank):
        np.save(
            Path(job["folder"]) / f"{job['case']}-{place}.npy",
            executor.work.output().float().cpu().numpy(),
        )
    return {}


JOBS: dict[str, Callable[[Rank, dict[str, Any]], dict[str, Any]]] = {
    "learn": learn,
    "run": run,
    "output": output,
    "stages": benchmarks.stages,
    "host": benchmarks.host,
    "link": benchmarks.link,
    "interference": benchmarks.interference,
    "operations": benchmarks.operations,
}


if __name__ == "__main__":
    main(*sys.argv[1:])
