"""What if: which split of eight GPUs serves a model best, and with which schedule.

python what_if.py
"""

from __future__ import annotations

import pandas as pd

import simdep

GPUS = 8


def splits(model: str = "deepseek-v2", hardware: str = "h20", layers: int = 8) -> pd.DataFrame:
    """A row a split ag:eg: the best schedule of 12 samples on each AG GPU, and its throughput."""
    rows = []
    for ag in range(1, GPUS):
        scenario = simdep.Scenario.of(
            model=model, hardware=hardware, ag=ag, eg=GPUS - ag, layers=layers, samples=12
        )
        best = simdep.solve(scenario).best
        rows.append(
            {
                "split": f"{ag}:{GPUS - ag}",
                "order": best.order,
                "r1": best.r1,
                "r2": best.r2,
                "tokens/s": best.throughput_tokens_per_s,
            }
        )
    return pd.DataFrame(rows).sort_values("tokens/s", ascending=False)


if __name__ == "__main__":
    print(splits().to_string(index=False, float_format="{:,.0f}".format))
