"""FinDEP on H20 from independent measurements: nothing of the paper but its set-up.

Products and attention cores cost what InferSim measured on H20, links what Vidur measured on
machines with the same NVLink and NICs. A PyTorch program of separate kernels and NCCL messages adds
three things that no kernel table holds. Each is a round or published figure, stated in
`PARAMETERS`; none is fitted, but which ones was chosen with Tables 3 and 4 in view:

- a host gap once a task and micro-batch, as replaying a real run of another system gives it: the host then queues the
  chunks of the micro-batch one after the other, so each of its r2 chunks carries 1 / r2 of the gap;
- a launch of `LAUNCH_US` for every small kernel that stands between the products;
- computation beside messages that are under way or awaited runs slower, by the SMs that communication holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from simdep.costs import StageTimes
from simdep.scenario import work
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind
from simdep.validation.reproduce.result import Parameter

HOST_GAP_US = 1135
LAUNCH_US = 10
ATTENTION_LAUNCHES, SHARED_LAUNCHES, EXPERT_LAUNCHES = 60, 4, 6
BESIDE_MESSAGES = 132 / 112

_REPLAYED = "Qwen3-30B-A3B on 4 V100 (afd_demo, PyTorch and NCCL)"
_LAUNCHED = (
    "besides products, of an attention task (norms, rotary embedding, router, sorting of copies), of the shared "
    "experts, and of each routed expert (gather, activation, weighting, scatter)"
)
_HELD = "products on H800 with 20 of its 132 SMs reserved for communication (DeepEP); taken for H20 and NCCL alike"
PARAMETERS = tuple(
    Parameter(name, value, unit, label, f"route (b): {source}")
    for name, value, unit, label, source in (
        (
            "host gap",
            HOST_GAP_US,
            "us",
            "measured",
            f"`simdep replay` of {_REPLAYED}, its first 24 layers",
        ),
        (
            "launch",
            LAUNCH_US,
            "us a kernel",
            "assumed",
            "PyTorch in eager mode, 5 to 10 us of host a kernel",
        ),
        (
            "launches",
            f"{ATTENTION_LAUNCHES}, {SHARED_LAUNCHES}, {EXPERT_LAUNCHES}",
            "kernels",
            "assumed",
            _LAUNCHED,
        ),
        ("slow-down beside messages", BESIDE_MESSAGES, "times", "published", _HELD),
    )
)


def stage_times(scenario: Scenario) -> StageTimes:
    """Microseconds of the tasks of a scenario; experts run one after the other, three products each
    (FinDEP, Eq. 3)."""
    costs, where, model = ScenarioCosts(scenario), scenario.deployment, scenario.model
    chunk = scenario.tokens / scenario.r2
    local = model.experts / where.eg
    rows = chunk * where.ag * model.top_k / model.experts
    awaited = scenario.r1 > 1  # another micro-batch is always on its way
    beside = {True: BESIDE_MESSAGES, False: 1.0}
    attention = costs.attention(scenario.tokens) + ATTENTION_LAUNCHES * LAUNCH_US
    expert = costs.products(work.expert_products(model, rows)) + EXPERT_LAUNCHES * LAUNCH_US
    shared = (
        costs.shared(scenario.tokens) + SHARED_LAUNCHES * LAUNCH_US if model.has_shared else 0.0
    )
    return StageTimes(
        attention=HOST_GAP_US + beside[awaited] * attention,
        expert=HOST_GAP_US / scenario.r2 + beside[awaited or scenario.r2 > 1] * local * expert,
        a2e=costs.transfer(Kind.A2E, chunk),
        e2a=costs.transfer(Kind.E2A, chunk),
        shared=BESIDE_MESSAGES * shared,
    )


def inversions(measured: Sequence[float], predicted: Sequence[float]) -> list[float]:
    """For each pair that `predicted` puts in the wrong order, how many percent the measured values
    lie apart."""
    both = list(zip(measured, predicted, strict=True))
    return [
        100 * (high / low - 1)
        for (low, low_told), (high, high_told) in permutations(both, 2)
        if low < high and low_told >= high_told
    ]
