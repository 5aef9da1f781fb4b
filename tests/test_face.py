"""The face: what `import simdep` brings, how quickly, and that its names are what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import simdep
from simdep.timeline import COLUMNS

SCENARIO = {
    "model": "deepseek-v2-lite",
    "layers": 3,
    "deployment": {"hardware": "h20", "ag": 3, "eg": 5},
    "workload": {"seq_len": 256, "samples": 12},
    "schedule": {"policy": "findep", "r1": 2, "r2": 4},
}


@pytest.fixture(scope="module")
def scenario() -> simdep.Scenario:
    return simdep.Scenario.from_dict(SCENARIO)


def test_every_name_is_there_once() -> None:
    assert sorted(simdep.__all__) == simdep.__all__
    assert len(set(simdep.__all__)) == len(simdep.__all__)
    for name in simdep.__all__:
        assert getattr(simdep, name) is not None
    assert set(simdep.__all__) <= set(dir(simdep))
    with pytest.raises(AttributeError, match="has no attribute 'simulated'"):
        _ = simdep.simulated


def test_importing_simdep_loads_nothing_heavy() -> None:
    heavy = {"numpy", "pandas", "scipy", "simpy", "torch", "streamlit", "plotly", "pyarrow"}
    code = f"import simdep, sys; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_a_prediction_has_numbers_a_table_and_one_line(scenario: simdep.Scenario) -> None:
    prediction = simdep.simulate(scenario)
    assert prediction.metrics["makespan_us"] == prediction.makespan_us
    assert prediction.metrics["throughput_tokens_per_s"] == prediction.throughput_tokens_per_s
    assert isinstance(prediction.timeline, pd.DataFrame)
    assert tuple(prediction.timeline.columns) == COLUMNS
    assert len(prediction.timeline) == len(prediction.schedule) == prediction.metrics["tasks"]
    assert repr(prediction).startswith("<Prediction findep ASAS r1=2 r2=4: ")
    assert repr(prediction).endswith(" tokens/s>")
    assert set(prediction.costs["label"]) <= {"measured", "assumed"}


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz", "trace.csv", "trace.parquet"])
def test_a_prediction_is_saved_by_suffix(
    name: str, scenario: simdep.Scenario, tmp_path: Path
) -> None:
    simdep.simulate(scenario).save(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 0


def test_a_prediction_draws_itself(scenario: simdep.Scenario) -> None:
    pytest.importorskip("plotly")
    assert len(simdep.simulate(scenario).figure().data) > 0


def test_policies_predictions_and_solutions_are_compared(scenario: simdep.Scenario) -> None:
    best = simdep.solve(scenario)
    prediction = simdep.simulate(scenario)
    table = simdep.compare(scenario, ["naive", "pppipe:r1=3", prediction, best])
    assert list(table["schedule"])[:3] == ["naive", "pppipe r1=3", "findep ASAS r1=2 r2=4"]
    assert table["makespan_us"].iloc[2] == prediction.makespan_us
    assert table["makespan_us"].iloc[3] == pytest.approx(best.best.makespan_us, rel=1e-9)
    assert table["makespan_us"].iloc[3] == table["makespan_us"].min()
    assert repr(best).startswith("<Solution ") and repr(best).count("\n") == 0


def test_a_schedule_of_ones_own_is_simulated(scenario: simdep.Scenario, tmp_path: Path) -> None:
    schedule = simdep.simulate(scenario).schedule
    schedule.save(tmp_path / "mine.json")
    own = simdep.simulate(scenario, schedule=simdep.Schedule.load(tmp_path / "mine.json"))
    assert own.makespan_us == simdep.simulate(scenario).makespan_us
    assert own.metrics == simdep.simulate(scenario).metrics


def test_errors_are_one_tree() -> None:
    for error in (simdep.InputError, simdep.InfeasibleError, simdep.RunError):
        assert issubclass(error, simdep.SimdepError)
    with pytest.raises(simdep.InputError, match="unknown model"):
        simdep.Scenario.of("deepseek-v9", "h20", ag=1, eg=1)


def test_a_solution_has_a_table_of_the_best_and_the_runners_up(scenario: simdep.Scenario) -> None:
    solution = simdep.solve(scenario)
    table = solution.table
    assert len(table) == 1 + len(solution.runner_up)
    assert table.iloc[0].to_dict() == solution.best.to_dict()
    assert list(table["throughput_tokens_per_s"]) == sorted(
        table["throughput_tokens_per_s"], reverse=True
    )
