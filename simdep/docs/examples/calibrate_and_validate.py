"""Calibrate and validate: measure this machine, predict two schedules, run them, compare.

python calibrate_and_validate.py [FOLDER]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCHEDULES = [
    {"model": "deepseek-v2-lite", "scale": 0.125, "layers": 2, "seq_len": 64, "m_a": 2, "ag": 1,
     "eg": 1, "policy": "pppipe", "r1": 2, "link_mbytes_per_s": 100},
    {"model": "deepseek-v2-lite", "scale": 0.125, "layers": 2, "seq_len": 64, "m_a": 2, "ag": 1,
     "eg": 1, "policy": "findep", "order": "asas", "r1": 2, "r2": 2, "link_mbytes_per_s": 100},
]  # fmt: skip


def validate(folder: Path, rounds: int = 3) -> dict[str, Any]:
    """The result of `realrun validate` on the schedules above; its report lies in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "my_schedules.json"
    file.write_text(json.dumps(SCHEDULES))
    command = [
        sys.executable, "-m", "realrun", "validate", "--schedules", str(file),
        "--rounds", str(rounds), "--out", str(folder / "run"), "--json",
    ]  # fmt: skip
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


if __name__ == "__main__":
    found = validate(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example"))
    for row in found["schedules"]:
        print(
            f"{row['label']}: predicted {row['predicted_us']:,.0f} us, error "
            f"{row['error_pct']:+.1f} %"
        )
