"""Results that all visitors share, each cache bounded, by bytes where results can be large; and
what the collector of garbage may leave alone."""

from __future__ import annotations

import gc
from collections.abc import Callable
from operator import attrgetter
from threading import Lock
from typing import ParamSpec, TypeVar

from cachetools import LRUCache, cached

P = ParamSpec("P")
R = TypeVar("R")


def keep_bytes(most: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: keep the results that were asked for last, `most` bytes of them (their
    `nbytes`)."""
    return cached(LRUCache(maxsize=most, getsizeof=attrgetter("nbytes")), _key, lock=Lock())


def keep_last(most: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: keep the `most` results that were asked for last; they are small."""
    return cached(LRUCache(maxsize=most), _key, lock=Lock())


def _key(*arguments: object) -> str:
    """What tells calls apart: fields of a question may be tables, which have no hash."""
    return repr(arguments)


@keep_last(16)
def spare_collector(page: str) -> None:
    """Take all that is there once a page was drawn, modules above all, out of the collection of
    garbage: Streamlit collects after every run, which takes it longer than a new window."""
    gc.collect()
    gc.freeze()
