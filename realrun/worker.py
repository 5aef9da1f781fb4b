"""What every rank does: walk one list of jobs, and let rank 0 write each result before the
next job begins.

A job of a plan (`realrun.plan`) is one of

    {"job": "record", "case": id}       get a case ready: walk its schedule once, task by task
    {"job": "run", "case": id}          execute it once
    {"job": "stages", "case": id, "samples": [...], "chunks": [...]}
                                        time attention, combine, shared experts for numbers of
                                        samples, routed experts for tokens of a chunk
    {"job": "link", "case": id, "chunks": [...]}
                                        time trains of messages in each direction, alone and both
    {"job": "interference", "case": id, "chunk": n, "messages": n, "products": n}
                                        time computation and transfers alone, and beside each other
    {"job": "host", "case": id, "chunks": [...]}
                                        time what hosts do between tasks, for tokens of a chunk
    {"job": "operations", ...}          time matrix products, attention cores and experts
    {"job": "output", "case": id, "folder": path}
                                        save the output of the last run, one file an AG rank

A job whose result is there is not done again.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from realrun.calibration.benchmarks import (
    time_host,
    time_interference,
    time_link,
    time_operations,
    time_stages,
)
from realrun.plan import Plan, append_result, drop_unfinished, results_of
from realrun.runtime.launch import die_with_parent
from realrun.runtime.rank import Rank
from realrun.runtime.work import AttentionRank
from realrun.runtime.world import World


def main(plan_path: str, results_path: str) -> None:
    """Entry of a spawned rank."""
    die_with_parent()
    work_through(Plan.load(Path(plan_path)), Path(results_path))


def work_through(plan: Plan, results: Path) -> None:
    """Do every job of a plan that has no line in rank 0's `results` yet."""
    with (
        World(plan.ag, plan.eg, plan.seed, plan.backend) as world,
        torch.inference_mode(),
    ):
        leads = world.place.rank == 0
        if leads:
            drop_unfinished(results)
        done = [row["index"] for row in results_of(results)]
        done = world.all_gather({"done": done})[0]["done"]
        rank = Rank(world, plan.cases)
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection of torch's many objects costs as much as a task
        for index, job in enumerate(plan.jobs):
            if index in done:
                continue
            rows = world.all_gather(JOBS[job["job"]](rank, job))
            if leads:
                append_result(results, index, rows)


def record(rank: Rank, job: Mapping[str, Any]) -> dict[str, Any]:
    """Get a case ready to run."""
    rank.executor(job["case"])
    return {}


def run_case(rank: Rank, job: Mapping[str, Any]) -> dict[str, Any]:
    """Run a case once."""
    return rank.measure(rank.executor(job["case"]), rank.cases[job["case"]]).to_dict()


def output(rank: Rank, job: Mapping[str, Any]) -> dict[str, Any]:
    """Save what the last run of a case computed."""
    executor, place = rank.executor(job["case"]), rank.world.place
    if isinstance(executor.work, AttentionRank):
        path = Path(job["folder"]) / f"{job['case']}-{place}.npy"
        np.save(path, executor.work.output().float().cpu().numpy())
    return {}


JOBS: dict[str, Callable[[Rank, Mapping[str, Any]], dict[str, Any]]] = {
    "record": record,
    "run": run_case,
    "output": output,
    "stages": time_stages,
    "host": time_host,
    "link": time_link,
    "interference": time_interference,
    "operations": time_operations,
}


if __name__ == "__main__":
    main(*sys.argv[1:])
