"""What a recorded real run says of the model: its structure holds, and models with one thing wrong
are rejected.

`traces/epyc-2-cores/runs.jsonl.gz` has rounds of some schedules of the recorded validation as their
ranks stamped them.
"""

import numpy as np
import pytest

pytest.importorskip("torch")

from recorded import Recorded, load_recorded

from realrun.validation import decomposition as judge


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return load_recorded()


def test_the_structure_of_the_model_holds(recorded: Recorded) -> None:
    errors = np.abs([judge.structural(model, own) for model, own in zip(*recorded, strict=True)])
    assert np.median(errors) <= 0.5
    assert np.quantile(errors, 0.95) <= 2


def test_the_data_rejects_every_wrong_model(recorded: Recorded) -> None:
    rows = judge.power(*recorded).to_dict("records")
    assert {row["model"]: row["rejected"] for row in rows} == {
        "the model": None,
        "link 10 % slower": True,
        "half duplex": True,
        "unlimited link concurrency": True,
        "AASS and ASAS swapped": True,
        "one dependency removed": True,
        "experts 1.2 times as long": True,
    }


def test_every_term_of_the_host_brings_the_model_nearer_to_the_data(recorded: Recorded) -> None:
    nothing, *without = judge.terms(*recorded)
    assert {row["without"] for row in without} == {"gap", "receive", "post", "all"}
    for row in without:
        assert row["structural"]["median_abs_pct"] > nothing["structural"]["median_abs_pct"]  # type: ignore[index]
