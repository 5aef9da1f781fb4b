"""What a recorded real run says of the model: its structure holds, and models with one thing wrong are rejected.

`traces/epyc-2-cores/runs.jsonl.gz` has rounds of some schedules of the recorded validation as their ranks stamped them.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from realrun import judge
from realrun.cases import Case
from realrun.measured import stamps_of, timeline_of
from realrun.validate import model_of
from simdep.hardware import load_hardware

FOLDER = Path(__file__).parents[1] / "traces" / "epyc-2-cores"
Recorded = tuple[list[judge.Model], list[list[judge.Run]]]


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return load_recorded()


def load_recorded() -> Recorded:
    profile = load_hardware(str(FOLDER / "profile.json"))
    models, runs = [], []
    with gzip.open(FOLDER / "runs.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            case = Case.from_dict(row["case"])
            models.append(model_of(case, profile))
            stamps = ([stamps_of(rank) for rank in ranks] for ranks in row["runs"])
            runs.append([judge.Run.of(timeline_of(case.schedule, case.ag, found)) for found in stamps])
    return models, runs


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
