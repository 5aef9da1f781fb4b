"""FinDEP, route (a): the paper's own cost model for H20, and the best configuration of each system.

The cost model has four free numbers, `FREE_PARAMETERS`, fitted on Tables 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from simdep import policies
from simdep.analysis.summary import communication
from simdep.arrays import Array
from simdep.costs import StageTimes
from simdep.hardware.profile import Cost, HardwareProfile
from simdep.scenario.estimates import CostEvidence
from simdep.scenario.models import load_model
from simdep.scenario.spec import Deployment, Scenario, Workload
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind, Schedule
from simdep.simulation import closed_form
from simdep.simulation.engine import simulate_schedule, simulated_makespan_us
from simdep.validation.reproduce.result import published, records

THROUGHPUT, EXPOSED = "ktoken/s", "ms exposed communication"  # units of the tables
SYSTEMS = ("naive", "pppipe", "findep")
R2_CHOICES = (1, 2, 3, 4, 6, 8, 12, 16)  # chunks that FinDEP may choose from
MAX_MICRO_BATCHES = 16
TOKEN_BUDGET = 32_768  # of an AG GPU where a table says "best configured"
EXPOSED_SPLIT = (2, 6)  # of Table 7, where one sample an AG GPU explains the naive rows
FREE_PARAMETERS = ("gemm.alpha", "gemm.beta", "attention.alpha", "link.D.beta")
_STARTS = 6  # of the fit, drawn with seed 0
_NVLINK_US_PER_BYTE = 1 / 450e3  # H20 data sheet: NVLink 900 GB/s, half of it a direction

Split = tuple[int, int]  # GPUs of the AG and of the EG


@dataclass(frozen=True)
class Testbed:
    """GPUs of a testbed, and the splits that are tried where a row states none."""

    hardware: str
    splits: tuple[Split, ...]


TESTBEDS = {
    "A": Testbed("a6000", ((1, 7), (2, 6), (4, 4))),  # those with a published link
    "B": Testbed("a10", ((4, 4),)),
    "C": Testbed("h20", ((4, 4),)),
    "D": Testbed("h20", ((8, 24),)),
}


@dataclass(frozen=True)
class FindepSetup:
    """What a row of the tables was measured on; None where the row leaves it open."""

    testbed: str
    model: str
    layers: int
    seq_len: int
    system: str
    m_a: int | None = None
    r1: int | None = None
    ag: int | None = None
    eg: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> FindepSetup:
        """The setup of a row; letters of testbed, model and system in any case."""
        return cls(
            testbed=str(row["testbed"]).upper(),
            model=str(row["model"]).lower(),
            layers=row["layers"],
            seq_len=row["seq_len"],
            system=str(row["system"]).lower(),
            m_a=row["m_a"],
            r1=row["r1"],
            ag=row["ag"],
            eg=row["eg"],
        )

    @property
    def is_h20(self) -> bool:
        return self.testbed in ("C", "D")


@dataclass(frozen=True)
class FindepFigure:
    """A published figure with its setup."""

    table: int
    setup: FindepSetup
    value: float


StageTimesModel = Callable[[Scenario], StageTimes]


@dataclass(frozen=True)
class FindepConfiguration:
    """A scenario with its stage times, and its makespan by closed form."""

    makespan_us: float
    scenario: Scenario
    times: StageTimes

    @property
    def schedule(self) -> Schedule:
        s = self.scenario
        shared = s.model.has_shared
        return policies.build(s.policy, s.layers, s.r1, s.r2, s.order, tokens=s.r2, shared=shared)

    @property
    def ktokens_per_s(self) -> float:
        """Thousands of tokens a second of the whole AG."""
        return _ktokens_per_s(self.scenario, self.makespan_us)

    @property
    def simulated_ktokens_per_s(self) -> float:
        """The same by simulation instead of the closed form."""
        return _ktokens_per_s(self.scenario, simulated_makespan_us(self.schedule, self.times))

    @property
    def exposed_ms(self) -> float:
        """Milliseconds of communication that nothing hides."""
        exposed, _ = communication(simulate_schedule(self.schedule, self.times))
        return float(exposed) / 1e3


def _ktokens_per_s(scenario: Scenario, us: float) -> float:
    workload = scenario.workload
    return workload.samples * scenario.deployment.ag * workload.tokens_per_sample / us * 1e3


def throughput(
    setup: FindepSetup, hardware: HardwareProfile, model: StageTimesModel | None = None
) -> float:
    """Thousands of tokens a second of the whole AG, as configured, else best within the budget."""
    splits = TESTBEDS[setup.testbed].splits
    best = best_configuration(setup, hardware, model or linear_stage_times, splits, TOKEN_BUDGET)
    return best.simulated_ktokens_per_s


def exposed_communication(setup: FindepSetup, hardware: HardwareProfile) -> float:
    """Milliseconds of exposed communication: one sample a micro-batch at `EXPOSED_SPLIT`."""
    samples = 1 if setup.system == "naive" else 2
    budget = samples * setup.seq_len
    best = best_configuration(setup, hardware, linear_stage_times, (EXPOSED_SPLIT,), budget)
    return best.exposed_ms


def best_configuration(
    setup: FindepSetup,
    hardware: HardwareProfile,
    model: StageTimesModel,
    splits: Sequence[Split],
    token_budget: int,
) -> FindepConfiguration:
    """The configuration of a system with the highest throughput.

    It chooses split, r1, r2 and order as far as the setup leaves them open, with `token_budget`
    tokens of an AG GPU where it states no samples.
    """
    configurations = []
    for base in _bases(setup, hardware, splits, token_budget):
        for r1 in _r1_choices(setup, base.workload.samples):
            for r2 in R2_CHOICES if setup.system == "findep" else (1,):
                configurations.append(_configured(replace(base, r1=r1, r2=r2), model))
    return max(configurations, key=lambda configuration: configuration.ktokens_per_s)


def _r1_choices(setup: FindepSetup, samples: int) -> list[int]:
    if setup.system == "naive":
        return [1]
    if setup.r1 is not None:
        return [setup.r1]
    most = min(samples, MAX_MICRO_BATCHES)
    return [r1 for r1 in range(1, most + 1) if samples % r1 == 0]


def _bases(
    setup: FindepSetup, hardware: HardwareProfile, splits: Sequence[Split], token_budget: int
) -> list[Scenario]:
    """The scenarios of a setup with one micro-batch and one chunk, one for each split."""
    r1 = setup.r1 or 1
    if setup.m_a is not None:
        samples = r1 * setup.m_a
    else:
        samples = max(r1, token_budget // setup.seq_len // r1 * r1)
    workload = Workload("prefill", setup.seq_len, samples)
    model = load_model(setup.model)
    link_class = "inter-node" if setup.testbed == "D" else "intra-node"
    if setup.ag is not None and setup.eg is not None:
        splits = [(setup.ag, setup.eg)]
    scenarios = []
    for ag, eg in splits:
        deployment = Deployment(ag, eg, hardware, link_class=link_class)
        scenarios.append(Scenario(model, deployment, workload, setup.layers, setup.system))
    return scenarios


def _configured(scenario: Scenario, model: StageTimesModel) -> FindepConfiguration:
    times = model(scenario)
    us, order = _closed_form(scenario, times)
    return FindepConfiguration(us, replace(scenario, order=order), times)


def _closed_form(scenario: Scenario, times: StageTimes) -> tuple[float, str]:
    """The makespan and its order: for FinDEP the better of two orders, AASS by a lower bound."""
    layers, r1, r2 = scenario.layers, scenario.r1, scenario.r2
    if scenario.policy != "findep":
        return closed_form.pingpong(times, layers, r1), "asas"
    asas = closed_form.asas(times, layers, r1, r2)
    aass = closed_form.aass_bound(times, layers, r1, r2)
    return (asas, "asas") if asas <= aass else (aass, "aass")


def linear_stage_times(scenario: Scenario, evidence: CostEvidence | None = None) -> StageTimes:
    """Microseconds of the tasks of a scenario with equal chunks, by its hardware profile;
    `evidence` gathers the costs in use."""
    costs, chunk = ScenarioCosts(scenario, evidence), scenario.tokens / scenario.r2
    return StageTimes(
        attention=costs.attention(scenario.tokens),
        expert=costs.expert(chunk),
        a2e=costs.transfer(Kind.A2E, chunk),
        e2a=costs.transfer(Kind.E2A, chunk),
        shared=costs.shared(scenario.tokens),
    )


def calibration_figures() -> list[FindepFigure]:
    """What route (a) is fitted on: the published Tables 3 and 4."""
    return published_figures(3, 4)


def published_figures(*tables: int) -> list[FindepFigure]:
    """The figures of some tables of the paper."""
    figures = []
    for row in records(published("findep")):
        if row["table"] in tables:
            figures.append(FindepFigure(row["table"], FindepSetup.of(row), float(row["value"])))
    return figures


def h20_profile(values: Sequence[float]) -> HardwareProfile:
    """The paper's cost model for H20 with the values of `FREE_PARAMETERS`.

    Values are microseconds for each launch, MAC and byte. The attention core is causal: its
    multiply-accumulates, which the paper counts without the mask, take half the time of a
    product's. Of the links, that inside a node is the data sheet's; the one between nodes has a
    bandwidth only.
    """
    alpha, beta, core, link = values
    source = "fitted on FinDEP Tables 3 and 4"
    nvlink = "NVIDIA data sheet: NVLink 4, 900 GB/s both directions"
    return HardwareProfile(
        name="h20",
        description="H20 by the paper's linear model",
        costs=(
            Cost("gemm", alpha, beta, "measured", source),
            Cost("attention", core, beta / 2, "measured", source),
            Cost("link", 0, _NVLINK_US_PER_BYTE, "datasheet", nvlink),
            Cost("link", 0, link, "measured", source, 8, 24),
        ),
        gpu="h20",
    )


def fitted_h20(figures: Iterable[FindepFigure]) -> HardwareProfile:
    """The H20 profile whose throughputs come nearest to the figures in relative terms.

    The loss is soft L1, which spares outliers. Stage times are linear in the parameters: each
    figure is evaluated once with every parameter at 0 and once with each parameter at 1.
    """
    different = _different(figures)
    configurations = [_open_configurations(figure.setup) for figure in different]
    features = [list(map(_features, some)) for some in configurations]
    tokens = np.array([_tokens(some[0]) for some in configurations])
    target = np.log(np.array([figure.value for figure in different]) / 1e3)

    def misses(logs: Array) -> Array:
        values = np.array([1.0, *np.exp(logs)])
        makespans = []
        for some, matrices in zip(configurations, features, strict=True):
            makespans.append(_shortest_us(some, matrices, values))
        return np.asarray(np.log(tokens / np.array(makespans)) - target)

    start = np.log([30.0, 2e-8, 1000.0, 3 / 50e3])
    bounds = (start - 8, start + 5)
    shifts = np.random.default_rng(0).normal(0, 0.7, (_STARTS, len(FREE_PARAMETERS)))
    fits = []
    for shift in shifts:
        fits.append(
            least_squares(misses, start + shift, loss="soft_l1", f_scale=0.01, bounds=bounds)
        )
    best = min(fits, key=lambda fit: fit.cost)
    return h20_profile([float(value) for value in np.exp(best.x)])


def _different(figures: Iterable[FindepFigure]) -> list[FindepFigure]:
    """Figures without those that another table repeats."""
    first: dict[tuple[Any, ...], FindepFigure] = {}
    for figure in figures:
        setup = figure.setup
        key = (setup.testbed, setup.seq_len, setup.m_a, setup.r1, figure.value)
        first.setdefault(key, figure)
    return list(first.values())


def _tokens(scenario: Scenario) -> int:
    return scenario.workload.samples * scenario.deployment.ag * scenario.workload.seq_len


def _open_configurations(setup: FindepSetup) -> list[Scenario]:
    """The configurations that a calibration figure leaves open: r2."""
    (base,) = _bases(setup, h20_profile((0, 0, 0, 0)), (), 0)
    assert setup.r1 is not None, setup
    return [replace(base, r1=setup.r1, r2=r2) for r2 in R2_CHOICES]


def _features(scenario: Scenario) -> Array:
    """Stage times [1 + parameters, stages]: with every parameter at 0, and what each adds at 1."""
    times = []
    for unit in np.vstack([np.zeros(len(FREE_PARAMETERS)), np.eye(len(FREE_PARAMETERS))]):
        deployment = replace(scenario.deployment, hardware=h20_profile(unit))
        times.append(astuple(linear_stage_times(replace(scenario, deployment=deployment))))
    features = np.array(times)
    features[1:] -= features[0]
    return features


def _shortest_us(
    scenarios: Sequence[Scenario],
    features: Sequence[Array],
    values: Array,
) -> float:
    makespans = []
    for scenario, matrix in zip(scenarios, features, strict=True):
        makespans.append(_closed_form(scenario, StageTimes(*(values @ matrix)))[0])
    return min(makespans)
