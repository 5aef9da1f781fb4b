"""The calibration jobs of a plan: which sizes the ranks measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from realrun.cases import UNMEASURED, Case
from simdep.scenario.task_costs import ScenarioCosts

OPERATION_SIZES: dict[str, Any] = {
    "job": "operations",
    "rows": [8, 32, 128, 512],
    "matrices": [(512, 512), (512, 2048), (2048, 512), (1024, 4096)],
    "experts": [(256, 176), (512, 384), (1024, 704)],
    "attention": [
        (1, 64, 4, 128),
        (4, 64, 8, 128),
        (2, 128, 8, 128),
        (4, 256, 8, 128),
        (1, 512, 16, 128),
    ],
}
TRAIN_US, MAX_TRAIN, PRODUCT_US = 50_000.0, 64, 80.0  # of an interference measurement
_OWN_MBYTES_PER_S = {"lo": 1e3, "nccl": 1e5}  # about, of links that go as fast as they can


def stage_jobs(cases: Mapping[str, Case]) -> list[dict[str, Any]]:
    """The calibration jobs for cases of one shape, by their ids in the plan."""
    first, *_ = cases
    samples, chunks = set(), set()
    for case in cases.values():
        samples.update(case.samples)
        chunks |= {task.tokens for task in case.schedule.streams["A2E"]}
    sizes = {"samples": _at_least_three(samples), "chunks": _at_least_three(chunks)}
    jobs: list[dict[str, Any]] = []
    if not cases[first].synthetic:
        jobs.append({"job": "stages", "case": first, **sizes})
    of_transport = {case.transport: case_id for case_id, case in cases.items()}
    for case_id in of_transport.values():
        case = cases[case_id]
        jobs.append({"job": "host", "case": case_id, "chunks": sizes["chunks"]})
        if case.link != "shm":  # there the runner itself delivers on time, at no cost
            jobs.append({"job": "link", "case": case_id, "chunks": sizes["chunks"][:3]})
        if not case.synthetic:
            train = _train(case, sizes["chunks"][-1])
            jobs.append({"job": "interference", "case": case_id, **train})
    return jobs


def _train(case: Case, tokens: int) -> dict[str, int]:
    """A train of messages that takes about `TRAIN_US` at the speed of the case's link, with chunks
    of at most `tokens`, and as many products."""
    token_bytes = ScenarioCosts(case.scenario_on(UNMEASURED)).transfer_bytes(1)
    rate = _OWN_MBYTES_PER_S.get(case.link, case.speed.mbytes_per_s)
    chunk = min(tokens, max(1, round(TRAIN_US / 8 * rate / token_bytes)))
    messages = max(4, min(MAX_TRAIN, round(TRAIN_US * rate / (chunk * token_bytes))))
    return {"chunk": chunk, "messages": messages, "products": round(TRAIN_US / PRODUCT_US)}


def _at_least_three(sizes: set[int]) -> list[int]:
    """The sizes, with neighbours added where they are too few to fit a line."""
    enough = set(sizes)
    while len(enough) < 3:
        enough.add(2 * max(enough))
    return sorted(enough)
