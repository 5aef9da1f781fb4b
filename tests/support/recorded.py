"""The recorded real runs of `traces/`: the model of every schedule, and its rounds as the ranks
stamped them."""

from __future__ import annotations

import gzip
import json

from places import ROOT

from realrun.cases import Case
from realrun.runtime.stamps import Stamps, timeline_of
from realrun.validation import decomposition as judge
from realrun.validation.evaluate import model_of
from simdep.hardware.profile import load_hardware

FOLDER = ROOT / "traces" / "epyc-2-cores"
Recorded = tuple[list[judge.Model], list[list[judge.Run]]]


def load_recorded() -> Recorded:
    """Models and runs of every recorded schedule."""
    profile = load_hardware(str(FOLDER / "profile.json"))
    models, runs = [], []
    with gzip.open(FOLDER / "runs.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            case = Case.from_dict(row["case"])
            models.append(model_of(case, profile))
            stamps = ([Stamps.from_dict(rank) for rank in ranks] for ranks in row["runs"])
            runs.append(
                [judge.Run.of(timeline_of(case.schedule, case.ag, found)) for found in stamps]
            )
    return models, runs
