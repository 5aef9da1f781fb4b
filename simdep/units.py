"""Quantities as people read them: a number with the unit that reads best."""

from __future__ import annotations


def human_us(us: float) -> str:
    """A time with the unit that reads best."""
    for size, unit in ((1e6, "s"), (1e3, "ms")):
        if abs(us) >= size:
            return f"{us / size:.4g} {unit}"
    return f"{us:.4g} us"


def human_bytes(size: float) -> str:
    """A size with the unit that reads best, decimal as data sheets count."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if abs(size) >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size:.0f} bytes"
