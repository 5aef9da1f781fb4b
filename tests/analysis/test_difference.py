"""Differences of two schedules: complete, and in sentences."""

from __future__ import annotations

from hypothesis import given, settings
from scenarios import varied_us
from strategies import policy_schedules

from simdep.analysis.difference import difference
from simdep.analysis.idle import idle_by_cause
from simdep.costs import StageTimes
from simdep.policies import build
from simdep.schedule import Schedule
from simdep.simulation.engine import simulate_schedule


@settings(max_examples=50)
@given(policy_schedules(), policy_schedules())
def test_differences_sum_to_that_of_the_makespans_and_bubbles(
    one: Schedule, other: Schedule
) -> None:
    sides = simulate_schedule(one, varied_us), simulate_schedule(other, varied_us)
    told = difference(*sides)
    assert (
        sum(change.change_us for change in told.path) == sides[1].makespan_us - sides[0].makespan_us
    )
    bubbles = [
        sum(sum(causes.values()) for causes in idle_by_cause(side).values()) for side in sides
    ]
    assert sum(change.change_us for change in told.idle) == bubbles[1] - bubbles[0]


def test_a_difference_says_in_words_what_it_is() -> None:
    times = StageTimes(attention=10, shared=6, a2e=5, expert=8, e2a=5)
    slow, fast = (
        simulate_schedule(build(*given), times) for given in (("pppipe", 2, 2), ("findep", 2, 2))
    )
    told = difference(slow, fast)
    assert told.sentences[0] == "findep ASAS r1=2 r2=1 takes 8 us (9.5 %) less than pppipe r1=2"
    assert told.sentences[1].startswith("on its critical path are")
    assert difference(slow, slow).sentences == ("pppipe r1=2 takes as long as pppipe r1=2: 84 us",)
