"""Links: what a transfer between the groups costs on a hardware profile, by direction, split and
class of link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from simdep.checks import InputError
from simdep.hardware.datasheet import datasheet_kernels
from simdep.hardware.kernels import Kernel
from simdep.hardware.profile import Cost, HardwareProfile
from simdep.schedule import Kind


def link_cost(
    profile: HardwareProfile,
    kind: Kind,
    ag: int,
    eg: int,
    transport: str = "",
    link_class: str = "intra-node",
) -> Cost:
    """The link of a profile for a direction and a split ag:eg.

    A split without a figure of its own takes one interpolated over the AG's share ag / (ag + eg)
    between those that have one (the nearest beyond them), labelled assumed. A profile without any
    takes its point-to-point kernel of the link class, or the data sheet of its GPU. Raises
    ValueError for a profile without either.
    """
    exact = profile.find(kind.label, ag=ag, eg=eg, shape=transport)
    exact = exact or profile.find("link", ag=ag, eg=eg)
    if exact is not None:
        return exact
    known = [cost for cost in profile.costs if cost.op in (kind.label, "link") and cost.ag]
    if not known:
        return port_cost(profile, kind, link_class)
    known.sort(key=_ag_share)
    share = ag / (ag + eg)
    low, high = _neighbours(known, share)
    place = f"link of {profile.name} at {ag}:{eg} assumed from its"
    if low is high:
        source = f"{place} figure at {low.ag}:{low.eg} ({low.label})"
        return replace(low, op=kind.label, label="assumed", source=source, ag=ag, eg=eg)
    part = (share - _ag_share(low)) / (_ag_share(high) - _ag_share(low))
    return Cost(
        op=kind.label,
        alpha_us=low.alpha_us + part * (high.alpha_us - low.alpha_us),
        beta_us=low.beta_us + part * (high.beta_us - low.beta_us),
        label="assumed",
        source=f"{place} figures at {low.ag}:{low.eg} and {high.ag}:{high.eg} ({low.label})",
        ag=ag,
        eg=eg,
    )


def port_cost(profile: HardwareProfile, kind: Kind, link_class: str) -> Cost:
    """The cost of the bytes through the port of one GPU, from a measured point-to-point kernel or a
    data sheet.

    Raises InputError for a profile that has neither for the link class.
    """
    kernel = profile.kernel("p2p", link=link_class) or _data_sheet(profile, link_class)
    if kernel is None:
        has = f"hardware {profile.name} has no cost for {kind.label} or link"
        raise InputError(f"{has}, and no {link_class} kernel; give one as deployment.link")
    sizes = np.geomspace(2**10, 2**30, 41)
    times = kernel.predict({"bytes": sizes})
    slope = float((times[-1] - times[-2]) / (sizes[-1] - sizes[-2]))
    port = f"link of {profile.name}: busier port of a GPU, {link_class} point to point"
    points = tuple(zip(sizes.tolist(), times.tolist(), strict=True))
    source = f"{port} ({kernel.source})"
    return Cost("p2p", float(times[0]), slope, "assumed", source, points=points)


def _ag_share(cost: Cost) -> float:
    return cost.ag / (cost.ag + cost.eg)


def _neighbours(known: Sequence[Cost], share: float) -> tuple[Cost, Cost]:
    """Of costs by their share of the AG, those on either side of a share; the nearest one twice
    where it is that share or beyond them all."""
    for low, high in pairwise((known[0], *known)):
        if _ag_share(high) == share or (low is high and _ag_share(high) > share):
            return high, high
        if _ag_share(high) > share:
            return low, high
    return known[-1], known[-1]


def _data_sheet(profile: HardwareProfile, link_class: str) -> Kernel | None:
    if profile.machine is None:
        return None
    for kernel in datasheet_kernels(profile.machine):
        if kernel.op == "p2p" and kernel.matches({"link": link_class}):
            return kernel
    return None
