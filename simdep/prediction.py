"""A prediction: one scenario, simulated. Every command, page and Python call simulates here.

Times are microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import pandas as pd
from cachetools import LRUCache, cached

from simdep import checks
from simdep.analysis.metrics import timeline_metrics, timeline_summary, tokens_per_second
from simdep.analysis.per_rank import MAX_DRAWN_TRACKS, rank_summary, shown_tracks
from simdep.collector import paused_collector
from simdep.costs import Costs, HostOverheads
from simdep.hardware.extrapolation import Assumption, assumption_sentences
from simdep.policies import build, chunk_tokens, redrawn, schedule_for, set_up
from simdep.scenario.estimates import CostBasis
from simdep.scenario.memory import memory
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts, task_costs
from simdep.schedule import Schedule
from simdep.simulation.engine import simulate_schedule
from simdep.simulation.longest_path import earliest_times
from simdep.simulation.rank_costs import RankCosts
from simdep.simulation.rank_times import RankTimes, simulate_ranks
from simdep.simulation.rank_work import RankWork, rank_work, scenario_work
from simdep.timeline import Timeline
from simdep.units import human_us

REGULAR = ("naive", "pppipe", "findep")  # policies whose order does not depend on costs

MAX_KEPT_TASKS = 50_000  # of schedules whose streams are kept for other tokens


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """A scenario, simulated.

    `scenario` is complete: its policy has filled what it left open, and a schedule that replaces
    that of the policy sets its granularity. It `has_sizes` if there is a model, and whole samples
    in that schedule. `simulated` is the timeline of the group's tasks, or with `ranks` of every
    rank; `task_us` are the costs of the group's tasks, `tokens` those of the whole AG (None without
    a model). `changes` say what differs from the scenario that was asked for, besides parameters of
    the policy.
    """

    scenario: Scenario
    simulated: Timeline
    task_us: Costs
    host: HostOverheads
    tokens: int | None
    assumed: tuple[Assumption, ...]
    basis: tuple[CostBasis, ...] = ()
    ranks: RankTimes | None = None
    has_sizes: bool = True
    changes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        rate = self.throughput_tokens_per_s
        tokens = "" if rate is None else f", {rate:,.0f} tokens/s"
        return f"<Prediction {self.schedule.label}: {human_us(self.makespan_us)}{tokens}>"

    @property
    def schedule(self) -> Schedule:
        """The schedule of the group."""
        return self.simulated.schedule

    @property
    def makespan_us(self) -> float:
        """From the first start to the last end."""
        return self.simulated.makespan_us

    @property
    def throughput_tokens_per_s(self) -> float | None:
        """Tokens of the whole AG a second; None without a model."""
        return tokens_per_second(self.tokens, self.makespan_us)

    @property
    def timeline(self) -> pd.DataFrame:
        """A row for every task, or for every task and rank, with `simdep.timeline.COLUMNS`."""
        return self.simulated.rows

    @cached_property
    def results(self) -> dict[str, Any]:
        """One row of results: the keys of `simdep.analysis.metrics.METRICS`."""
        scenario, schedule = self.scenario, self.schedule
        gpus = scenario.deployment.gpus if scenario.has_model else None
        needed = memory(scenario) if self.has_sizes else None
        return {
            "policy": scenario.policy,
            "schedule": schedule.label,
            "m_a": scenario.m_a if self.has_sizes else None,
            "r1": scenario.r1 if self.has_sizes else schedule.r1,
            "r2": scenario.r2 if self.has_sizes else schedule.r2,
            **timeline_metrics(self.simulated, self.tokens, gpus),
            "memory_fits": None if needed is None else needed.fits,
            "memory_missing_bytes": None if needed is None else needed.missing_bytes,
        }

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """`results`, the streams and the critical path: what `simdep simulate --json` prints."""
        if self.ranks is None:
            return self.results | timeline_summary(self.simulated, self.tokens) | self.results
        return self.results | rank_summary(self.ranks, self.tokens) | self.results

    @property
    def assumptions(self) -> list[str]:
        """What the result rests on besides measurements, a sentence each."""
        return assumption_sentences(self.assumed)

    @property
    def costs(self) -> pd.DataFrame:
        """What the times of tasks rest on: label, source, errors in percent of measurements."""
        rows = [entry.to_dict() for entry in self.basis]
        return pd.DataFrame(rows, columns=list(CostBasis.__dataclass_fields__))

    @property
    def view(self) -> Timeline:
        """The timeline that a figure shows: of many ranks, some."""
        if self.ranks is None:
            return self.simulated
        return shown_tracks(self.simulated, MAX_DRAWN_TRACKS)

    def figure(self) -> Any:
        """A Gantt chart: a Figure of plotly, which the extra `figures` brings."""
        from simdep.analysis import figures  # plotly, only to draw

        return figures.gantt_chart(self.view)

    def save(self, path: str | Path) -> None:
        """Write the timeline in the format of its suffix: .json or .json.gz (Perfetto), .csv or
        .parquet; raises InputError for another one."""
        from simdep.traces.export import save_timelines

        save_timelines(Path(path), self.simulated if self.ranks is None else self.ranks.expanded)


@paused_collector()
def simulate(
    scenario: Scenario,
    *,
    schedule: Schedule | None = None,
    ideal: bool = False,
    noise: float = 0.0,
    seed: int = 0,
) -> Prediction:
    """Simulate a scenario, with the set-up of its policy where it leaves fields open.

    `schedule` replaces that of the policy; `ideal` leaves out host overheads; `noise` is the
    coefficient of variation of computation times, drawn by `seed`. Raises InputError where policy,
    granularity and workload do not fit together, or the hardware profile lacks a cost.
    """
    completed = set_up(scenario)
    scenario, costs = completed.scenario, task_costs(completed.scenario)
    host = _host(scenario, costs)
    host = replace(
        host.ideal if ideal else host,
        noise=checks.number(noise, "noise"),
        seed=checks.integer(seed, "seed", 0),
    )
    has_sizes = scenario.has_model
    if schedule is None:
        schedule = scheduled(scenario, costs)
    elif has_sizes:
        described = _as_scheduled(scenario, schedule)
        has_sizes, scenario = described is not None, described or scenario
    far_link: tuple[str, ...] = ()
    if scenario.ranks is None:
        ranks, timeline = None, _timeline(schedule, costs, host)
        tokens = schedule.tokens * scenario.deployment.ag
    else:
        work = _rank_work(scenario, schedule, costs)
        ranks = simulate_ranks(work, host)
        timeline, tokens = ranks.timeline, work.total_tokens
        far_link = work.costs.notes
    assumed: list[Assumption] = [*completed.assumptions, *far_link]
    basis: list[CostBasis] = []
    if isinstance(costs, ScenarioCosts):
        assumed = [*completed.assumptions, *costs.links.assumptions, *far_link]
        assumed += costs.evidence.extrapolations
        basis = costs.basis
    return Prediction(
        scenario=scenario,
        simulated=timeline,
        task_us=costs,
        host=host,
        tokens=tokens if scenario.has_model else None,
        assumed=tuple(dict.fromkeys(assumed)),
        ranks=ranks,
        has_sizes=has_sizes,
        basis=tuple(basis),
    )


def _as_scheduled(scenario: Scenario, schedule: Schedule) -> Scenario | None:
    """The scenario with the layers and the granularity of a schedule of the user's own; None where
    its micro-batches are no whole samples."""
    sample = scenario.workload.tokens_per_sample
    opening = [task for task in schedule if task.kind.opens_layer and task.layer == 0]
    tokens = [task.tokens for task in sorted(opening, key=lambda task: task.mb)]
    if not tokens or len(tokens) != schedule.r1 or any(count % sample for count in tokens):
        return None
    samples = tuple(count // sample for count in tokens)
    described = replace(
        scenario,
        layers=schedule.layers,
        r1=schedule.r1,
        r2=schedule.r2,
        workload=replace(scenario.workload, samples=sum(samples)),
        micro_batches=samples if len(set(samples)) > 1 else (),
        chunks=(),
    )
    return redrawn(described, scenario)


def is_regular(scenario: Scenario) -> bool:
    """Whether costs do not change the schedule: equal micro-batches, chunks as equal as can be, in
    the four streams."""
    uneven = scenario.micro_batches or scenario.chunks or scenario.merge_last
    deployment = scenario.deployment
    alike = scenario.ranks is None and deployment.shared_on == "ag" and not deployment.colocated
    by_token = scenario.split == "token" and scenario.stage_times is None
    return scenario.policy in REGULAR and alike and by_token and not uneven


def scheduled(scenario: Scenario, costs: Costs) -> Schedule:
    """`simdep.policies.schedule_for`; of a regular scenario, the streams are made once, whatever
    its tokens are."""
    if not is_regular(scenario):
        return schedule_for(scenario, costs)
    cut = (
        scenario.policy,
        scenario.layers,
        scenario.r1,
        scenario.r2,
        scenario.order,
        scenario.model.has_shared,
    )
    sizes = chunk_tokens(scenario.tokens, scenario.r2)
    return _streams(*cut).with_tokens(
        lambda task: scenario.tokens if task.chunk is None else sizes[task.chunk]
    )


@cached(LRUCache(maxsize=MAX_KEPT_TASKS, getsizeof=len), lock=Lock())
def _streams(policy: str, layers: int, r1: int, r2: int, order: str, shared: bool) -> Schedule:
    return build(policy, layers, r1, r2, order, shared=shared)


def _host(scenario: Scenario, costs: Costs) -> HostOverheads:
    """The overheads of the profile; with stage times, only those that the scenario states."""
    if isinstance(costs, ScenarioCosts):
        return costs.host
    deployment = scenario.deployment
    return HostOverheads(
        contention=deployment.contention or 0, half_duplex=deployment.duplex == "half"
    )


def _timeline(schedule: Schedule, costs: Costs, host: HostOverheads) -> Timeline:
    """By the longest path where hosts add nothing to the model; equal to the engine's."""
    if host.terms:
        return simulate_schedule(schedule, costs, host)
    times = earliest_times(schedule, costs)
    return Timeline.from_times(
        schedule, "sim", ((name, 0, *interval) for name, interval in times.items())
    )


def _rank_work(scenario: Scenario, schedule: Schedule, costs: Costs) -> RankWork:
    if isinstance(costs, ScenarioCosts):
        return scenario_work(scenario, schedule, costs)
    assert scenario.ranks is not None
    deployment = scenario.deployment
    samples = scenario.workload.samples if scenario.has_model else None
    by_stage = RankCosts.of_stages(costs)
    return rank_work(schedule, deployment.ag, deployment.eg, scenario.ranks, by_stage, samples)
