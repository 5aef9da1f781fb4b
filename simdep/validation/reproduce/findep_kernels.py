"""FinDEP on H20 from independent measurements: nothing of the paper but its set-up.

Products and attention cores cost what InferSim measured on H20, links what Vidur measured on
machines with the same NVLink and NICs. A PyTorch program of separate kernels and NCCL messages adds
three things that no kernel table holds. Each is a round or published figure, stated in
`KERNEL_PARAMETERS`; none is fitted, but which ones was chosen with Tables 3 and 4 in view:

- a host gap once a task and micro-batch, as replaying a real run of another system gives it: the
  host then queues the chunks of the micro-batch one after the other, so each of its r2 chunks
  carries 1 / r2 of the gap;
- a launch of 10 us for every small kernel that stands between the products;
- computation beside messages that are in flight or awaited runs slower, by the SMs that
  communication holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from simdep.costs import StageTimes
from simdep.scenario import work
from simdep.scenario.estimates import CostEvidence
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind
from simdep.validation.reproduce.result import Parameter

_HOST_GAP_US = 1135
_LAUNCH_US = 10
_ATTENTION_LAUNCHES, _SHARED_LAUNCHES, _EXPERT_LAUNCHES = 60, 4, 6
_BESIDE_MESSAGES = 132 / 112
_ROUTE = "route (b):"
KERNEL_PARAMETERS = (
    Parameter(
        "host gap",
        _HOST_GAP_US,
        "us",
        "measured",
        f"{_ROUTE} `simdep replay` of Qwen3-30B-A3B on 4 V100 (afd_demo, PyTorch and NCCL), "
        "its first 24 layers",
    ),
    Parameter(
        "launch",
        _LAUNCH_US,
        "us a kernel",
        "assumed",
        f"{_ROUTE} PyTorch in eager mode, 5 to 10 us of host a kernel",
    ),
    Parameter(
        "launches",
        f"{_ATTENTION_LAUNCHES}, {_SHARED_LAUNCHES}, {_EXPERT_LAUNCHES}",
        "kernels",
        "assumed",
        f"{_ROUTE} besides products, of an attention task (norms, rotary embedding, router, "
        "sorting of routed tokens), of the shared experts, and of each routed expert "
        "(gather, activation, "
        "weighting, scatter)",
    ),
    Parameter(
        "slow-down beside messages",
        _BESIDE_MESSAGES,
        "times",
        "published",
        f"{_ROUTE} products on H800 with 20 of its 132 SMs reserved for communication (DeepEP); "
        "taken for H20 and NCCL alike",
    ),
)


def kernel_stage_times(scenario: Scenario, evidence: CostEvidence | None = None) -> StageTimes:
    """Microseconds of the tasks of a scenario, from kernels; `evidence` gathers their uses.

    Experts run one after the other, three products each (FinDEP, Eq. 3).
    """
    costs, model = ScenarioCosts(scenario, evidence), scenario.model
    ag, eg = scenario.deployment.ag, scenario.deployment.eg
    chunk = scenario.tokens / scenario.r2
    routed_tokens = chunk * ag * model.top_k / model.experts  # of one expert
    # with a second micro-batch or chunk, another one is always on its way
    beside_batch = _BESIDE_MESSAGES if scenario.r1 > 1 else 1.0
    beside_chunk = _BESIDE_MESSAGES if scenario.r1 > 1 or scenario.r2 > 1 else 1.0
    attention = costs.attention(scenario.tokens) + _ATTENTION_LAUNCHES * _LAUNCH_US
    products = costs.products(work.expert_products(model, routed_tokens))
    expert = products + _EXPERT_LAUNCHES * _LAUNCH_US
    shared = 0.0
    if model.has_shared:
        shared = costs.shared(scenario.tokens) + _SHARED_LAUNCHES * _LAUNCH_US
    local_experts = model.experts / eg
    return StageTimes(
        attention=_HOST_GAP_US + beside_batch * attention,
        expert=_HOST_GAP_US / scenario.r2 + beside_chunk * local_experts * expert,
        a2e=costs.transfer(Kind.A2E, chunk),
        e2a=costs.transfer(Kind.E2A, chunk),
        shared=_BESIDE_MESSAGES * shared,
    )


def inversions(measured: Sequence[float], predicted: Sequence[float]) -> list[float]:
    """For each pair in the wrong order: how many percent its measured values lie apart."""
    apart = []
    both = zip(measured, predicted, strict=True)
    for (low, low_predicted), (high, high_predicted) in permutations(both, 2):
        if low < high and low_predicted >= high_predicted:
            apart.append(100 * (high / low - 1))
    return apart
