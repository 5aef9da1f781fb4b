"""FinDEP's Theorems 1-4 on stage costs `alpha + beta * tokens`: where they hold, and where whole
tokens break them.

A micro-batch has m tokens, m growing with m_a, and a chunk m / r2 of them (conservation of tokens).
*Equal* chunks have just that, a whole number in the engine and any fraction in the closed form;
chunks of *whole tokens* differ by up to one, as `policies.chunk_tokens` cuts them. Integers and
fractions keep every comparison exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import findep

from simdep.costs import StageTimes
from simdep.schedule import Task
from simdep.simulation.closed_form import asas
from simdep.simulation.engine import simulate_schedule

Number = int | Fraction
KINDS = ("attention", "shared", "a2e", "expert", "e2a")
both_orders = pytest.mark.parametrize("order", ["asas", "aass"])


@dataclass(frozen=True)
class Lines:
    """(alpha, beta) of every kind of task: microseconds of a task are alpha + beta * tokens."""

    attention: tuple[int, int] = (0, 0)
    shared: tuple[int, int] = (0, 0)
    a2e: tuple[int, int] = (0, 0)
    expert: tuple[int, int] = (0, 0)
    e2a: tuple[int, int] = (0, 0)

    def __call__(self, task: Task) -> int:
        alpha, beta = getattr(self, task.kind.label)
        return int(alpha + beta * task.tokens)

    def stage_times(self, m: int, r2: int) -> StageTimes:
        """Exact times of a micro-batch of m tokens in r2 equal chunks."""
        tokens = {"attention": Fraction(m), "shared": Fraction(m)}
        line = {kind: getattr(self, kind) for kind in KINDS}
        return StageTimes(
            **{
                k: alpha + beta * tokens.get(k, Fraction(m, r2))
                for k, (alpha, beta) in line.items()
            }
        )


@st.composite
def cost_lines(draw: st.DrawFn) -> Lines:
    """Any linear costs; A2E and E2A take equal time in the paper, and any time in half of the
    cases."""
    line = st.tuples(st.integers(0, 12), st.integers(0, 12))
    attention, shared, a2e, expert = (draw(line) for _ in range(4))
    return Lines(attention, shared, a2e, expert, draw(st.just(a2e) | line))


layers, degrees = st.integers(1, 3), st.integers(1, 4)


def asas_span(lines: Lines, T: int, r1: int, r2: int, m: int) -> Number:
    """Makespan of ASAS with equal chunks, from the closed form."""
    return asas(lines.stage_times(m, r2), T, r1, r2)  # type: ignore[return-value]


def engine_span(lines: Lines, T: int, r1: int, r2: int, m: int, order: str = "aass") -> int:
    """Makespan with chunks of whole tokens, from the engine; equal where r2 divides m."""
    return int(simulate_schedule(findep(T, r1, r2, order, tokens=m), lines).makespan_us)


def not_slower(more: int, longer: Number, less: int, shorter: Number) -> bool:
    """more / longer >= less / shorter, the throughputs of work and makespan, without dividing by
    0."""
    return more * shorter >= less * longer


def above_line(spans: Iterable[Number], cuts: Iterable[int]) -> Fraction:
    """How far the middle of three makespans lies above the line, over 1/r2, through its neighbours;
    convex: <= 0."""
    (low, middle, high), (u, v, w) = spans, (Fraction(1, r2) for r2 in cuts)
    share = (v - w) / (u - w)
    return middle - (share * low + (1 - share) * high)


def test_the_closed_form_and_the_engine_agree_on_equal_chunks() -> None:
    lines = Lines((3, 1), (1, 2), (5, 1), (2, 4), (1, 3))
    assert asas_span(lines, 3, 2, 4, 12) == engine_span(lines, 3, 2, 4, 12, "asas")


# Theorem 1: for fixed (r1, r2) the throughput does not fall as m_a grows


@given(cost_lines(), layers, degrees, degrees, st.integers(1, 30), st.integers(1, 10))
def test_theorem_1_holds_for_asas_with_equal_chunks(
    lines: Lines, T: int, r1: int, r2: int, m: int, more: int
) -> None:
    """Throughput does not fall from m to m + more: every task's time per token, alpha / m + beta,
    falls or stays."""
    spans = [asas_span(lines, T, r1, r2, tokens) for tokens in (m, m + more)]
    assert not_slower(m + more, spans[1], m, spans[0])


@settings(max_examples=200)
@given(cost_lines(), layers, degrees, degrees, st.integers(1, 6), st.integers(1, 6))
def test_theorem_1_holds_for_aass_with_equal_chunks(
    lines: Lines, T: int, r1: int, r2: int, k: int, more: int
) -> None:
    """Throughput does not fall from m = k r2 to (k + more) r2 tokens."""
    spans = [engine_span(lines, T, r1, r2, tokens * r2) for tokens in (k, k + more)]
    assert not_slower(k + more, spans[1], k, spans[0])


@both_orders
def test_theorem_1_fails_where_one_more_token_makes_chunks_unequal(order: str) -> None:
    """A2E and E2A 1 us a token, r2 = 2: 2 tokens go through in 3 us as 1 + 1, but 3 take 5 us as 2
    + 1."""
    lines = Lines(a2e=(0, 1), e2a=(0, 1))
    spans = [engine_span(lines, 1, 1, 2, tokens, order) for tokens in (2, 3)]
    assert spans == [3, 5]
    assert Fraction(3, 5) < Fraction(2, 3)


# Theorem 2: for fixed r1, with r2 optimised, the throughput does not fall as m_a grows


@settings(max_examples=200)
@given(cost_lines(), layers, degrees, st.integers(1, 12), st.integers(1, 6))
def test_theorem_2_holds_for_asas_with_equal_chunks(
    lines: Lines, T: int, r1: int, m: int, more: int
) -> None:
    """The best throughput over r2 = 1 to m does not fall from m to m + more, where r2 may go to m +
    more."""
    spans = [min(asas_span(lines, T, r1, r2, n) for r2 in range(1, n + 1)) for n in (m, m + more)]
    assert not_slower(m + more, spans[1], m, spans[0])


@settings(max_examples=60)
@given(cost_lines(), layers, degrees, st.integers(1, 3), st.integers(1, 2))
def test_theorem_2_holds_for_aass_with_equal_chunks(
    lines: Lines, T: int, r1: int, k: int, more: int
) -> None:
    """The best throughput over r2 = 1, 2, 3, 4, 6 does not fall from m = 12 k to 12 (k + more)
    tokens."""
    spans = [
        min(engine_span(lines, T, r1, r2, 12 * n) for r2 in (1, 2, 3, 4, 6)) for n in (k, k + more)
    ]
    assert not_slower(k + more, spans[1], k, spans[0])


@both_orders
def test_theorem_2_fails_for_chunks_of_whole_tokens(order: str) -> None:
    """A2E and E2A 1 us a token, expert 2 us a chunk, r1 = 2: 6 tokens take 16 us at best, 7 tokens
    19 us."""
    lines = Lines(a2e=(0, 1), expert=(2, 0), e2a=(0, 1))
    spans = [min(engine_span(lines, 1, 2, r2, n, order) for r2 in range(1, n + 1)) for n in (6, 7)]
    assert spans == [16, 19]
    assert Fraction(7, 19) < Fraction(6, 16)


# Theorem 3: for fixed (m_a, r2) the throughput does not fall as r1 grows


@given(cost_lines(), layers, st.integers(1, 8), degrees, st.integers(1, 30))
def test_theorem_3_holds_for_asas_with_equal_chunks(
    lines: Lines, T: int, r1: int, r2: int, m: int
) -> None:
    """Throughput does not fall from r1 to r1 + 1 micro-batches of the same size."""
    spans = [asas_span(lines, T, r, r2, m) for r in (r1, r1 + 1)]
    assert not_slower(r1 + 1, spans[1], r1, spans[0])


@both_orders
@settings(max_examples=200)
@given(cost_lines(), layers, degrees, degrees, st.integers(0, 5))
def test_theorem_3_holds_for_both_orders_with_chunks_of_whole_tokens(
    order: str, lines: Lines, T: int, r1: int, r2: int, more: int
) -> None:
    """Throughput does not fall from r1 to r1 + 1 micro-batches of r2 + more tokens, chunks equal or
    not."""
    spans = [engine_span(lines, T, r, r2, r2 + more, order) for r in (r1, r1 + 1)]
    assert not_slower(r1 + 1, spans[1], r1, spans[0])


# Theorem 4: for fixed (r1, m_a) the makespan is convex in 1/r2


cuts = st.lists(st.integers(1, 12), min_size=3, max_size=3, unique=True).map(sorted)
cuts_of_12 = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=3, max_size=3, unique=True).map(
    sorted
)


@given(cost_lines(), layers, degrees, st.integers(1, 30), cuts)
def test_theorem_4_holds_for_asas_with_equal_chunks(
    lines: Lines, T: int, r1: int, m: int, cut: list[int]
) -> None:
    """Of any three r2, the middle makespan lies on or below the line through the others, over
    1/r2."""
    assert above_line((asas_span(lines, T, r1, r2, m) for r2 in cut), cut) <= 0


@settings(max_examples=200)
@given(cost_lines(), layers, degrees, st.integers(1, 2), cuts_of_12)
def test_theorem_4_holds_for_aass_with_equal_chunks(
    lines: Lines, T: int, r1: int, k: int, cut: list[int]
) -> None:
    """The same for AASS with 12 k tokens and any three of r2 = 1, 2, 3, 4, 6."""
    assert above_line((engine_span(lines, T, r1, r2, 12 * k) for r2 in cut), cut) <= 0


@both_orders
def test_theorem_4_fails_for_chunks_of_whole_tokens(order: str) -> None:
    """A2E and E2A 1 us a token, 3 tokens: 6, 5, 4 us for r2 = 1, 2, 3, where a convex curve allows
    4.5 us at r2 = 2."""
    lines = Lines(a2e=(0, 1), e2a=(0, 1))
    spans = [engine_span(lines, 1, 1, r2, 3, order) for r2 in (1, 2, 3)]
    assert spans == [6, 5, 4]
    assert above_line(spans, (1, 2, 3)) == Fraction(1, 2)


@both_orders
def test_with_chunks_of_whole_tokens_a_search_that_descends_over_r2_can_stop_too_early(
    order: str,
) -> None:
    """A2E and E2A 1 + 2 us a token, expert 1 us a token, 4 tokens: r2 = 2 is a minimum, r2 = 4 a
    better one."""
    lines = Lines(a2e=(1, 2), expert=(0, 1), e2a=(1, 2))
    assert [engine_span(lines, 1, 1, r2, 4, order) for r2 in (1, 2, 3, 4)] == [22, 17, 18, 16]
