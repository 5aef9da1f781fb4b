"""Scenarios and costs that several test modules take."""

from __future__ import annotations

from typing import Any

from simdep.scenario.spec import Scenario
from simdep.schedule import Task


def varied_us(task: Task) -> int:
    """Different whole costs for different tasks, 0 for some."""
    return (task.tokens * 7 + 3 * task.layer + 5 * task.mb + 2 * (task.chunk or 0)) % 11


def linked_scenario(**changes: Any) -> Scenario:
    """DeepSeek-V2 on 3+5 A6000 with a link of 20 us and 25 GB/s; `changes` are keys of the
    deployment, the workload or the schedule."""
    deployment = {
        "hardware": "a6000",
        "ag": 3,
        "eg": 5,
        "link": {"alpha_us": 20, "gbytes_per_s": 25},
    }
    workload = {"seq_len": changes.pop("seq_len", 512), "m_a": changes.pop("m_a", 2)}
    of_schedule = ("policy", "order", "r1", "r2")
    schedule = {key: changes.pop(key) for key in of_schedule if key in changes}
    return Scenario.from_dict(
        {
            "model": "deepseek-v2",
            "layers": 3,
            "deployment": deployment | changes,
            "workload": workload,
            "schedule": schedule,
        }
    )
