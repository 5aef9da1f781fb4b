"""Forms of cost: positive, scaling as stated, exact where they say so, and back from their JSON."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdep.hardware.forms import Knee, PointTable, Terms, form_from_dict, linear, p_norm

positive = st.floats(1e-3, 1e6)
sizes = st.lists(positive, min_size=1, max_size=5)
powers = st.floats(1, 20) | st.just(math.inf)


def amounts(macs: list[float], moved: list[float] | None = None) -> dict[str, np.ndarray]:
    work = {"one": np.ones(len(macs)), "macs": np.array(macs)}
    return work | {"bytes": np.array(moved if moved is not None else macs)}


@given(sizes, positive, positive)
def test_the_papers_form_is_a_start_up_and_a_slope(
    macs: list[float], alpha: float, beta: float
) -> None:
    assert linear(alpha, beta)(amounts(macs)) == pytest.approx([alpha + beta * x for x in macs])


@given(sizes, positive, positive, powers)
def test_without_a_second_race_terms_are_the_papers_form(
    macs: list[float], alpha: float, beta: float, power: float
) -> None:
    """All extra terms off gives FinDEP's alpha + beta x exactly."""
    assert Terms({"one": alpha}, {"macs": beta, "bytes": 0.0}, power)(
        amounts(macs)
    ) == pytest.approx(linear(alpha, beta)(amounts(macs)))


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=5), positive, positive, powers)
def test_a_race_takes_at_least_the_longer_and_at_most_both(
    pairs: list[tuple[float, float]], mac: float, byte: float, power: float
) -> None:
    macs, moved = (list(column) for column in zip(*pairs, strict=True))
    took = Terms({"one": 1.0}, {"macs": mac, "bytes": byte}, power)(amounts(macs, moved)) - 1
    for us, x, y in zip(took, macs, moved, strict=True):
        assert max(mac * x, byte * y) <= us * (1 + 1e-6) + 1e-9
        assert us <= (mac * x + byte * y) * (1 + 1e-6) + 1e-9


@given(sizes, positive, positive, powers, st.floats(1, 100))
def test_more_work_never_takes_less_and_scales_at_most_with_the_work(
    macs: list[float], alpha: float, beta: float, power: float, factor: float
) -> None:
    form = Terms({"one": alpha}, {"macs": beta, "one": alpha}, power)
    less, more = form(amounts(macs)), form(amounts([factor * x for x in macs]))
    assert (more >= less * (1 - 1e-9)).all()
    assert (more <= factor * less * (1 + 1e-9)).all()


@given(sizes, positive, positive, positive)
def test_a_knee_is_flat_then_a_line(
    macs: list[float], floor: float, alpha: float, beta: float
) -> None:
    told = Knee("macs", floor, alpha, beta)(amounts(macs))
    assert told == pytest.approx([max(floor, alpha + beta * x) for x in macs])


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=6), powers)
def test_the_p_norm_lies_between_the_largest_and_the_sum(
    pairs: list[tuple[float, float]], power: float
) -> None:
    values = np.array(pairs).T
    told = p_norm(values, power)
    assert (told >= values.max(axis=0) * (1 - 1e-9)).all()
    assert (told <= values.sum(axis=0) * (1 + 1e-9)).all()


GRID = {"one": np.ones(9), "m": np.repeat([1.0, 10.0, 100.0], 3), "n": np.tile([1.0, 2.0, 4.0], 3)}
TIMES = np.array([5.0, 7.0, 6.0, 8.0, 9.0, 20.0, 30.0, 25.0, 60.0])


def table(others: tuple[str, ...] = ("n",)) -> PointTable:
    return PointTable.through(Terms({"one": 1.0, "m": 0.1}), "m", others, GRID, TIMES)


def test_a_table_gives_back_its_measurements() -> None:
    assert table()(GRID) == pytest.approx(TIMES)


def test_a_table_lies_between_its_neighbours_along_its_axis_and_may_fall() -> None:
    base = table().base
    at = {"one": np.ones(1), "m": np.array([31.6]), "n": np.array([2.0])}
    over = table()(at) / base(at)
    ends = [
        TIMES[place] / base({name: values[[place]] for name, values in GRID.items()})[0]
        for place in (4, 7)
    ]
    assert min(ends) <= over[0] <= max(ends)


def test_points_measured_more_than_once_take_their_median() -> None:
    work = {"one": np.ones(3), "m": np.ones(3)}
    twice = PointTable.through(linear(1, 0, "m"), "m", (), work, np.array([1.0, 2.0, 9.0]))
    assert twice({"one": np.ones(1), "m": np.ones(1)}) == pytest.approx([2.0])


@pytest.mark.parametrize(
    "form",
    [
        linear(1, 2),
        Terms({"one": 1.0}, {"macs": 2.0}, 3.0),
        Terms({}, {"macs": 1.0}, math.inf),
        Knee("m", 1, 2, 3),
        table(),
    ],
)
def test_a_form_comes_back_from_its_json(form: Terms | Knee | PointTable) -> None:
    assert form_from_dict(form.to_dict(), "form") == form


def test_an_unknown_form_is_refused_by_its_name() -> None:
    with pytest.raises(
        ValueError, match=r"^unknown kernels\[0\].form.form 'spline'; use knee, table, terms$"
    ):
        form_from_dict({"form": "spline"}, "kernels[0].form")
