"""What a recorded real run says of the model: its structure holds, and models with one thing wrong
are rejected.

`traces/epyc-2-cores/runs.jsonl.gz` has rounds of some schedules of the recorded validation as their
ranks stamped them.
"""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from recorded import load_recorded

from realrun.validation.decomposition import power, structural_error_pct, terms
from realrun.validation.trial import Trial


@pytest.fixture(scope="module")
def recorded() -> list[Trial]:
    return load_recorded()


def test_the_structure_of_the_model_holds(recorded: list[Trial]) -> None:
    errors = np.abs([structural_error_pct(trial.model, trial.runs) for trial in recorded])
    assert np.median(errors) <= 0.5
    assert np.quantile(errors, 0.95) <= 2


def test_the_data_rejects_every_wrong_model(recorded: list[Trial]) -> None:
    rows = power(recorded).to_dict("records")
    assert {row["model"]: row["rejected"] for row in rows} == {
        "the model": None,
        "link 10 % slower": True,
        "half duplex": True,
        "unlimited link concurrency": True,
        "AASS and ASAS swapped": True,
        "one dependency removed": True,
        "experts 1.2 times as long": True,
    }


def test_every_host_overhead_brings_the_model_nearer_to_the_data(recorded: list[Trial]) -> None:
    nothing, *without = terms(recorded)
    assert {row["without"] for row in without} == {"gap", "receive", "post", "all"}
    for row in without:
        assert median_of(row) > median_of(nothing)


def median_of(row: dict[str, Any]) -> float:
    """The median structural error."""
    return float(row["structural"]["median_abs_pct"])
