"""Every rank of a schedule: equal to the group's model where ranks are alike, to the engine where
they differ.

Whole numbers where `==` is asked for; elsewhere 1e-9 of the makespan.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
from cli import one_sentence, run
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import findep, naive, pppipe
from strategies import all_ag_orders

from simdep.analysis.per_rank import rank_summary, shown_tracks, waiting_us
from simdep.costs import Costs, HostOverheads, StageTimes
from simdep.planning.problem import Problem
from simdep.policies import build, in_every_layer, on_groups, parse_order, schedule_for
from simdep.policies.job import Job
from simdep.scenario import routing
from simdep.scenario.imbalance import Nodes, Ranks, Straggler
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.engine import simulate_schedule, simulated_makespan_us
from simdep.simulation.longest_path import earliest_times, longest_path_us
from simdep.simulation.rank_costs import RankCosts
from simdep.simulation.rank_times import RankTimes, rank_times, simulate_ranks
from simdep.simulation.rank_work import RankWork, rank_work, ranked, scenario_work
from simdep.timeline import Timeline
from simdep.traces.export import save_timelines
from simdep.traces.perfetto import chrome_trace
from simdep.traces.table import read_timeline

TIMES = StageTimes(attention=100, shared=30, a2e=20, expert=50, e2a=20)
codes = st.integers(
    0, 2**64 - 1
)  # one drawn number holds a whole case, so that thousands stay fast


def a_schedule(random: Random) -> Schedule:
    """Any policy of 1 or 2 layers whose micro-batches hold 4 or 12 tokens, in chunks alike or
    not."""
    layers, tokens = random.randint(1, 2), random.choice([4, 12])
    r1, r2 = random.choices((1, 2, 2, 3), k=2)
    policy = random.choice(["naive", "pppipe", "findep", "findep", "any", "any", "by expert"])
    shared = random.random() < 0.7
    if policy == "naive":
        return naive(layers, tokens=tokens, shared=shared)
    if policy == "pppipe":
        return pppipe(layers, r1, tokens=tokens, shared=shared)
    order = random.choice(["asas", "aass", *all_ag_orders(r1)[:6]])
    if policy == "findep":
        return findep(layers, r1, r2, order, tokens=tokens, shared=shared)
    sequence = in_every_layer(parse_order(order, r1), layers)
    cut = tuple(random.choice([(tokens,), (1, tokens - 1), (1, 2, tokens - 3)]) for _ in range(r1))
    if policy == "by expert":
        cut = ((tokens, *(0,) * (r2 - 1)),) * r1
    job = Job(
        layers,
        cut,
        shared=shared,
        shared_on=random.choice(["ag", "eg"]),
        merge_last=random.random() < 0.3,
        split="expert" if policy == "by expert" else "token",
    )
    return on_groups(job, policy, sequence, wait_for_shared=random.random() < 0.5)


def some_times(random: Random) -> StageTimes:
    return StageTimes(*(random.randint(0, 15) for _ in range(5)))


def some_ranks(random: Random, schedule: Schedule, ag: int, eg: int, samples: int) -> Ranks:
    """Ranks that differ in any ways at once: none, or up to four of them."""
    experts = eg * random.randint(max(task.groups for task in schedule), 3) + random.randint(0, 2)
    layers, sources = random.choice([1, schedule.layers]), random.choice([1, ag])
    counts = [
        [[random.choice([0, 0, 1, 2, 5]) for _ in range(experts)] for _ in range(sources)]
        for _ in range(layers)
    ]
    for layer in counts:
        layer[0][: experts // eg] = [1] * (experts // eg)  # somebody has a part in every task
        for line in layer[1:]:
            line[random.randrange(experts)] += 1
    batches = (samples, *(random.randint(0, samples) for _ in range(ag - 1)))
    stragglers = tuple(
        Straggler(group, random.randrange(ranks), random.choice([0.5, 1.5, 2, 3]))
        for group, ranks in (("AG", ag), ("EG", eg))
        if random.random() < 0.5
    )
    gpus = random.randint(1, ag + eg)
    return Ranks(
        routing.from_counts(counts) if random.random() < 0.7 else None,
        batches if random.random() < 0.5 else (),
        stragglers,
        Nodes(gpus, random.randint(1, gpus)) if random.random() < 0.4 else None,
    )


def some_work(code: int) -> RankWork:
    random = Random(code)
    schedule, ag, eg = a_schedule(random), random.choice([1, 2, 3, 3]), random.choice([1, 2, 3, 4])
    far = StageTimes(0, 0, 31, 23)
    costs = replace(
        RankCosts.of_stages(some_times(random)),
        other_link_us=lambda task, loads: 3 + far(task) * loads,
    )
    costs = replace(costs, joins_nodes=random.random() < 0.3, broadcast=random.random() < 0.1)
    samples = schedule.r1 * random.choice([1, 2, 4])
    return rank_work(
        schedule, ag, eg, some_ranks(random, schedule, ag, eg, samples), costs, samples
    )


def spans(times: RankTimes) -> dict[str, tuple[float, float]]:
    """Start and end by the name of a rank's task."""
    return {
        ranked(name, rank): (times.start[name][rank], times.end[name][rank])
        for name, part in times.work.has_part.items()
        for rank in np.flatnonzero(part).tolist()
    }


def of_rows(timeline: Timeline) -> dict[str, tuple[float, float]]:
    rows = timeline.rows
    return dict(zip(rows["task"], zip(rows["start_us"], rows["end_us"], strict=True), strict=True))


def alike(
    schedule: Schedule, ag: int, eg: int, costs: Costs = TIMES, ranks: Ranks | None = None
) -> RankTimes:
    return rank_times(rank_work(schedule, ag, eg, ranks or Ranks(), RankCosts.of_stages(costs)))


# Alike: exactly the group's model


@settings(max_examples=500)
@given(codes)
def test_where_all_ranks_are_alike_every_task_takes_exactly_the_times_of_the_group(
    code: int,
) -> None:
    """For any split ag:eg and any way to say that ranks are alike: the same integers, on every
    rank."""
    random = Random(code)
    schedule, times = a_schedule(random), some_times(random)
    ag, eg = random.randint(1, 6), random.randint(1, 6)
    ranks = random.choice(
        [
            Ranks(),
            Ranks(routing.balanced(eg * 6 * random.randint(1, 9))),
            Ranks(routing.from_counts([[[3] * eg * 6] * ag] * schedule.layers)),
            Ranks(batches=(schedule.r1,) * ag),
            Ranks(stragglers=(Straggler("AG", 0, 1), Straggler("EG", eg - 1, 1))),
            Ranks(nodes=Nodes(ag + eg, ag + eg)),
            Ranks(routing.balanced(eg * 6), (schedule.r1,) * ag, nodes=Nodes(100, 100)),
        ]
    )
    found = alike(schedule, ag, eg, times, ranks)
    group = earliest_times(schedule, times)
    assert found.makespan_us == max(end for _, end in group.values())
    for name, (start, end) in group.items():
        assert set(found.start[name]) == {start}
        assert set(found.end[name]) == {end}


@pytest.mark.parametrize("hardware", ["a6000", "h20", "h100"])
@pytest.mark.parametrize(("ag", "eg"), [(3, 5), (1, 8), (6, 2), (5, 1), (3, 7)])
def test_a_scenario_whose_ranks_are_alike_takes_exactly_the_time_of_the_group(
    hardware: str, ag: int, eg: int
) -> None:
    """With the costs of real profiles too, whether eg divides the experts or not."""
    scenario = served(hardware, ag, eg)
    schedule = schedule_for(scenario)
    found = rank_times(scenario_work(scenario, schedule))
    assert found.makespan_us == simulated_makespan_us(schedule, ScenarioCosts(scenario))


def served(
    hardware: str = "a6000", ag: int = 3, eg: int = 5, ranks: object = (), **more: object
) -> Scenario:
    data = {
        "model": "deepseek-v2",
        "layers": 3,
        "workload": {"samples": 4, "seq_len": 512},
        "deployment": {"hardware": hardware, "ag": ag, "eg": eg},
        "schedule": {"r1": 2, "r2": 2},
        "ranks": dict(ranks),  # type: ignore[call-overload]
    }
    return Scenario.from_dict(data | more)


@pytest.mark.parametrize("dispatch", ["per-expert", "per-gpu", "broadcast"])
@pytest.mark.parametrize("policy", ["findep", "step3"])
def test_every_way_to_send_rows_reduces_to_the_group(dispatch: str, policy: str) -> None:
    where = {"hardware": "h100", "ag": 2, "eg": 4, "dispatch": dispatch, "shared_on": "eg"}
    cut = {"policy": policy, "r1": 2} | ({"r2": 2} if policy == "findep" else {})
    scenario = served(
        deployment=where, schedule=cut, ranks={"routing": "balanced", "batches": [4, 4]}
    )
    schedule = schedule_for(scenario)
    costs = ScenarioCosts(scenario)
    assert rank_times(scenario_work(scenario, schedule)).makespan_us == simulated_makespan_us(
        schedule, costs
    )


# Different: the engine's times, everywhere


@settings(max_examples=2000)
@given(codes)
def test_ranks_that_differ_take_the_times_of_engine_and_recurrence(code: int) -> None:
    """Every start and end of every rank is that of the recurrence on the schedule written out, and
    the makespan that of the discrete-event engine, to 1e-9."""
    work = some_work(code)
    times, written_out = rank_times(work), work.expand()
    found, oracle = spans(times), earliest_times(*written_out)
    assert found.keys() == oracle.keys()
    names, allowed = list(found), 1e-9 * max(1, times.makespan_us)
    assert np.array([found[name] for name in names]) == pytest.approx(
        np.array([oracle[name] for name in names]), rel=0, abs=allowed
    )
    assert times.makespan_us == pytest.approx(simulated_makespan_us(*written_out), rel=1e-9)


@settings(max_examples=200)
@given(codes)
def test_skew_of_rows_never_helps_where_chunks_are_cut_by_token(code: int) -> None:
    """Rows moved from one expert to another make some rank busier: the makespan is never below that
    of the group."""
    random = Random(code)
    schedule, times, eg = a_schedule(random), some_times(random), random.randint(1, 5)
    if any(task.groups > 1 for task in schedule):
        return  # more tokens in one group of experts are fewer in another: may suit the pipeline
    counts = [random.randint(0, 9) for _ in range(eg)]
    counts[random.randrange(eg)] += 1
    skewed = alike(schedule, 3, eg, times, Ranks(routing.from_counts(counts)))
    assert skewed.makespan_us >= longest_path_us(schedule, times) * (1 - 1e-12)


# What a rank waits for, one fact at a time


def test_a_straggler_holds_up_all_experts_and_is_alone_on_the_critical_path() -> None:
    """AG 1 of 3 takes twice as long: 200 us of attention, then 20 + 50 + 20."""
    found = alike(naive(1, shared=False), 3, 2, TIMES, Ranks(stragglers=(Straggler("AG", 1, 2.0),)))
    assert found.makespan_us == 200 + 20 + 50 + 20
    assert found.critical_path[0] == ("A[0.0]", 1)
    assert found.end["A[0.0]"].tolist() == [100, 200, 100]


def test_experts_wait_for_those_that_send_to_them_and_for_no_other() -> None:
    """AG 0 sends to EG 0 alone, slow AG 1 to EG 1 alone: two pipelines that never meet."""
    apart = Ranks(routing.from_counts([[[1, 0], [0, 1]]]), stragglers=(Straggler("AG", 1, 2.0),))
    found = alike(naive(2, shared=False), 2, 2, TIMES, apart)
    assert found.start["E[0.0.0]"].tolist() == [120, 220]
    assert found.start["A[1.0]"].tolist() == [190, 290]
    assert found.makespan_us == 2 * 290


def test_attention_waits_for_every_rank_that_returns_rows_to_it() -> None:
    """EG 1 has all rows of AG 1 and half of those of AG 0: AG 0 waits for both, AG 1 for EG 1
    alone."""
    found = alike(
        naive(2, shared=False), 2, 2, TIMES, Ranks(routing.from_counts([[[1, 1], [0, 1]]]))
    )
    returned = found.end["E2A[0.0.0]"]
    assert returned[0] < returned[1]
    assert found.start["A[1.0]"].tolist() == [returned[1], returned[1]]
    assert list(found.work.waits("A[1.0]", 1)) == [("E2A[0.0.0]", 1)]
    assert list(found.work.waits("A[1.0]", 0)) == [("E2A[0.0.0]", 0), ("E2A[0.0.0]", 1)]


def test_a_rank_without_rows_has_no_part_in_a_layer() -> None:
    found = alike(naive(1, shared=False), 1, 3, TIMES, Ranks(routing.from_counts([2, 0, 1])))
    assert found.work.has_part["E[0.0.0]"].tolist() == [True, False, True]
    assert np.isnan(found.end["E[0.0.0]"][1])
    assert found.end["E[0.0.0]"][0] - found.start["E[0.0.0]"][0] == 2 * 50


def test_a_rank_without_samples_in_a_micro_batch_skips_it() -> None:
    """Two samples in two micro-batches; AG 1 has one sample and so only the second of them."""
    found = alike(pppipe(1, 2, shared=False), 2, 2, TIMES, Ranks(batches=(2, 1)))
    assert found.work.has_part["A[0.0]"].tolist() == [True, False]
    assert found.work.has_part["A[0.1]"].tolist() == [True, True]
    assert found.start["A[0.1]"].tolist() == [100, 0]
    assert (
        found.end["E[0.0.0]"].tolist() == [100 + 20 + 25] * 2
    )  # AG 0's port is as busy as ever, the experts half


def test_batches_are_cut_in_whole_samples_and_chunks_in_whole_tokens() -> None:
    """4 samples of 3 tokens in 2 micro-batches, 2 chunks of 3 tokens each; a rank with 3 samples
    has 1 and 2."""
    schedule = findep(1, 2, 2, tokens=6)
    work = rank_work(schedule, 2, 1, Ranks(batches=(4, 3)), RankCosts.of_stages(TIMES), samples=4)
    assert work.tokens["A[0.0]"].tolist() == [6, 3]
    assert work.tokens["A[0.1]"].tolist() == [6, 6]
    assert work.tokens["E[0.0.0]"].tolist() == [2]  # (3 + 1) / 2 of AG ranks
    assert work.tokens["E[0.0.1]"].tolist() == [2]  # (3 + 2) / 2, rounded
    assert work.total_tokens == 21
    with pytest.raises(
        ValueError, match="12 tokens of the schedule are no whole number for each of 5 samples"
    ):
        rank_work(schedule, 2, 1, Ranks(batches=(5, 3)), RankCosts.of_stages(TIMES), samples=5)


def test_a_chunk_without_tokens_of_a_rank_does_not_wait_for_it() -> None:
    """AG 1 has 1 of 4 samples of a token each, which falls into the second chunk of two, and is
    slow."""
    schedule, slow = findep(1, 1, 2, tokens=4, shared=False), (Straggler("AG", 1, 40.0),)
    work = rank_work(
        schedule,
        2,
        2,
        Ranks(batches=(4, 1), stragglers=slow),
        RankCosts.of_stages(TIMES),
        samples=4,
    )
    found = rank_times(work)
    assert found.end["A[0.0]"].tolist() == [100, 1000]
    assert found.start["A2E[0.0.0]"].tolist() == [100, 100]
    assert found.start["A2E[0.0.1]"].tolist() == [1000, 1000]


def test_what_a_rank_has_no_part_in_takes_no_turn_in_its_stream() -> None:
    """No rows go to EG 1, and nothing of it comes back later for the shared experts that EG 1 is
    busy with."""
    schedule = Schedule(
        {
            "AG": (Task(Kind.ATTENTION, 0, 0),),
            "A2E": (Task(Kind.A2E, 0, 0, 0, after=("A[0.0]",)),),
            "EG": (
                Task(Kind.SHARED, 0, 0, after=("A[0.0]",)),
                Task(Kind.EXPERT, 0, 0, 0, after=("A2E[0.0.0]",)),
            ),
            "E2A": (Task(Kind.E2A, 0, 0, 0, after=("E[0.0.0]",)),),
        }
    )
    found = alike(schedule, 2, 2, replace(TIMES, shared=300), Ranks(routing.from_counts([1, 0])))
    assert found.start["E[0.0.0]"][0] == 400
    assert found.start["E2A[0.0.0]"].tolist() == [500, found.end["A2E[0.0.0]"][1]]


def test_the_busier_end_of_a_transfer_decides() -> None:
    """One AG rank sends to 4 EG ranks: its port is busy for 20 us whatever the skew; with 4 AG
    ranks, EG ports are."""
    skewed = Ranks(routing.from_counts([4, 2, 1, 1]))
    for ag, took in ((1, [20, 20, 20, 20]), (4, [40, 20, 20, 20]), (8, [40, 20, 10, 10])):
        found = alike(naive(1, shared=False), ag, 4, TIMES, skewed)
        assert (found.end["A2E[0.0.0]"] - found.start["A2E[0.0.0]"]).tolist() == took


def test_links_within_and_between_nodes_work_side_by_side() -> None:
    """2 AG and 2 EG GPUs in nodes of 2: all rows travel between nodes. In nodes of 3, those to EG 0
    stay within."""
    far = replace(RankCosts.of_stages(TIMES), other_link_us=lambda task, loads: 200 * loads)

    def took(nodes: Nodes) -> list[float]:
        us = rank_work(naive(1, shared=False), 2, 2, Ranks(nodes=nodes), far).us["A2E[0.0.0]"]
        return [float(each) for each in us]

    assert took(Nodes(4, 4)) == [20, 20]
    assert took(Nodes(2, 2)) == [200, 200]
    assert took(Nodes(3, 3)) == [
        20,
        200,
    ]  # to EG 0: as much as in a group; to EG 1: all that it gets, between nodes
    assert took(Nodes(2, 1)) == [400, 400]  # one port for the two GPUs of a node
    cheap = replace(
        far, other_link_us=lambda task, loads: 4 * loads
    )  # ports within the node of EG 0 are no matter to EG 1
    assert rank_work(naive(1, shared=False), 2, 2, Ranks(nodes=Nodes(3, 3)), cheap).us[
        "A2E[0.0.0]"
    ].tolist() == [20, 4]
    own = replace(far, joins_nodes=True)
    work = rank_work(naive(1, shared=False), 2, 2, Ranks(nodes=Nodes(2, 2)), own)
    assert work.us["A2E[0.0.0]"].tolist() == [20, 20]


def test_a_transfer_over_both_link_classes_lasts_the_longer_of_the_two() -> None:
    """Nodes of 2 hold AG 0 and 1, AG 2 and EG 0: a third of the tokens of EG 0 stay in its node.

    Its own port is the busiest: 30 / 3 us within the node, 2 / 3 of 60 or of 3 us between nodes.
    """
    own = StageTimes(attention=100, shared=0, a2e=30, expert=100, e2a=30)

    def took(us: float) -> float:
        costs = replace(RankCosts.of_stages(own), other_link_us=lambda task, loads: us * loads)
        work = rank_work(naive(1, shared=False), 3, 1, Ranks(nodes=Nodes(2, 2)), costs)
        return float(work.us["A2E[0.0.0]"][0])

    assert took(60) == pytest.approx(40)
    assert took(3) == pytest.approx(10)


def test_every_ag_rank_sends_by_its_own_routing_beside_shared_experts_on_the_eg() -> None:
    """AG 0 routes all to EG 0, AG 1 all to EG 1: every port is as busy as under equal shares."""
    schedule = build("step3", 1, 1)
    ranks = Ranks(routing.from_counts([[[1, 0], [0, 1]]]))
    work = rank_work(schedule, 2, 2, ranks, RankCosts.of_stages(TIMES))
    assert work.us["A2E[0.0.0]"].tolist() == [TIMES.a2e, TIMES.a2e]


def test_ranks_without_a_task_take_no_time() -> None:
    assert alike(Schedule({}), 2, 3).makespan_us == 0


def test_two_factors_of_one_straggler_multiply() -> None:
    ranks = Ranks(stragglers=(Straggler("AG", 0, 2), Straggler("AG", 0, 3)))
    work = rank_work(naive(1, shared=False), 2, 2, ranks, RankCosts.of_stages(TIMES))
    assert work.us["A[0.0]"].tolist() == [6 * TIMES.attention, TIMES.attention]


def test_gpus_stand_in_nodes_attention_ranks_first() -> None:
    gpus = np.arange(10)
    assert Nodes(4, 4).node(gpus).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert Nodes(4, 2).nic(gpus).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert Nodes(4, 4).nic(gpus).tolist() == gpus.tolist()


def test_groups_of_experts_have_loads_of_their_own() -> None:
    """A chunk by expert: rank 0's first half gets 4 of 8 rows, twice its share."""
    chunks = tuple(Task(Kind.EXPERT, 0, 0, j, 6, (f"A2E[0.0.{j}]",), 2) for j in range(2))
    sends = tuple(Task(Kind.A2E, 0, 0, j, 6, ("A[0.0]",), 2) for j in range(2))
    schedule = Schedule({"AG": (Task(Kind.ATTENTION, 0, 0, tokens=6),), "A2E": sends, "EG": chunks})
    skewed = Ranks(routing.from_counts([4, 1, 1, 2]))
    work = rank_work(schedule, 2, 2, skewed, RankCosts.of_stages(TIMES))
    assert work.us["E[0.0.0]"].tolist() == [100, 25]
    assert work.us["E[0.0.1]"].tolist() == [25, 50]


@pytest.mark.parametrize(("ranks", "kappa"), [(2, 0.57), (4, 1.03), (8, 1.42), (16, 1.76)])
def test_noise_makes_a_barrier_wait_for_the_expected_maximum_of_its_ranks(
    ranks: int, kappa: float
) -> None:
    """The mean of the slowest of r attentions is 1 + kappa_r cv (published kappa for 2, 4, 8 and 16
    workers)."""
    work = rank_work(
        naive(800, shared=False), ranks, 1, Ranks(), RankCosts.of_stages(StageTimes(1000, 0, 0, 0))
    )
    cv = 0.02
    barrier = simulate_ranks(work, HostOverheads(noise=cv, seed=1)).makespan_us / 800 / 1000
    assert (barrier - 1) / cv == pytest.approx(kappa, abs=0.08)


# What is not modelled is refused


@pytest.mark.parametrize(
    "host",
    [
        HostOverheads(gap_us=1),
        HostOverheads(half_duplex=True),
        HostOverheads(noise=0.1),
        HostOverheads(contention=0.1),
    ],
)
def test_the_vector_evaluator_refuses_what_hosts_add(host: HostOverheads) -> None:
    work = rank_work(naive(1), 2, 2, Ranks(), RankCosts.of_stages(TIMES))
    with pytest.raises(ValueError, match="the per-rank evaluator does not model"):
        rank_times(work, host)


@pytest.mark.parametrize(
    "host",
    [
        HostOverheads(contention=0.1),
        HostOverheads(receive_us=1),
        HostOverheads(post_us=lambda task: 1),
    ],
)
def test_a_simulation_of_every_rank_refuses_terms_that_are_a_groups(host: HostOverheads) -> None:
    work = rank_work(naive(1), 2, 2, Ranks(), RankCosts.of_stages(TIMES))
    with pytest.raises(ValueError, match="a simulation of every rank does not model"):
        simulate_ranks(work, host)


def test_the_ports_of_a_rank_share_a_half_duplex_link_and_those_of_others_do_not() -> None:
    """As in a group with half-duplex links, rank by rank; and a gap before every computation."""
    schedule = findep(3, 2, 2)
    for host in (
        HostOverheads(half_duplex=True),
        HostOverheads(gap_us=7),
        HostOverheads(half_duplex=True, gap_us=3),
    ):
        work = rank_work(schedule, 3, 2, Ranks(), RankCosts.of_stages(TIMES))
        assert (
            simulate_ranks(work, host).makespan_us
            == simulate_schedule(schedule, TIMES, host).makespan_us
        )


def test_a_schedule_of_colocated_groups_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"A.*is on stream GPU; per-rank schedules are for AG, A2E, EG and E2A"
    ):
        alike(build("ep", 1), 2, 2)


def test_what_does_not_fit_the_ranks_is_refused_by_name() -> None:
    for ranks, said in (
        (Ranks(batches=(1, 1)), r"batches=\[1, 1\]: 2 numbers for 3 AG ranks"),
        (Ranks(batches=(0, 0, 0)), "there is nothing to do"),
        (Ranks(stragglers=(Straggler("EG", 2, 2.0),)), "straggler EG.2: the"),
        (
            Ranks(routing.from_counts([[[1, 1], [1, 1]]])),
            "routing given is that of 2 AG ranks, not of 3",
        ),
        (Ranks(routing.from_counts([1])), "eg=2: routing given has only 1 experts"),
    ):
        with pytest.raises(ValueError, match=said):
            alike(naive(1), 3, 2, TIMES, ranks)


def test_a_task_that_no_rank_has_a_part_in_is_refused() -> None:
    """One sample on either rank, in two micro-batches: the second of them gets it."""
    with pytest.raises(ValueError, match=r"A\[0.0\] has no tokens on any rank; cut less finely"):
        rank_work(pppipe(1, 2), 2, 2, Ranks(batches=(1, 1)), RankCosts.of_stages(TIMES), samples=2)


def test_the_solver_refuses_a_scenario_of_ranks() -> None:
    with pytest.raises(ValueError, match="solve does not model ranks that differ"):
        Problem.of(served(ranks={"batches": [4, 4, 4]}))


def test_tokens_between_nodes_without_a_known_link_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens of A2E\[0.0.0\] travel between nodes"):
        rank_work(naive(1), 2, 2, Ranks(nodes=Nodes(2, 2)), RankCosts.of_stages(TIMES))


def test_a_schedule_of_too_many_ranks_is_not_written_out() -> None:
    work = rank_work(findep(60, 2, 2), 256, 768, Ranks(), RankCosts.of_stages(TIMES))
    with pytest.raises(ValueError, match="dependencies; at most"):
        work.expand()
    assert rank_times(work).makespan_us == longest_path_us(findep(60, 2, 2), TIMES)


# Scenarios


def test_a_scenario_says_how_its_ranks_differ() -> None:
    table = {
        "routing": "zipf:1.1:3",
        "batches": [4, 2, 4],
        "stragglers": {"ag.2": 1.5, "EG.0": 1.2},
        "gpus_per_node": 4,
        "nics_per_node": 2,
        "far_link": {"alpha_us": 10, "gbytes_per_s": 50},
    }
    ranks = served(ranks=table).ranks
    assert ranks is not None
    assert ranks.routing is not None
    assert (ranks.routing.layers, ranks.routing.experts) == (3, 160)
    assert ranks.batches == (4, 2, 4)
    assert ranks.stragglers == (Straggler("AG", 2, 1.5), Straggler("EG", 0, 1.2))
    assert ranks.nodes is not None
    assert (ranks.nodes.gpus, ranks.nodes.nics) == (4, 2)
    assert ranks.nodes.far_link is not None
    assert ranks.nodes.far_link(1e6) == pytest.approx(30)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"rooting": "balanced"}, "unknown key of ranks 'rooting'; did you mean 'routing'"),
        ({"routing": [1, 2]}, "routing given has 2 experts; the model has 160"),
        ({"batches": 3}, "batches=3; expected integers such as"),
        ({"batches": [1.5, 1, 1]}, "batches=1.5; expected an integer"),
        ({"batches": [1]}, "1 numbers for 3 AG ranks"),
        ({"stragglers": {"XG.1": 2}}, "straggler 'XG.1' is no rank"),
        ({"stragglers": {"AG.1": 0}}, "straggler AG.1=0"),
        ({"stragglers": [1]}, "expected a table"),
        ({"nics_per_node": 2}, "nics_per_node is given without gpus_per_node"),
        ({"gpus_per_node": 2, "nics_per_node": 3}, "nics_per_node=3"),
        ({"gpus_per_node": 0}, "gpus_per_node=0"),
    ],
)
def test_a_faulty_table_of_ranks_is_refused_by_key(table: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        served(ranks=table)


def test_the_load_of_a_rank_is_priced_by_the_profile() -> None:
    """FinDEP's lines: twice the rows cost an EG rank what the group's model says of twice the
    tokens."""
    scenario = served(
        "a6000", 3, 5, ranks={"routing": [2] * 32 + [1] * 32 + [1] * 32 + [0.5] * 32 + [0.5] * 32}
    )
    schedule, costs = schedule_for(scenario), ScenarioCosts(scenario)
    work = scenario_work(scenario, schedule)
    tokens = schedule["E[0.0.0]"].tokens
    assert work.us["E[0.0.0]"].tolist() == [
        costs.expert(load * tokens) for load in (2, 1, 1, 0.5, 0.5)
    ]
    assert work.us["A2E[0.0.0]"][0] == pytest.approx(costs.transfer(Kind.A2E, 2 * tokens * 3 / 5))
    assert work.us["A2E[0.0.0]"][3] == pytest.approx(
        costs.transfer(Kind.A2E, tokens)
    )  # the port of an AG rank


# What it says


def test_the_report_names_the_slowest_rank_and_what_each_cause_costs() -> None:
    """AG 1 at half speed: 100 us more a layer on its own; routing adds 50 us to EG 0 and makes its
    ports busier."""
    ranks = Ranks(routing.from_counts([2, 1, 1, 0]), stragglers=(Straggler("AG", 1, 2.0),))
    found = rank_summary(alike(naive(2, shared=False), 4, 4, TIMES, ranks), 100)
    assert found["ranks"]["balanced_us"] == 2 * 190
    assert found["ranks"]["alone_us"] == {"routing": 2 * (20 + 50 + 20), "stragglers": 2 * 100}
    assert found["ranks"]["skew_us"] == found["makespan_us"] - 380 == 2 * 190
    assert found["ranks"]["skew_pct"] == 100
    slowest = found["ranks"]["slowest"]
    assert (slowest["group"], slowest["rank"], slowest["busy_us"]) == ("AG", 1, 400)
    assert slowest["over_mean"] == 1.6
    assert found["ranks"]["imbalance"] == 2
    assert found["ranks"]["busy_us"]["EG"] == [200, 100, 100, 0]
    assert found["critical_path"][:3] == ["A[0.0@1]", "A2E[0.0.0@0]", "E[0.0.0@0]"]
    assert found["tasks"] == 2 * (4 + 3 * 3)


def test_waiting_for_the_slowest_is_the_mean_over_ranks_of_what_is_left_until_it_ends() -> None:
    found = alike(naive(2, shared=False), 4, 1, TIMES, Ranks(stragglers=(Straggler("AG", 1, 2.0),)))
    assert waiting_us(found, "AG").tolist() == [75, 75]  # three of four wait for 100 us
    assert waiting_us(found, "EG").tolist() == [0, 0]


@settings(max_examples=100)
@given(codes)
def test_the_critical_path_reaches_from_the_first_start_to_the_last_end(code: int) -> None:
    """Each task of the path starts when the one before it has ended."""
    found = rank_times(some_work(code))
    path = found.critical_path
    at = spans(found)
    names = [ranked(*each) for each in path]
    assert at[names[0]][0] == 0
    assert at[names[-1]][1] == found.makespan_us
    assert all(at[one][1] == at[other][0] for one, other in pairwise(names))


@settings(max_examples=50)
@given(codes)
def test_timelines_of_both_forms_hold_the_same_rows(code: int) -> None:
    """The group's schedule with a row for every rank, and the expanded schedule with a task for
    every rank."""
    found = rank_times(some_work(code))
    one, other = found.timeline.rows, found.expanded.rows
    columns = ["stream", "rank", "layer", "mb", "chunk", "kind", "start_us", "end_us"]
    key = ["stream", "rank", "layer", "mb", "chunk", "kind"]
    both = [rows[columns].sort_values(key).reset_index(drop=True) for rows in (one, other)]
    assert both[0].to_dict("records") == both[1].to_dict("records")
    assert found.timeline.tracks() == found.expanded.tracks()


def test_a_trace_has_a_thread_for_every_rank_and_arrows_from_what_it_waited_for(
    tmp_path: Path,
) -> None:
    found = alike(
        naive(1, shared=False), 2, 2, TIMES, Ranks(routing.from_counts([[[1, 0], [0, 1]]]))
    )
    events = chrome_trace(found.expanded)["traceEvents"]
    threads = {
        event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"
    }
    assert set(threads.values()) == {
        f"{stream} {rank}" for stream in ("AG", "A2E", "EG", "E2A") for rank in (0, 1)
    }
    arrows = [event for event in events if event.get("ph") in "sf" and event["name"] == "after"]
    pairs: dict[int, dict[str, str]] = {}
    for event in arrows:
        pairs.setdefault(event["id"], {})[event["ph"]] = threads[event["tid"]]
    assert {(pair["s"], pair["f"]) for pair in pairs.values()} == {
        (f"{one} {rank}", f"{other} {rank}")
        for one, other in (("AG", "A2E"), ("A2E", "EG"), ("EG", "E2A"))
        for rank in (0, 1)
    }
    path = tmp_path / "ranks.csv"
    save_timelines(path, found.expanded)
    read = read_timeline(path, found.expanded.schedule, "sim")
    assert read.rows.to_dict("records") == found.expanded.rows.to_dict("records")
    path.write_text(
        path.read_text().replace("A[0.0@1],attention,0,0,-1,AG,1", "A[0.0@1],attention,0,0,-1,AG,0")
    )
    with pytest.raises(ValueError, match="rank=0; the task has another rank"):
        read_timeline(path, found.expanded.schedule, "sim")


def test_few_of_many_lanes_are_shown_the_busiest_among_them() -> None:
    counts = [1 + rank for rank in range(40)]
    found = alike(findep(2, 2, 2), 30, 40, TIMES, Ranks(routing.from_counts(counts)))
    shown = shown_tracks(found.timeline, 16)
    assert len(shown.tracks()) <= 17
    assert ("EG", 39) in shown.tracks()
    assert ("EG", 0) in shown.tracks()
    assert shown.makespan_us == found.makespan_us
    assert shown_tracks(found.timeline, 1000) is found.timeline


# The command

BARE = (
    "simdep simulate --stage-times attention=100,shared=30,a2e=20,expert=50,e2a=20 --layers "
    "2 --r1 2 --r2 2"
)
SERVED = (
    "simdep simulate --model deepseek-v2 --hardware a6000 --ag 3 --eg 5 --layers 2 --r1 2 "
    "--r2 2 --seq-len 512"
)


def test_the_command_simulates_every_rank_where_a_flag_asks_for_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(f"{BARE} --json") == 0
    group = json.loads(capsys.readouterr().out)
    assert run(f"{BARE} --per-rank --ag 3 --eg 5 --json") == 0
    ranks = json.loads(capsys.readouterr().out)
    assert ranks["makespan_us"] == group["makespan_us"]
    assert ranks["streams"] == group["streams"]
    assert (ranks["ranks"]["ag"], ranks["ranks"]["eg"]) == (3, 5)
    assert "ranks" not in group


def test_flags_say_how_ranks_differ(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--routing power-law:1.2 --straggler AG.0=1.5 --straggler EG.1=1.1 --batches 2,1,2"
    assert run(f"{SERVED} {flags} --json") == 0
    found = json.loads(capsys.readouterr().out)["ranks"]
    assert set(found["alone_us"]) == {"routing", "stragglers", "batches"}
    assert found["routing"] == "power law 1.2"
    assert len(found["busy_us"]["EG"]) == 5
    assert found["skew_us"] > 0


def test_the_text_names_the_slowest_rank_and_stays_short(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trace, page = tmp_path / "ranks.json", tmp_path / "ranks.html"
    flags = f"--ag 20 --eg 20 --straggler AG.7=2 --trace {trace} --html {page}"
    assert run(f"{BARE} {flags}") == 0
    said = capsys.readouterr().out
    assert "slowest rank           AG 7: computes" in said
    assert "1.90 times the mean of AG" in said
    assert "of 80 tracks" in said
    assert len(said.splitlines()) < 40
    assert "E[0.0.0@19]" in trace.read_text()
    assert "AG" in page.read_text()


def test_rows_come_from_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("[3, 1]")
    assert run(f"{BARE} --ag 2 --eg 2 --routing {path} --json") == 0
    assert json.loads(capsys.readouterr().out)["ranks"]["imbalance"] == 1.5


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--per-rank", "needs ag and eg"),
        ("--ag 2 --eg 2", "leave out --ag"),
        ("--per-rank --ag 0 --eg 2", "ag=0"),
        ("--ag 2 --eg 2 --routing zipf:1.2", "needs the experts of a model"),
        ("--ag 2 --eg 2 --straggler AG.0", "write a rank and a factor"),
        ("--ag 2 --eg 2 --straggler AG.5=2", "straggler AG.5"),
        ("--ag 2 --eg 2 --batches 1,x", "batches='x'"),
        ("--ag 2 --eg 2 --gpus-per-node 2", "needs a link of each class"),
        ("--ag 2 --eg 2 --routing none.csv", "none.csv"),
    ],
)
def test_a_faulty_flag_is_refused_in_one_sentence(
    capsys: pytest.CaptureFixture[str], flags: str, said: str
) -> None:
    assert run(f"{BARE} {flags}") == 2
    one_sentence(capsys, said)


def test_the_word_balanced_is_the_group_whatever_the_number_of_experts() -> None:
    """64 experts on 3 EG GPUs."""
    data = {
        "model": "deepseek-v2-lite",
        "layers": 2,
        "deployment": {"hardware": "h20", "ag": 2, "eg": 3},
    }
    data |= {"workload": {"seq_len": 64, "samples": 2}, "schedule": {"r1": 2}}
    group = Scenario.from_dict(data)
    ranked = Scenario.from_dict(data | {"ranks": {"routing": "balanced"}})
    work = scenario_work(ranked, schedule_for(ranked))
    assert rank_times(work).makespan_us == longest_path_us(
        schedule_for(group), ScenarioCosts(group)
    )
