"""Why a schedule takes as long: every split is complete, causes looked up moment by moment, slopes
by differences."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli import one_sentence, run
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import policy_schedules, random_schedules, with_shared

from simdep.analysis import summary as report
from simdep.analysis.idle import (
    Diagnosis,
    attribution,
    diagnoses,
    difference,
    idle,
    lower_bound_us,
    start_up_shares,
)
from simdep.analysis.sensitivity import link_parts, sensitivities
from simdep.costs import Costs, HostOverheads, StageTimes
from simdep.planning.exact import optimum
from simdep.policies import build, schedule_for
from simdep.scenario.imbalance import Ranks, Straggler
from simdep.scenario.memory import memory
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind, Schedule, Task, track
from simdep.simulation.engine import simulate_schedule, simulated_makespan_us
from simdep.simulation.longest_path import longest_path_us
from simdep.simulation.rank_work import RankCosts, rank_work
from simdep.timeline import Timeline

SMALL = 10**6  # parts of a cost of 1: a change too small to make another path the longest


def exactly(task: Task) -> int:
    return task.tokens


def whole(task: Task) -> int:
    """Different whole costs for different tasks, 0 for some."""
    return (task.tokens * 7 + 3 * task.layer + 5 * task.mb + 2 * (task.chunk or 0)) % 11


def scenario(**changes: Any) -> Scenario:
    where = {"hardware": "a6000", "ag": 3, "eg": 5, "link": {"alpha_us": 20, "gbytes_per_s": 25}}
    load = {"seq_len": changes.pop("seq_len", 512), "m_a": changes.pop("m_a", 2)}
    cut = {key: changes.pop(key) for key in ("policy", "order", "r1", "r2") if key in changes}
    return Scenario.from_dict(
        {
            "model": "deepseek-v2",
            "layers": 3,
            "deployment": where | changes,
            "workload": load,
            "schedule": cut,
        }
    )


def ranks(times: StageTimes, factor: int, shape: tuple[int, int, int]) -> tuple[Schedule, Costs]:
    stragglers = (Straggler("EG", 1, factor),)
    return rank_work(
        build("findep", *shape), 2, 2, Ranks(stragglers=stragglers), RankCosts.of_stages(times)
    ).expand()


def causes_moment_by_moment(timeline: Timeline) -> dict[str, dict[str, float]]:
    """Idle time by cause, every microsecond of every stream looked at on its own (whole times, a
    row a task)."""
    schedule, rows = timeline.schedule, timeline.by_task()
    start, end = rows["start_us"].to_dict(), rows["end_us"].to_dict()
    found: dict[str, dict[str, float]] = {}

    def cause(tasks: tuple[Task, ...], now: int) -> str | None:
        left = [
            task
            for task in tasks
            if end[task.name] > now or (start[task.name] == end[task.name] > now)
        ]
        if any(start[task.name] <= now < end[task.name] for task in tasks):
            return None
        begun = [task for task in tasks if start[task.name] <= now]
        if not begun:
            return "warm-up"
        if not left:
            return "drain"
        head = next(task for task in tasks if start[task.name] > now)
        later = tasks[tasks.index(head) + 1 :]
        if any(end[t.name] > start[t.name] and all(end[n] <= now for n in t.after) for t in later):
            return "order"
        name, slow = head.name, False
        while True:
            before = [each for each in schedule.predecessors[name] if end[each] > now]
            if not before:
                return "host"
            last = max(before, key=lambda each: end[each])
            same = [
                each
                for each in schedule.predecessors[name]
                if replace(schedule[each], rank=None, after=(), tokens=1)
                == replace(schedule[last], rank=None, after=(), tokens=1)
            ]
            whose = [
                (schedule.stream_of[each][:2] == "AG", schedule[each].rank)
                for each in (last, head.name)
            ]
            slow = slow or (whose[0] != whose[1] and min(end[each] for each in same) <= now)
            if start[last] <= now:
                return "another rank" if slow else schedule[last].kind.label
            name = last

    several = {
        resource: sum(track(name)[0] == resource for name in schedule.streams) > 1
        for resource in schedule.resources
    }
    for stream, tasks in schedule.streams.items():
        if not tasks:
            continue
        name = stream if several[track(stream)[0]] else track(stream)[0]
        causes = found.setdefault(name, {})
        for now in range(int(min(start.values())), int(max(end.values()))):
            why = cause(tasks, now)
            if why:
                causes[why] = causes.get(why, 0) + 1
    return found


@settings(max_examples=200)
@given(policy_schedules() | random_schedules())
def test_the_critical_path_sums_to_the_makespan(schedule: Schedule) -> None:
    timeline = simulate_schedule(schedule, whole)
    shares = attribution(timeline)
    assert sum(share.us for share in shares) == timeline.makespan_us
    assert all(share.kind != "host" for share in shares)
    assert sum(share.tasks for share in shares) == len(report.critical_path(timeline))


@settings(max_examples=150)
@given(policy_schedules(), st.integers(0, 5), st.integers(0, 3), st.booleans())
def test_what_hosts_add_to_the_critical_path_is_a_part_of_its_own(
    schedule: Schedule, gap: int, receive: int, half: bool
) -> None:
    host = HostOverheads(gap_us=gap, receive_us=receive, post_us=lambda task: 2, half_duplex=half)
    timeline = simulate_schedule(schedule, whole, host)
    assert sum(share.us for share in attribution(timeline)) == timeline.makespan_us
    for stream, causes in idle(timeline).items():
        assert sum(causes.values()) == report.streams(timeline)[stream]["bubble_us"]


@settings(max_examples=200)
@given(policy_schedules() | random_schedules())
def test_causes_of_idle_time_are_those_of_every_moment(schedule: Schedule) -> None:
    timeline = simulate_schedule(schedule, whole)
    found = idle(timeline)
    assert found == causes_moment_by_moment(timeline)
    for stream, causes in found.items():
        assert sum(causes.values()) == report.streams(timeline)[stream]["bubble_us"]


@settings(max_examples=50)
@given(with_shared, st.integers(1, 3), st.sampled_from([(1, 2, 2), (2, 2, 1), (2, 1, 2)]))
def test_causes_of_every_rank_are_those_of_every_moment(
    times: StageTimes, factor: int, shape: tuple[int, int, int]
) -> None:
    schedule, costs = ranks(times, factor, shape)
    timeline = simulate_schedule(schedule, costs)
    assert idle(timeline) == causes_moment_by_moment(timeline)
    assert sum(share.us for share in attribution(timeline)) == timeline.makespan_us


def test_the_fast_rank_waits_for_the_slow_one() -> None:
    """EG rank 1 takes 30 for 10: E2A@0 is ready 20 before E2A@1, and the AG waits for both."""
    schedule, costs = ranks(StageTimes(attention=5, expert=10, a2e=2, e2a=1), 3, (2, 1, 1))
    found = idle(simulate_schedule(schedule, costs))
    assert found["AG@0"] == {"a2e": 2, "expert": 11, "another rank": 20, "drain": 33}
    assert found["EG@0"]["another rank"] == 20
    assert "another rank" not in found["EG@1"]


def test_a_pipeline_warms_up_and_drains() -> None:
    """A S on the AG, one chunk, one layer: everything in sequence."""
    found = idle(
        simulate_schedule(
            build("naive", 1), StageTimes(attention=5, shared=2, a2e=3, expert=7, e2a=1)
        )
    )
    assert found == {
        "AG": {"drain": 11},
        "A2E": {"warm-up": 7, "drain": 8},
        "EG": {"warm-up": 10, "drain": 1},
        "E2A": {"warm-up": 17},
    }


def test_a_head_that_is_not_ready_holds_up_what_is() -> None:
    """AASS: S0 is ready from the start on but stands behind A1, which a long A2E holds up."""
    first, last = Task(Kind.ATTENTION, 0, 0), Task(Kind.SHARED, 0, 0, after=("A[0.0]",))
    send = Task(Kind.A2E, 0, 0, 0, after=("A[0.0]",))
    held = Task(Kind.ATTENTION, 0, 1, after=("A2E[0.0.0]",))
    timeline = simulate_schedule(
        Schedule({"AG": (first, held, last), "A2E": (send,)}),
        StageTimes(1, 0, a2e=6, e2a=0, shared=4),
    )
    assert idle(timeline)["AG"] == {"order": 6}


@settings(max_examples=300)
@given(policy_schedules() | random_schedules())
def test_slopes_are_exact_differences_of_a_small_change(schedule: Schedule) -> None:
    base = longest_path_us(schedule, whole)
    for each in sensitivities(schedule, whole):

        def changed(by: int, name: str = each.name) -> float:
            def costs(task: Task) -> int:
                return whole(task) * (SMALL + by * (task.kind.label == name))

            return longest_path_us(schedule, costs) - SMALL * base

        assert each.up_us_per_pct == changed(1) / 100
        assert each.down_us_per_pct == changed(-1) / 100


@settings(max_examples=100)
@given(policy_schedules())
def test_a_whole_percent_is_evaluated_and_never_less_than_its_slope(schedule: Schedule) -> None:
    base = longest_path_us(schedule, whole)
    for each in sensitivities(schedule, whole):
        kind = next(kind for kind in Kind if kind.label == each.name)

        def changed(pct: int, kind: Kind = kind) -> float:
            def costs(task: Task) -> float:
                return whole(task) * (100 + pct * (task.kind is kind))

            return longest_path_us(schedule, costs) / 100

        assert (each.up_us, each.down_us) == (changed(1), changed(-1))
        assert each.up_us_per_pct is not None
        assert each.down_us_per_pct is not None
        assert each.up_us - base >= each.up_us_per_pct - 1e-9
        assert each.down_us - base >= each.down_us_per_pct - 1e-9


def test_with_two_longest_paths_the_slopes_of_more_and_less_differ() -> None:
    """A2E and S both take 4 after A: a longer S alone is longer, a shorter one no shorter."""
    tasks = (Task(Kind.ATTENTION, 0, 0), Task(Kind.SHARED, 0, 0, after=("A[0.0]",)))
    schedule = Schedule({"AG": tasks, "A2E": (Task(Kind.A2E, 0, 0, 0, after=("A[0.0]",)),)})
    shared = next(
        each
        for each in sensitivities(
            schedule, StageTimes(attention=1, expert=0, a2e=4, e2a=0, shared=4)
        )
        if each.name == "shared"
    )
    assert (shared.up_us_per_pct, shared.down_us_per_pct) == (0.04, 0)
    assert (shared.up_us, shared.down_us) == (5.04, 5)


def test_with_terms_of_hosts_a_percent_is_simulated() -> None:
    host = HostOverheads(gap_us=3, contention=0.1)
    schedule, times = build("findep", 2, 2, 2), StageTimes(10, 8, 4, 4, 6)
    expert = next(each for each in sensitivities(schedule, times, host) if each.name == "expert")
    assert expert.up_us_per_pct is expert.down_us_per_pct is None
    assert expert.up_us == simulated_makespan_us(schedule, replace(times, expert=8.08), host)


@pytest.mark.parametrize("cut", [{"r1": 1}, {"r1": 2, "r2": 4}, {"policy": "pppipe", "r1": 2}])
def test_a_percent_of_bandwidth_or_start_up_is_that_of_a_changed_link(cut: dict[str, Any]) -> None:
    own = scenario(**cut)
    costs, schedule = ScenarioCosts(own), schedule_for(own)
    found = {each.name: each for each in sensitivities(schedule, costs, more=link_parts(costs))}
    for name, key, sign in (
        ("link bandwidth", "gbytes_per_s", -1),
        ("link start-up", "alpha_us", 1),
    ):
        for pct, us in ((1, found[name].up_us), (-1, found[name].down_us)):
            link = {"alpha_us": 20.0, "gbytes_per_s": 25.0}
            link[key] *= 1 + pct / 100
            assert us == pytest.approx(
                simulated_makespan_us(schedule, ScenarioCosts(scenario(**cut, link=link))),
                rel=1e-12,
            )
        slope = found[name].up_us_per_pct
        assert slope is not None
        assert sign * slope >= 0


@settings(max_examples=50)
@given(policy_schedules(), policy_schedules())
def test_differences_sum_to_that_of_the_makespans_and_bubbles(
    one: Schedule, other: Schedule
) -> None:
    sides = simulate_schedule(one, whole), simulate_schedule(other, whole)
    told = difference(*sides)
    assert sum(row["change_us"] for row in told.path) == sides[1].makespan_us - sides[0].makespan_us
    bubbles = [sum(sum(causes.values()) for causes in idle(side).values()) for side in sides]
    assert sum(row["change_us"] for row in told.idle) == bubbles[1] - bubbles[0]


def test_a_difference_says_in_words_what_it_is() -> None:
    times = StageTimes(attention=10, shared=6, a2e=5, expert=8, e2a=5)
    slow, fast = (
        simulate_schedule(build(*given), times) for given in (("pppipe", 2, 2), ("findep", 2, 2))
    )
    told = difference(slow, fast)
    assert told.words[0] == "findep ASAS r1=2 r2=1 takes 8 us (9.5 %) less than pppipe r1=2"
    assert told.words[1].startswith("on its critical path are")
    assert difference(slow, slow).words == ("pppipe r1=2 takes as long as pppipe r1=2: 84 us",)


def named(found: list[Diagnosis]) -> dict[str, Diagnosis]:
    return {each.name: each for each in found}


def test_start_up_of_a_line_is_its_alpha() -> None:
    def line(task: Task) -> float:
        return 30 + 2 * task.tokens

    shares = start_up_shares(build("findep", 1, 1, 2, tokens=20), line)
    assert shares == {
        "attention": 30 / 70,
        "shared": 30 / 70,
        "a2e": 30 / 50,
        "expert": 30 / 50,
        "e2a": 30 / 50,
    }
    timeline = simulate_schedule(build("findep", 1, 1, 2, tokens=20), line)
    sign = named(diagnoses(timeline, start_up=shares))["start-up cost dominates"]
    assert sign.found
    assert sign.numbers["critical_path_fraction"] == pytest.approx((30 + 4 * 30) / (70 + 4 * 50))


def test_the_signs_of_a_scenario_that_runs_well_are_not_found() -> None:
    own = scenario(r1=2, r2=2, seq_len=2048, link={"alpha_us": 20, "gbytes_per_s": 5})
    costs, schedule = ScenarioCosts(own), schedule_for(own)
    timeline = simulate_schedule(schedule, costs)
    found = named(
        diagnoses(timeline, start_up=start_up_shares(schedule, costs), needed=memory(own))
    )
    assert {name: each.found for name, each in found.items()} == {
        "start-up cost dominates": False,
        "memory infeasible": False,
        "communication already hidden": False,
        "costs out of range": False,
    }


def test_each_sign_is_found_where_it_is() -> None:
    timeline = simulate_schedule(
        build("findep", 8, 4, 2), StageTimes(attention=90, shared=40, a2e=1, expert=20, e2a=1)
    )
    found = named(
        diagnoses(
            timeline, needed=memory(scenario(memory_gbytes=1)), out_of_range=["m=8 is out of range"]
        )
    )
    assert "start-up cost dominates" not in found  # costs do not say
    assert found["memory infeasible"].found
    assert "are missing" in found["memory infeasible"].text
    assert found["communication already hidden"].found
    assert found["communication already hidden"].numbers["exposed_fraction"] <= 0.02
    assert found["costs out of range"].text == "m=8 is out of range"


@settings(max_examples=150)
@given(random_schedules())
def test_no_order_of_any_streams_is_below_the_bound(schedule: Schedule) -> None:
    assert lower_bound_us(schedule, exactly) <= optimum(schedule, exactly).makespan_us


@settings(max_examples=100)
@given(st.sampled_from([(1, 2, 2), (2, 2, 1), (2, 2, 2), (2, 1, 3)]), with_shared)
def test_no_order_of_the_four_streams_is_below_the_bound(
    shape: tuple[int, int, int], times: StageTimes
) -> None:
    schedule = build("findep", *shape)
    assert lower_bound_us(schedule, times) <= optimum(schedule, times).makespan_us


def test_the_bound_of_a_busy_ag_is_its_work_and_what_follows() -> None:
    times = StageTimes(attention=10, shared=5, a2e=1, expert=1, e2a=1)
    schedule = build("findep", 4, 3, 1)
    assert lower_bound_us(schedule, times) == 4 * 3 * 15 == longest_path_us(schedule, times)


SERVED = "--model deepseek-v2 --hardware a6000 --ag 3 --eg 5 --layers 2 --seq-len 512 --m-a 2 --r1 2 --r2 2"


def explained(capsys: pytest.CaptureFixture[str], flags: str) -> dict[str, Any]:
    assert run(f"simdep explain {flags} --json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_explain_prints_one_json_object_whose_parts_sum(capsys: pytest.CaptureFixture[str]) -> None:
    told = explained(capsys, f"{SERVED} --against pppipe")
    makespan = told["makespan_us"]
    assert sum(share["us"] for share in told["critical_path"]) == pytest.approx(makespan, rel=1e-12)
    for stream, causes in told["idle_us"].items():
        assert sum(causes.values()) == pytest.approx(told["bubble_us"][stream], abs=1e-6)
    assert told["lower_bound_us"] <= makespan
    assert {row["name"] for row in told["sensitivities"]} == {
        "attention",
        "shared",
        "a2e",
        "expert",
        "e2a",
        "link start-up",
        "link bandwidth",
    }
    changes = sum(row["change_us"] for row in told["difference"]["critical_path"])
    assert changes == pytest.approx(makespan - told["difference"]["against_makespan_us"], abs=1e-6)
    assert told["optimum"] is None


def test_explain_proves_how_far_from_the_optimum_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    bare = "--stage-times attention=3,shared=8,a2e=9,expert=7,e2a=1 --layers 3 --r1 2 --exact"
    told = explained(capsys, bare)
    assert (told["makespan_us"], told["optimum"]["makespan_us"]) == (75, 73)
    assert told["optimum"]["verdict"] == "within 2.7 %"
    assert told["optimum"]["found_verdict"] == "optimal"
    assert explained(capsys, bare.replace("--r1 2", "--r1 1"))["optimum"]["verdict"] == "optimal"


def test_the_optimum_of_a_policy_that_waits_for_shared_experts_does_not_wait(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bare = "--stage-times attention=3,shared=8,a2e=9,expert=7,e2a=1 --layers 3 --r1 2 --exact"
    assert explained(capsys, f"{bare} --policy pppipe")["optimum"]["makespan_us"] == 73


def test_explain_works_for_colocated_groups_and_for_every_rank(
    capsys: pytest.CaptureFixture[str],
) -> None:
    both = "--model qwen3-30b-a3b --hardware h100 --layers 2"
    told = explained(
        capsys, f"{both} --gpus 4 --policy two-batch-prefill --r1 2 --m-a 2 --against ep"
    )
    assert set(told["idle_us"]) == {"GPU", "COMM"}
    told = explained(capsys, f"{both} --ag 2 --eg 2 --r1 2 --straggler EG.1=1.5")
    assert {"AG@0", "AG@1", "EG@0", "EG@1"} <= set(told["idle_us"])
    assert told["idle_us"]["AG@0"]["another rank"] > 0


def test_explain_reads_as_text_and_as_a_page(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "why.html"
    assert run(f"simdep explain {SERVED} --against naive --exact --html {page}") == 0
    said = capsys.readouterr().out
    for words in (
        "proven optimal",
        "Critical path",
        "Idle time",
        "one percent",
        "Signs",
        "Against naive",
    ):
        assert words in said
    assert "Critical path" in page.read_text()


def test_explain_compares_with_another_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(
        'model = "deepseek-v2"\nlayers = 2\n[deployment]\nhardware = "h20"\nag = 3\neg = 5\n'
        "[workload]\nseq_len = 512\nm_a = 4\n[schedule]\nr1 = 2\nr2 = 2\n"
    )
    told = explained(capsys, f"{SERVED} --against {other}")
    assert any("times the throughput" in words for words in told["difference"]["words"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("", "nothing to explain"),
        (f"{SERVED} --against nobody", "unknown policy 'nobody'"),
        (f"{SERVED} --exact --time-limit 0", "--time-limit=0"),
        (f"{SERVED} --exact --workers 0", "--workers=0"),
    ],
)
def test_what_explain_can_not_do_is_said_in_a_sentence(
    flags: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"simdep explain {flags}") == 2
    one_sentence(capsys, said)
