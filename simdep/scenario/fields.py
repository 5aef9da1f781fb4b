"""The fields of a scenario, each declared once.

From its declaration follow how a file, a flag and a sweep axis are read and checked, the form of
the what-if page, the JSON schema of a scenario file and the reference page. To add a field, declare
it here, and read it where the simulator needs it (an attribute of `Deployment`, `Workload` or
`Scenario` of the same name is set by itself).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from simdep import checks
from simdep.checks import InputError
from simdep.scenario.field import (
    ONE_HARDWARE,
    Boolean,
    Counts,
    Factors,
    Field,
    HardwareName,
    Integer,
    Integers,
    Number,
    OneOf,
    Shares,
    Text,
)

ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp8": 1}
DTYPES = tuple(ELEMENT_BYTES)
MAX_LAYERS = 100_000  # far beyond any model: a sweep of millions would take minutes a point
PHASES = ("prefill", "decode")
DUPLEX = ("full", "half")
DISPATCH = ("per-expert", "per-gpu", "broadcast")
LINK_CLASSES = ("intra-node", "inter-node")
GROUPS = ("ag", "eg")


@dataclass(frozen=True)
class Table:
    """A table of a scenario file: what it is about, and what holds for all its fields."""

    title: str
    note: str = ""


TABLES = {
    "scenario": Table("Model", "These fields stand above all tables."),
    "deployment": Table("Deployment", "The GPUs and what connects them."),
    "workload": Table("Workload", "The work of one forward pass."),
    "schedule": Table("Schedule", "Granularity and order of the work."),
    "ranks": Table("Differences between ranks", "Any of these fields simulates every rank."),
    "costs": Table(
        "Stage times", "Given times replace all costs; model and hardware are then optional."
    ),
}

_DECLARED: tuple[Field, ...] = (
    Text(
        name="model",
        metavar="NAME|FILE",
        table="scenario",
        label="Model",
        help="the model: a name such as deepseek-v2, or the path of a HuggingFace config.json",
        example="deepseek-v2",
    ),
    Integer(
        name="layers",
        table="scenario",
        label="MoE layers",
        help="MoE layers to simulate",
        otherwise="all MoE layers of the model",
        high=MAX_LAYERS,
        example=8,
    ),
    Number(
        name="scale",
        table="scenario",
        label="Scale of the model",
        help="factor on every width of the model",
        default=1,
        above=0,
        high=1,
    ),
    HardwareName(
        name="hardware",
        metavar="NAME|FILE",
        table="deployment",
        label="Hardware",
        help="the hardware profile: a name such as a6000, or the path of a calibrated profile",
        example="a6000",
    ),
    Integer(
        name="ag",
        table="deployment",
        label="Attention GPUs (AG)",
        help="GPUs of the attention group (AG)",
        unit="GPUs",
        column="ag_gpus",
        replaces=("gpus",),
        example=3,
    ),
    Integer(
        name="eg",
        table="deployment",
        label="Expert GPUs (EG)",
        help="GPUs of the expert group (EG)",
        unit="GPUs",
        column="eg_gpus",
        replaces=("gpus",),
        example=5,
    ),
    Integer(
        name="gpus",
        table="deployment",
        label="Colocated GPUs",
        help="GPUs of a colocated deployment, in place of ag and eg; solve splits them",
        unit="GPUs",
        replaces=("ag", "eg"),
    ),
    OneOf(
        name="link",
        table="deployment",
        label="Link class",
        help="the link of the profile that connects the groups",
        default=LINK_CLASSES[0],
        choices=LINK_CLASSES,
        flag="--link-class",
    ),
    Number(
        name="link.gbytes_per_s",
        table="deployment",
        label="Link bandwidth",
        help="bandwidth of a link that replaces the profile's",
        otherwise="the link of the profile",
        unit="GB/s",
        above=0,
        example=25,
    ),
    Number(
        name="link.alpha_us",
        table="deployment",
        label="Link start-up",
        help="start-up time of that link",
        default=0,
        unit="us",
        example=20,
    ),
    Text(
        name="transport",
        table="deployment",
        label="Transport",
        help="the transport whose costs in the profile go first, such as gloo",
        default="",
    ),
    OneOf(
        name="dispatch",
        table="deployment",
        label="Dispatch",
        help="copies of a token that A2E sends: one per expert, one per GPU, or one to every GPU",
        default=DISPATCH[0],
        choices=DISPATCH,
    ),
    OneOf(
        name="a2e_dtype",
        table="deployment",
        label="A2E data type",
        help="data type of the tokens that A2E sends",
        otherwise="dtype",
        choices=DTYPES,
    ),
    OneOf(
        name="e2a_dtype",
        table="deployment",
        label="E2A data type",
        help="data type of the tokens that E2A returns",
        otherwise="dtype",
        choices=DTYPES,
    ),
    Integer(
        name="comm_sms",
        table="deployment",
        label="SMs for communication",
        help="SMs of each AG GPU that communication takes from its matrix products",
        default=0,
        low=0,
        unit="SMs",
    ),
    OneOf(
        name="comm_sms_from",
        table="deployment",
        label="SMs taken from",
        help="colocated: the computation that lacks these SMs, all of it or the experts only",
        default="all",
        choices=("all", "experts"),
    ),
    Number(
        name="contention",
        table="deployment",
        label="Contention",
        help="share of its speed that computation loses to each concurrent transfer",
        otherwise="contention of the profile",
        below=0.5,
    ),
    OneOf(
        name="expert_gemm",
        table="deployment",
        label="Expert kernels",
        help="kernels of the experts of a GPU: one grouped, one plain each, or the cheaper of both",
        default="grouped",
        choices=("grouped", "plain", "cheaper"),
    ),
    OneOf(
        name="shared_on",
        table="deployment",
        label="Shared experts on",
        help="the group that computes the shared experts",
        default=GROUPS[0],
        choices=GROUPS,
    ),
    OneOf(
        name="duplex",
        table="deployment",
        label="Duplex",
        help="half: A2E and E2A share the link; full: each has its own direction",
        default=DUPLEX[0],
        choices=DUPLEX,
    ),
    Number(
        name="memory_gbytes",
        table="deployment",
        label="Memory of a GPU",
        help="memory of each GPU for weights, cache and activations",
        otherwise="memory of the data sheet less 1 GB",
        unit="GB",
        above=0,
    ),
    OneOf(
        name="phase",
        table="workload",
        label="Phase",
        help="prefill computes seq_len tokens of a sample; decode one, after a context of seq_len",
        default=PHASES[0],
        choices=PHASES,
    ),
    Integer(
        name="seq_len",
        table="workload",
        label="Tokens of a sample",
        help="tokens of a sample; in decode, of its context",
        default=2048,
        unit="tokens",
        column="seq_len_tokens",
        example=2048,
    ),
    Integer(
        name="samples",
        table="workload",
        label="Samples per AG GPU",
        help="samples of an AG GPU: r1 times m_a",
        otherwise="r1 times m_a",
        unit="samples",
        column="samples_per_ag_gpu",
        replaces=("m_a",),
        example=4,
    ),
    Integer(
        name="m_a",
        table="workload",
        label="Samples per micro-batch",
        help="samples of a micro-batch per AG GPU, in place of samples",
        default=1,
        unit="samples",
        column="m_a_samples_per_ag_gpu",
        replaces=("samples",),
    ),
    OneOf(
        name="dtype",
        table="workload",
        label="Data type",
        help="data type of weights, cache and activations",
        default="bf16",
        choices=DTYPES,
    ),
    Text(
        name="policy",
        table="schedule",
        label="Policy",
        help="a policy of `simdep policies`; as a flag also my_policy.py:name",
        default="findep",
    ),
    Text(
        name="order",
        table="schedule",
        label="AG order",
        help="order of a layer on the AG: asas, aass, or a list such as 'A0 A1 S0 A2 S1 S2'",
        default="asas",
    ),
    Integer(
        name="r1",
        table="schedule",
        label="Micro-batches (r1)",
        help="micro-batches of the AG",
        default=1,
        example=2,
    ),
    Integer(
        name="r2",
        table="schedule",
        label="Chunks (r2)",
        help="chunks of each micro-batch on the EG",
        default=1,
        replaces=("chunks",),
        example=4,
    ),
    Integers(
        name="micro_batches",
        table="schedule",
        label="Sizes of micro-batches",
        help="samples of each micro-batch, in place of r1 and samples",
        otherwise="r1 equal ones",
        metavar="N,N,...",
        replaces=("r1", "samples", "m_a"),
    ),
    Shares(
        name="chunks",
        table="schedule",
        label="Sizes of chunks",
        help="shares of the chunks of each micro-batch, in place of r2; one list stands for all",
        otherwise="r2 equal ones",
        metavar="N,N/N,N",
        replaces=("r2",),
    ),
    OneOf(
        name="split",
        table="schedule",
        label="Split into chunks",
        help="what a chunk is part of: the tokens, or the experts (r2 groups of them)",
        default="token",
        choices=("token", "expert"),
    ),
    Boolean(
        name="merge_last",
        table="schedule",
        label="Last layer in one chunk",
        help="compute the last layer in one chunk",
        default=False,
    ),
    Boolean(
        name="per_rank",
        table="ranks",
        label="Simulate every rank",
        help="simulate every rank; false simulates one rank of each group, whatever is given here",
        otherwise="true with any other field of this table",
    ),
    Counts(
        name="routing",
        table="ranks",
        label="Routing",
        help="balanced, zipf:1.2, power-law:1.2 (with a seed: zipf:1.2:7), or a .csv or .json file",
        default="balanced",
        metavar="NAME|FILE",
        example="power-law:1.2",
    ),
    Integers(
        name="batches",
        table="ranks",
        label="Samples of AG ranks",
        help="samples of every AG rank, such as 4,4,2",
        otherwise="samples for each",
        low=0,
        metavar="N,N,...",
    ),
    Factors(
        name="stragglers",
        table="ranks",
        label="Stragglers",
        help="factor on the computing times of a rank; may be repeated",
        otherwise="1 for each",
        flag="--straggler",
        metavar="AG.3=1.3",
    ),
    Integer(
        name="gpus_per_node",
        table="ranks",
        label="GPUs of a node",
        help="GPUs of a node, AG ranks first; NVLink or PCIe within a node, network between nodes",
        otherwise="one link for all",
        unit="GPUs",
    ),
    Integer(
        name="nics_per_node",
        table="ranks",
        label="Network ports of a node",
        help="network ports of a node; neighbours share one where there are fewer than GPUs",
        otherwise="one for each GPU",
    ),
    Number(
        name="far_link.gbytes_per_s",
        table="ranks",
        label="Far link bandwidth",
        help="bandwidth of a port, for the link class that the groups do not have",
        otherwise="the link of the profile",
        unit="GB/s",
        above=0,
    ),
    Number(
        name="far_link.alpha_us",
        table="ranks",
        label="Far link start-up",
        help="start-up time of that link",
        default=0,
        unit="us",
    ),
    *(
        Number(
            name=f"costs.{stage}",
            table="costs",
            label=label,
            help=f"time of {task}",
            otherwise=otherwise,
            unit="us",
            flag="",
            column=f"costs_{stage}_us",
        )
        for stage, label, task, otherwise in (
            ("attention", "Attention", "the attention of a micro-batch", "projection and core"),
            ("projection", "Projections", "the first half of attention, its projections", ""),
            ("core", "Attention core", "the second half, core and output projection", ""),
            ("shared", "Shared experts", "the shared experts of a micro-batch", "0"),
            ("a2e", "A2E", "the transfer of a chunk to the EG", ""),
            ("expert", "Experts", "the experts of a chunk", ""),
            ("e2a", "E2A", "the transfer of a chunk to the AG", ""),
        )
    ),
)

FIELDS: dict[str, Field] = {field.name: field for field in _DECLARED}


def field_named(name: str) -> Field:
    """The field of a name; raises InputError with the nearest name."""
    return FIELDS[checks.known(name, FIELDS, "field of a scenario")]


def fields_of(*tables: str) -> list[Field]:
    """The fields of some tables, in the order of their declaration."""
    return [field for field in FIELDS.values() if field.table in tables]


def default_of(name: str) -> Any:
    """What a field is where it is left out; None where that depends on others."""
    return FIELDS[name].default


def checked_fields(data: Any) -> dict[str, Any]:
    """The fields that nested tables state, by name and checked; raises InputError for the key at
    fault."""
    return {field.name: field.check(value) for field, value in _stated(data) if value is not None}


def override(data: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables with fields stated by name, each in place of what it replaces there: m_a of
    samples, gpus of ag and eg, and so on. A value of None states nothing."""
    merged = _copy(data)
    stated = {name: value for name, value in values.items() if value is not None}
    for name in stated:
        for other in field_named(name).replaces:
            *outer, key = FIELDS[other].path
            _table(merged, outer).pop(key, None)
    for name, value in stated.items():
        *outer, key = FIELDS[name].path
        _table(merged, outer)[key] = value
    return merged


def _stated(data: Any) -> Iterator[tuple[Field, Any]]:
    """Every field that nested tables state, with its value; raises InputError for a key that is
    none."""
    if not isinstance(data, Mapping):
        checks.mapping(data, _keys(()), "scenario")
    for key, value in data.items():
        if key in TABLES and key != "scenario":
            yield from _stated_in((key,), value)
        else:
            yield _field_at((key,)), value


def _stated_in(path: tuple[str, ...], table: Any) -> Iterator[tuple[Field, Any]]:
    if not isinstance(table, Mapping):
        checks.mapping(table, _keys(path), path[-1])
    for key, value in table.items():
        inner = (*path, key)
        field = None if isinstance(value, Mapping) else _find(inner)
        if field is not None:
            yield field, value
        elif _is_table(inner):
            yield from _stated_in(inner, value)
        else:
            yield _field_at(inner), value


def _is_table(path: tuple[str, ...]) -> bool:
    """Whether fields stand below there in a file."""
    depth = len(path)
    return any(len(f.path) > depth and f.path[:depth] == path for f in FIELDS.values())


def _find(path: tuple[str, ...]) -> Field | None:
    """The field that stands there in a file, if there is one."""
    for name in (".".join(path[1:]), ".".join(path)):
        field = FIELDS.get(name)
        if field is not None and field.path == path:
            return field
    return None


def _field_at(path: tuple[str, ...]) -> Field:
    """The field that stands there in a file; raises InputError with the nearest key."""
    field = _find(path)
    if field is not None:
        return field
    place = path[-2] if path[1:] else "scenario"
    if path[-1] in ("ag_hardware", "eg_hardware"):
        raise InputError(f"unknown key of {place} {path[-1]!r}; {ONE_HARDWARE}")
    checks.known(path[-1], _keys(path[:-1]), f"key of {place}")
    raise AssertionError(path)


def _keys(path: tuple[str, ...]) -> list[str]:
    """The keys of the table that stands there in a file."""
    depth = len(path)
    found = [field.path for field in FIELDS.values() if len(field.path) > depth]
    keys = dict.fromkeys(keys[depth] for keys in found if keys[:depth] == path)
    return list(keys)


def _table(data: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """The table that stands there in nested tables; made if there is none."""
    table = data
    for depth, key in enumerate(path):
        if depth == 0 and not isinstance(table.get(key, {}), Mapping):
            checks.mapping(table[key], _keys((key,)), key)
        if not isinstance(table.get(key), dict):
            table[key] = {}
        table = table[key]
    return table


def _copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _copy(value) if isinstance(value, Mapping) else value for key, value in data.items()
    }
