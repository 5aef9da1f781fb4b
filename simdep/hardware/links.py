"""Links: what a transfer between the groups costs on a hardware profile, by direction, split and
class of link."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

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
    exact = profile.find(kind.label, ag=ag, eg=eg, shape=transport) or profile.find(
        "link", ag=ag, eg=eg
    )
    if exact is not None:
        return exact
    listed = [c for c in profile.costs if c.op in (kind.label, "link") and c.ag]
    if not listed:
        return port_cost(profile, kind, link_class)
    share = ag / (ag + eg)
    listed.sort(key=lambda c: c.ag / (c.ag + c.eg))
    shares = [c.ag / (c.ag + c.eg) for c in listed]
    above = next((i for i, s in enumerate(shares) if s >= share), len(listed) - 1)
    below = above if shares[above] <= share else max(0, above - 1)
    low, high = listed[below], listed[above]
    if low is high:
        source = f"link of {profile.name} at {ag}:{eg} assumed from its figure at {low.ag}:{low.eg} ({low.label})"
        return replace(low, op=kind.label, label="assumed", source=source, ag=ag, eg=eg)
    part = (share - shares[below]) / (shares[above] - shares[below])
    between = f"{low.ag}:{low.eg} and {high.ag}:{high.eg}"
    return Cost(
        op=kind.label,
        alpha_us=low.alpha_us + part * (high.alpha_us - low.alpha_us),
        beta_us=low.beta_us + part * (high.beta_us - low.beta_us),
        label="assumed",
        source=f"link of {profile.name} at {ag}:{eg} assumed from its figures at {between} ({low.label})",
        ag=ag,
        eg=eg,
    )


def port_cost(profile: HardwareProfile, kind: Kind, link_class: str) -> Cost:
    """The cost of the bytes through the port of one GPU, from a measured point-to-point kernel or a
    data sheet.

    Raises ValueError for a profile that has neither for the link class.
    """
    found = [
        kernel
        for kernel in (profile.kernel("p2p", link=link_class), *_data_sheet(profile, link_class))
        if kernel
    ]
    if not found:
        raise ValueError(
            f"hardware {profile.name} has no cost for {kind.label} or link, and no {link_class} kernel; "
            "give one as deployment.link"
        )
    sizes = np.geomspace(2**10, 2**30, 41)
    times = found[0].predict({"bytes": sizes})
    slope = float((times[-1] - times[-2]) / (sizes[-1] - sizes[-2]))
    source = f"link of {profile.name}: busier port of a GPU, {link_class} point to point ({found[0].source})"
    points = tuple(zip(sizes.tolist(), times.tolist(), strict=True))
    return Cost("p2p", float(times[0]), slope, "assumed", source, points=points)


def _data_sheet(profile: HardwareProfile, link_class: str) -> list[Kernel]:
    if profile.machine is None:
        return []
    words = {"link": link_class}
    return [
        kernel
        for kernel in datasheet_kernels(profile.machine)
        if kernel.op == "p2p" and kernel.matches(words)
    ]
