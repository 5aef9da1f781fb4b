"""The scenario that a command is given: its file, its flags (which win), or both."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

from simdep.hardware.profile import load_hardware
from simdep.policies import POLICIES, load
from simdep.scenario.file import override, read_toml, scenario_from_dict
from simdep.scenario.spec import Scenario

SERVED = (
    "model",
    "scale",
    "hardware",
    "ag",
    "eg",
    "gpus",
    "phase",
    "seq_len",
    "samples",
    "m_a",
    "dtype",
    "dispatch",
    "shared_on",
    "duplex",
    "memory_gbytes",
)
LINK = {"link_gbytes_per_s": "gbytes_per_s", "link_alpha_us": "alpha_us"}
CUT = ("layers", "policy", "order", "r1", "r2", "micro_batches", "chunks", "split", "merge_last")
RANKS = ("routing", "batches", "gpus_per_node", "nics_per_node")


def scenario(args: argparse.Namespace) -> Scenario:
    """The scenario; raises ValueError where there is none, or naming the key at fault."""
    return scenario_from_dict(tables(args))


def tables(args: argparse.Namespace) -> dict[str, Any]:
    """Its nested tables, unchecked; raises ValueError where neither a file nor a model is given."""
    if args.scenario is None and args.model is None:
        raise ValueError(
            f"nothing to {args.command}: give SCENARIO.toml, or --model with --hardware, --ag and --eg"
        )
    flags = _flags(args, (*SERVED, *CUT))
    if "policy" in flags:
        flags["policy"] = load(
            flags["policy"]
        ).name  # a flag may name a module of the user's own, a file may not
    data = override(read_toml(args.scenario) if args.scenario else {}, flags)
    if args.link_alpha_us is not None and args.link_gbytes_per_s is None:
        own = data.get("deployment", {}).get("link")
        if not isinstance(own, dict):
            raise ValueError(
                f"--link-alpha-us {args.link_alpha_us:g} needs a speed: give --link-gbytes-per-s too"
            )
    if link := {LINK[name]: value for name, value in _flags(args, LINK).items()}:
        where = data.setdefault("deployment", {})
        own = where.get("link")
        where["link"] = (dict(own) if isinstance(own, dict) else {}) | link
    _set_up(data)
    different = ranks(args)
    if different is not None:
        data["ranks"] = dict(data.get("ranks", {})) | different
    return data


def _set_up(data: dict[str, Any]) -> None:
    """What the paper of the policy has besides (`Policy.setup`), where the scenario says nothing of
    it."""
    cut, where = data.get("schedule", {}), data.get("deployment", {})
    policy = POLICIES.get(str(cut.get("policy")))
    if policy is None:
        return
    profile = where.get("hardware")
    known = isinstance(profile, str) and load_hardware(profile).machine is not None
    set_up = []
    for key, value in policy.setup_on(sms_known=known).items():
        place, others = (cut, ("micro_batches",)) if key == "r1" else (where, ())
        if key not in place and not any(other in place for other in others):
            place[key] = value
            set_up.append(f"{key}={value}")
    if set_up:
        warnings.warn(
            f"policy {policy.name}, as its paper has it: {', '.join(set_up)}", stacklevel=2
        )


def ranks(args: argparse.Namespace) -> dict[str, Any] | None:
    """The table of ranks that flags give; None without any of them."""
    table = _flags(args, RANKS)
    if stragglers := getattr(args, "straggler", None):
        table["stragglers"] = dict(map(_straggler, stragglers))
    return table if table or getattr(args, "per_rank", None) else None


def _flags(args: argparse.Namespace, names: Any) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(args, name, None)) is not None}


def _straggler(text: str) -> tuple[str, float]:
    name, _, factor = text.partition("=")
    try:
        return name, float(factor)
    except ValueError:
        raise ValueError(
            f"--straggler {text!r}; write a rank and a factor, such as AG.3=1.3"
        ) from None
