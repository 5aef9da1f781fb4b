"""A scenario: what is served (model, workload), on what (deployment), cut and ordered how (policy, order, r1, r2).

It comes from a TOML file, from flags, or from both (flags win):

    model = "deepseek-v2"          # a name, or the path of a HuggingFace config.json
    layers = 8                     # default: every layer of the model that has experts

    [deployment]
    hardware = "a6000"             # a name, or the path of a profile that `realrun calibrate` wrote
    ag = 3                         # GPUs of the attention group
    eg = 5                         # GPUs of the expert group
    link = { alpha_us = 20, gbytes_per_s = 25 }   # optional: replaces the link of the profile; or "inter-node"
    sending = "copies"             # optional: a row for each (token, expert); or once-per-gpu, broadcast
    a2e_dtype = "bf16"             # optional, as e2a_dtype: of the rows sent, default that of the workload
    comm_sms = 0                   # optional: SMs of each AG GPU that communication takes from its products
    shared_on = "ag"               # optional: the group that computes the shared experts; or "eg"
    duplex = "full"                # optional: or "half", where A2E and E2A share one medium

    [workload]
    phase = "prefill"              # or "decode": one new token a sample, seq_len tokens of context
    seq_len = 2048
    samples = 4                    # per AG GPU; m_a = samples / r1
    dtype = "bf16"                 # or fp32, fp8

    [schedule]
    policy = "findep"              # or naive, pppipe
    order = "asas"                 # or aass, or a list such as "A0 A1 S0 A2 S1 S2"
    r1 = 2
    r2 = 4
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simdep import checks
from simdep.hardware import Cost, HardwareProfile, load_hardware
from simdep.models import ModelSpec, load_model
from simdep.work import SENDING

ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp8": 1}
PHASES = ("prefill", "decode")
LINK_CLASSES = ("intra-node", "inter-node")
GROUPS = ("ag", "eg")
DUPLEX = ("full", "half")


@dataclass(frozen=True)
class Deployment:
    """`ag` + `eg` GPUs of one kind, and how rows travel between them.

    `link`, if given, replaces the profile's link (cost of the bytes of an EG GPU); `link_class` says which of a
    profile's point-to-point kernels it is otherwise. `transport` names what carries messages: costs of link and host
    that the profile holds for it go first. `sending` is one of `simdep.work.SENDING`; the data types of rows default
    to the workload's. `comm_sms` SMs of an AG GPU are not there for its matrix products. `shared_on` is the group that
    computes the shared experts; the directions of a half-`duplex` link share it.
    """

    ag: int
    eg: int
    hardware: HardwareProfile
    link: Cost | None = None
    transport: str = ""
    link_class: str = "intra-node"
    sending: str = "copies"
    a2e_dtype: str | None = None
    e2a_dtype: str | None = None
    comm_sms: int = 0
    shared_on: str = "ag"
    duplex: str = "full"


@dataclass(frozen=True)
class Workload:
    """`samples` sequences per AG GPU. Prefill computes seq_len tokens of each, decode one after seq_len of context."""

    phase: str
    seq_len: int
    samples: int
    dtype: str = "bf16"

    @property
    def tokens_per_sample(self) -> int:
        return self.seq_len if self.phase == "prefill" else 1

    @property
    def element_bytes(self) -> int:
        return ELEMENT_BYTES[self.dtype]


@dataclass(frozen=True)
class Scenario:
    """One question to the simulator. Raises ValueError if r1 does not divide the samples or eg exceeds the experts."""

    model: ModelSpec
    deployment: Deployment
    workload: Workload
    layers: int
    policy: str = "findep"
    order: str = "ASAS"
    r1: int = 1
    r2: int = 1

    def __post_init__(self) -> None:
        samples = self.workload.samples
        if samples % self.r1:
            divisors = [str(n) for n in range(1, samples + 1) if samples % n == 0]
            raise ValueError(f"r1={self.r1} does not divide the {samples} samples of an AG GPU; use {_or(divisors)}")
        if self.deployment.eg > self.model.experts:
            raise ValueError(f"eg={self.deployment.eg}: model {self.model.name} has only {self.model.experts} experts")

    @property
    def m_a(self) -> int:
        """Samples of a micro-batch per AG GPU."""
        return self.workload.samples // self.r1

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch per AG GPU."""
        return self.m_a * self.workload.tokens_per_sample

    def row_bytes(self, a2e: bool) -> int:
        """Bytes of an element of the rows sent to the EG (`a2e`), or back."""
        own = self.deployment.a2e_dtype if a2e else self.deployment.e2a_dtype
        return self.workload.element_bytes if own is None else ELEMENT_BYTES[own]

    @property
    def shape(self) -> str:
        """What a measured stage depends on besides its tokens; the key of stage costs in a profile."""
        return f"{self.model.name} {self.workload.phase} seq_len={self.workload.seq_len} {self.workload.dtype}"


_KEYS = {
    "scenario": ("model", "layers", "scale", "deployment", "workload", "schedule"),
    "deployment": (
        "hardware",
        "ag",
        "eg",
        "link",
        "sending",
        "a2e_dtype",
        "e2a_dtype",
        "comm_sms",
        "shared_on",
        "duplex",
    ),
    "workload": ("phase", "seq_len", "samples", "m_a", "dtype"),
    "schedule": ("policy", "order", "r1", "r2"),
}


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a scenario file; raises ValueError that begins with the file's name."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None


def scenario_from_dict(data: Any, hardware: HardwareProfile | None = None) -> Scenario:
    """A checked scenario from nested tables (form at the top); raises ValueError naming the key at fault.

    `hardware` stands in for deployment.hardware where the caller has just measured it. The samples may be given as
    `workload.samples` (all of an AG GPU) or as `workload.m_a` (those of one micro-batch), default m_a = 1.
    """
    checks.table(data, _KEYS["scenario"], "scenario")
    deployment = checks.table(data.get("deployment", {}), _KEYS["deployment"], "deployment")
    workload = checks.table(data.get("workload", {}), _KEYS["workload"], "workload")
    schedule = checks.table(data.get("schedule", {}), _KEYS["schedule"], "schedule")
    for key, place in (("model", data), ("ag", deployment), ("eg", deployment)):
        if key not in place:
            raise ValueError(f"{key} is missing; a scenario has a model, hardware, ag and eg")
    model = load_model(checks.text(data["model"], "model"))
    model = model.scaled(checks.number(data.get("scale", 1), "scale"))
    if hardware is None:
        if "hardware" not in deployment:
            raise ValueError("hardware is missing; name a profile or give the path of one")
        hardware = load_hardware(checks.text(deployment["hardware"], "hardware"))
    r1 = checks.whole(schedule.get("r1", 1), "r1")
    return Scenario(
        model=model,
        deployment=Deployment(
            ag=checks.whole(deployment["ag"], "ag"),
            eg=checks.whole(deployment["eg"], "eg"),
            hardware=hardware,
            link=_link(deployment["link"]) if isinstance(deployment.get("link"), Mapping) else None,
            link_class=_link_class(deployment.get("link")),
            sending=checks.known(deployment.get("sending", "copies"), SENDING, "sending"),
            a2e_dtype=_dtype(deployment.get("a2e_dtype"), "a2e_dtype"),
            e2a_dtype=_dtype(deployment.get("e2a_dtype"), "e2a_dtype"),
            comm_sms=checks.whole(deployment.get("comm_sms", 0), "comm_sms", 0),
            shared_on=checks.known(deployment.get("shared_on", "ag"), GROUPS, "shared_on"),
            duplex=checks.known(deployment.get("duplex", "full"), DUPLEX, "duplex"),
        ),
        workload=Workload(
            phase=checks.known(workload.get("phase", "prefill"), PHASES, "phase"),
            seq_len=checks.whole(workload.get("seq_len", 2048), "seq_len"),
            samples=_samples(workload, r1),
            dtype=checks.known(workload.get("dtype", "bf16"), ELEMENT_BYTES, "dtype"),
        ),
        layers=checks.whole(data.get("layers", model.moe_layers), "layers"),
        policy=checks.text(schedule.get("policy", "findep"), "policy"),
        order=checks.text(schedule.get("order", "asas"), "order"),
        r1=r1,
        r2=checks.whole(schedule.get("r2", 1), "r2"),
    )


def override(data: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with the flags that are not None, each put into its table; m_a replaces samples."""
    merged: dict[str, Any] = {
        key: dict(value) if key in _KEYS and isinstance(value, Mapping) else value for key, value in data.items()
    }
    for key, value in flags.items():
        if value is None:
            continue
        home = next(name for name, keys in _KEYS.items() if key in keys)
        place = merged if home == "scenario" else merged.setdefault(home, {})
        checks.table(place, _KEYS[home], home)
        place[key] = value
        for other in {"m_a": ("samples",), "samples": ("m_a",)}.get(key, ()):
            place.pop(other, None)
    return merged


def _samples(workload: Mapping[str, Any], r1: int) -> int:
    if "samples" in workload and "m_a" in workload:
        raise ValueError("workload has both samples and m_a; give one of them: samples = r1 * m_a")
    if "samples" in workload:
        return checks.whole(workload["samples"], "samples")
    return r1 * checks.whole(workload.get("m_a", 1), "m_a")


def _link(row: Any) -> Cost:
    checks.table(row, ("alpha_us", "gbytes_per_s"), "link")
    rate = checks.number(row.get("gbytes_per_s"), "link.gbytes_per_s", above=0)
    alpha = checks.number(row.get("alpha_us", 0), "link.alpha_us")
    return Cost("link", alpha, 1e-3 / rate, "assumed", f"link of {alpha:g} us and {rate:g} GB/s given in the scenario")


def _link_class(link: Any) -> str:
    return LINK_CLASSES[0] if link is None or isinstance(link, Mapping) else checks.known(link, LINK_CLASSES, "link")


def _dtype(word: Any, where: str) -> str | None:
    return None if word is None else checks.known(word, ELEMENT_BYTES, where)


def _or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
