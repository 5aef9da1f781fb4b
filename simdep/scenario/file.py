"""Scenarios from a TOML file, from flags, or from both (flags win).

What a file may hold:

    model = "deepseek-v2"          # a name, or the path of a HuggingFace config.json
    layers = 8                     # default: every layer of the model that has experts

    [deployment]
    hardware = "a6000"             # a name, or the path of a profile that `realrun calibrate` wrote
    ag = 3                         # GPUs of the attention group
    eg = 5                         # GPUs of the expert group; or, colocated, gpus = 8 in place of both
    link = { alpha_us = 20, gbytes_per_s = 25 }   # optional: replaces the link of the profile; or "inter-node"
    dispatch = "per-expert"        # optional: a row for each (token, expert); or per-gpu, broadcast
    a2e_dtype = "bf16"             # optional, as e2a_dtype: of the rows sent, default that of the workload
    comm_sms = 0                   # optional: SMs of each AG GPU that communication takes from its products
    comm_sms_from = "all"          # optional, colocated: all that a GPU computes; or "experts", the only ones beside it
    contention = 0.1               # optional: share of speed that a transfer takes from computation; else the profile's
    expert_gemm = "grouped"        # optional: one kernel for all experts of a GPU; "plain", one each; or "cheaper"
    shared_on = "ag"               # optional: the group that computes the shared experts; or "eg"
    duplex = "full"                # optional: or "half", where A2E and E2A share one medium
    memory_gbytes = 79             # optional: of each GPU for serving; default its data sheet less a reserve of 1

    [workload]
    phase = "prefill"              # or "decode": one new token a sample, seq_len tokens of context
    seq_len = 2048
    samples = 4                    # per AG GPU; m_a = samples / r1
    dtype = "bf16"                 # or fp32, fp8

    [schedule]
    policy = "findep"              # or another of `simdep policies`
    order = "asas"                 # or aass, or a list such as "A0 A1 S0 A2 S1 S2"
    r1 = 2
    r2 = 4
    micro_batches = [3, 1]         # optional, in place of r1 and samples: those of each micro-batch; or "3,1"
    chunks = [[1, 3], [2, 2]]      # optional, in place of r2: shares of the tokens of each micro-batch; or "1,3/2,2";
                                   # one list, such as [1, 3], stands for every micro-batch
    split = "token"                # optional: or "expert", where r2 counts groups of experts
    merge_last = false             # optional: the last layer is not cut into chunks

    [ranks]                        # optional, as is every key of it: how ranks differ; see simdep.scenario.imbalance
    routing = "power-law:1.2"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from simdep import checks, files
from simdep.file_kinds import SCENARIO
from simdep.hardware.profile import Cost, HardwareProfile, load_hardware
from simdep.scenario.imbalance import KEYS as RANKS_KEYS
from simdep.scenario.imbalance import Ranks, ranks_from_dict
from simdep.scenario.models import load_model
from simdep.scenario.spec import (
    COMM_SMS_FROM,
    DUPLEX,
    ELEMENT_BYTES,
    EXPERT_GEMMS,
    GROUPS,
    LINK_CLASSES,
    PHASES,
    SPLITS,
    Deployment,
    Scenario,
    Workload,
)
from simdep.scenario.work import DISPATCH

_KEYS = {
    "scenario": ("model", "layers", "scale", "deployment", "workload", "schedule", "ranks"),
    "deployment": (
        "hardware",
        "ag",
        "eg",
        "link",
        "dispatch",
        "a2e_dtype",
        "e2a_dtype",
        "gpus",
        "comm_sms",
        "comm_sms_from",
        "contention",
        "expert_gemm",
        "shared_on",
        "duplex",
        "memory_gbytes",
    ),
    "workload": ("phase", "seq_len", "samples", "m_a", "dtype"),
    "ranks": RANKS_KEYS,
    "schedule": ("policy", "order", "r1", "r2", "micro_batches", "chunks", "split", "merge_last"),
}
_REPLACES = {  # a flag -> the keys of the file that it takes the place of
    "m_a": ("samples",),
    "samples": ("m_a",),
    "gpus": ("ag", "eg"),
    "ag": ("gpus",),
    "eg": ("gpus",),
    "micro_batches": ("r1", "samples", "m_a"),
    "chunks": ("r2",),
    "r2": ("chunks",),
}


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a scenario file; raises ValueError that begins with the file's name."""
    return files.read_toml(path, SCENARIO)


def scenario_from_dict(data: Any, hardware: HardwareProfile | None = None) -> Scenario:
    """A checked scenario from nested tables (form at the top); raises ValueError naming the key at
    fault.

    `hardware` stands in for deployment.hardware where the caller has just measured it. The samples
    may be given as `workload.samples` (all of an AG GPU) or as `workload.m_a` (those of one
    micro-batch), default m_a = 1.
    """
    checks.mapping(data, _KEYS["scenario"], "scenario")
    deployment = checks.mapping(data.get("deployment", {}), _KEYS["deployment"], "deployment")
    workload = checks.mapping(data.get("workload", {}), _KEYS["workload"], "workload")
    schedule = checks.mapping(data.get("schedule", {}), _KEYS["schedule"], "schedule")
    if "model" not in data:
        raise ValueError("model is missing; a scenario has a model, hardware, ag and eg")
    ag, eg = _gpus(deployment)
    model = load_model(checks.string(data["model"], "model"))
    model = model.scaled(checks.number(data.get("scale", 1), "scale"))
    if hardware is None:
        if "hardware" not in deployment:
            raise ValueError("hardware is missing; name a profile or give the path of one")
        hardware = load_hardware(checks.string(deployment["hardware"], "hardware"))
    micro_batches = _micro_batches(schedule.get("micro_batches"))
    r1 = checks.integer(schedule.get("r1", len(micro_batches) or 1), "r1")
    chunks = _chunks(schedule.get("chunks"), r1)
    scenario = Scenario(
        model=model,
        deployment=Deployment(
            ag=ag,
            eg=eg,
            hardware=hardware,
            link=_link(deployment["link"]) if isinstance(deployment.get("link"), Mapping) else None,
            link_class=_link_class(deployment.get("link")),
            dispatch=checks.known(deployment.get("dispatch", "per-expert"), DISPATCH, "dispatch"),
            a2e_dtype=_dtype(deployment.get("a2e_dtype"), "a2e_dtype"),
            e2a_dtype=_dtype(deployment.get("e2a_dtype"), "e2a_dtype"),
            comm_sms=checks.integer(deployment.get("comm_sms", 0), "comm_sms", 0),
            shared_on=checks.known(deployment.get("shared_on", "ag"), GROUPS, "shared_on"),
            duplex=checks.known(deployment.get("duplex", "full"), DUPLEX, "duplex"),
            colocated="gpus" in deployment,
            contention=checks.number(deployment["contention"], "contention")
            if "contention" in deployment
            else None,
            comm_sms_from=checks.known(
                deployment.get("comm_sms_from", "all"), COMM_SMS_FROM, "comm_sms_from"
            ),
            expert_gemm=checks.known(
                deployment.get("expert_gemm", "grouped"), EXPERT_GEMMS, "expert_gemm"
            ),
            memory_gbytes=_memory(deployment.get("memory_gbytes")),
        ),
        workload=Workload(
            phase=checks.known(workload.get("phase", "prefill"), PHASES, "phase"),
            seq_len=checks.integer(workload.get("seq_len", 2048), "seq_len"),
            samples=_samples(workload, r1, micro_batches),
            dtype=checks.known(workload.get("dtype", "bf16"), ELEMENT_BYTES, "dtype"),
        ),
        layers=checks.integer(data.get("layers", model.moe_layers), "layers"),
        policy=checks.string(schedule.get("policy", "findep"), "policy"),
        order=checks.string(schedule.get("order", "asas"), "order"),
        r1=r1,
        r2=checks.integer(schedule.get("r2", max(map(len, chunks), default=1)), "r2"),
        micro_batches=micro_batches,
        chunks=chunks,
        split=checks.known(schedule.get("split", "token"), SPLITS, "split"),
        merge_last=checks.boolean(schedule.get("merge_last", False), "merge_last"),
        given=_given(data),
    )
    return replace(scenario, ranks=_ranks(data["ranks"], scenario)) if "ranks" in data else scenario


def override(data: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with the flags that are not None, each put into its table in place of what it
    contradicts there: m_a of samples, gpus of ag and eg, and so on."""
    merged: dict[str, Any] = {
        key: dict(value) if key in _KEYS and isinstance(value, Mapping) else value
        for key, value in data.items()
    }
    given = {key: value for key, value in flags.items() if value is not None}
    for key in given:
        for other in _REPLACES.get(key, ()):
            _home(merged, other).pop(other, None)
    for key, value in given.items():
        _home(merged, key)[key] = value
    return merged


def _given(data: Mapping[str, Any]) -> frozenset[str]:
    """Names of the fields that nested tables state."""
    names: set[str] = set()
    for key, value in data.items():
        names.update(value if key in _KEYS else (key,))
    return frozenset(names)


def _ranks(table: Any, scenario: Scenario) -> Ranks:
    checks.mapping(table, RANKS_KEYS, "ranks")
    model, where = scenario.model, scenario.deployment
    far_link = _link(table["far_link"]) if "far_link" in table else None
    ranks = ranks_from_dict(
        table,
        model.experts,
        top_k=model.top_k,
        tokens=scenario.tokens_routed,
        layers=scenario.layers,
        far_link=far_link,
    )
    ranks.check(where.ag, where.eg)
    return ranks


def _home(merged: dict[str, Any], key: str) -> dict[str, Any]:
    """The table that a key belongs to, made if it is not there."""
    home = next(name for name, keys in _KEYS.items() if key in keys)
    place: dict[str, Any] = merged if home == "scenario" else merged.setdefault(home, {})
    checks.mapping(place, _KEYS[home], home)
    return place


def _gpus(deployment: Mapping[str, Any]) -> tuple[int, int]:
    """GPUs that hold attention, and that hold experts."""
    if "gpus" in deployment:
        for key in ("ag", "eg"):
            if key in deployment:
                raise ValueError(
                    f"deployment has both gpus and {key}; give gpus for a colocated one, else ag and eg"
                )
        both = checks.integer(deployment["gpus"], "gpus")
        return both, both
    for key in ("ag", "eg"):
        if key not in deployment:
            raise ValueError(f"{key} is missing; a scenario has a model, hardware, ag and eg")
    return checks.integer(deployment["ag"], "ag"), checks.integer(deployment["eg"], "eg")


def _micro_batches(given: Any) -> tuple[int, ...]:
    """Samples of each micro-batch, from a list or a text such as `3,1`; none where none are
    given."""
    return () if given is None else _wholes(given, "micro_batches")


def _chunks(given: Any, r1: int) -> tuple[tuple[int, ...], ...]:
    """Shares of the chunks of each micro-batch, from lists or a text such as `1,3/2,2`; none where
    none are given."""
    if given is None:
        return ()
    rows = given.split("/") if isinstance(given, str) else given
    if not isinstance(rows, list) or not rows:
        raise ValueError(
            f"chunks={given!r}; write the shares of each chunk, such as [1, 3] or [[1, 3], [2, 2]]"
        )
    if not isinstance(given, str) and not any(isinstance(row, list) for row in rows):
        rows = [rows]
    chunks = tuple(_wholes(row, "chunks") for row in rows)
    return chunks * r1 if len(chunks) == 1 else chunks


def _wholes(given: Any, where: str) -> tuple[int, ...]:
    words = given.split(",") if isinstance(given, str) else given
    if not isinstance(words, list) or not words:
        raise ValueError(f"{where}={given!r}; it is a list of whole numbers, such as [3, 1]")
    numbers = (
        int(word) if isinstance(word, str) and word.strip().isdecimal() else word for word in words
    )
    return tuple(checks.integer(number, where) for number in numbers)


def _samples(workload: Mapping[str, Any], r1: int, micro_batches: tuple[int, ...]) -> int:
    if micro_batches and "m_a" in workload:
        raise ValueError(
            "m_a and micro_batches; give one of them: micro_batches lists the samples of each"
        )
    if micro_batches and "samples" not in workload:
        return sum(micro_batches)
    if "samples" in workload and "m_a" in workload:
        raise ValueError("workload has both samples and m_a; give one of them: samples = r1 * m_a")
    if "samples" in workload:
        return checks.integer(workload["samples"], "samples")
    return r1 * checks.integer(workload.get("m_a", 1), "m_a")


def _link(row: Any) -> Cost:
    checks.mapping(row, ("alpha_us", "gbytes_per_s"), "link")
    rate = checks.number(row.get("gbytes_per_s"), "link.gbytes_per_s", above=0)
    alpha = checks.number(row.get("alpha_us", 0), "link.alpha_us")
    return Cost(
        "link",
        alpha,
        1e-3 / rate,
        "assumed",
        f"link of {alpha:g} us and {rate:g} GB/s given in the scenario",
    )


def _link_class(link: Any) -> str:
    return (
        LINK_CLASSES[0]
        if link is None or isinstance(link, Mapping)
        else checks.known(link, LINK_CLASSES, "link")
    )


def _memory(value: Any) -> float | None:
    return None if value is None else checks.number(value, "memory_gbytes", above=0)


def _dtype(word: Any, where: str) -> str | None:
    return None if word is None else checks.known(word, ELEMENT_BYTES, where)
