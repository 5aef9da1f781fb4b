"""A policy of one's own: a ping-pong pipeline that begins with the last micro-batch.

python own_policy.py
"""

from __future__ import annotations

import simdep
from simdep.policies import Job, in_every_layer, on_groups, parse_order, register


@register(source="this example", parameters=("r1",))
def backwards(job: Job) -> simdep.Schedule:
    """Ping-pong pipeline that begins with the last micro-batch."""
    order = " ".join(f"A{mb} S{mb}" for mb in reversed(job.micro_batches))
    sequence = in_every_layer(parse_order(order, job.r1), job.layers)
    return on_groups(job, job.label("backwards", "r1"), sequence, wait_for_shared=True)


if __name__ == "__main__":
    scenario = simdep.Scenario.of(
        model="deepseek-v2", hardware="h20", ag=3, eg=5, layers=8, samples=12, r1=3
    )
    table = simdep.compare(scenario, ["pppipe", "backwards", "findep:r2=4"])
    print(table[["policy", "makespan_us", "throughput_tokens_per_s"]].to_string(index=False))
