"""Fitting a line to measurements, and costs that go through their points."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdep.calibration.fit_line import fit_line, trimmed_mean
from simdep.hardware.profile import Cost


@given(st.floats(0.1, 1e3), st.floats(1e-3, 1e2))
def test_exact_lines_are_found(alpha: float, beta: float) -> None:
    """Points on a line give that line, R2 1 and no error."""
    work = [1.0, 4.0, 16.0, 64.0]
    cost = fit_line("gemm", work, [alpha + beta * x for x in work], "test")
    assert cost.fit is not None
    assert cost.alpha_us == pytest.approx(alpha, rel=1e-6)
    assert cost.beta_us == pytest.approx(beta, rel=1e-6)
    assert cost.fit.r2 == pytest.approx(1)
    assert cost.fit.mape_pct == pytest.approx(0, abs=1e-6)


def test_a_fit_weighs_relative_errors() -> None:
    """Least squares would follow the long time and miss the short ones."""
    cost = fit_line("gemm", [1, 2, 4, 1000], [10, 20, 40, 5000], "test")
    assert cost(2) == pytest.approx(20, rel=0.2)


def test_a_fitted_start_up_is_never_negative() -> None:
    cost = fit_line("gemm", [1, 2, 3], [1, 3, 5.5], "test")
    assert cost.alpha_us == 0


def test_two_sizes_make_no_fit() -> None:
    with pytest.raises(
        ValueError, match="gemm: 2 sizes of work measured; a line and its error need at least 3"
    ):
        fit_line("gemm", [1, 2, 2], [1, 2, 2], "test")


def test_a_time_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gemm: 0\.0 us measured; a time is more than 0"):
        fit_line("gemm", [1, 2, 3], [0, 1, 2], "test")


def test_outliers_do_not_move_a_trimmed_mean() -> None:
    assert trimmed_mean([1, 1, 1, 1, 1, 1, 1, 1, 1, 100]) == 1


@given(
    st.lists(
        st.tuples(st.integers(1, 1000), st.floats(0.1, 1e4)),
        min_size=1,
        max_size=6,
        unique_by=lambda p: p[0],
    )
)
def test_a_cost_goes_through_its_points(points: list[tuple[int, float]]) -> None:
    """At a measured size the cost is the measured time; between two it lies between them."""
    points.sort()
    cost = Cost("stage.expert", 5.0, 2.0, "measured", "test", points=tuple(points))
    for work, us in points:
        assert cost(work) == pytest.approx(us)
    for (low, low_us), (high, high_us) in pairwise(points):
        between = cost((low + high) / 2)
        assert min(low_us, high_us) * 0.999 <= between <= max(low_us, high_us) * 1.001


def test_beyond_its_points_a_cost_follows_the_line() -> None:
    cost = Cost("stage.expert", 5.0, 2.0, "measured", "test", points=((10, 30), (20, 40)))
    assert cost(25) == 50
    assert cost(5) == 20
    assert cost(0.001) > 0
