"""Axes of a sweep: a parameter of a scenario and the values that it takes, from words such as
`r1=1,2,4` or `ag=1..8`.

>>> [axis.values for axis in map(Axis.parse, ("r1=1,2,4", "ag=1..3", "link.gbytes_per_s=log:10..1000:3"))]
[(1, 2, 4), (1, 2, 3), (10.0, 100.0, 1000.0)]
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from simdep.checks import known

WORDS = (
    "model",
    "hardware",
    "phase",
    "dtype",
    "a2e_dtype",
    "e2a_dtype",
    "dispatch",
    "shared_on",
    "duplex",
    "expert_gemm",
    "policy",
    "order",
    "split",
    "routing",
)
WHOLE = {
    "layers": "",
    "gpus": "",
    "ag": "_gpus",
    "eg": "_gpus",
    "comm_sms": "",
    "seq_len": "_tokens",
    "samples": "_per_ag_gpu",
    "m_a": "_samples_per_ag_gpu",
    "r1": "",
    "r2": "",
}
REAL = {"scale": "", "link.alpha_us": "", "link.gbytes_per_s": ""}
SPLIT = "ag:eg"
NAMES = (*WORDS, *WHOLE, *REAL, SPLIT)
MOST_VALUES = 100_000  # of an axis
_RANGE = re.compile(r"(?:(lin|log):)?([^:]+)\.\.([^:]+?)(?::(\d+))?")


@dataclass(frozen=True)
class Axis:
    """A parameter of a scenario and the values that it takes."""

    name: str
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, text: str) -> Axis:
        """From `NAME=LIST` or `NAME=RANGE`; raises ValueError for the part at fault.

        A list is `1024,2048`; a range of whole numbers `1..8` or, with a step, `0..64:8`; of others
        `lin:10..400:9` or `log:10..400:9`, nine of them, ends included. Splits of GPUs are
        `ag:eg=1:7,2:6`, or all from one to another of as many GPUs, `ag:eg=1:7..7:1`.
        """
        name, equals, words = (part.strip() for part in text.partition("="))
        known(name, NAMES, "parameter to vary")
        if not equals or not words:
            raise ValueError(f"--vary {text!r}: write NAME=VALUES, such as r1=1,2,4 or ag=1..8")
        found = _RANGE.fullmatch(words) if name not in WORDS and name != SPLIT else None
        if name == SPLIT and ".." in words:
            values = _splits(words)
        else:
            values = (
                _spread(name, words, found)
                if found
                else [_value(name, word.strip()) for word in words.split(",")]
            )
        if len(set(values)) < len(values):
            raise ValueError(f"--vary {text!r}: a value appears twice")
        return cls(name, tuple(values))

    @property
    def column(self) -> str:
        """Its column in the table: the name with its unit."""
        return self.name.replace(".", "_").replace(":", "_") + (WHOLE | REAL).get(self.name, "")

    @property
    def is_number(self) -> bool:
        return self.name not in WORDS and self.name != SPLIT


def _value(name: str, word: str) -> Any:
    if name in WORDS:
        if not word:
            raise ValueError(f"--vary {name}: a value is empty")
        return word
    if name == SPLIT:
        if not re.fullmatch(r"\d+:\d+", word):
            raise ValueError(f"--vary {name}: {word!r} is no split; write AG:EG, such as 3:5")
        return word
    try:
        value = int(word) if name in WHOLE else float(word)
    except ValueError:
        raise ValueError(
            f"--vary {name}: {word!r} is no {'whole ' if name in WHOLE else ''}number"
        ) from None
    if not math.isfinite(value):
        raise ValueError(f"--vary {name}: {word!r} is no finite number")
    return value


def _splits(words: str) -> list[str]:
    first, _, last = words.partition("..")
    (ag, eg), (most, least) = (
        map(int, _value(SPLIT, word.strip()).split(":")) for word in (first, last)
    )
    if ag + eg != most + least or ag > most:
        raise ValueError(
            f"--vary {SPLIT}: {words!r}: write the first and the last split of as many GPUs, as 1:7..7:1"
        )
    return [f"{n}:{ag + eg - n}" for n in range(ag, most + 1)]


def _spread(name: str, words: str, found: re.Match[str]) -> list[Any]:
    kind, low, high, count = found[1], _value(name, found[2]), _value(name, found[3]), found[4]
    if low > high or (kind == "log" and low <= 0):
        raise ValueError(
            f"--vary {name}: {words!r} runs from its smaller end{', above 0,' * (kind == 'log')} to its larger"
        )
    if kind is None:
        if name not in WHOLE:
            raise ValueError(
                f"--vary {name}: {words!r}: say how many, as lin:{found[2]}..{found[3]}:9 or log:..."
            )
        if count == "0":
            raise ValueError(f"--vary {name}: {words!r} has a step of 0")
        step = int(count or 1)
        if (high - low) // step >= MOST_VALUES:
            raise ValueError(f"--vary {name}: {words!r} has over {MOST_VALUES:,} values")
        return list(range(low, high + 1, step))
    if count is not None and int(count) > MOST_VALUES:
        raise ValueError(f"--vary {name}: {words!r} has over {MOST_VALUES:,} values")
    if count is None or int(count) < 2:
        raise ValueError(
            f"--vary {name}: {words!r}: say how many, at least 2, as {kind}:{found[2]}..{found[3]}:9"
        )
    import numpy as np  # takes longer to load than the flags of a command take to read

    spaced = (
        np.geomspace(low, high, int(count)) if kind == "log" else np.linspace(low, high, int(count))
    )
    if name in WHOLE:
        return list(dict.fromkeys(int(value) for value in spaced.round()))
    return [float(f"{value:.6g}") for value in spaced]
