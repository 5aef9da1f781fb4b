"""FinDEP's experiments, predicted and really measured on this machine; the first, calibration, is
`realrun calibrate`.

    monotonicity   throughput against m_a at r1 = 1, and against r1 at m_a = 1, with the best r2
                   (Tables 3 and 4)
    speedup        PPPipe against FinDEP, each in its best configuration, over three speeds of link
                   (Table 5)
    orders         the look-ahead order against ASAS and AASS; timed waits in place of computation
                   (synthetic)

The best configuration is the best predicted one: a first calibration ranks the candidates, then the
chosen ones are run and calibrated again, in rounds. Throughput counts tokens of the AG through the
layers that were run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from realrun.calibration.profile import profile_from
from realrun.cases import Case
from realrun.validation.campaign import Campaign, Progress, measure
from realrun.validation.evaluate import Evidence, validation_result
from realrun.validation.trial import model_of
from simdep.costs import StageTimes
from simdep.hardware.profile import HardwareProfile
from simdep.policies import Job, chunk_tokens, lookahead, on_groups


@dataclass(frozen=True)
class Instance:
    """Stage times, layers and r1 on which orders compete."""

    times: StageTimes
    layers: int
    r1: int


# MB/s: communication decides, balances computation, is small beside it
RATES = (100.0, 300.0, 1500.0)
INSTANCES = {  # the look-ahead order gains most, less, nothing
    "experts of either kind outweigh attention": Instance(
        StageTimes(7000, 15000, 11000, 11000, 12000), 3, 3
    ),
    "the link outweighs experts": Instance(StageTimes(6000, 4000, 12000, 12000, 8000), 3, 3),
    "attention outweighs all": Instance(StageTimes(16000, 6000, 4000, 4000, 4000), 3, 3),
}
FIXED_ORDERS, LOOKAHEAD = ("asas", "aass"), "lookahead"
SAMPLES = 8  # of an AG rank in the speedup experiment
_BASE = {
    "model": "deepseek-v2-lite",
    "scale": 0.125,
    "layers": 3,
    "seq_len": 128,
    "m_a": 1,
    "ag": 1,
    "eg": 1,
    "policy": "findep",
}
_CHUNKS, _MICRO_BATCHES = (1, 2, 4, 8), (1, 2, 4)
_WAITS = ("attention", "shared", "expert")
_Candidates = dict[tuple[Any, ...], list[Case]]  # of each row, which the best predicted one fills
_Row = dict[str, Any]


def _case(**fields: Any) -> Case:
    return Case.from_dict(_BASE | fields)


def _candidates_of_monotonicity() -> _Candidates:
    grid = [(m_a, 1) for m_a in (1, 2, 4, 8)] + [(1, r1) for r1 in (2, 4, 8)]
    candidates: _Candidates = {}
    for m_a, r1 in grid:
        cases = candidates[m_a, r1] = []
        for r2 in _CHUNKS:
            for order in FIXED_ORDERS if r1 > 1 else FIXED_ORDERS[:1]:
                rate = RATES[1]
                cases.append(_case(m_a=m_a, r1=r1, r2=r2, order=order, link_mbytes_per_s=rate))
    return candidates


def _candidates_of_speedup() -> _Candidates:
    candidates: _Candidates = {}
    for rate in RATES:
        pppipe = candidates[rate, "pppipe"] = []
        findep = candidates[rate, "findep"] = []
        for r1 in _MICRO_BATCHES:
            base = {"r1": r1, "m_a": SAMPLES // r1, "link_mbytes_per_s": rate}
            pppipe.append(_case(policy="pppipe", **base))
            for r2 in _CHUNKS:
                findep += [_case(r2=r2, order=order, **base) for order in FIXED_ORDERS]
    return candidates


def _candidates_of_orders() -> _Candidates:
    candidates: _Candidates = {}
    for name, instance in INSTANCES.items():
        times, layers, r1 = instance.times, instance.layers, instance.r1
        case = _case(
            layers=layers,
            seq_len=32,
            r1=r1,
            link_alpha_us=times.a2e,
            link_mbytes_per_s=1e6,
        )
        synthetic = replace(case, synthetic={kind: getattr(times, kind) for kind in _WAITS})
        for order in FIXED_ORDERS:
            scenario = replace(synthetic.scenario, order=order)
            candidates[name, order] = [replace(synthetic, scenario=scenario)]
        tokens = (chunk_tokens(case.seq_len, 1),) * r1
        sequence = lookahead.lookahead_order(times, layers, r1, 1)
        slipped = on_groups(Job(layers, tokens), LOOKAHEAD, sequence, wait_for_shared=False)
        scenario = replace(synthetic.scenario, order=LOOKAHEAD)
        candidates[name, LOOKAHEAD] = [replace(synthetic, scenario=scenario, custom=slipped)]
    return candidates


CANDIDATES: dict[str, Callable[[], _Candidates]] = {
    "monotonicity": _candidates_of_monotonicity,
    "speedup": _candidates_of_speedup,
    "orders": _candidates_of_orders,
}


def experiment(
    name: str,
    rounds: int,
    seed: int,
    folder: Path,
    ready: Callable[[Sequence[Case]], list[Case]],
    progress: Progress,
) -> _Row:
    """Run an experiment of `CANDIDATES`; `ready` prepares cases for this machine. The result is
    ready for JSON."""
    of_rows = {key: ready(cases) for key, cases in CANDIDATES[name]().items()}
    candidates = list(chain.from_iterable(of_rows.values()))
    first = measure(Campaign(candidates, 3, seed, runs=False), folder / "calibration", progress)
    rough = profile_from(first.points, "first calibration", "to choose configurations by")
    chosen = [min(cases, key=lambda case: _us_per_token(case, rough)) for cases in of_rows.values()]
    measured = measure(Campaign(chosen, rounds, seed), folder / "runs", progress)
    profile = profile_from(measured.points, "this-machine", "measured between the runs")
    result = validation_result(Evidence(chosen, profile, measured), seed)
    for row in result["schedules"]:
        row.update(_throughputs(row))
    by_key = dict(zip(of_rows, result["schedules"], strict=True))
    if name == "speedup":
        result["speedups"] = speedups(by_key)
    elif name == "orders":
        result["speedups"] = gains(by_key)
    return result


def _throughputs(row: _Row) -> _Row:
    """Tokens per second of a schedule, predicted and measured, as run and at one speed."""
    tokens = row["m_a"] * row["r1"] * row["seq_len"] * row["ag"]
    low, high = row["ci_us"]
    return {
        "predicted_tokens_per_s": 1e6 * tokens / row["predicted_us"],
        "measured_tokens_per_s": 1e6 * tokens / row["measured_us"],
        "ci_tokens_per_s": [1e6 * tokens / high, 1e6 * tokens / low],
        "equal_speed_predicted_tokens_per_s": 1e6 * tokens / row["adjusted_predicted_us"],
        "equal_speed_measured_tokens_per_s": 1e6 * tokens / row["adjusted_measured_us"],
    }


def speedups(rows: Mapping[tuple[Any, ...], _Row]) -> list[_Row]:
    """FinDEP over PPPipe for each link, predicted and measured."""
    of_links = []
    for rate in RATES:
        pppipe, findep = rows[rate, "pppipe"], rows[rate, "findep"]
        labels = {"link_mbytes_per_s": rate, "pppipe": pppipe["label"], "findep": findep["label"]}
        of_links.append(labels | _speedup(pppipe, findep))
    return of_links


def gains(rows: Mapping[tuple[Any, ...], _Row]) -> list[_Row]:
    """The look-ahead order over whichever of ASAS and AASS is predicted to be faster, predicted and
    measured."""
    of_instances = []
    for name in INSTANCES:
        predicted = {order: float(rows[name, order]["predicted_us"]) for order in FIXED_ORDERS}
        fixed = min(FIXED_ORDERS, key=predicted.__getitem__)
        labels = {"instance": name, "fixed": fixed}
        of_instances.append(labels | _speedup(rows[name, fixed], rows[name, LOOKAHEAD]))
    return of_instances


def _speedup(slow: _Row, fast: _Row) -> _Row:
    """As run, and with all runs brought to one speed of the machine, which its drift between runs
    then leaves alone.

    Intervals are from those of both makespans.
    """
    row: _Row = {}
    for name, prefix in (("", ""), ("equal_speed_", "adjusted_")):
        predicted = slow[f"{prefix}predicted_us"] / fast[f"{prefix}predicted_us"]
        measured = slow[f"{prefix}measured_us"] / fast[f"{prefix}measured_us"]
        slow_low, slow_high = slow[f"{prefix}ci_us"]
        fast_low, fast_high = fast[f"{prefix}ci_us"]
        row |= {
            f"{name}predicted": predicted,
            f"{name}measured": measured,
            f"{name}ci": [slow_low / fast_high, slow_high / fast_low],
            f"{name}difference_points": 100 * (predicted - measured),
        }
    return row


def as_table(name: str, result: _Row) -> pd.DataFrame:
    """The result of an experiment as a table to read."""
    if name == "speedup":
        return pd.DataFrame([_speedup_row(row) for row in result["speedups"]])
    if name == "orders":
        return pd.DataFrame([_gain_row(row) for row in result["speedups"]])
    return pd.DataFrame([_throughput_row(row) for row in result["schedules"]])


def _speedup_row(row: _Row) -> _Row:
    return {
        "link MB/s": f"{row['link_mbytes_per_s']:g}",
        "PPPipe": row["pppipe"],
        "FinDEP": row["findep"],
        **_columns(row, "speed-up", ""),
        **_columns(row, "at equal speed:", "equal_speed_"),
    }


def _gain_row(row: _Row) -> _Row:
    return {
        "instance": row["instance"],
        "best fixed": row["fixed"],
        **_columns(row, "look-ahead", ""),
    }


def _throughput_row(row: _Row) -> _Row:
    low, high = row["ci_tokens_per_s"]
    return {
        "m_a": row["m_a"],
        "r1": row["r1"],
        "best predicted": row["label"],
        "predicted tokens/s": f"{row['predicted_tokens_per_s']:,.0f}",
        "measured tokens/s": f"{row['measured_tokens_per_s']:,.0f}",
        "95 % interval": f"{low:,.0f} .. {high:,.0f}",
        "at equal speed: predicted": f"{row['equal_speed_predicted_tokens_per_s']:,.0f}",
        "measured": f"{row['equal_speed_measured_tokens_per_s']:,.0f}",
    }


def _columns(row: _Row, title: str, prefix: str) -> dict[str, str]:
    low, high = row[f"{prefix}ci"]
    return {
        f"{title} predicted": f"{row[f'{prefix}predicted']:.3f}",
        f"{title} measured": f"{row[f'{prefix}measured']:.3f} ({low:.3f} .. {high:.3f})",
        f"{title} difference, points": f"{row[f'{prefix}difference_points']:+.1f}",
    }


def _us_per_token(case: Case, profile: HardwareProfile) -> float:
    return model_of(case, profile).makespan_us() / case.schedule.tokens
