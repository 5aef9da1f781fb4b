"""FinDEP's experiments, predicted and really measured on this machine; the first, calibration, is
`realrun calibrate`.

    monotonicity   throughput against m_a at r1 = 1, and against r1 at m_a = 1, with the best r2 (Tables 3 and 4)
    speedup        PPPipe against FinDEP, each in its best configuration, over three speeds of link (Table 5)
    orders         the look-ahead order against ASAS and AASS; timed waits in place of computation (synthetic)

The best configuration is the best predicted one: a first calibration ranks the candidates, then the
chosen ones are run and calibrated again, in rounds. Throughput counts tokens of the AG through the
layers that were run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from realrun.calibration.profile import profile_from
from realrun.cases import Case
from realrun.validation.campaign import Campaign, Progress, measure
from realrun.validation.evaluate import Evidence, evaluate
from realrun.validation.trial import model_of
from simdep.costs import StageTimes
from simdep.hardware.profile import HardwareProfile
from simdep.policies import Job, chunk_tokens, lookahead, on_groups

RATES = (
    100.0,
    300.0,
    1500.0,
)  # MB/s: communication decides, balances computation, is small beside it
INSTANCES = {  # microseconds, layers and r1: the look-ahead order gains most, less, nothing
    "experts of either kind outweigh attention": (
        StageTimes(7000, 15000, 11000, 11000, 12000),
        3,
        3,
    ),
    "the link outweighs experts": (StageTimes(6000, 4000, 12000, 12000, 8000), 3, 3),
    "attention outweighs all": (StageTimes(16000, 6000, 4000, 4000, 4000), 3, 3),
}
FIXED_ORDERS, LOOKAHEAD = ("asas", "aass"), "lookahead"
_BASE = Case("deepseek-v2-lite", 3, 128, 1, 1, 1, "findep", scale=0.125)
_CUTS, _DEGREES = (1, 2, 4, 8), (1, 2, 4)


def _candidates_of_monotonicity() -> dict[tuple[Any, ...], list[Case]]:
    rows: dict[tuple[Any, ...], list[Case]] = {}
    for m_a, r1 in [(m_a, 1) for m_a in (1, 2, 4, 8)] + [(1, r1) for r1 in (2, 4, 8)]:
        rows[m_a, r1] = [
            replace(_BASE, m_a=m_a, r1=r1, r2=r2, order=order, link_mbytes_per_s=RATES[1])
            for r2 in _CUTS
            for order in (("asas", "aass") if r1 > 1 else ("asas",))
        ]
    return rows


def _candidates_of_speedup() -> dict[tuple[Any, ...], list[Case]]:
    rows: dict[tuple[Any, ...], list[Case]] = {}
    for rate in RATES:
        base = replace(_BASE, link_mbytes_per_s=rate)
        rows[rate, "pppipe"] = [
            replace(base, policy="pppipe", r1=r1, m_a=8 // r1) for r1 in _DEGREES
        ]
        rows[rate, "findep"] = [
            replace(base, r1=r1, m_a=8 // r1, r2=r2, order=order)
            for r1 in _DEGREES
            for r2 in _CUTS
            for order in ("asas", "aass")
        ]
    return rows


def _candidates_of_orders() -> dict[tuple[Any, ...], list[Case]]:
    rows: dict[tuple[Any, ...], list[Case]] = {}
    for name, (times, layers, r1) in INSTANCES.items():
        waits = {kind: getattr(times, kind) for kind in ("attention", "shared", "expert")}
        base = replace(
            _BASE,
            layers=layers,
            seq_len=32,
            r1=r1,
            synthetic=waits,
            link_alpha_us=times.a2e,
            link_mbytes_per_s=1e6,
        )
        cut = (chunk_tokens(base.seq_len, 1),) * r1
        sequence = lookahead.lookahead_order(times, layers, r1, 1)
        slipped = on_groups(Job(layers, cut), "lookahead", sequence, wait_for_shared=False)
        for order in FIXED_ORDERS:
            rows[name, order] = [replace(base, order=order)]
        rows[name, LOOKAHEAD] = [replace(base, order=LOOKAHEAD, custom=slipped)]
    return rows


CANDIDATES: dict[str, Callable[[], dict[tuple[Any, ...], list[Case]]]] = {
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
) -> dict[str, Any]:
    """Run an experiment of `CANDIDATES`; `ready` prepares cases for this machine. The result is
    ready for JSON."""
    rows = {key: ready(cases) for key, cases in CANDIDATES[name]().items()}
    candidates = [case for cases in rows.values() for case in cases]
    first = measure(Campaign(candidates, 3, seed, runs=False), folder / "calibration", progress)
    rough = profile_from(first.points, "first calibration", "to choose configurations by")
    chosen = [min(cases, key=lambda case: _us_per_token(case, rough)) for cases in rows.values()]
    found = measure(Campaign(chosen, rounds, seed), folder / "runs", progress)
    profile = profile_from(found.points, "this-machine", "measured between the runs")
    result = evaluate(Evidence(chosen, profile, found), seed)
    for row in result["schedules"]:
        tokens = row["m_a"] * row["r1"] * row["seq_len"] * row["ag"]
        low, high = row["ci_us"]
        row["predicted_tokens_per_s"] = 1e6 * tokens / row["predicted_us"]
        row["measured_tokens_per_s"] = 1e6 * tokens / row["measured_us"]
        row["ci_tokens_per_s"] = [1e6 * tokens / high, 1e6 * tokens / low]
        for source in ("predicted", "measured"):
            row[f"equal_speed_{source}_tokens_per_s"] = 1e6 * tokens / row[f"adjusted_{source}_us"]
    by_key = dict(zip(rows, result["schedules"], strict=True))
    told = {"speedup": speedups, "orders": gains}.get(name)
    return result | ({"speedups": told(by_key)} if told else {})


def speedups(rows: Mapping[tuple[Any, ...], dict[str, Any]]) -> list[dict[str, Any]]:
    """FinDEP over PPPipe for each link, predicted and measured."""
    found = []
    for rate in RATES:
        pppipe, findep = rows[rate, "pppipe"], rows[rate, "findep"]
        labels = {"link_mbytes_per_s": rate, "pppipe": pppipe["label"], "findep": findep["label"]}
        found.append(labels | _speedup(pppipe, findep))
    return found


def gains(rows: Mapping[tuple[Any, ...], dict[str, Any]]) -> list[dict[str, Any]]:
    """The look-ahead order over whichever of ASAS and AASS is predicted to be faster, predicted and
    measured."""
    found = []
    for name in INSTANCES:
        fixed = min(FIXED_ORDERS, key=lambda order: float(rows[name, order]["predicted_us"]))
        labels = {"instance": name, "fixed": fixed}
        found.append(labels | _speedup(rows[name, fixed], rows[name, LOOKAHEAD]))
    return found


def _speedup(slow: dict[str, Any], fast: dict[str, Any]) -> dict[str, Any]:
    """As run, and with all runs brought to one speed of the machine, which its drift between runs
    then leaves alone.

    Intervals are from those of both makespans.
    """
    row: dict[str, Any] = {}
    for name, prefix in (("", ""), ("equal_speed_", "adjusted_")):
        predicted, measured = (
            slow[f"{prefix}{source}_us"] / fast[f"{prefix}{source}_us"]
            for source in ("predicted", "measured")
        )
        (low, high), (least, most) = slow[f"{prefix}ci_us"], fast[f"{prefix}ci_us"]
        row |= {
            f"{name}predicted": predicted,
            f"{name}measured": measured,
            f"{name}ci": [low / most, high / least],
            f"{name}difference_points": 100 * (predicted - measured),
        }
    return row


def as_table(name: str, result: dict[str, Any]) -> pd.DataFrame:
    """The result of an experiment as a table to read."""
    if name == "speedup":
        return pd.DataFrame(
            {
                "link MB/s": f"{row['link_mbytes_per_s']:g}",
                "PPPipe": row["pppipe"],
                "FinDEP": row["findep"],
                **_columns(row, "speed-up", ""),
                **_columns(row, "at equal speed:", "equal_speed_"),
            }
            for row in result["speedups"]
        )
    if name == "orders":
        return pd.DataFrame(
            {
                "instance": row["instance"],
                "best fixed": row["fixed"],
                **_columns(row, "look-ahead", ""),
            }
            for row in result["speedups"]
        )
    return pd.DataFrame(
        {
            "m_a": row["m_a"],
            "r1": row["r1"],
            "best predicted": row["label"],
            "predicted tokens/s": f"{row['predicted_tokens_per_s']:,.0f}",
            "measured tokens/s": f"{row['measured_tokens_per_s']:,.0f}",
            "95 % interval": "{:,.0f} .. {:,.0f}".format(*row["ci_tokens_per_s"]),
            "at equal speed: predicted": f"{row['equal_speed_predicted_tokens_per_s']:,.0f}",
            "measured": f"{row['equal_speed_measured_tokens_per_s']:,.0f}",
        }
        for row in result["schedules"]
    )


def _columns(row: dict[str, Any], title: str, prefix: str) -> dict[str, str]:
    low, high = row[f"{prefix}ci"]
    return {
        f"{title} predicted": f"{row[f'{prefix}predicted']:.3f}",
        f"{title} measured": f"{row[f'{prefix}measured']:.3f} ({low:.3f} .. {high:.3f})",
        f"{title} difference, points": f"{row[f'{prefix}difference_points']:+.1f}",
    }


def _us_per_token(case: Case, profile: HardwareProfile) -> float:
    return model_of(case, profile).makespan_us() / case.schedule.tokens
