"""What a real run does of what a scenario can ask for: it refuses the rest, field by field."""

from __future__ import annotations

from typing import Any

from realrun.place import MAX_MESSAGES
from simdep.checks import InputError, shown
from simdep.policies import find
from simdep.scenario.models import GQA, ModelSpec
from simdep.scenario.spec import Scenario

MAX_RANKS = 256  # of one host


def check_supported(scenario: Scenario) -> None:
    """Raise ValueError, naming the field, for what a real run does not do.

    The hardware and its memory may be stated: a real run has those of this machine.
    """
    deployment, workload = scenario.deployment, scenario.workload
    if deployment.colocated:
        raise InputError(f"gpus={deployment.ag}: realrun runs an AG and an EG; give ag and eg")
    ranks = deployment.ag + deployment.eg
    if ranks > MAX_RANKS:
        raise InputError(f"ag + eg = {ranks:,} ranks; one host runs at most {MAX_RANKS}")
    messages = scenario.layers * scenario.r1 * scenario.r2
    if messages > MAX_MESSAGES:
        raise InputError(
            f"layers * r1 * r2 = {messages:,} messages; a real run has at most {MAX_MESSAGES:,}"
        )
    if find(scenario.policy).colocated:
        raise InputError(
            f"policy={scenario.policy!r} is for colocated GPUs; realrun runs an AG and an EG"
        )
    if scenario.stage_times is not None:
        raise InputError("costs: a real run takes the times that it takes; leave the table out")
    if scenario.ranks is not None:
        raise InputError("ranks: in a real run ranks differ as they do; leave the table out")
    if deployment.contention is not None:
        raise InputError(
            f"contention={deployment.contention:g}: a real run has that of the machine; "
            "leave it out"
        )
    dtypes = (None, workload.dtype)
    _check_only("phase", workload.phase, ("prefill",))
    _check_only("a2e_dtype", deployment.a2e_dtype, dtypes)
    _check_only("e2a_dtype", deployment.e2a_dtype, dtypes)
    _check_only("dispatch", deployment.dispatch, ("per-expert",))
    _check_only("shared_on", deployment.shared_on, ("ag",))
    _check_only("duplex", deployment.duplex, ("full",))
    _check_only("split", scenario.split, ("token",))
    _check_only("link", deployment.link_class, ("intra-node",))
    _check_only("transport", deployment.transport, ("",))
    _check_only("comm_sms", deployment.comm_sms, (0,))
    _check_only("expert_gemm", deployment.expert_gemm, ("grouped",))
    _check_model(scenario.model)


def _check_only(field: str, value: Any, supported: tuple[Any, ...]) -> None:
    if value not in supported:
        raise InputError(
            f"{field}={shown(value)}: realrun runs {field}={shown(supported[-1])} only"
        )


def _check_model(model: ModelSpec) -> None:
    form = model.attention
    missing = ""
    if isinstance(form, GQA) and form.q_rank:
        missing = "low-rank queries"
    elif isinstance(form, GQA) and form.window:
        missing = "a sliding window"
    elif model.moe_every > 1:
        missing = "alternating dense layers"
    if missing:
        raise InputError(
            f"model={model.name!r} has {missing}, which realrun does not compute; "
            "simdep predicts it"
        )
