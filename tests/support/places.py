"""Where this repository lies, and the shared folder that may lie beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
SUPPORT = Path(__file__).resolve().parent  # of the modules that tests share
