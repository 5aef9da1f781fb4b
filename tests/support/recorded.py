"""The recorded real runs of `traces/`: every schedule with its model, and its rounds as the ranks
stamped them."""

from __future__ import annotations

import gzip
import json

from places import ROOT

from realrun.cases import Case
from realrun.runtime.stamps import Stamps, timeline_of
from realrun.validation.trial import Trial, model_of
from simdep.hardware.profile import load_hardware

FOLDER = ROOT / "traces" / "epyc-2-cores"


def load_recorded() -> list[Trial]:
    """Every recorded schedule with its model and its runs."""
    profile = load_hardware(str(FOLDER / "profile.json"))
    trials = []
    with gzip.open(FOLDER / "runs.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            case = Case.from_dict(row["case"])
            timelines = []
            for ranks in row["runs"]:
                stamps = [Stamps.from_dict(rank) for rank in ranks]
                timelines.append(timeline_of(case.schedule, case.ag, stamps))
            trials.append(Trial(case, model_of(case, profile), timelines))
    return trials
