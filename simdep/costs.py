"""Costs: how long a task occupies its stream, in microseconds. A cost model is a callable: task ->
microseconds.

`StageTimes` gives each kind one number, `StageCosts` a line, `simdep.scenario.task_costs` prices a
model on a machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypeVar

from simdep import checks
from simdep.checks import InputError
from simdep.schedule import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?"
STAGES = ("attention", "projection", "core", "shared", "a2e", "expert", "e2a")
Work = TypeVar("Work", float, "NDArray[np.float64]")  # one amount of work, or many
Costs = Callable[[Task], float]  # microseconds that a task occupies its stream


def free(_: Task) -> float:
    return 0


@dataclass(frozen=True)
class HostOverheads:
    """What hosts and links add to the ideal streams; every term that is left at its default adds
    nothing.

    Microseconds before each computation, for each message that it needs, and for each that is
    posted after it; the share of speed that one transfer takes from computation; whether the two
    directions of a link share it (first come, first served); and the coefficient of variation of
    computation times, drawn by `seed` from a lognormal of mean 1.
    """

    gap_us: float = 0
    receive_us: float = 0
    post_us: Costs = free
    contention: float = 0
    half_duplex: bool = False
    noise: float = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.contention < 0.5:
            raise InputError(
                f"contention={self.contention}; two transfers must leave computation some "
                "speed: 0 to 0.5"
            )

    @property
    def terms(self) -> list[str]:
        """Names of the terms in use."""
        return [
            f.name for f in fields(self) if f.name != "seed" and getattr(self, f.name) != f.default
        ]

    def refuse(self, evaluator: str) -> None:
        """Raise ValueError, naming the terms in use, for an `evaluator` that models none of
        them."""
        if self.terms:
            hint = "" if self.terms == ["half_duplex"] else " (--ideal)"
            raise InputError(
                f"{evaluator} does not model {', '.join(self.terms)}; simulate, or leave "
                f"these terms out{hint}"
            )

    @property
    def ideal(self) -> HostOverheads:
        """Without what hosts add; whether the directions of the link share it stays."""
        return HostOverheads(half_duplex=self.half_duplex)


IDEAL = HostOverheads()  # the paper's model


@dataclass(frozen=True)
class StageTimes:
    """Microseconds of every task by its kind; whole numbers keep the simulation exact.

    A schedule that cuts attention in two raises InputError: it needs `HalvedTimes`.
    """

    attention: float
    expert: float
    a2e: float
    e2a: float
    shared: float = 0

    def __call__(self, task: Task) -> float:
        value: float | None = getattr(self, task.kind.label, None)
        if value is None:
            raise InputError(
                f"{task}: its schedule cuts attention in two; add projection and core to the "
                "stage times"
            )
        return value

    @classmethod
    def parse(cls, text: str) -> StageTimes:
        """From `attention=1000,shared=300,a2e=50,expert=200,e2a=50`; raises InputError naming the
        part at fault.

        `projection=700,core=300` stand for attention=1000, cut in two.
        """
        return cls.of(parse_stages(text))

    @classmethod
    def of(cls, times: Mapping[str, float]) -> StageTimes:
        """From the microseconds of stages; raises InputError for one that is missing or given
        twice."""
        halves = {"projection", "core"} & times.keys()
        if halves and (len(halves) == 1 or "attention" in times):
            raise InputError(
                "stage times: give attention, or in its place both projection and core"
            )
        for missing in sorted({"expert", "a2e", "e2a"} - times.keys()):
            raise InputError(f"stage times: {missing} is missing; only shared may be left out")
        if halves:
            return HalvedTimes(attention=times["projection"] + times["core"], **times)
        if "attention" not in times:
            raise InputError("stage times: attention is missing; only shared may be left out")
        return StageTimes(**times)


@dataclass(frozen=True)
class HalvedTimes(StageTimes):
    """Stage times with the two halves of attention: projections, and core with the output
    projection."""

    projection: float = field(kw_only=True)
    core: float = field(kw_only=True)


def parse_stages(text: str) -> dict[str, float]:
    """The microseconds of stages in a text such as `attention=1000,a2e=50`; raises InputError
    naming the part at fault."""
    times: dict[str, float] = {}
    for part in text.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        checks.known(key, STAGES, "stage")
        if not equals or key in times:
            raise InputError(f"stage times {text!r}: write each stage once, as {key}=MICROSECONDS")
        try:
            number = int(value) if value.isdigit() else float(value)
            times[key] = checks.number(number, f"stage time {key}")
        except ValueError:
            raise InputError(f"stage time {key}={value!r}; expected a finite number >= 0") from None
    return times


@dataclass(frozen=True)
class Line:
    """Microseconds = alpha_us + beta_us * work, each at least 0."""

    alpha_us: float
    beta_us: float

    def __call__(self, work: Work) -> Work:
        return self.alpha_us + self.beta_us * work

    @classmethod
    def parse(cls, text: str, place: str) -> Line:
        """From `ALPHA+BETA` (or `ALPHA`); raises InputError naming the place."""
        numbers = re.fullmatch(rf"({_NUMBER})(?:\+({_NUMBER}))?", text.strip())
        if not numbers:
            raise InputError(
                f"{place}={text!r}; it is ALPHA+BETA, microseconds and microseconds per unit "
                "of work"
            )
        alpha, beta = (checks.number(float(each or 0), place) for each in numbers.groups())
        return cls(alpha, beta)


@dataclass(frozen=True)
class StageCosts:
    """A bare scheduling problem: lines of the samples of a micro-batch (attention, shared) or of
    the tokens of a chunk.

    `link` is A2E and E2A alike. A micro-batch of m_a samples has m_a * tokens_per_sample tokens in
    r2 equal chunks.
    """

    attention: Line
    expert: Line
    link: Line
    shared: Line = Line(0, 0)
    tokens_per_sample: int = 1

    @property
    def has_shared(self) -> bool:
        return self.shared != Line(0, 0)

    def times(self, m_a: float, r2: int) -> StageTimes:
        """Stage times of micro-batches of `m_a` samples whose r2 chunks are equal."""
        tokens = m_a * self.tokens_per_sample / r2
        link = self.link(tokens)
        return StageTimes(
            self.attention(m_a),
            self.expert(tokens),
            link,
            link,
            self.shared(m_a) if self.has_shared else 0,
        )

    @classmethod
    def parse(cls, text: str, tokens_per_sample: int = 1) -> StageCosts:
        """From `attention=A+B,shared=A+B,expert=A+B,link=A+B`; raises InputError for the part at
        fault."""
        lines: dict[str, Line] = {}
        for part in text.split(","):
            key, equals, value = (word.strip() for word in part.partition("="))
            checks.known(key, ("attention", "shared", "expert", "link"), "stage")
            if not equals or key in lines:
                raise InputError(
                    f"stage costs {text!r}: write each stage once, as {key}=ALPHA+BETA"
                )
            lines[key] = Line.parse(value, f"stage cost {key}")
        for missing in ("attention", "expert", "link"):
            if missing not in lines:
                raise InputError(
                    f"stage costs {text!r}: {missing} is missing; only shared may be left out"
                )
        return cls(
            **lines, tokens_per_sample=checks.integer(tokens_per_sample, "tokens per sample")
        )
