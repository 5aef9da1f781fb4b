"""What hosts and links add to the paper's model: each term by hand, and nothing when all are
off."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import findep, naive, pppipe

from simdep.costs import HostOverheads, StageTimes
from simdep.schedule import Schedule, Task
from simdep.simulation.engine import simulate_schedule, simulated_makespan_us

TIMES = StageTimes(attention=100, shared=30, a2e=20, expert=50, e2a=20)
stage_times = st.builds(StageTimes, *(st.integers(0, 20) for _ in range(5)))


def span(schedule: Schedule, host: HostOverheads, times: StageTimes = TIMES) -> float:
    return simulate_schedule(schedule, times, host).makespan_us


@settings(max_examples=200)
@given(
    stage_times,
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["ASAS", "AASS"]),
)
def test_with_all_terms_off_nothing_changes(
    times: StageTimes, T: int, r1: int, r2: int, order: str
) -> None:
    """Terms of 0 and a contention too small to matter give the ideal timeline."""
    schedule = findep(T, r1, r2, order)
    ideal = simulate_schedule(schedule, times).by_task()
    assert (
        simulate_schedule(schedule, times, HostOverheads(post_us=lambda task: 0))
        .by_task()
        .equals(ideal)
    )
    slowed = (
        simulate_schedule(schedule, times, HostOverheads(contention=1e-15))
        .by_task()
        .loc[ideal.index]
    )
    assert slowed["end_us"].to_numpy(float) == pytest.approx(ideal["end_us"].to_numpy(float))


def test_the_makespan_alone_is_that_of_the_timeline() -> None:
    schedule, host = (
        findep(3, 2, 3),
        HostOverheads(gap_us=2, receive_us=3, post_us=lambda task: 1, contention=0.1),
    )
    assert (
        simulated_makespan_us(schedule, TIMES, host)
        == simulate_schedule(schedule, TIMES, host).makespan_us
    )


def test_a_gap_precedes_every_computation() -> None:
    """One layer of naive: A, S and E follow each other; the makespan begins with A, after its own
    gap."""
    assert span(naive(1), HostOverheads(gap_us=5)) == 100 + 30 + 20 + 50 + 20 + 2 * 5


def test_messages_are_taken_in_while_waiting_for_them() -> None:
    """Naive: E is free long before its message comes. It has taken it in by then."""
    assert span(naive(1), HostOverheads(receive_us=7)) == 100 + 30 + 20 + 50 + 20


def test_a_message_that_is_there_already_holds_the_computation_up() -> None:
    """E[0.0.1] has arrived at 140 and can start at 170, when E[0.0.0] ends; A[1.0] waits for two
    messages until 240."""
    schedule = findep(2, 1, 2)
    tasks = simulate_schedule(schedule, TIMES, HostOverheads(receive_us=7)).by_task()
    assert tasks.at["E[0.0.0]", "start_us"] == 120
    assert tasks.at["E[0.0.1]", "start_us"] == 170 + 7
    assert tasks.at["A[1.0]", "start_us"] == 170 + 7 + 50 + 20


def test_noise_varies_computations_around_their_cost_and_leaves_transfers() -> None:
    schedule = findep(40, 2, 2)
    tasks = simulate_schedule(schedule, TIMES, HostOverheads(noise=0.1, seed=3)).by_task()
    spent = (tasks["end_us"] - tasks["start_us"]).astype(float)
    assert spent[tasks["kind"] == "a2e"].to_numpy() == pytest.approx(20)
    expert = spent[tasks["kind"] == "expert"]
    assert expert.mean() == pytest.approx(50, rel=0.03)
    assert expert.std() / expert.mean() == pytest.approx(0.1, rel=0.15)


def test_noise_leaves_the_mean_of_computations_as_it_is() -> None:
    """1,440 computations of 1 us with a coefficient of variation of 1: a mean of 1 +- 0.03."""
    schedule, times = findep(60, 4, 4), StageTimes(1, 1, 0, 0, 1)
    tasks = simulate_schedule(schedule, times, HostOverheads(noise=1)).by_task()
    computed = tasks[~tasks["kind"].isin(["a2e", "e2a"])]
    spent = (computed["end_us"] - computed["start_us"]).astype(float)
    assert len(spent) == 1440
    assert spent.mean() == pytest.approx(1, abs=0.08)
    assert spent.std() == pytest.approx(1, abs=0.2)


def test_noise_is_the_same_for_the_same_seed() -> None:
    spans = [span(findep(2, 2, 2), HostOverheads(noise=0.2, seed=seed)) for seed in (1, 1, 2)]
    assert spans[0] == spans[1] != spans[2]


def test_posting_takes_time_of_the_stream_that_computed_and_none_of_the_transfer() -> None:
    """ASAS, one micro-batch in two chunks: S waits for two posts, the transfers do not."""
    tasks = simulate_schedule(
        findep(1, 1, 2), TIMES, HostOverheads(post_us=lambda task: 3)
    ).by_task()
    assert tasks.at["A2E[0.0.0]", "start_us"] == 100
    assert tasks.at["A2E[0.0.1]", "start_us"] == 120
    assert tasks.at["S[0.0]", "start_us"] == 106
    assert tasks.at["E[0.0.1]", "start_us"] == 120 + 50 + 3


def test_computation_runs_slower_while_a_transfer_is_under_way() -> None:
    """S runs from 100 beside A2E, which ends at 120: 20 us at 3/4 speed leave 15 of 30 us, then E2A
    comes later."""
    tasks = simulate_schedule(findep(1, 1, 1), TIMES, HostOverheads(contention=0.25)).by_task()
    assert tasks.at["S[0.0]", "end_us"] == pytest.approx(100 + 20 + 15)
    assert tasks.at["E[0.0.0]", "end_us"] == pytest.approx(120 + 50)


def test_two_transfers_slow_computation_twice() -> None:
    times = StageTimes(attention=10, shared=1000, a2e=100, expert=10, e2a=100)
    tasks = simulate_schedule(findep(1, 1, 2), times, HostOverheads(contention=0.1)).by_task()
    # A2E 10-110 and 110-210; E[0.0.0] beside the second ends at 110 + 10/0.9; E2A from there for
    # 100
    one, both = tasks.at["E[0.0.0]", "end_us"], 210 - tasks.at["E[0.0.0]", "end_us"]
    assert one == pytest.approx(110 + 10 / 0.9)
    last = tasks.at["E2A[0.0.1]", "end_us"]
    busy = (one - 10) * 0.9 + both * 0.8 + (last - 210) * 0.9
    assert tasks.at["S[0.0]", "end_us"] == pytest.approx(last + 1000 - busy)


def test_half_duplex_directions_take_turns() -> None:
    times = StageTimes(attention=0, shared=0, a2e=10, expert=0, e2a=10)
    assert span(findep(1, 1, 2), HostOverheads(), times) == 30
    assert span(findep(1, 1, 2), HostOverheads(half_duplex=True), times) == 40


def test_messages_are_posted_in_the_order_of_their_stream_by_the_task_that_completes_them() -> None:
    posts = pppipe(1, 2).posts_after
    assert {name: [t.name for t in tasks] for name, tasks in posts.items()} == {
        "S[0.0]": ["A2E[0.0.0]"],
        "S[0.1]": ["A2E[0.1.0]"],
        "E[0.0.0]": ["E2A[0.0.0]"],
        "E[0.1.0]": ["E2A[0.1.0]"],
    }


def test_a_message_ahead_holds_back_what_is_ready_behind_it() -> None:
    schedule = findep(1, 2, 1)
    streams = {**schedule.streams, "A2E": schedule.streams["A2E"][::-1]}
    assert [t.name for t in Schedule(streams).posts_after["A[0.1]"]] == [
        "A2E[0.1.0]",
        "A2E[0.0.0]",
    ]


def test_a_transfer_that_waits_for_a_transfer_is_posted_by_nobody() -> None:
    schedule = naive(1)
    relay = Task.parse("E2A[0.0.0]", after=("E[0.0.0]", "A2E[0.0.0]"))
    posts = Schedule({**schedule.streams, "E2A": (relay,)}).posts_after
    assert [t.name for tasks in posts.values() for t in tasks] == ["A2E[0.0.0]"]


def test_a_transfer_behind_one_that_nobody_posts_is_posted_by_nobody() -> None:
    """A host posts the transfers of a stream in order, so it never comes to the second."""
    relay = Task.parse("E2A[0.0.0]", after=("A2E[0.0.0]",))
    behind = Task.parse("E2A[0.0.1]", after=("E[0.0.0]",))
    schedule = Schedule({**naive(1).streams, "E2A": (relay, behind)})
    assert set(schedule.posts_after) == {"S[0.0]"}


def test_a_transfer_that_waits_for_nothing_is_posted_with_the_one_before_it() -> None:
    sent = (Task.parse("A2E[0.0.0]", after=("A[0.0]",)), Task.parse("A2E[0.0.1]"))
    schedule = Schedule({"AG": (Task.parse("A[0.0]"),), "A2E": sent})
    assert schedule.posts_after == {"A[0.0]": sent}


@pytest.mark.parametrize("contention", [-0.1, 0.5, 1.0])
def test_a_contention_that_would_stop_computation_is_refused(contention: float) -> None:
    with pytest.raises(
        ValueError,
        match=f"contention={contention}; two transfers must leave computation some speed",
    ):
        HostOverheads(contention=contention)
