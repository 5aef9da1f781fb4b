"""Hypothesis strategies that several test modules share. Whole numbers throughout, so that `==`
holds."""

from __future__ import annotations

from itertools import permutations, product

from hypothesis import strategies as st

from simdep.costs import HalvedTimes, StageTimes
from simdep.policies import BUILTIN, Job, Partition, Policy, find
from simdep.schedule import Kind, Schedule, Task

# Thousands of cases stay fast when few values are drawn for each: hence one number for five stage
# times, one choice for three degrees.
degrees = st.integers(1, 3)
layers = st.integers(1, 3)
shapes = st.sampled_from(list(product((1, 2, 3), repeat=3)))  # (layers, r1, r2)


def _stage_times(code: int) -> StageTimes:
    attention, expert, a2e, e2a, shared = (code >> 4 * place & 15 for place in range(5))
    before = attention * 5 // 8  # of its core
    return HalvedTimes(
        attention, expert, a2e, e2a, shared, projection=before, core=attention - before
    )


with_shared = st.integers(0, 16**5 - 1).map(
    _stage_times
)  # 0 to 15 us a stage: small enough for ties and zeros
without_shared = st.integers(0, 16**4 - 1).map(_stage_times)


def all_ag_orders(r1: int) -> list[str]:
    """Every AG order of r1 micro-batches, as a list of steps: the first of two equal numbers is A,
    the second S."""
    orders = []
    for numbers in sorted(set(permutations([*range(r1), *range(r1)]))):
        steps = [f"{'S' if mb in numbers[:at] else 'A'}{mb}" for at, mb in enumerate(numbers)]
        orders.append(" ".join(steps))
    return orders


ag_orders = {r1: st.sampled_from(all_ag_orders(r1)) for r1 in (1, 2, 3)}  # 1, 6 and 90 of them


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Any task on its own."""
    kind = draw(st.sampled_from(Kind))
    chunk = draw(st.integers(0, 10**6)) if kind.is_chunked else None
    return Task(kind, draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6)), chunk)


@st.composite
def jobs(draw: st.DrawFn, policy: Policy, times: StageTimes) -> Job:
    """Anything that a policy may be asked: micro-batches and chunks equal or not, cut by token or
    by expert."""
    r1 = draw(degrees) if "r1" in policy.parameters else policy.r1
    split = draw(st.sampled_from(policy.splits))
    order = (
        draw(st.sampled_from(["asas", "aass"]) | ag_orders[r1])
        if "order" in policy.parameters
        else "asas"
    )
    shared_on = (
        "ag"
        if policy.colocated
        else policy.setup.get("shared_on") or draw(st.sampled_from(["ag", "eg"]))
    )
    return Job(
        draw(layers),
        draw(_cuts(r1, split, 3 if "r2" in policy.parameters else 1)),
        order,
        draw(st.booleans()),
        shared_on,
        split,
        "merge_last" in policy.parameters and draw(st.booleans()),
        times,
    )


@st.composite
def _cuts(draw: st.DrawFn, r1: int, split: str, most: int) -> Partition:
    if split == "expert":
        groups = draw(st.integers(1, most))
        return tuple((draw(st.integers(1, 9)), *(0,) * (groups - 1)) for _ in range(r1))
    return tuple(
        tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=most))) for _ in range(r1)
    )


@st.composite
def policy_schedules(draw: st.DrawFn) -> Schedule:
    """A schedule of any policy, with or without shared experts, micro-batches and chunks equal or
    not."""
    policy = find(draw(st.sampled_from(BUILTIN)))
    return policy.schedule(draw(jobs(policy, draw(with_shared))))


@st.composite
def random_schedules(draw: st.DrawFn, *, can_finish: bool = True) -> Schedule:
    """Tasks of 1 to 30 tokens on three streams, each after up to two of those laid down before it.

    Unless `can_finish`, after any two. One drawn number holds all of a task.
    """
    codes = draw(st.lists(st.integers(0, 9 * 9 * 3 * 5 * 30 - 1), min_size=1, max_size=9))
    streams: dict[str, list[Task]] = {
        name: [] for name in draw(st.sampled_from(["XYZ", "ZYX", "YZX"]))
    }
    names = []
    for mb, code in enumerate(codes):
        symbol = ("A", "S", "A2E", "E", "E2A")[code % 5]
        names.append(f"{symbol}[0.{mb}]" if symbol in "AS" else f"{symbol}[0.{mb}.0]")
    for mb, (name, code) in enumerate(zip(names, codes, strict=True)):
        stream, tokens, first, second = (
            code // 5 % 3,
            1 + code // 15 % 30,
            code // 450 % 9,
            code // 4050,
        )
        others = names[:mb] if can_finish else names
        after = tuple(others[pick] for pick in {first: 0, second: 0} if pick < len(others))
        streams["XYZ"[stream]].append(Task.parse(name, tokens, after))
    return Schedule({name: tuple(served) for name, served in streams.items()})
